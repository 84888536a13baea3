"""Convolution whose kernels differ from place to place (LeCun 1989; Taigman et al. 2014; Sun et al. 2014)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocallyConnected2d(nn.Module):
    """A convolution with kernels of its own for each block of share x share output positions.

    share = 1: nothing is shared, as in layers L4 to L6 of DeepFace (Taigman, Yang, Ranzato, Wolf 2014, section 2.2)
    and in the fourth layer of DeepID (Sun, Wang, Tang 2014, section 3.1); share = 2: weights shared in 2x2 blocks, as
    in DeepID's third layer. Blocks at the right and lower edge are smaller where the output does not divide. The map's
    size is fixed: `input_size` is its (H, W).
    `weight` (blocks down, blocks across, out_channels, in_channels * kernel_size^2), `bias` (blocks down, blocks
    across, out_channels). Input (N, in_channels, H, W), output (N, out_channels, H', W'). Raises RuntimeError for a
    map of another size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: tuple[int, int],
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        share: int = 1,
    ) -> None:
        super().__init__()
        height, width = ((side + 2 * padding - kernel_size) // stride + 1 for side in input_size)
        assert height >= 1 and width >= 1, "the window does not fit into the map"  # noqa: PT018
        assert share >= 1, "a block has at least one position"
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.share, self.output_size = stride, padding, share, (height, width)
        blocks, inputs = (-(-height // share), -(-width // share)), in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.empty(*blocks, out_channels, inputs))
        self.bias = nn.Parameter(torch.zeros(*blocks, out_channels))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    @property
    def multiply_adds(self) -> int:
        """For one picture: as many as the convolution of the same kernels."""
        height, width = self.output_size
        return self.weight[0, 0].numel() * height * width

    def forward(self, maps: Tensor) -> Tensor:
        height, width = self.output_size
        down, across = self.weight.shape[:2]
        windows = F.unfold(maps, self.kernel_size, padding=self.padding, stride=self.stride)
        windows = windows.unflatten(2, (height, width))
        windows = F.pad(windows, (0, across * self.share - width, 0, down * self.share - height))
        blocks = windows.unflatten(3, (across, self.share)).unflatten(2, (down, self.share))
        sums = torch.einsum("nkasbt,abok->noasbt", blocks, self.weight)
        sums = sums + self.bias.permute(2, 0, 1)[:, :, None, :, None]
        return sums.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{sizes}, padding={self.padding}, share={self.share}, output_size={self.output_size}"
