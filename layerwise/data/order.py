"""Which sample comes when: the order of an epoch, its batches, and the balance of its classes.

All of it is a pure function of (labels, seed, epoch); nothing is carried from one epoch to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.randomness import permutation, uniform
from layerwise.recipe import Recipe


@dataclass(frozen=True)
class Place:
    """Where a process takes its batches: the epoch, the number of the first batch, and its share of each of them.

    `workers` is the number of virtual workers, of which each process has equally many; 0 for none.
    """

    epoch: int
    start: int = 0
    rank: int = 0
    size: int = 1
    workers: int = 0

    def share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """The process's contiguous part of a global batch, of which each entry is in one share.

        Where the number does not divide, the first shares are larger by one; the last may be empty.
        """
        if self.workers:
            return np.concatenate(self._parts(batch))
        return np.array_split(batch, self.size)[self.rank]

    def worker(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """The virtual worker of each entry of the process's share."""
        each = self.workers // self.size
        return np.repeat(np.arange(self.rank * each, (self.rank + 1) * each), [len(one) for one in self._parts(batch)])

    def _parts(self, batch: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        each = self.workers // self.size
        return np.array_split(batch, self.workers)[self.rank * each : (self.rank + 1) * each]


def epoch_order(samples: Samples, recipe: Recipe, epoch: int) -> NDArray[np.int64]:
    """The indices of an epoch in order, (N,) int64: a permutation, or N draws with replacement.

    With balance=sampler each class that has samples is drawn equally often, with balance=sqrt in proportion to the
    square root of its samples; the sample within the class is uniform. Raises InputError where there are no samples.
    """
    if len(samples) == 0:
        raise InputError(
            f"split {samples.name!r} has no samples",
            "An epoch without samples would have zero batches.",
            "Name data that holds pictures, or a smaller validation part.",
        )
    if recipe.balance not in ("sampler", "sqrt"):
        return permutation(recipe.seed, epoch, len(samples))
    numbers = uniform(recipe.seed, epoch, np.arange(len(samples), dtype=np.int64), "draw", 2)
    counts = _counts(samples)
    bounds = np.cumsum(draw_rates(samples, recipe))
    # The last bound may be a rounding error below 1; a draw beyond it belongs to the last class that has samples.
    drawn = np.minimum(np.searchsorted(bounds, numbers[:, 0], side="right"), np.flatnonzero(counts)[-1])
    by_class = np.argsort(samples.labels, kind="stable")
    first = np.cumsum(counts) - counts
    within = (numbers[:, 1] * counts[drawn]).astype(np.int64)
    order: NDArray[np.int64] = by_class[first[drawn] + within].astype(np.int64)
    return order


def epoch_batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Cuts an epoch's order into batches: the last one partial, never of one sample alone.

    A last batch of one is merged into the one before (batch normalisation cannot use it, and it is not dropped);
    with fewer samples than `batch_size` there is one batch. With batch_size 1 every batch has one sample, as asked.
    """
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and batch_size > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    return [order[start:stop] for start, stop in zip(starts, [*starts, len(order)][1:], strict=True)]


def repeats(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry's sample came before in the order, (N,): zeros for a permutation.

    A sample drawn twice in an epoch is augmented twice; this number keeps the two apart.
    """
    by_sample = np.argsort(order, kind="stable")
    ordered = order[by_sample]
    positions = np.arange(len(order), dtype=np.int64)
    starts = np.maximum.accumulate(np.where(np.r_[True, ordered[1:] != ordered[:-1]], positions, 0))
    earlier = np.empty_like(positions)
    earlier[by_sample] = positions - starts
    return earlier


def draw_rates(samples: Samples, recipe: Recipe) -> NDArray[np.float64]:
    """The part of an epoch's draws that each class gets, (K,), sum 1; 0 for a class without samples."""
    counts = _counts(samples).astype(np.float64)
    if recipe.balance == "sampler":
        counts = np.minimum(counts, 1)
    elif recipe.balance == "sqrt":
        counts = np.sqrt(counts)
    return np.asarray(counts / counts.sum())


def class_weights(samples: Samples, recipe: Recipe) -> NDArray[np.float32]:
    """The loss weight of each class, (K,) float32: N / (K' n_k) for balance=loss, else ones.

    K' is the number of classes that have samples. The mean over the samples is 1, so the learning rate keeps its
    meaning; a class without samples never occurs in the loss and gets 1.
    """
    counts = _counts(samples)
    weights = np.ones(len(counts), np.float32)
    if recipe.balance == "loss":
        present = counts > 0
        weights[present] = len(samples) / (present.sum() * counts[present])
    return weights


def _counts(samples: Samples) -> NDArray[np.int64]:
    return np.bincount(samples.labels, minlength=len(samples.class_names)).astype(np.int64)
