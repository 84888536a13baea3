"""Local response normalisation (Krizhevsky et al. 2012, section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.layers import repeatable


class ResponseNorm(nn.Module):
    """b_i = a_i / (k + alpha * sum over the `size` neighbouring maps of a_j^2)^beta (AlexNet, section 3.3).

    The paper *sums* over the n neighbours; torch's own layer averages, so it is called with alpha * n. Maps beyond the
    first and the last count as zero, and so do those of another group. Input and output: (N, C, H, W).
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, groups: int = 1) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k, self.groups = size, alpha, beta, k, groups

    def forward(self, maps: Tensor) -> Tensor:
        apart = maps if self.groups == 1 else maps.unflatten(1, (self.groups, -1)).flatten(0, 1)
        if repeatable.refused(maps):  # with one axis for the pixels torch averages over two axes, not three
            apart = apart.flatten(2)
        return F.local_response_norm(apart, self.size, self.alpha * self.size, self.beta, self.k).reshape(maps.shape)

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, groups={self.groups}"
