"""E3: laws of what is measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from faults.cases import CLASSES, generator
from layerwise.evaluation import calibrate, difference, metrics


# What is measured.
def answers(data: Any, least: int = 1) -> tuple[Any, Any]:
    """Probabilities (N, C) and labels."""
    count, draws = data.draw(st.integers(least, 40)), generator(data)
    scores = np.exp(3 * draws.normal(size=(count, CLASSES)))
    return scores / scores.sum(1, keepdims=True), draws.integers(0, CLASSES, count)


def workers_merge(data: Any) -> None:
    """The answers of any number of workers, in any order, are those of one."""
    probabilities, labels = answers(data)
    everyone, size = np.arange(len(labels)), data.draw(st.integers(1, 9))
    parts = [metrics.Predictions(everyone[rank::size], probabilities[rank::size]) for rank in range(size)]
    found = metrics.merge([parts[at] for at in generator(data).permutation(size)], everyone)
    assert np.array_equal(found.index, everyone)
    assert np.array_equal(found.probabilities, probabilities)


def measures_know_no_order(data: Any) -> None:
    """The pictures in another order have the same numbers, to the bit."""
    probabilities, labels = answers(data)
    turned = generator(data).permutation(len(labels))
    one, other = (metrics.summarise(metrics.scores(probabilities[at], labels[at]), CLASSES)
                  for at in (np.arange(len(labels)), turned))
    assert {name: value for name, value in one.items() if name in ("error", "loss", "macro_f1", "brier")} == {
        name: value for name, value in other.items() if name in ("error", "loss", "macro_f1", "brier")}


def scores_by_definition(data: Any) -> None:
    """Rank 1 is the prediction; the rank counts what stands before; Brier lies between 0 and 2."""
    probabilities, labels = answers(data)
    found = metrics.scores(probabilities, labels)
    assert np.array_equal(found.rank == 1, found.predicted == labels)
    for row, label, rank in zip(probabilities, labels, found.rank, strict=True):
        assert sorted(range(CLASSES), key=lambda one: (-row[one], one)).index(label) + 1 == rank
    assert ((found.brier >= 0) & (found.brier <= 2)).all()


def confusion(data: Any) -> None:
    """Rows are the classes' counts, the diagonal what is right, and two halves add up."""
    probabilities, labels = answers(data, 2)
    predicted = probabilities.argmax(1)
    found = metrics.confusion_matrix(labels, predicted, CLASSES)
    assert np.array_equal(found.sum(1), np.bincount(labels, minlength=CLASSES))
    assert found.trace() == (labels == predicted).sum()
    half = len(labels) // 2
    assert np.array_equal(found, metrics.confusion_matrix(labels[:half], predicted[:half], CLASSES)
                          + metrics.confusion_matrix(labels[half:], predicted[half:], CLASSES))
    for one in metrics.per_class(found):
        assert one.f1 is None or one.precision is None or one.recall is None or (
            min(one.precision, one.recall) - 1e-12 <= one.f1 <= max(one.precision, one.recall) + 1e-12)


def wilson(data: Any) -> None:
    """The interval has the fraction, lies within 0 and 1, and is turned round with what is counted."""
    total = data.draw(st.integers(1, 5000))
    count = data.draw(st.integers(0, total))
    found, turned = metrics.wilson(count, total), metrics.wilson(total - count, total)
    assert found is not None and turned is not None  # noqa: PT018
    assert 0 <= found[0] <= count / total + 1e-12
    assert count / total - 1e-12 <= found[1] <= 1
    assert math.isclose(found[0], 1 - turned[1], abs_tol=1e-9)


def calibration(data: Any) -> None:
    """Each picture is in one bin, and the mean gap is at most the largest."""
    probabilities, labels = answers(data)
    found = metrics.scores(probabilities, labels)
    bins = metrics.reliability(found.confidence, found.predicted == labels)
    assert sum(one.count for one in bins) == len(labels)
    expected, largest = metrics.calibration_errors(bins)
    assert expected is not None and largest is not None and 0 <= expected <= largest + 1e-12 <= 1 + 1e-9  # noqa: PT018


def temperature(data: Any) -> None:
    """A temperature changes no answer, 1 changes nothing, and the fitted one is no worse than 1."""
    probabilities, labels = answers(data, 3)
    warm = data.draw(st.floats(0.2, 5))
    assert np.array_equal(calibrate.scaled(probabilities, warm).argmax(1), probabilities.argmax(1))
    assert np.allclose(calibrate.scaled(probabilities, 1.0), probabilities, rtol=1e-9)
    rows = np.arange(len(labels))
    fitted = calibrate.scaled(probabilities, calibrate.fit_temperature(probabilities, labels))
    found, before = (metrics.loss(one[rows, labels]) for one in (fitted, probabilities))
    assert found is not None and before is not None and found <= before + 1e-6  # noqa: PT018


def mcnemar(data: Any) -> None:
    """A p that does not ask which side is called a."""
    a, b = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 60))
    assert 0 < metrics.mcnemar(a, b) <= 1 + 1e-12
    assert metrics.mcnemar(a, b) == metrics.mcnemar(b, a)


def holm(data: Any) -> None:
    """Never below p, never above 1, in the order of p."""
    values = data.draw(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
    found = [(p, q) for p, q in zip(values, difference.holm(values), strict=True) if p is not None and q is not None]
    assert len(found) == sum(value is not None for value in values)
    assert all(p <= q <= 1 for p, q in found)
    assert [q for _, q in sorted(found)] == sorted(q for _, q in found)
