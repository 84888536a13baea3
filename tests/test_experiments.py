"""Every table and figure: what its file states agrees, and each of its rows runs as smoke. A recipe is trained once.

A run of the tests leaves out rows of networks of more than a million parameters; LAYERWISE_ALL_ROWS=1 takes them too
(some minutes more).
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import layerwise.train as train
from layerwise.experiments import EXPERIMENTS, find, measured, scales
from layerwise.experiments.experiment import VERDICTS, Experiment, Results, Row
from layerwise.experiments.scales import at_scale, differences
from layerwise.jobs.reproduce import Ask, Places, cells, reproduce
from layerwise.models.costs import counted
from layerwise.recipe import check
from layerwise.report.papers import table
from layerwise.training import memory

NAMES = tuple(EXPERIMENTS)
LARGE = 1_000_000  # parameters
LIMIT = 300.0  # seconds that a test waits for another worker's training of the same recipe


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """One folder for all experiments, and for all workers: a recipe that several share is trained once."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return Places(shared / "smoke", shared / "smoke" / "measured", quiet=True)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what other tests are about and large networks take long for: predicted memory, written checkpoints."""
    monkeypatch.setattr(memory, "predict", lambda training: None)
    monkeypatch.setattr(train, "save", lambda training: None)


def large_rows(experiment: Experiment) -> tuple[str, ...]:
    """The rows that train a network of more than a million parameters, as smoke has it."""
    return tuple(slug for slug, row in experiment.rows.items() if any(
        counted(at_scale(recipe, "smoke", 0, experiment.small).network).parameters > LARGE for recipe in row.recipes))


def small_rows(experiment: Experiment) -> tuple[str, ...]:
    """The other rows; none where an experiment is of large networks alone."""
    large = large_rows(experiment)
    return tuple(slug for slug in experiment.rows if slug not in large)


@pytest.mark.parametrize("name", [name for name in NAMES if small_rows(find(name))])
def test_every_row_runs_as_smoke(name: str, places: Places) -> None:
    runs_as_smoke(name, small_rows(find(name)), places)


@pytest.mark.parametrize("name", [name for name in NAMES if large_rows(find(name))])
def test_rows_of_large_networks_run_as_smoke(name: str, places: Places) -> None:
    if not os.environ.get("LAYERWISE_ALL_ROWS"):
        pytest.skip("networks of more than a million parameters; LAYERWISE_ALL_ROWS=1 runs them")
    runs_as_smoke(name, large_rows(find(name)), places)


def runs_as_smoke(name: str, rows: tuple[str, ...], places: Places) -> None:
    started = time.monotonic()
    while (done := reproduce(name, Ask("smoke", rows), places)).busy and time.monotonic() - started < LIMIT:
        time.sleep(0.1)
    experiment = find(name)
    assert done.busy == ()
    assert done.table.label.startswith("SMOKE")
    results = measured.results(experiment, "smoke", places.results)
    for slug in rows:
        assert bool(experiment.rows[slug].unmeasured) != (slug in results.rows), f"{slug}: measured, or told why not"
    for cell in cells(experiment, "smoke", list(rows), 0):
        found = measured.measured(cell, places.results)
        assert found is not None
        # After two steps a plain network of a hundred layers has no finite answer; that is what is kept of it.
        assert bool(found.numbers) != ("not finite" in found.failure), (cell.slug, found.failure)
    assert all(claim.word == "not measured" for claim in done.table.claims), "a smoke run judges nothing"
    assert {claim.judge(results).word for claim in experiment.claims.values()} <= set(VERDICTS)
    assert bool(done.figures) == (experiment.draw is not None)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_agrees_with_itself(name: str) -> None:
    experiment = find(name)
    assert experiment.rows, "an experiment has rows"
    assert experiment.paper.keys() <= experiment.rows.keys()
    assert experiment.title
    assert f"layerwise reproduce {name}" in experiment.text
    printed = {key for numbers in experiment.paper.values() for key in numbers}
    assert printed <= set(experiment.columns), "what the paper prints is shown"
    for slug, row in experiment.rows.items():
        assert bool(row.unmeasured) != bool(row.recipes or row.measure), f"{slug}: measured, or told why not"
        for recipe in row.recipes:
            assert recipe.seed % 1000 == 0, "seeds 0, 1, ... are the scale's to give"
            for scale in ("paper", "small", "smoke"):
                check(at_scale(recipe, scale, 3, experiment.small))
    for slug, claim in experiment.claims.items():
        assert claim.text.endswith((".", ")", ").")), slug
        assert slug == slug.lower()


