"""Maximum pooling over 2x2 in compiled loops: a part of compile=norm, in bf16 on a CPU.

torch's own layer writes indices of 8 bytes, keeps its input, and fills the slope's map with zeros before it spreads
the slope over it. Here a window's place of the maximum is kept as a number of the maps' own type, and each element of
the slope's map is written once. The same bits; what was measured is in benchmarks/README.md.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function


def _highest(windows: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum of windows (N, H, 2, W, 2, C) and its place, 0 to 3 by rows, of equals the first: (N, H, W, C)."""
    best = windows[:, :, 0, :, 0].float()
    place = torch.zeros_like(best)
    for number in range(1, 4):
        value = windows[:, :, number // 2, :, number % 2].float()
        place = torch.where(value > best, float(number), place)
        best = torch.maximum(best, value)  # NaN stays NaN
    return best.to(windows.dtype), place.to(windows.dtype)


def _spread(windows: Tensor, slope: Tensor, place: Tensor, own: Tensor) -> None:
    """Writes into windows (N, H, 2, W, 2, C) the slope of their maximum, and 0 elsewhere."""
    windows.copy_(torch.where(place.float() == own, slope.float(), 0.0).to(windows.dtype))


def _windows(maps: Tensor) -> Tensor:
    """Channels-last maps (N, C, H, W) as windows of 2x2, (N, H // 2, 2, W // 2, 2, C), in the same memory."""
    count, channels, height, width = maps.shape
    rows = maps.stride(2)
    return maps.data.as_strided((count, height // 2, 2, width // 2, 2, channels),
                                (maps.stride(0), 2 * rows, rows, 2 * channels, channels, 1))


class Highest(Function):
    """The maximum over windows of 2x2: (N, C, H, W) channels-last -> (N, C, H // 2, W // 2)."""

    @staticmethod
    def forward(context: Any, maps: Tensor, compiled: Any) -> Tensor:
        best, place = compiled(_highest)(_windows(maps))
        context.save_for_backward(place)
        context.shape, context.compiled = maps.shape, compiled
        return cast(Tensor, best.permute(0, 3, 1, 2))

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        place, = context.saved_tensors
        slope = slopes[0].contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).data
        count, channels, height, width = context.shape
        found = slope.new_empty(count, height, width, channels).permute(0, 3, 1, 2)
        found[:, :, height // 2 * 2:], found[..., width // 2 * 2:] = 0, 0  # in no window
        own = torch.arange(4.0).view(2, 1, 2, 1)
        context.compiled(_spread)(_windows(found), slope[:, :, None, :, None], place[:, :, None, :, None], own)
        return found, None


def can_pool(layer: nn.Module) -> bool:
    """Whether a layer is maximum pooling over windows of 2x2 that touch and do not overlap."""
    return (type(layer) is nn.MaxPool2d and layer.kernel_size in (2, (2, 2)) and layer.stride in (2, (2, 2)) and
            layer.padding in (0, (0, 0)) and layer.dilation in (1, (1, 1)) and
            not layer.ceil_mode and not layer.return_indices)
