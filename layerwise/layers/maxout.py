"""Maxout units (Goodfellow et al. 2013)."""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """h_i = max over j of z_ij: the largest of each group of `pieces` neighbouring channels or features.

    Goodfellow, Warde-Farley, Mirza, Courville, Bengio 2013, "Maxout networks", section 3: z is the output of a linear
    layer or a convolution with `pieces` times as many units as are wanted. Input (N, C * pieces, ...), output
    (N, C, ...). Where pieces are equal they share the gradient. Raises RuntimeError where the channels do not divide
    into such groups.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        assert pieces >= 1, "a maxout unit has at least one piece"
        self.pieces = pieces

    def forward(self, maps: Tensor) -> Tensor:
        groups: Tensor = maps.unflatten(1, (-1, self.pieces))
        return groups.amax(2)

    def extra_repr(self) -> str:
        return f"{self.pieces}"
