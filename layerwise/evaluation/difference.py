"""Whether two numbers differ: over the same images (paired bootstrap), over seeds (t tests), over many pairs (Holm).

The paired bootstrap draws images with replacement, the same for both sides, and computes every number of both again
(Efron and Tibshirani 1993, chapters 13 and 16; percentiles). It is a pure function of the answers and a seed. Over
seeds the samples are small, so the tests are Student's: Welch's for independent runs (Welch 1947), the paired one
where equal seeds share their pictures, and one run against several with the others' deviation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from layerwise.evaluation.metrics import BINS, LARGEST_K, LEAST, LEVEL, Floats, Integers
from layerwise.randomness import uniform

REPLICATES = 2000
ROUNDING = 1e-12  # of the largest number: a smaller deviation is what subtracting and averaging left
HIGHER_IS_BETTER = ("macro_f1", "weighted_f1")


@dataclass(frozen=True)
class Difference:
    """b - a of one number, its 95 % interval and the test's p (two-sided); `adjusted` is p after Holm's correction.

    Errors and F1 are fractions, the loss is in nats. `p` is None where nothing can be said, `note` then says why.
    """

    name: str
    a: float
    b: float
    value: float
    interval: tuple[float, float] | None
    p: float | None
    adjusted: float | None = None
    note: str = ""

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference is one, after the correction for the number of pairs."""
        p = self.p if self.adjusted is None else self.adjusted
        return p is not None and p < 1 - LEVEL

    @property
    def better(self) -> str:
        """"a" or "b", "" inside the noise."""
        if not self.beyond_noise or self.value == 0:
            return ""
        return "b" if (self.value > 0) == (self.name in HIGHER_IS_BETTER) else "a"


