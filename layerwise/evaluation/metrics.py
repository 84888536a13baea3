"""What is measured of a classifier's answers: sums over samples, in float64, never averages over batches.

Every number is a function of `Scores`, six columns with one entry a sample, so it depends neither on batches nor on
how the samples were spread over workers, and can be computed again from a saved table of predictions.
What is undefined is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import InputError, ToleranceError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BINS = 15  # of the calibration error: equal widths, (lower, upper], as in Guo et al. 2017, section 2
LARGEST_K = 5
LEVEL = 0.95
LEAST = float(np.finfo(np.float64).tiny)  # a probability that underflowed to 0 counts as this in the loss: 708 nats


@dataclass(frozen=True, eq=False)
class Scores:
    """What each of N samples contributes, (N,) each.

    `labels` and `predicted` are classes; `confidence` is the probability of the predicted class, `probability` that of
    the true one, `rank` the true class's place from 1 (of equal probabilities the lower class comes first), `brier`
    the squared distance between the probabilities and the truth, 0 to 2.
    """

    labels: Integers
    predicted: Integers
    confidence: Floats
    probability: Floats
    rank: Integers
    brier: Floats

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers for some samples of a split: `index` (n,) in the split, `probabilities` (n, C) in the same order.

    `unreadable` are (index, reason) of the pictures that could not be opened: they have no answer.
    """

    index: Integers
    probabilities: Floats
    unreadable: tuple[tuple[int, str], ...] = ()


def merge(parts: Sequence[Predictions], indices: Integers) -> Predictions:
    """The answers of several workers as one, in the order of `indices`, each of which must be there exactly once.

    Raises InputError where a sample was answered twice (a padded share) or not at all.
    """
    index = np.concatenate([part.index for part in parts])
    unreadable = sorted((each for part in parts for each in part.unreadable), key=lambda each: each[0])
    found, counts = np.unique(np.concatenate([index, np.array([i for i, _ in unreadable], np.int64)]),
                              return_counts=True)
    problems = [f"sample {i}: counted {count} times" for i, count in zip(found, counts, strict=True) if count > 1]
    problems += [f"sample {i}: not asked for" for i in np.setdiff1d(found, indices)]
    problems += [f"sample {i}: missing" for i in np.setdiff1d(indices, found)]
    if problems:
        raise InputError("the workers' shares do not add up to the split", "Each picture must count once.",
                         "Give worker r of w the share indices[r::w], without padding.", problems)
    place = np.argsort(index, kind="stable")
    probabilities = np.concatenate([part.probabilities for part in parts if len(part.index)] or
                                   [parts[0].probabilities])
    at = {int(i): p for i, p in zip(index[place], place, strict=True)}
    order = np.array([at[int(i)] for i in indices if int(i) in at], np.int64)
    return Predictions(index[order], probabilities[order], tuple(unreadable))


def scores(probabilities: Floats, labels: Integers) -> Scores:
    """The columns of `Scores` from `probabilities` (N, C) and `labels` (N,).

    Raises ToleranceError where a probability is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if bad.size:
        raise ToleranceError(f"the network's answer is not finite for {bad.size} of {len(labels)} pictures",
                             "A number that does not exist can't be averaged.",
                             "Look at the weights: layerwise doctor bn RUN.", [f"sample {row}" for row in bad])
    rows = np.arange(len(labels))
    truth = probabilities[rows, labels]
    predicted = probabilities.argmax(axis=1).astype(np.int64) if len(labels) else np.zeros(0, np.int64)
    before = np.arange(probabilities.shape[1])[None, :] < labels[:, None]
    rank = 1 + (probabilities > truth[:, None]).sum(axis=1)
    rank += ((probabilities == truth[:, None]) & before).sum(axis=1)
    distance = probabilities.copy()
    distance[rows, labels] -= 1
    return Scores(labels, predicted, probabilities[rows, predicted], truth, rank.astype(np.int64),
                  (distance * distance).sum(axis=1))


def wilson(count: int, total: int) -> tuple[float, float] | None:
    """The 95 % interval of a proportion `count` / `total` (Wilson 1927); None for a total of 0."""
    if total == 0:
        return None
    from scipy.special import ndtri  # scipy's statistics take a second to import

    z = float(ndtri((1 + LEVEL) / 2))
    part = count / total
    centre = (part + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(part * (1 - part) / total + z * z / (4 * total * total))
    return (0.0 if count == 0 else max(0.0, centre - half)), (1.0 if count == total else min(1.0, centre + half))


def confusion_matrix(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """How often class `row` was answered with class `column`: (C, C)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassScore:
    """One class: `support` pictures; precision, recall and F1, or None with the `reason`."""

    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    reason: str = ""


