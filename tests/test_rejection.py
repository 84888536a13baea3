"""The reject option against brute force over every threshold; ties; each message."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwise.errors import InputError, ToleranceError
from layerwise.evaluation.metrics import scores as columns
from layerwise.evaluation.metrics import wilson
from layerwise.evaluation.rejection import RULES, kept_by_thresholds, rejection_curve


def confidence(row: list[float], rule: str) -> float:
    """One sample at a time, by sorting."""
    top = sorted(row, reverse=True)
    return {
        "largest": top[0],
        "second": -top[1],
        "difference": top[0] - top[1],
        "softmax": 1 / sum(np.exp(value - top[0]) for value in row),
    }[rule]


def brute_force(scores: np.ndarray, labels: np.ndarray, rule: str) -> list[tuple[float, float]]:
    """(rejected, error) for every confidence that occurs, as threshold, from the lowest."""
    found = [(confidence(row.tolist(), rule), int(row.argmax()) != label)
             for row, label in zip(scores, labels, strict=True)]  # fmt: skip
    points = []
    for threshold in sorted({value for value, _ in found}):
        kept = [wrong for value, wrong in found if value >= threshold]
        points.append((1 - len(kept) / len(found), sum(kept) / len(kept)))
    return points


def drawn(count: int = 200, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    scores = random.normal(size=(count, classes))
    scores[np.arange(count), labels] += 1.5
    return scores, labels


@pytest.mark.parametrize("rule", RULES)
def test_the_curve_is_what_every_threshold_does(rule):
    scores, labels = drawn()
    curve = rejection_curve(scores, labels, rule)
    expected = brute_force(scores, labels, rule)
    assert len(curve.points) == len(expected) == 200
    np.testing.assert_allclose([(p.rejected, p.error) for p in curve.points], expected, atol=1e-12)
    assert curve.points[0].rejected == 0
    assert curve.points[0].error == (scores.argmax(1) != labels).mean()
    for other in set(RULES) - {rule}:  # the control: another rule is another curve
        found = [(p.rejected, p.error) for p in rejection_curve(scores, labels, other).points]
        assert not np.allclose(found, expected)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-2, 2)] * 3, st.integers(0, 2)), min_size=1, max_size=12), st.sampled_from(
    ["largest", "second", "difference"]))  # fmt: skip
def test_equal_confidences_go_together(rows, rule):
    """Whole numbers collide often, and the exact comparison is safe."""
    scores, labels = np.array([row[:3] for row in rows], float), np.array([row[3] for row in rows])
    curve = rejection_curve(scores, labels, rule)
    np.testing.assert_allclose(
        [(p.rejected, p.error) for p in curve.points], brute_force(scores, labels, rule), atol=1e-12
    )
    order = np.random.default_rng(0).permutation(len(rows))
    assert rejection_curve(scores[order], labels[order], rule) == curve


def test_cutting_a_tie_would_depend_on_the_order():
    """The control: a right and a wrong answer of equal confidence give one point, not an error of 0 or of 1."""
    scores, labels = np.array([[2.0, 1.0], [2.0, 1.0], [9.0, 1.0]]), np.array([0, 1, 0])
    points = rejection_curve(scores, labels).points
    assert [(p.kept, p.errors) for p in points] == [(3, 1), (1, 0)]


def test_thresholds_keep_what_the_point_says():
    scores, labels = drawn(seed=3)
    wrong = scores.argmax(1) != labels
    for rule, function in RULES.items():
        for point in rejection_curve(scores, labels, rule).points[::17]:
            kept = function(scores) >= point.threshold
            assert (int(kept.sum()), int(wrong[kept].sum())) == (point.kept, point.errors)
            assert point.interval == wilson(point.errors, point.kept)


def test_the_fewest_rejected_at_an_error():
    scores, labels = drawn(seed=1)
    curve = rejection_curve(scores, labels)
    for error in (0.3, 0.1, 0.05, 0.01):
        point = curve.rejection_at(error)
        assert point is not None
        expected = min(p for p, e in brute_force(scores, labels, "difference") if e <= error)
        assert point.rejected == pytest.approx(expected)
        assert point.error <= error
    at_once = curve.rejection_at(curve.points[0].error)
    assert at_once is curve.points[0]
    found = [curve.rejection_at(error).rejected for error in (0.2, 0.1, 0.05)]
    assert found == sorted(found)


def test_an_error_that_no_threshold_reaches():
    scores, labels = np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([1, 0])
    curve = rejection_curve(scores, labels)
    assert [p.error for p in curve.points] == [0.5, 1.0]  # the surest answer is wrong
    assert curve.rejection_at(0.01) is None
    assert curve.rejection_at(0.5) is curve.points[0]


def test_probabilities_and_their_logits_agree_in_confidence():
    scores, labels = drawn(seed=2)
    odds = np.exp(scores)
    probabilities = odds / odds.sum(1, keepdims=True)
    by_logits = rejection_curve(scores, labels, "softmax")
    by_probabilities = rejection_curve(probabilities, labels, "largest")
    assert [(p.kept, p.errors) for p in by_logits.points] == [(p.kept, p.errors) for p in by_probabilities.points]
    assert by_logits.points[0].error == (columns(probabilities, labels).predicted != labels).mean()


def test_a_good_rule_beats_chance():
    """Rejecting by confidence lowers the error; rejecting by a confidence that is noise does not."""
    scores, labels = drawn(5000, seed=4)
    curve = rejection_curve(scores, labels)
    half = next(p for p in curve.points if p.rejected >= 0.5)
    assert half.interval[1] < curve.points[0].interval[0]
    noise = np.random.default_rng(0).permutation(len(labels))[: len(labels) // 2]
    low, high = curve.points[0].interval
    assert low <= (scores.argmax(1) != labels)[noise].mean() <= high


def test_all_three_conditions():
    scores = np.array([[0.9, -0.9, -1.0], [0.2, -0.9, -1.0], [0.9, 0.5, -1.0], [0.7, -0.1, -1.0]])
    assert kept_by_thresholds(scores, 0.5, 0.0, 1.0).tolist() == [True, False, False, False]
    assert kept_by_thresholds(scores, 0.5, 0.0, 0.5).tolist() == [True, False, False, True]
    assert kept_by_thresholds(scores, 0.5, 0.6, 0.3).tolist() == [True, False, True, True]
    assert kept_by_thresholds(scores, 0.0, 0.6, 0.3).all()


def test_the_figures_data_are_plain():
    curve = rejection_curve(*drawn(20))
    data = json.loads(json.dumps(curve.figure(), allow_nan=False))
    assert (data["rule"], data["samples"], data["rejected"][0]) == ("difference", 20, 0)
    assert data["rejected"] == sorted(data["rejected"])
    assert len(data["error"]) == len(data["threshold"]) == len(data["rejected"])


@pytest.mark.parametrize(
    ("scores", "labels", "rule", "message"),
    [
        (np.zeros((2, 3)), np.zeros(2, int), "largets", "'largets' is not a rule, did you mean 'largest'"),
        (np.zeros((2, 1)), np.zeros(2, int), "largest", "scores of shape (2, 1), expected (samples, classes)"),
        (np.zeros((2, 3)), np.zeros(3, int), "largest", "2 rows of scores, labels of shape (3,)"),
        (np.zeros((0, 3)), np.zeros(0, int), "largest", "no samples"),
        (np.zeros((2, 3)), np.array([0, 3]), "largest", "labels from 0 to 3, expected 0 to 2"),
    ],
)
def test_what_has_no_curve(scores, labels, rule, message):
    with pytest.raises(InputError, match="there is no curve of error against rejection") as caught:
        rejection_curve(scores, labels, rule)
    assert message in str(caught.value)


def test_scores_that_are_not_finite():
    scores, labels = drawn(6)
    scores[4, 1] = np.nan
    with pytest.raises(ToleranceError, match=r"scores are not finite for 1 of 6 samples") as caught:
        rejection_curve(scores, labels)
    assert "sample 4" in str(caught.value)


@pytest.mark.parametrize("error", [-0.1, 1.5, 9])
def test_an_error_rate_is_a_fraction(error):
    with pytest.raises(InputError, match=re.escape(f"an error rate of {error!r}")):
        rejection_curve(*drawn(5)).rejection_at(error)
