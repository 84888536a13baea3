"""The statistics of comparisons against scipy's: bootstrap, Student's tests over runs, Holm's correction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from layerwise.evaluation.difference import Answers, Difference, bootstrap, corrected, holm, over_seeds
from layerwise.evaluation.metrics import scores, summarise

CLASSES = 7


def answers(seed: int, sharp: float = 1.0, images: int = 200) -> Answers:
    """Answers to the same images for every seed; the larger `sharp`, the better."""
    labels = np.random.default_rng(99).integers(0, CLASSES, images).astype(np.int64)
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(CLASSES) * 0.5, images)
    probabilities[np.arange(images), labels] += sharp * np.random.default_rng(seed + 1).uniform(0, 1, images)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = scores(probabilities, labels)
    return Answers(CLASSES, found.labels, found.predicted, found.probability, found.rank, found.brier,
                   found.confidence)


def test_the_numbers_are_those_of_an_evaluation() -> None:
    one = answers(0)
    assert one.probability is not None
    found = one.numbers(np.ones(len(one.labels)))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(CLASSES) * 0.5, 200)
    probabilities[np.arange(200), one.labels] += np.random.default_rng(1).uniform(0, 1, 200)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    wanted = summarise(scores(probabilities, one.labels), CLASSES)
    for name in ("error", "loss", "brier", "macro_f1", "weighted_f1", "calibration_error"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-12), name
    assert found["top_5_error"] == wanted["top_k_error"]["5"]


def test_counts_are_repeated_images() -> None:
    """A replicate's numbers are those of the images written out as often as they were drawn."""
    one = answers(3)
    counts = np.random.default_rng(5).integers(0, 3, 200)
    rows = np.repeat(np.arange(200), counts)
    assert one.probability is not None
    assert one.rank is not None
    assert one.brier is not None
    assert one.confidence is not None
    written = Answers(CLASSES, one.labels[rows], one.predicted[rows], one.probability[rows], one.rank[rows],
                      one.brier[rows], one.confidence[rows])
    assert one.numbers(counts.astype(float)) == pytest.approx(written.numbers(np.ones(len(rows))), rel=1e-12)


def test_the_bootstrap_is_a_function_of_its_seed() -> None:
    a, b = answers(0), answers(2)
    assert bootstrap(a, b, seed=1, replicates=50) == bootstrap(a, b, seed=1, replicates=50)
    assert bootstrap(a, b, seed=1, replicates=50) != bootstrap(a, b, seed=2, replicates=50)


def test_the_bootstrap_agrees_with_scipys() -> None:
    a, b = answers(0), answers(2, sharp=1.5)
    found = {one.name: one for one in bootstrap(a, b, replicates=3000)}
    wrong = (b.predicted != b.labels).astype(float) - (a.predicted != a.labels)
    theirs = stats.bootstrap((wrong,), np.mean, n_resamples=3000, method="percentile", rng=0).confidence_interval
    assert found["error"].interval == pytest.approx((theirs.low, theirs.high), abs=0.006)
    assert found["error"].value == pytest.approx(wrong.mean())


def test_pairing_is_what_makes_the_interval_narrow() -> None:
    """The negative control: drawn apart for each side, the interval of two nearly equal sides is much wider."""
    a = answers(0)
    changed = a.predicted.copy()
    changed[:4] = (changed[:4] + 1) % CLASSES
    found = {one.name: one for one in bootstrap(a, replace(a, predicted=changed), replicates=400)}["error"]
    wrong = [float(np.mean((side != a.labels)[np.random.default_rng(i).integers(0, 200, 200)]))
             for i, side in enumerate([a.predicted, changed] * 400)]
    apart = np.percentile(np.array(wrong[1::2]) - np.array(wrong[::2]), [2.5, 97.5])
    assert found.interval is not None
    assert (apart[1] - apart[0]) > 3 * (found.interval[1] - found.interval[0])


def test_the_same_answers_do_not_differ() -> None:
    for one in bootstrap(answers(0), answers(0), replicates=50):
        assert (one.value, one.interval, one.p, one.better) == (0.0, (0.0, 0.0), 1.0, ""), one.name


def test_a_plain_difference_is_named_for_the_right_side() -> None:
    found = {one.name: one for one in bootstrap(answers(0), answers(0, sharp=6.0), replicates=500)}
    assert found["error"].better == found["macro_f1"].better == found["loss"].better == "b"
    assert found["error"].value < 0 < found["macro_f1"].value


