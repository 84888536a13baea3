"""The reject option: how much must be left unanswered for the answers to be right.

LeCun et al. 1990, "Handwritten digit recognition with a back-propagation network": a pattern is refused by the activity
of the most active output, by that of the second most active, or by their difference. Beside these, the probability of
the answer. A curve is a set of points, one for each threshold that tells samples apart: samples of equal confidence
are kept or refused together, so that a point is what a threshold does, not what an order of the samples does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import InputError, ToleranceError, nearest
from layerwise.evaluation.metrics import Floats, Integers, wilson


def largest(scores: Floats) -> Floats:
    """The activity of the most active output: of probabilities, that of the answer. (N, C) to (N,)."""
    found: Floats = scores.max(axis=1)
    return found


def second(scores: Floats) -> Floats:
    """Minus the activity of the second most active output: it is the rival that makes an answer doubtful."""
    found: Floats = -np.partition(scores, -2, axis=1)[:, -2]
    return found


def difference(scores: Floats) -> Floats:
    """The most active output's lead over the second."""
    top = np.partition(scores, -2, axis=1)
    found: Floats = top[:, -1] - top[:, -2]
    return found


def softmax(scores: Floats) -> Floats:
    """The probability of the answer, of logits."""
    found: Floats = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return found


RULES: dict[str, Callable[[Floats], Floats]] = {
    "largest": largest,
    "second": second,
    "difference": difference,
    "softmax": softmax,
}


@dataclass(frozen=True)
class Point:
    """What one threshold does: samples of at least this confidence are answered.

    `rejected` is the fraction that is not, `error` the error rate of those that are, `interval` its 95 % interval.
    """

    threshold: float
    kept: int
    errors: int
    rejected: float
    error: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class RejectionCurve:
    """Error against rejection, under `rule` (a key of RULES), from no rejection to the strictest threshold."""

    rule: str
    samples: int
    points: tuple[Point, ...]

    def rejection_at(self, error: float) -> Point | None:
        """The point with the fewest samples rejected whose error is at most `error` (0.01: one percent), or None.

        Raises InputError where `error` is not a fraction.
        """
        if not 0 <= error <= 1:
            raise InputError(f"an error rate of {error!r}", "It is a fraction of 1.", "One percent is 0.01.")
        return next((point for point in self.points if point.error <= error), None)

    def figure(self) -> dict[str, Any]:
        """The curve as data, fit for JSON: fractions, rejection rising from 0."""
        return {
            "rule": self.rule,
            "samples": self.samples,
            "rejected": [point.rejected for point in self.points],
            "error": [point.error for point in self.points],
            "threshold": [point.threshold for point in self.points],
        }


def rejection_curve(scores: Floats, labels: Integers, rule: str = "difference") -> RejectionCurve:
    """The curve of `scores` (N, C), which are activities, logits or probabilities, and `labels` (N,).

    The answer is the largest score, of equal ones the first. Raises InputError where there are no samples, fewer than
    two classes, labels that do not fit, or no such rule; ToleranceError where a score is not finite.
    """
    _check(scores, labels, rule)
    confidence = RULES[rule](scores)
    wrong = scores.argmax(axis=1) != labels
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], wrong[order]
    last = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))  # where a run of equal ones ends
    errors = np.cumsum(wrong)[last]
    total = len(labels)
    points = [
        _point(float(confidence[at]), int(at) + 1, int(count), total)
        for at, count in zip(last[::-1], errors[::-1], strict=True)
    ]
    return RejectionCurve(rule, total, tuple(points))


def kept_by_thresholds(
    scores: Floats, least_largest: float, most_second: float, least_difference: float
) -> NDArray[np.bool_]:
    """Which samples all three conditions of LeCun et al. 1990 keep: (N, C) to (N,)."""
    found: NDArray[np.bool_] = (
        (largest(scores) >= least_largest) & (-second(scores) <= most_second) & (difference(scores) >= least_difference)
    )
    return found


def _point(threshold: float, kept: int, errors: int, total: int) -> Point:
    interval = wilson(errors, kept)
    assert interval is not None, "a threshold keeps at least the sample that it is taken from"
    return Point(threshold, kept, errors, (total - kept) / total, errors / kept, interval)


def _check(scores: Floats, labels: Integers, rule: str) -> None:
    problems = []
    if rule not in RULES:
        problems.append(f"{rule!r} is not a rule{nearest(rule, RULES)}; the rules are {', '.join(RULES)}")
    if scores.ndim != 2 or scores.shape[1] < 2:
        problems.append(f"scores of shape {scores.shape}, expected (samples, classes) with at least 2 classes")
    elif labels.shape != scores.shape[:1]:
        problems.append(f"{len(scores)} rows of scores, labels of shape {labels.shape}")
    elif not len(labels):
        problems.append("no samples")
    elif labels.min() < 0 or labels.max() >= scores.shape[1]:
        problems.append(f"labels from {labels.min()} to {labels.max()}, expected 0 to {scores.shape[1] - 1}")
    if problems:
        raise InputError("there is no curve of error against rejection", "", "Give scores (N, C) and labels (N,).",
                         problems)  # fmt: skip
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if bad.size:
        raise ToleranceError(
            f"scores are not finite for {bad.size} of {len(labels)} samples",
            "A number that does not exist can't be compared with a threshold.",
            "Look at the weights: layerwise doctor bn RUN.",
            [f"sample {row}" for row in bad],
        )
