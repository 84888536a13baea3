"""The learning rate against the papers' numbers and formulas, as a function of the samples seen alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import tiny
from layerwise import rundir
from layerwise.data.preprocess import fit_preprocess
from layerwise.errors import InputError
from layerwise.recipe import Recipe
from layerwise.recipes.presets import PRESETS, preset
from layerwise.training.preparation import banner
from layerwise.training.schedule import ERROR_WINDOW, Schedule
from layerwise.training.state import assemble

PLAIN = replace(
    preset("fast"), schedule="constant", warmup_length=0, batch_size=10, reference_batch=10, learning_rate=1,
    duration=4,
)  # fmt: skip


def starts(samples_per_epoch: int, sizes: list[int], epochs: int) -> list[int]:
    """Samples seen before each step, counted as the loop does."""
    assert sum(sizes) == samples_per_epoch
    seen, found = 0, []
    for size in sizes * epochs:
        found.append(seen)
        seen += size
    return found


# --- steps and samples ----------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 20))
def test_an_iteration_is_one_step_also_over_partial_and_merged_batches(samples: int, batch: int) -> None:
    sizes = [batch] * (samples // batch) + ([samples % batch] if samples % batch else [])
    if len(sizes) > 1 and sizes[-1] == 1:  # the loader merges a last batch of one
        sizes[-2:] = [sizes[-2] + 1]
    schedule = Schedule(replace(PLAIN, batch_size=batch, unit="iterations", duration=7), samples, len(sizes))
    seen = [*starts(samples, sizes, 9)]
    assert [schedule.samples_at(step) for step in range(8)] == seen[:8]
    assert [schedule.steps_at(done) for done in seen[:8]] == list(range(8))
    assert schedule.total_samples == seen[7]


@given(st.integers(1, 60), st.integers(1, 20), st.floats(0.01, 5))
def test_a_time_in_epochs_is_moved_up_to_the_end_of_a_step(samples: int, batch: int, time: float) -> None:
    sizes = [batch] * (samples // batch) + ([samples % batch] if samples % batch else [])
    schedule = Schedule(replace(PLAIN, batch_size=batch, duration=time), samples, len(sizes))
    ends = [seen for seen in starts(samples, sizes, 7) if seen >= time * samples - 1e-6]
    assert schedule.total_samples == schedule.samples_at(time) == ends[0]
    assert schedule.samples_at(3) == 3 * samples


def test_rounding_of_times_costs_no_step() -> None:
    """0.07 * 100 = 7.000000000000001 in floating point; an eighth step must not be added."""
    assert 0.07 * 100 > 7
    assert Schedule(replace(PLAIN, batch_size=1), 100, 100).samples_at(0.07) == 7


def test_the_run_ends_at_its_duration() -> None:
    schedule = Schedule(PLAIN, 25, 3)
    assert schedule.total_samples == 100
    assert not schedule.finished(99)
    assert schedule.finished(100)


def test_batches_of_another_size_are_refused() -> None:
    with pytest.raises(AssertionError, match="batches of another size"):
        Schedule(PLAIN, 25, 4)
    with pytest.raises(AssertionError, match="an epoch without samples"):
        Schedule(PLAIN, 0, 1)


# --- scaling and splitting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fast", "resnet-cifar", "digits", "alexnet-imagenet"])
@pytest.mark.parametrize("micro", [0, 1, 4, 32])
def test_the_curve_does_not_depend_on_how_a_batch_is_split(name: str, micro: int) -> None:
    recipe = preset(name)
    whole = Schedule(replace(recipe, micro_batch=0), 1000, math.ceil(1000 / recipe.batch_size))
    split = Schedule(replace(recipe, micro_batch=micro), 1000, math.ceil(1000 / recipe.batch_size))
    places = [whole.total_samples * part // 97 for part in range(97)]
    assert [split.rate(place) for place in places] == [whole.rate(place) for place in places]
    # The control: the global batch does change it.
    other = Schedule(replace(recipe, batch_size=recipe.batch_size * 2), 1000, math.ceil(500 / recipe.batch_size))
    assert [other.rate(place) for place in places] != [whole.rate(place) for place in places]


@pytest.mark.parametrize(("batch", "rate"), [(128, 0.1), (256, 0.2), (64, 0.05), (100, 0.078125)])
def test_the_rate_is_scaled_from_the_reference_batch(batch: int, rate: float) -> None:
    recipe = replace(PLAIN, learning_rate=0.1, reference_batch=128, batch_size=batch)
    assert Schedule(recipe, 10_000, math.ceil(10_000 / batch)).rate(0) == pytest.approx(rate, rel=1e-15)


def test_where_the_epoch_is_smaller_than_a_batch_the_batch_is_the_epoch() -> None:
    assert Schedule(replace(PLAIN, batch_size=128, reference_batch=128), 32, 1).rate(0) == 0.25


def test_the_banner_states_the_rate_that_is_used(tmp_path: Path) -> None:
    with tiny.tiny():
        chosen = tiny.recipe("batch_size=32", "micro_batch=32", "reference_batch=64", "learning_rate=0.02")
        training = assemble(tmp_path, chosen, tiny.data(), fit_preprocess(tiny.data().train, chosen), None)
    assert "learning rate 0.02 x 32/64 = 0.01; 4 epochs = 8 updates" in "".join(banner(training))
    training.train = training.train.subset(range(20), "train")
    training.schedule = Schedule(chosen, 20, 1)
    assert "learning rate 0.02 x 20/64 = 0.00625; 8 epochs = 8 updates" in "".join(banner(training))
    assert training.schedule.rate(0) == pytest.approx(0.00625)


# --- validations ----------------------------------------------------------------------------------------------------


def test_a_validation_is_neither_missed_nor_late_by_rounding(tmp_path: Path) -> None:
    """40 pictures in batches of 4: ten steps, and a validation after each."""
    times = [step / 10 for step in range(11)]
    assert sum(math.floor(now / 0.1) > math.floor(before / 0.1) for before, now in pairwise(times)) == 8  # the control
    with tiny.tiny():
        run = tiny.begin(tmp_path / "run", tiny.recipe("unit=epochs", "duration=1", "batch_size=4", "micro_batch=4",
                                                       "evaluate_every=0.1"))
    steps = [line["step"] for line in rundir.read_lines(run / rundir.METRICS) if line["kind"] == "val"]
    assert steps == list(range(1, 11))


def test_a_validation_is_due_where_a_multiple_of_the_time_was_reached() -> None:
    schedule = Schedule(replace(PLAIN, evaluate_every=0.25), 100, 10)
    due = [now for before, now in pairwise(step / 10 for step in range(21)) if schedule.validation_due(before, now)]
    assert due == [0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 1.8, 2.0]
    steps = Schedule(replace(PLAIN, evaluate_every=3, unit="iterations", duration=9), 100, 10)
    assert [now for now in range(1, 10) if steps.validation_due(now - 1, now)] == [3, 6, 9]


# --- courses --------------------------------------------------------------------------------------------------------


def test_resnet_cifar_drops_at_32k_and_48k_and_stops_at_64k() -> None:
    schedule = Schedule(preset("resnet-cifar"), 45_000, 352)
    at = [schedule.rate(schedule.samples_at(step)) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert at == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert schedule.steps_at(schedule.total_samples) == 64_000
    assert not schedule.finished(schedule.samples_at(63_999))
    assert schedule.finished(schedule.samples_at(64_000))


def test_steps_in_epochs() -> None:
    schedule = Schedule(replace(PLAIN, schedule="steps", milestones=(1, 3), decay_factor=0.5), 20, 2)
    assert [schedule.rate(seen) for seen in range(0, 80, 10)] == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_cosine_is_the_formula_after_its_warm_up() -> None:
    recipe = replace(PLAIN, schedule="cosine", warmup="steps", warmup_length=1, warmup_rate=0.2)
    schedule = Schedule(recipe, 40, 4)
    assert [schedule.rate(seen) for seen in (0, 10, 20, 30)] == pytest.approx([0.4, 0.6, 0.8, 1.0])
    for seen in range(40, 160, 10):
        assert schedule.rate(seen) == pytest.approx(0.5 * (1 + math.cos(math.pi * (seen - 40) / 120)))
    assert schedule.rate(160) == 0


def test_one_cycle_rises_to_the_full_rate_and_falls_to_zero() -> None:
    schedule = Schedule(replace(PLAIN, schedule="one-cycle", warmup_length=1), 40, 4)
    rates = [schedule.rate(seen) for seen in range(0, 161, 10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, *(1 - step / 12 for step in range(13))])


def test_one_cycle_without_a_rise_only_falls() -> None:
    schedule = Schedule(replace(PLAIN, schedule="one-cycle"), 40, 4)
    assert [schedule.rate(seen) for seen in (0, 80, 160)] == [1, 0.5, 0]


@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 500), st.floats(0, 1))
def test_no_rate_is_negative_or_above_the_stated_one(name: str, samples: int, part: float) -> None:
    recipe = preset(name)
    schedule = Schedule(recipe, samples, math.ceil(samples / recipe.batch_size))
    rate = schedule.rate(int(part * (schedule.total_samples - 1)))
    assert 0 <= rate <= recipe.learning_rate * schedule.scale


# --- warm-up by training error --------------------------------------------------------------------------------------

WARMUP = replace(PLAIN, warmup="training-error", warmup_rate=0.1, warmup_error=0.8)


def test_the_warm_up_ends_when_the_mean_error_of_the_window_is_below_the_bound() -> None:
    schedule = Schedule(WARMUP, 1000, 100)
    for step in range(ERROR_WINDOW - 1):
        schedule.observe_training_error(10 * step, 0.0)
        assert schedule.rate(10 * step) == 0.1  # fewer steps than the window are no measurement
    schedule.observe_training_error(10 * ERROR_WINDOW, 0.0)
    assert schedule.rate(10 * ERROR_WINDOW) == 1
    schedule.observe_training_error(10 * ERROR_WINDOW, 1.0)
    assert schedule.rate(10 * ERROR_WINDOW) == 1  # it does not come back


def test_errors_at_the_bound_and_single_good_batches_do_not_end_the_warm_up() -> None:
    schedule = Schedule(WARMUP, 1000, 100)
    for step in range(5 * ERROR_WINDOW):
        schedule.observe_training_error(step, 0.2 if step % ERROR_WINDOW == 0 else 0.9)
    assert schedule.rate(0) == 0.1
    for error, bound in ((0.75, 0.75), (math.nan, 0.8)):
        schedule = Schedule(replace(WARMUP, warmup_error=bound), 1000, 100)
        for step in range(5 * ERROR_WINDOW):
            schedule.observe_training_error(step, error)
        assert schedule.rate(0) == 0.1


def test_the_steps_of_the_warm_up_count_in_the_milestones() -> None:
    schedule = Schedule(replace(WARMUP, schedule="steps", milestones=(1,)), 1000, 100)
    for _ in range(ERROR_WINDOW):
        schedule.observe_training_error(0, 0.0)
    assert schedule.rate(990) == 1
    assert schedule.rate(1000) == pytest.approx(0.1)


# --- plateau --------------------------------------------------------------------------------------------------------

PLATEAU = replace(
    PLAIN, schedule="plateau", plateau_patience=2, plateau_threshold=0.01, plateau_drops=2, duration=100
)


def rates(recipe: Recipe, errors: list[float]) -> list[float]:
    """The rate after each epoch's validation error; -1 where the training is over."""
    schedule, found = Schedule(recipe, 25, 3), []
    for epoch, error in enumerate(errors, start=1):
        schedule.observe_validation_error(25 * epoch, error)
        found.append(-1 if schedule.finished(25 * epoch) else schedule.rate(25 * epoch))
    return found


