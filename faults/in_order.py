"""A guard taken out, for goals A5 and F4 and for the tests: sums in the order of the processes."""

from __future__ import annotations

import torch

from layerwise.training import virtual_workers


class InOrder:
    """Adds vectors one after the other, as a process with all of them would; takes the place of the tree."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None

    def add(self, vector: torch.Tensor | None) -> None:
        self._sum = virtual_workers._joined(self._sum, vector)

    def total(self) -> torch.Tensor | None:
        return self._sum


def add_in_order() -> None:
    """Takes the guard out in this process."""
    virtual_workers.Tree = InOrder  # type: ignore[assignment, misc]
