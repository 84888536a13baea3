"""Padding for strided windows as TensorFlow's "SAME" does it (NASNet, EfficientNet and their published weights)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SamePadding(nn.Module):
    """Pads so that a following window without padding gives ceil(side / stride) outputs a side.

    The total is max((ceil(side / stride) - 1) * stride + kernel_size - side, 0); where it is odd, the pixel more
    comes below and to the right. So an even side and stride 2 get less padding at the top left than the usual half
    kernel: the windows stand one pixel further right. `value` fills the border, -inf before max-pooling.
    Input (N, C, H, W), output (N, C, H + total, W + total').
    """

    def __init__(self, kernel_size: int, stride: int, value: float = 0.0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.value = kernel_size, stride, value

    def total(self, side: int) -> int:
        """Pixels added along an axis of `side` pixels."""
        return max((-(-side // self.stride) - 1) * self.stride + self.kernel_size - side, 0)

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = self.total(maps.shape[-2]), self.total(maps.shape[-1])
        border = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return F.pad(maps, border, value=self.value)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, value={self.value}"
