"""Metrics against scikit-learn and scipy, by hand where they are undefined, and merged over any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from layerwise.errors import InputError, ToleranceError
from layerwise.evaluation.metrics import (
    BINS,
    Predictions,
    calibration_errors,
    confusion_matrix,
    loss,
    mcnemar,
    merge,
    per_class,
    reliability,
    scores,
    summarise,
    wilson,
)


def answers(samples: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random labels, and probabilities that know something of them."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples).astype(np.int64)
    logits = random.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += 1.0
    grown = np.exp(logits)
    return grown / grown.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize(("samples", "classes", "seed"), [(997, 10, 0), (200, 2, 1), (503, 7, 2), (60, 30, 3)])
def test_equal_to_scikit_learn(samples: int, classes: int, seed: int) -> None:
    probabilities, labels = answers(samples, classes, seed)
    columns = scores(probabilities, labels)
    found = summarise(columns, classes)
    predicted = probabilities.argmax(axis=1)
    every = list(range(classes))
    present = sorted(set(labels.tolist()))
    assert found["error"] == pytest.approx(1 - sk.accuracy_score(labels, predicted), abs=1e-12)
    assert found["loss"] == pytest.approx(sk.log_loss(labels, probabilities, labels=every), rel=1e-12)
    brier = sk.brier_score_loss(labels, probabilities, labels=every, scale_by_half=False)
    assert found["brier"] == pytest.approx(brier, rel=1e-12)
    for average, key in (("macro", "macro_f1"), ("weighted", "weighted_f1")):
        f1 = sk.f1_score(labels, predicted, labels=present, average=average, zero_division=0)
        assert found[key] == pytest.approx(f1, rel=1e-12)
    confusion = confusion_matrix(labels, predicted, classes)
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(labels, predicted, labels=every))
    with np.errstate(invalid="ignore"):
        table = sk.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    for index, one in enumerate(per_class(confusion)):
        assert one.support == table[3][index]
        for value, expected in ((one.precision, table[0][index]), (one.recall, table[1][index])):
            assert (np.nan if value is None else value) == pytest.approx(expected, nan_ok=True)
        if one.support:
            assert one.f1 == pytest.approx(table[2][index])
    if classes > 5:
        top = 1 - sk.top_k_accuracy_score(labels, probabilities, k=5, labels=every)
        assert found["top_k_error"] == {"5": pytest.approx(top, abs=1e-12)}


def test_a_metric_averaged_over_batches_would_not_pass() -> None:
    """The negative control: batches of 128 of 997 samples, each batch's error and macro F1 averaged."""
    probabilities, labels = answers(997, 10, 0)
    found = summarise(scores(probabilities, labels), 10)
    parts = [summarise(scores(probabilities[i:i + 128], labels[i:i + 128]), 10) for i in range(0, 997, 128)]
    for key in ("error", "loss", "macro_f1", "calibration_error"):
        assert np.mean([part[key] for part in parts]) != pytest.approx(found[key], rel=1e-6)


@pytest.mark.parametrize(("classes", "keys"), [(1, []), (2, []), (3, []), (5, []), (6, ["5"])])
def test_top_k_is_left_out_where_it_says_nothing(classes: int, keys: list[str]) -> None:
    probabilities, labels = answers(40, classes, 5)
    found = summarise(scores(probabilities, labels), classes)
    assert list(found["top_k_error"]) == list(found["top_k_error_interval"]) == keys


def test_rank_of_equal_probabilities_agrees_with_the_prediction() -> None:
    probabilities = np.array([[0.4, 0.4, 0.2]] * 3)
    columns = scores(probabilities, np.array([0, 1, 2]))
    assert columns.rank.tolist() == [1, 2, 3]
    assert columns.predicted.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (3, 10), (0, 100), (57, 360), (100, 100), (250, 10_000)])
def test_wilson_interval(count: int, total: int) -> None:
    expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert wilson(count, total) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))


def test_wilson_interval_of_nothing_is_undefined() -> None:
    assert wilson(0, 0) is None


def test_undefined_is_none_with_a_reason_and_never_zero() -> None:
    confusion = np.array([[3, 0, 0], [2, 0, 0], [0, 0, 0]])
    first, second, third = per_class(confusion)
    assert (first.precision, first.recall, first.f1, first.reason) == (0.6, 1.0, 0.75, "")
    assert (second.precision, second.recall, second.f1) == (None, 0.0, 0.0)
    assert second.reason == "never predicted: no precision"
    assert (third.support, third.precision, third.recall, third.f1) == (0, None, None, None)
    assert third.reason == "no images of this class: no recall, no F1; never predicted: no precision"