@pytest.mark.parametrize(("images", "better"), [(4, ""), (10, "b")])
def test_a_few_images_that_lean_one_way_may_be_chance(images: int, better: str) -> None:
    """Four that all have the lower loss do so by chance one time in eight; the replicates alone would not know it."""
    labels = np.zeros(images, np.int64)
    side = Answers(2, labels, labels, probability=np.full(images, 0.5))
    found = {one.name: one for one in bootstrap(side, replace(side, probability=np.full(images, 0.9)), replicates=2000)}
    assert found["loss"].interval is not None
    assert found["loss"].interval[1] < 0, "the control: by the replicates alone each difference is beyond the noise"
    assert (found["loss"].p, found["loss"].better) == (2.0 ** (1 - images), better)


def test_a_column_that_was_not_kept_is_left_out() -> None:
    bare = replace(answers(0), probability=None, rank=None, brier=None, confidence=None)
    assert [one.name for one in bootstrap(bare, answers(2), replicates=20)] == ["error", "macro_f1", "weighted_f1"]


@pytest.mark.parametrize(("a", "b"), [([6.1, 6.4, 6.2], [5.6, 5.9, 5.1]), ([1.0, 1.1], [1.05, 1.2, 1.6, 0.9])])
def test_welch_agrees_with_scipy(a: list[float], b: list[float]) -> None:
    found, theirs = over_seeds("error", a, b, False), stats.ttest_ind(b, a, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-9)


def test_the_paired_test_agrees_with_scipy() -> None:
    a, b = [6.1, 8.4, 5.2, 7.0], [5.9, 8.0, 5.1, 6.5]
    found, theirs = over_seeds("error", a, b, True), stats.ttest_rel(b, a)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-9)
    apart = over_seeds("error", a, b, False)
    assert apart.p is not None
    assert found.p is not None
    assert found.p < 0.1 < apart.p


def test_one_run_against_several_agrees_with_scipys_pooled_test() -> None:
    found = over_seeds("error", [6.0], [5.0, 5.2, 5.1], False)
    assert found.p == pytest.approx(stats.ttest_ind([5.0, 5.2, 5.1], [6.0], equal_var=True).pvalue, rel=1e-9)


def test_without_a_deviation_nothing_is_said() -> None:
    one = over_seeds("error", [6.0], [5.0], False)
    assert (one.p, one.interval, one.better) == (None, None, "")
    assert one.note == "one run on each side: no deviation"
    assert over_seeds("error", [6.0, 6.0], [5.0, 5.0], False).note == \
        "no deviation over the runs: nothing to test"
    assert over_seeds("error", [6.0, 5.0], [5.0, 4.0], True).p is None
    assert over_seeds("error", [0.0, 0.0], [0.0, 0.0], True).p is None


def test_a_deviation_that_rounding_made_is_none() -> None:
    """Two pictures fewer of 360 with both seeds: in binary the two differences are not equal."""
    a, b = [5 / 360, 7 / 360], [3 / 360, 5 / 360]
    assert b[0] - a[0] != b[1] - a[1]
    found = over_seeds("error", a, b, True)
    assert (found.p, found.interval) == (None, None)
    assert found.note == "no deviation over the runs: nothing to test"
    assert over_seeds("error", a, [3 / 360, 5 / 360 + 1e-9], True).p is not None  # the control: small, and no rounding


def test_holm() -> None:
    """The example by hand: 0.01 x 4, 0.02 x 3, then 0.06 is kept for 0.025 x 2 = 0.05, and 0.3."""
    assert holm([0.02, 0.3, 0.01, 0.025]) == pytest.approx((0.06, 0.3, 0.04, 0.06))
    assert holm([0.5, None, 0.9]) == (1.0, None, 1.0)
    assert holm([]) == ()


def test_holm_keeps_the_error_over_all_pairs() -> None:
    """Of 2,000 families of ten true null hypotheses, about 5 % have a difference marked; without it, 40 %."""
    draws = np.random.default_rng(0).uniform(size=(2000, 10))
    marked = np.mean([min(p for p in holm(row.tolist()) if p is not None) < 0.05 for row in draws])
    assert marked < 0.06
    assert np.mean(draws.min(axis=1) < 0.05) > 0.3


def test_each_number_has_a_family_of_its_own() -> None:
    pairs = [(Difference("error", 1, 2, 1, None, 0.03), Difference("loss", 1, 2, 1, None, 0.01)),
             (Difference("error", 1, 2, 1, None, 0.02),)]
    found = corrected(pairs)
    assert [[one.adjusted for one in pair] for pair in found] == [[0.04, 0.01], [0.04]]
    assert found[0][0].beyond_noise
    assert not replace(found[0][0], adjusted=0.06).beyond_noise