def per_class(confusion: Integers) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class from the confusion matrix (true, predicted).

    Precision is undefined where the class was never predicted, recall and F1 where it has no pictures.
    """
    found = []
    for right, support, answered in zip(confusion.diagonal().tolist(), confusion.sum(axis=1).tolist(),
                                        confusion.sum(axis=0).tolist(), strict=True):
        reasons = ["no images of this class: no recall, no F1"] if support == 0 else []
        reasons += ["never predicted: no precision"] if answered == 0 else []
        found.append(ClassScore(
            support,
            right / answered if answered else None,
            right / support if support else None,
            2 * right / (support + answered) if support else None,
            "; ".join(reasons),
        ))
    return tuple(found)


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability figure: confidences in (lower, upper], how many, their mean, how many were right."""

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability(confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> tuple[Bin, ...]:
    """The bins of Guo et al. 2017, section 2: equal widths over (0, 1]."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    right = np.bincount(place, weights=correct.astype(np.float64), minlength=bins)
    return tuple(
        Bin(i / bins, (i + 1) / bins, int(count[i]), float(sure[i] / count[i]) if count[i] else None,
            float(right[i] / count[i]) if count[i] else None)
        for i in range(bins)
    )


def calibration_errors(bins: Sequence[Bin]) -> tuple[float | None, float | None]:
    """Expected and maximum calibration error (Guo et al. 2017, equations 3 and 5); None where there are no samples."""
    gaps = [(one.count, abs(one.accuracy - one.confidence)) for one in bins
            if one.accuracy is not None and one.confidence is not None]
    total = sum(count for count, _ in gaps)
    if not total:
        return None, None
    return sum(count * gap for count, gap in gaps) / total, max(gap for _, gap in gaps)


def loss(probability: Floats) -> float | None:
    """The mean negative log-likelihood, in nats, of the true classes' probabilities."""
    return _mean(-np.log(np.maximum(probability, LEAST)))


def summarise(columns: Scores, classes: int) -> dict[str, Any]:
    """All numbers of the whole split, fit for JSON. Errors are fractions; undefined numbers are None.

    `macro_f1` is the mean over the classes that have pictures, `weighted_f1` weighs them by their number. The top-5
    error is given only where there are more than 5 classes.
    """
    total = len(columns)
    wrong = int((columns.predicted != columns.labels).sum())
    bins = reliability(columns.confidence, columns.predicted == columns.labels)
    expected, largest = calibration_errors(bins)
    each = [one for one in per_class(confusion_matrix(columns.labels, columns.predicted, classes)) if one.support]
    f1 = [one.f1 for one in each if one.f1 is not None]
    precision = [one.precision for one in each if one.precision is not None]
    missed = {str(k): int((columns.rank > k).sum()) for k in (LARGEST_K,) if classes > k and total}
    interval = wilson(wrong, total)
    return {
        "error": wrong / total if total else None,
        "error_interval": list(interval) if interval else None,
        "errors": wrong,
        "top_k_error": {k: count / total for k, count in missed.items()},
        "top_k_error_interval": {k: list(wilson(count, total) or ()) for k, count in missed.items()},
        "loss": loss(columns.probability),
        "brier": _mean(columns.brier),
        "calibration_error": expected,
        "max_calibration_error": largest,
        "calibration_bins": BINS,
        "macro_precision": sum(precision) / len(each) if each and len(precision) == len(each) else None,
        "macro_recall": sum(one.recall or 0.0 for one in each) / len(each) if each else None,
        "macro_f1": sum(f1) / len(f1) if f1 else None,
        "weighted_f1": sum((one.f1 or 0.0) * one.support for one in each) / total if total else None,
    }


def mcnemar(only_a_right: int, only_b_right: int) -> float:
    """The exact two-sided p of McNemar's test (1947) from the samples that exactly one of two classifiers has right."""
    from scipy.stats import binomtest  # a second to import

    total = only_a_right + only_b_right
    return float(binomtest(only_a_right, total, 0.5).pvalue) if total else 1.0


def _mean(values: Floats) -> float | None:
    """The mean by an exactly rounded sum, which no order of the samples can change."""
    return math.fsum(values.tolist()) / len(values) if len(values) else None
