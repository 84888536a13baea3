"""Subsampling with a trained coefficient and bias for each map (LeCun et al. 1990 and 1998)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Subsampling(nn.Module):
    """The four inputs of a 2x2 neighbourhood are added, times a coefficient, plus a bias, one pair a map.

    LeCun et al. 1998, section II-B, layer S2. Input (N, channels, H, W), output (N, channels, H // 2, W // 2).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels,), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        sums = 4 * F.avg_pool2d(maps, 2)
        return sums * self.coefficient[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"{len(self.bias)}"