def test_plateaus_drop_the_rate_and_the_one_after_the_last_drop_ends_the_run() -> None:
    errors = [0.5] * 8
    assert rates(PLATEAU, errors) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, -1, -1])


def test_a_better_error_restarts_the_patience() -> None:
    assert rates(PLATEAU, [0.5, 0.5, 0.4, 0.4, 0.4]) == pytest.approx([1, 1, 1, 1, 0.1])


def test_a_fall_by_less_than_the_threshold_is_no_improvement() -> None:
    assert rates(PLATEAU, [0.5, 0.495, 0.491]) == pytest.approx([1, 1, 0.1])
    assert rates(replace(PLATEAU, plateau_threshold=0), [0.5, 0.495, 0.491]) == [1, 1, 1]  # the control


def test_an_error_that_is_not_finite_is_no_improvement() -> None:
    assert rates(PLATEAU, [math.nan, 0.5, 0.5, 0.5]) == pytest.approx([1, 1, 1, 0.1])


def test_patience_in_iterations_counts_steps_over_partial_batches() -> None:
    """25 samples in steps of 10, 10, 5: patience 4 from step 2 is step 6, whatever their sizes."""
    recipe = replace(PLATEAU, unit="iterations", plateau_patience=4)
    schedule = Schedule(recipe, 25, 3)
    found = []
    for step in range(2, 8):
        schedule.observe_validation_error(schedule.samples_at(step), 0.5)
        found.append(schedule.rate(schedule.samples_at(step)))
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1])


