"""Depthwise separable convolution (Sifre 2014; Chollet 2017; Howard et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn


class SeparableConv2d(nn.Module):
    """A k x k convolution of each map alone (`depthwise`), then a 1x1 convolution over all maps (`pointwise`).

    Chollet 2017, "Xception", section 2; Howard et al. 2017, "MobileNets", section 3.1. Nothing stands between the two
    (Xception, figure 10: a non-linearity there is worse). The stride and the padding are the depthwise one's, the
    bias, if any, the pointwise one's: a second bias before a linear map would be the same function.
    Input (N, in_channels, H, W), output (N, out_channels, H', W'). Weights: in_channels * (k^2 + out_channels).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
        bias: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, maps: Tensor) -> Tensor:
        after: Tensor = self.pointwise(self.depthwise(maps))
        return after