@dataclass(frozen=True, eq=False)
class Answers:
    """One side's answers to N images, (N,) each, in an order that both sides share; None where they were not kept.

    `labels` and `predicted` are classes below `classes`; the others are those of `metrics.Scores`.
    """

    classes: int
    labels: Integers
    predicted: Integers
    probability: Floats | None = None
    rank: Integers | None = None
    brier: Floats | None = None
    confidence: Floats | None = None

    @cached_property
    def columns(self) -> dict[str, Floats]:
        """What is averaged over the images: the column of each number that is a mean."""
        found = {"error": (self.predicted != self.labels).astype(np.float64)}
        if self.rank is not None and self.classes > LARGEST_K:
            found[f"top_{LARGEST_K}_error"] = (self.rank > LARGEST_K).astype(np.float64)
        if self.probability is not None:
            found["loss"] = -np.log(np.maximum(self.probability, LEAST))
        if self.brier is not None:
            found["brier"] = self.brier
        return found

    def numbers(self, counts: Floats) -> dict[str, float]:
        """Every number where image i counts `counts[i]` times; with ones, those of `metrics.summarise`."""
        total = float(counts.sum())
        found = {name: float(column @ counts) / total for name, column in self.columns.items()}
        right = np.bincount(self.labels, counts * (self.labels == self.predicted), self.classes)
        support = np.bincount(self.labels, counts, self.classes)
        answered = np.bincount(self.predicted, counts, self.classes)
        there = support > 0
        f1 = 2 * right[there] / (support[there] + answered[there])
        found |= {"macro_f1": float(f1.mean()), "weighted_f1": float(f1 @ support[there]) / total}
        if self.confidence is not None:
            place = np.clip(np.ceil(self.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
            gap = (self.predicted == self.labels) - self.confidence
            found["calibration_error"] = float(np.abs(np.bincount(place, counts * gap, BINS)).sum()) / total
        return found


def bootstrap(a: Answers, b: Answers, seed: int = 0, replicates: int = REPLICATES) -> tuple[Difference, ...]:
    """The difference of every number that both sides have, with the percentile interval of the paired bootstrap.

    `p` is twice the part of the replicates on the other side of 0, and never below 2^(1 - N), a sign test's least: four
    images that all lean one way do so by chance one time in eight. The same seed gives the same interval, to the bit.
    """
    images = len(a.labels)
    ones = np.ones(images)
    first, second = a.numbers(ones), b.numbers(ones)
    names = [name for name in first if name in second]
    drawn = np.empty((replicates, len(names)))
    places = np.arange(images, dtype=np.int64)
    for replicate in range(replicates):
        chosen = (uniform(seed, replicate, places, "paired bootstrap")[:, 0] * images).astype(np.int64)
        counts = np.bincount(chosen, minlength=images).astype(np.float64)
        one, other = a.numbers(counts), b.numbers(counts)
        drawn[replicate] = [other[name] - one[name] for name in names]
    tail = 100 * (1 - LEVEL) / 2
    found = []
    for place, name in enumerate(names):
        low, high = np.percentile(drawn[:, place], [tail, 100 - tail]).tolist()
        found.append(Difference(name, first[name], second[name], second[name] - first[name], (low, high),
                                max(_tail_part(drawn[:, place]), 2.0 ** (1 - images))))
    return tuple(found)


def _tail_part(drawn: NDArray[np.float64]) -> float:
    """The two-sided p of the null hypothesis 0: never 0, since the sample itself is one more replicate."""
    smaller = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (1 + smaller) / (1 + len(drawn)))


def holm(values: Sequence[float | None]) -> tuple[float | None, ...]:
    """The p values after Holm's correction (1979), in their order: the k-th smallest of m times m - k + 1, and never
    below a smaller one's. What has no p takes no part."""
    order = sorted((p, place) for place, p in enumerate(values) if p is not None)
    found: list[float | None] = [None] * len(values)
    reached = 0.0
    for step, (p, place) in enumerate(order):
        reached = max(reached, min(1.0, p * (len(order) - step)))
        found[place] = reached
    return tuple(found)


def over_seeds(name: str, a: Sequence[float], b: Sequence[float], paired: bool) -> Difference:
    """The difference of the means of `name` over runs, with Student's interval and p.

    `paired`: run i of both sides belongs together; else Welch's test, or with one run on a side Student's with the
    other side's deviation, as if both had the same. One run on both sides has no p.
    """
    first, second = statistics.fmean(a), statistics.fmean(b)
    if paired:
        error, freedom = _paired_error(a, b)
    elif len(a) > 1 and len(b) > 1:
        error, freedom = _welch_error(a, b)
    else:
        error, freedom = _one_sided_error(a, b)
    value = second - first
    if error is None:
        return Difference(name, first, second, value, None, None, note="one run on each side: no deviation")
    if error <= ROUNDING * max(map(abs, (*a, *b))):
        return Difference(name, first, second, value, None, None, note="no deviation over the runs: nothing to test")
    from scipy.special import stdtr, stdtrit  # scipy's statistics take a second to import

    half = error * float(stdtrit(freedom, (1 + LEVEL) / 2))
    p = 2 * float(stdtr(freedom, -abs(value) / error))
    return Difference(name, first, second, value, (value - half, value + half), p)


def _paired_error(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float]:
    differences = [after - before for before, after in zip(a, b, strict=True)]
    if len(differences) < 2:
        return None, 0
    return statistics.stdev(differences) / math.sqrt(len(differences)), len(differences) - 1


def _welch_error(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float]:
    """The standard error of the difference and the degrees of freedom (Welch and Satterthwaite)."""
    parts = [(statistics.variance(side) / len(side), len(side) - 1) for side in (a, b)]
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0, 1
    return math.sqrt(total), total * total / sum(part * part / freedom for part, freedom in parts)


def _one_sided_error(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float]:
    """A single run has no deviation of its own: the other side's stands for both."""
    several = max((a, b), key=len)
    if len(several) < 2:
        return None, 0
    return statistics.stdev(several) * math.sqrt(1 + 1 / len(several)), len(several) - 1


def corrected(pairs: Sequence[Sequence[Difference]]) -> tuple[tuple[Difference, ...], ...]:
    """The differences of several pairs with Holm's correction, for each number over all pairs that have it."""
    by_name: dict[str, list[tuple[int, int]]] = {}
    for row, differences in enumerate(pairs):
        for place, one in enumerate(differences):
            by_name.setdefault(one.name, []).append((row, place))
    adjusted: Mapping[tuple[int, int], float | None] = {
        where: p for places in by_name.values()
        for where, p in zip(places, holm([pairs[row][place].p for row, place in places]), strict=True)}
    return tuple(
        tuple(Difference(one.name, one.a, one.b, one.value, one.interval, one.p, adjusted[row, place], one.note)
              for place, one in enumerate(differences))
        for row, differences in enumerate(pairs))