@pytest.mark.parametrize("name", NAMES)
def test_claims_and_figure_without_results(name: str, tmp_path: Path) -> None:
    """Nothing was run: the table says so in each row, a claim on trainings is not judged, and drawing does not fail."""
    experiment = find(name)
    for scale, data in (("small", ""), ("paper", ""), ("paper", "fashion-mnist")):  # where other data stand in, too
        found = table(experiment, scale, tmp_path, data=data)
        assert all(entry.absent for entry in found.entries)
        assert {claim.word for claim in found.claims} <= set(VERDICTS)
        if experiment.draw is not None:
            experiment.draw(Results(found.scale, {}), Figure(figsize=(9, 4.5), layout="constrained"))


def test_a_scale_without_its_schedule_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: told apart by the whole name, a run on other data could not be judged."""
    judge = find("alexnet/figure-1").claims["faster"].judge
    assert judge(Results("paper on fashion-mnist", {})).word == "not measured"
    monkeypatch.setattr(Results, "schedule", property(lambda results: results.scale))
    with pytest.raises(KeyError):
        judge(Results("paper on fashion-mnist", {}))


def test_a_row_that_is_neither_measured_nor_excused_is_found() -> None:
    """The negative control of the agreement above."""
    row = Row()
    assert bool(row.unmeasured) == bool(row.recipes or row.measure)


def test_rows_that_say_the_same_are_one_training() -> None:
    """Figure 1, figure 6 and table 6 share networks; another seed, and another field, is another training."""
    figure, table_6 = find("resnet/figure-6"), find("resnet/table-6")
    for scale in ("smoke", "small", "paper"):
        one, other = (measured.cell(experiment, "resnet20", scale, 1) for experiment in (figure, table_6))
        assert one.recipes == other.recipes
        assert measured.key(one.recipes[0]) == measured.key(other.recipes[0])
    recipe = one.recipes[0]
    keys = {measured.key(recipe), measured.key(dataclasses.replace(recipe, seed=2)),
            measured.key(dataclasses.replace(recipe, weight_decay=2e-4))}
    assert len(keys) == 3


def test_small_scale_keeps_the_proportions_and_says_all() -> None:
    theirs = find("resnet/table-6").rows["resnet110"].recipes[0]
    ours = at_scale(theirs, "small", 2)
    assert [time / ours.duration for time in ours.milestones] == [time / theirs.duration for time in theirs.milestones]
    assert (ours.batch_size, ours.learning_rate, ours.warmup) == (128, 0.1, "training-error")
    assert differences(theirs, ours) == (
        "data fashion-mnist instead of cifar10", "duration 640 iterations instead of 64,000 iterations",
        "evaluate every 64 iterations instead of 1,000 iterations",
        "milestones 320 and 480 iterations instead of 32,000 and 48,000 iterations")
    assert differences(theirs, at_scale(theirs, "paper", 4)) == ()
    assert at_scale(theirs, "paper", 4) == dataclasses.replace(theirs, seed=4)


def test_a_field_that_is_switched_off_is_told_by_its_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without crops there is no range of their scale, and without plateaus no patience for one."""
    experiment = find("alexnet/lrn")
    theirs = experiment.rows["with"].recipes[0]
    ours = at_scale(theirs, "small", 0, experiment.small)
    told = set(differences(theirs, ours))
    assert {"crop none instead of square", "resize squash instead of short-side", "schedule steps instead of plateau",
            "milestones 1,000 iterations instead of none", "evaluate every 300 iterations instead of 1 epoch"} <= told
    switched_off = ("scale range", "resize to", "plateau patience")
    assert not any(text.startswith(switched_off) for text in told)
    monkeypatch.setattr(scales, "USED", {})
    assert sum(text.startswith(switched_off) for text in differences(theirs, ours)) == 3, "the negative control"
