"""Which answers of a classifier are worth looking at: confident mistakes, uncertain hits, confused pairs of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def confident_mistakes(probabilities: Floats, labels: Integers, most: int) -> Integers:
    """The places of wrong answers, the most probable (and so most confident) first; (N, classes) and (N,)."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:most]


def uncertain_hits(probabilities: Floats, labels: Integers, most: int) -> Integers:
    """The places of right answers, those first whose first class is nearest to the second."""
    right = np.flatnonzero(probabilities.argmax(1) == labels)
    ordered = np.sort(probabilities[right], axis=1)
    gap = ordered[:, -1] - ordered[:, -2] if ordered.shape[1] > 1 else ordered[:, -1]
    return right[np.argsort(gap, kind="stable")][:most]


@dataclass(frozen=True)
class Pair:
    """Two classes that are taken for each other: pictures of `first` called `second`, and the other way round."""

    first: int
    second: int
    called_second: int
    called_first: int

    @property
    def both(self) -> int:
        """All pictures that were confused."""
        return self.called_second + self.called_first


def confused_pairs(predicted: Integers, labels: Integers, classes: int, most: int) -> tuple[Pair, ...]:
    """The pairs of classes that are confused most often, both directions together, the most frequent first."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    both = np.triu(counts + counts.T, 1)
    pairs = [Pair(a, b, int(counts[a, b]), int(counts[b, a])) for a, b in np.argwhere(both).tolist()]
    return tuple(sorted(pairs, key=lambda pair: -pair.both)[:most])
