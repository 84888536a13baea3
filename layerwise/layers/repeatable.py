"""What torch refuses on CUDA while deterministic=true, and what stands in for it there.

It adds up in no fixed order in the backward pass. `torch.use_deterministic_algorithms` has the list: of the layers of
our networks, adaptive pooling and averages over three axes. On other devices torch's own stay, and with them every bit
of what is trained there.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def refused(maps: Tensor) -> bool:
    """Whether the maps lie where torch has no such operation with equal bits: on CUDA."""
    return maps.is_cuda


def adaptive_average(maps: Tensor, side: int) -> Tensor:
    """The means over an equal grid, (N, C, H, W) to (N, C, side, side): torch's adaptive average pooling.

    Part i of n of an axis reaches from floor(i H / n) to ceil((i + 1) H / n).
    """
    if not refused(maps):
        return F.adaptive_avg_pool2d(maps, side)
    for axis in (2, 3):
        maps = torch.stack([part.mean(axis) for part in _parts(maps, axis, side)], axis)
    return maps


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch's layer, by `adaptive_average`; one number gives both sides."""

    def forward(self, maps: Tensor) -> Tensor:
        return adaptive_average(maps, cast(int, self.output_size))


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """torch's layer of the largest values over the grid of `adaptive_average`; one number gives both sides."""

    def forward(self, maps: Tensor) -> Tensor:
        if not refused(maps):
            return cast(Tensor, super().forward(maps))
        side = cast(int, self.output_size)
        for axis in (2, 3):
            maps = torch.stack([part.max(axis).values for part in _parts(maps, axis, side)], axis)
        return maps


def _parts(maps: Tensor, axis: int, count: int) -> list[Tensor]:
    ends = [(i * maps.shape[axis] // count, -(-(i + 1) * maps.shape[axis] // count)) for i in range(count)]
    return [maps.narrow(axis, first, last - first) for first, last in ends]