def test_other_schedules_ignore_the_validation_error() -> None:
    assert rates(replace(PLATEAU, schedule="constant"), [0.5] * 9) == [1] * 9


# --- state ----------------------------------------------------------------------------------------------------------


# A warm-up of 33 steps, the full rate, drops at 115 and 151, the end at 175.
COURSE = replace(PLATEAU, plateau_patience=8, warmup="training-error", warmup_rate=0.2, warmup_error=0.7)


def follow(schedule: Schedule, first: int, last: int) -> list[tuple[float, bool]]:
    """Steps `first` to `last` of an invented training: the rate of each, and whether the training is over."""
    found = []
    for step in range(first, last):
        found.append((schedule.rate(10 * step), schedule.finished(10 * step)))
        schedule.observe_training_error(10 * step + 10, 1 / (1 + 0.02 * step))
        if step % 3 == 0:
            schedule.observe_validation_error(10 * step + 10, 0.3 + 0.5 / (1 + step // 9))
    return found


def test_state_and_restore_are_exact_wherever_the_run_is_cut() -> None:
    whole = Schedule(COURSE, 30, 3)
    expected = follow(whole, 0, 180)
    assert len(set(expected)) == 5  # warm-up, full rate, two drops, the end
    for stop in range(0, 180, 3):
        before, after = Schedule(COURSE, 30, 3), Schedule(COURSE, 30, 3)
        start = follow(before, 0, stop)
        after.restore(json.loads(json.dumps(before.state())))
        assert start + follow(after, stop, 180) == expected
        assert after.state() == whole.state()


@pytest.mark.parametrize("entry", ["warm", "recent", "best", "best_step", "drops", "ended"])
def test_each_part_of_the_state_matters(entry: str) -> None:
    """The negative control: one entry forgotten, and the course is another somewhere."""
    expected = follow(Schedule(COURSE, 30, 3), 0, 180)
    different = 0
    for stop in range(0, 180, 3):
        before, after = Schedule(COURSE, 30, 3), Schedule(COURSE, 30, 3)
        follow(before, 0, stop)
        after.restore(before.state() | {entry: after.state()[entry]})
        different += follow(after, stop, 180) != expected[stop:]
    assert different


def test_a_state_with_other_entries_is_refused() -> None:
    schedule = Schedule(PLAIN, 25, 3)
    state = schedule.state()
    del state["drops"]
    with pytest.raises(InputError, match="schedule state: has best, best_step, ended, recent, warm"):
        schedule.restore(state)
