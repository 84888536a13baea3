"""Parallel branches whose maps are concatenated (Szegedy et al. 2014, "Going deeper with convolutions", figure 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """Every branch sees the same maps; their outputs lie one after the other in the channels ("filter concatenation").

    Called branch1, branch2 ... in the order of the papers' figures, which is that of the channels. Input (N, C, H, W),
    output (N, sum of the branches' channels, H', W'); all branches must give maps of one size.
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches, 1):
            self.add_module(f"branch{number}", branch)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([branch(maps) for branch in self.children()], dim=1)
