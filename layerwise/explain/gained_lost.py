"""Two networks on the same pictures: which one has what right, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import InputError
from layerwise.evaluation.metrics import mcnemar

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ClassChange:
    """One class's pictures: those only the second network has right (gained), only the first (lost), or both."""

    label: int
    pictures: int
    gained: int
    lost: int
    both: int

    @property
    def neither(self) -> int:
        """Pictures that neither has right."""
        return self.pictures - self.gained - self.lost - self.both


@dataclass(frozen=True, eq=False)
class Change:
    """From a first network to a second: places of gained and lost pictures, classes, and McNemar's exact p."""

    gained: Integers
    lost: Integers
    classes: tuple[ClassChange, ...]
    p: float


def gained_lost(before: Integers, after: Integers, labels: Integers, classes: int) -> Change:
    """What changed from the answers `before` to `after` (N) on pictures with `labels` (N).

    Raises InputError where they are not of equally many pictures.
    """
    if not len(before) == len(after) == len(labels):
        raise InputError(f"{len(before)} and {len(after)} answers to {len(labels)} pictures",
                         "Gained and lost are counted on the same pictures.")
    first, second = before == labels, after == labels
    gained, lost = second & ~first, first & ~second
    rows = []
    for label in range(classes):
        own = labels == label
        if own.any():
            rows.append(ClassChange(label, int(own.sum()), int((gained & own).sum()), int((lost & own).sum()),
                                    int((first & second & own).sum())))
    p = mcnemar(int(lost.sum()), int(gained.sum()))
    return Change(np.flatnonzero(gained), np.flatnonzero(lost), tuple(rows), p)