def test_a_class_without_images_does_not_pull_the_macro_average_down() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.eye(3)[[0, 0, 1, 1]]
    found = summarise(scores(probabilities, labels), 3)
    assert found["macro_f1"] == found["macro_recall"] == found["macro_precision"] == 1.0
    assert np.mean([1.0, 1.0, 0.0]) != found["macro_f1"]  # what counting the undefined as 0 would give


def test_no_samples_have_no_numbers() -> None:
    found = summarise(scores(np.zeros((0, 7)), np.zeros(0, np.int64)), 7)
    for key in ("error", "error_interval", "loss", "brier", "calibration_error", "macro_f1", "weighted_f1"):
        assert found[key] is None, key
    assert found["top_k_error"] == {}


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    bins = reliability(confidence, correct)
    expected, largest = calibration_errors(bins)
    assert expected == pytest.approx((4 * abs(0.75 - 0.95) + 2 * abs(0.5 - 0.55)) / 6)
    assert largest == pytest.approx(0.2)
    assert len(bins) == BINS == 15
    assert sum(one.count for one in bins) == 6


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_against_a_loop(seed: int) -> None:
    probabilities, labels = answers(400, 6, seed)
    columns = scores(probabilities, labels)
    correct = columns.predicted == columns.labels
    total, gaps = 0.0, []
    for i in range(15):
        inside = (columns.confidence > i / 15) & (columns.confidence <= (i + 1) / 15)
        if inside.any():
            gaps.append(abs(correct[inside].mean() - columns.confidence[inside].mean()))
            total += inside.sum() / 400 * gaps[-1]
    assert calibration_errors(reliability(columns.confidence, correct)) == (
        pytest.approx(total), pytest.approx(max(gaps)))


def test_bins_hold_their_upper_edge_and_every_confidence() -> None:
    bins = reliability(np.array([0.5, 0.5000001, 1.0, 0.0]), np.ones(4, bool), bins=2)
    assert [one.count for one in bins] == [2, 2]


def test_loss_of_a_probability_that_underflowed_is_finite() -> None:
    assert loss(np.array([0.0])) == pytest.approx(708.396, abs=1e-3)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    probabilities = np.array([[0.5, 0.5], [np.nan, 0.5]])
    with pytest.raises(ToleranceError, match="not finite for 1 of 2 pictures"):
        scores(probabilities, np.array([0, 1]))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("samples", [1, 7, 100])
def test_each_image_counts_once_on_any_number_of_workers(world: int, samples: int) -> None:
    probabilities, labels = answers(samples, 6, samples)
    indices = np.arange(samples, dtype=np.int64) * 3  # a split of which only some samples are asked for
    unreadable = {0: "broken"} if samples > 1 else {}
    parts = []
    for rank in range(world):
        share = np.arange(samples)[rank::world]
        good = np.array([i for i in share if i not in unreadable], np.int64)
        bad = tuple((int(indices[i]), unreadable[i]) for i in share if i in unreadable)
        parts.append(Predictions(indices[good], probabilities[good], bad))
    whole = merge(parts[::-1], indices)
    kept = np.array([i for i in range(samples) if i not in unreadable])
    np.testing.assert_array_equal(whole.index, indices[kept])
    np.testing.assert_array_equal(whole.probabilities, probabilities[kept])
    assert whole.unreadable == tuple((int(indices[i]), reason) for i, reason in unreadable.items())
    assert summarise(scores(whole.probabilities, labels[kept]), 6) == summarise(
        scores(probabilities[kept], labels[kept]), 6)


def test_a_padded_share_is_refused() -> None:
    """The negative control: a sampler that pads 7 samples to 8 for two workers counts one twice."""
    probabilities, _ = answers(7, 3, 0)
    indices = np.arange(7)
    padded = [np.array([0, 2, 4, 6]), np.array([1, 3, 5, 0])]
    with pytest.raises(InputError, match="do not add up") as caught:
        merge([Predictions(share, probabilities[share]) for share in padded], indices)
    assert caught.value.details == ("sample 0: counted 2 times",)
    with pytest.raises(InputError, match="sample 6: missing"):
        merge([Predictions(indices[:6], probabilities[:6])], indices)
    with pytest.raises(InputError, match="sample 6: not asked for"):
        merge([Predictions(indices, probabilities)], indices[:6])


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(3, 12) == mcnemar(12, 3) == pytest.approx(0.03515625)


def test_mcnemar_agrees_with_the_command_that_compares() -> None:
    from layerwise.jobs import compare

    for a, b in ((0, 0), (1, 0), (3, 12), (40, 61), (200, 200)):
        assert compare.mcnemar(a, b) == pytest.approx(mcnemar(a, b), rel=1e-9)
