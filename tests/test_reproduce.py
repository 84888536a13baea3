"""`layerwise reproduce`: what is finished is not run again, what is interrupted goes on, what changed is another."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layerwise import console
from layerwise.cli import main
from layerwise.data.source import Samples
from layerwise.errors import InputError, Interrupted, MachineError
from layerwise.evaluate import EvaluateOptions, Models
from layerwise.evaluation.result import Result
from layerwise.experiments import EXPERIMENTS, find, measured
from layerwise.experiments.experiment import Numbers, Row, Subject
from layerwise.jobs import main_job
from layerwise.jobs import reproduce as job
from layerwise.jobs.reproduce import Ask, Places, cells, missing, reproduce
from layerwise.recipe import Recipe
from layerwise.report.papers_page import variants
from layerwise.training.preparation import RunOptions
from tests.made_up_experiment import NAME, PAPERS, module, weights

Register = Callable[..., None]
YES = Ask("small", seeds=1, confirmed=True)


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's page is main_job's and is tested there."""
    monkeypatch.setattr(main_job, "report", lambda run: run)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "runs", tmp_path / "measured", offline=True, quiet=True)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Puts the made-up experiment into the table; called again, in the place of what was there."""
    def put(*arguments: object, **rows: Row) -> None:
        monkeypatch.setitem(EXPERIMENTS, NAME, module(*arguments, **rows))

    put()
    return put


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks and seeds that are trained from here on, in order."""
    found: list[str] = []
    train = main_job.train

    def counting(recipe: Recipe, options: RunOptions) -> Path:
        found.append(f"{recipe.network} {recipe.seed} {recipe.weight_decay:g}")
        return train(recipe, options)

    monkeypatch.setattr(main_job, "train", counting)
    return found


def test_a_finished_row_is_not_run_again_and_a_changed_one_is(register: Register, places: Places,
                                                              trainings: list[str]) -> None:
    reproduce(NAME, YES, places)
    assert trainings == ["resnet20 0 0.0001"]
    again = reproduce(NAME, YES, places)
    assert trainings == ["resnet20 0 0.0001"]
    assert again.cost.trainings == 0
    reproduce(NAME, dataclasses.replace(YES, seeds=2), places)
    assert trainings[1:] == ["resnet20 1 0.0001"]
    register(deep=Row((dataclasses.replace(PAPERS, weight_decay=2e-4),)))
    assert len(missing(cells(find(NAME), "small", ["deep"], 1), places.results)) == 1
    reproduce(NAME, YES, places)
    assert trainings[2:] == ["resnet20 0 0.0002"]


def test_what_is_kept_says_how_it_was_made(register: Register, places: Places) -> None:
    reproduce(NAME, YES, places)
    cell = cells(find(NAME), "small", ["deep"], 1)[0]
    where = places.results / measured.key(cell.recipes[0])
    assert {path.name for path in where.iterdir()} == {"recipe.json", "metrics.json", "environment.json"}
    metrics = json.loads((where / "metrics.json").read_text())
    environment = json.loads((where / "environment.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["samples"] == 359
    assert metrics["protocol"]["name"] == "single"
    assert set(metrics["numbers"]) == {"error", "top5_error", "training_error", "parameters"}
    assert {"step", "validation_error", "learning_rate"} in [set(point) for point in metrics["curve"]]
    assert environment["versions"]["torch"]
    assert environment["chosen"]["device"] == "cpu"
    assert cell.recipes[0].device == "auto"


def test_a_result_of_another_recipe_in_its_place_is_refused(register: Register, places: Places) -> None:
    reproduce(NAME, YES, places)
    recipe = cells(find(NAME), "small", ["deep"], 1)[0].recipes[0]
    file = places.results / measured.key(recipe) / "recipe.json"
    file.write_text(dataclasses.replace(recipe, momentum=0.8).to_json())
    with pytest.raises(InputError, match="not that of the directory's name"):
        reproduce(NAME, YES, places)
    file.write_text("{")
    with pytest.raises(InputError, match=r"recipe\.json"):
        reproduce(NAME, YES, places)


def test_the_test_split_is_read_once(register: Register, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the command is given; and what `layerwise evaluate` adds later changes no kept number."""
    read: list[str] = []
    evaluate = main_job.evaluate

    def counting(models: Models, samples: Samples, options: EvaluateOptions) -> Result:
        read.append(samples.name)
        return evaluate(models, samples, options)

    monkeypatch.setattr(main_job, "evaluate", counting)
    for _ in range(2):
        found = reproduce(NAME, YES, places).table
    assert read == ["test"]
    assert not any("second time" in text for text in found.notes())


def test_a_second_reading_of_the_test_split_is_told(register: Register, places: Places, trainings: list[str]) -> None:
    register(deep=Row((PAPERS,), measure=weights))
    found = reproduce(NAME, YES, places).table
    assert any("read the test pictures a second time" in text for text in found.notes())
    results = measured.results(find(NAME), "small", places.results)
    numbers = results.rows["deep"][0].numbers
    assert numbers["pictures"] == 359
    assert numbers["list"] == [1.0, 2.0]
    assert numbers["error"] > 0, "the numbers of the training stand beside the row's own"
    reproduce(NAME, YES, places)
    assert len(trainings) == 1


@pytest.mark.parametrize(("split", "told"), [("", True), ("train", False)])
def test_the_split_that_stands_for_the_test_is_told_by_its_name(
    register: Register, places: Places, split: str, told: bool
) -> None:
    register(deep=Row((PAPERS,), measure=lambda subject: {"pictures": len(subject.samples(split))}))
    found = reproduce(NAME, YES, places).table
    assert any("read the test pictures a second time" in text for text in found.notes()) == told


def test_a_measurement_needs_the_weights(register: Register, places: Places, trainings: list[str]) -> None:
    """Results without their runs, as in a fresh copy of this repository: the row is trained again to be measured."""
    reproduce(NAME, YES, places)
    run = places.run(cells(find(NAME), "small", ["deep"], 1)[0].recipes[0])
    register(deep=Row((PAPERS,), measure=weights))
    shutil.rmtree(run)
    before = json.loads(next(places.results.glob("resnet20-*/metrics.json")).read_text())
    assert reproduce(NAME, YES, places).cost.trainings == 1
    after = json.loads(next(places.results.glob("resnet20-*/metrics.json")).read_text())
    assert len(trainings) == 2
    assert after["weights"] == before["weights"], "the same recipe on the same machine is the same network"


def test_a_measurement_is_of_its_own_recipes(register: Register, places: Places) -> None:
    """One that was kept for other recipes does not count."""
    register(deep=Row((PAPERS,), measure=weights))
    reproduce(NAME, YES, places)
    file = next(places.results.glob("*/paper-table-1--deep.json"))
    record = json.loads(file.read_text())
    cell = cells(find(NAME), "small", ["deep"], 1)
    assert missing(cell, places.results) == []
    file.write_text(json.dumps(record | {"recipes": ["0" * 64]}))
    assert missing(cell, places.results) == cell


def counted(subject: Subject) -> Numbers:
    assert subject.runs == ()
    return {"parameters": 269_722, "seed": subject.seed}


def test_rows_without_a_recipe_are_counted_without_asking(register: Register, places: Places,
                                                          trainings: list[str]) -> None:
    register(deep=Row(measure=counted))
    found = reproduce(NAME, Ask("small"), places).table
    assert trainings == []
    assert next(entry.here for entry in found.entries if entry.slug == "deep") == ("-", "269,722")
    assert {path.name for path in (places.results / "counted").iterdir()} == {"paper-table-1--deep-seed0.json"}
    assert found.label.startswith("counted")


def test_what_is_counted_is_kept_once_for_all_scales(register: Register, places: Places) -> None:
    asked: list[str] = []

    def measure(subject: Subject) -> Numbers:
        asked.append(subject.scale)
        return counted(subject)

    register(deep=Row(measure=measure))
    tables = [reproduce(NAME, Ask(scale), places).table for scale in ("small", "paper")]
    assert asked == ["small"]
    assert tables[0].entries == tables[1].entries
    assert list(variants(places.results)) == [(NAME, "paper", "")], "one table of it stands on the page"


def test_what_was_trained_is_kept_by_its_scale(register: Register) -> None:
    register()
    assert find(NAME).trains
    small, paper = (measured.cell(find(NAME), "deep", scale, 0).measurement for scale in ("small", "paper"))
    assert small != paper


def test_a_training_that_breaks_is_a_result(register: Register, places: Places, trainings: list[str]) -> None:
    """A number that is not finite ends that row for good, with its reason; the others are run, and it is not again."""
    register(wild=Row((dataclasses.replace(PAPERS, learning_rate=1e30, weight_decay=0),)))
    for _ in range(2):
        found = reproduce(NAME, YES, places).table
    assert len(trainings) == 2
    wild = next(entry for entry in found.entries if entry.slug == "wild")
    assert wild.here == ("-", "-")
    assert any("seed 0: " in text and "the step was not taken" in text for text in wild.differs), wild.differs
    assert next(entry for entry in found.entries if entry.slug == "deep").here[0] != "-"


def test_killed_before_its_first_step_a_row_begins_again(register: Register, places: Places,
                                                         trainings: list[str]) -> None:
    run = places.run(cells(find(NAME), "small", ["deep"], 1)[0].recipes[0])
    (run / "data").mkdir(parents=True)
    (run / "data" / "train.csv").write_text("half")
    reproduce(NAME, YES, places)
    assert len(trainings) == 1
    assert (run / "model.safetensors").is_file()


def test_trained_but_not_tested_a_row_is_tested(register: Register, places: Places, trainings: list[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(main_job, "_test", stopped)
        with pytest.raises(Interrupted, match="stopped in its test") as told:
            reproduce(NAME, YES, places)
    assert told.value.mend == f"Continue with the same command: layerwise reproduce {NAME} --scale small --yes"
    assert missing(cells(find(NAME), "small", ["deep"], 1), places.results)
    reproduce(NAME, YES, places)
    assert len(trainings) == 1
    assert missing(cells(find(NAME), "small", ["deep"], 1), places.results) == []


def test_ctrl_c_while_measuring_is_told(register: Register, places: Places) -> None:
    def stopped(subject: Subject) -> Numbers:
        raise KeyboardInterrupt

    register(deep=Row(measure=stopped))
    with pytest.raises(Interrupted, match="stopped while measuring; the trained networks are saved"):
        reproduce(NAME, YES, places)


def test_nothing_starts_without_a_yes(register: Register, places: Places, trainings: list[str],
                                      monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    monkeypatch.setattr("layerwise.jobs.reproduce_cost.measured_rate", lambda recipe: 1e9)
    loud = dataclasses.replace(places, quiet=False)
    with pytest.raises(InputError, match=f"{NAME}: not started, which would be 1 training, ") as told:
        reproduce(NAME, Ask("small", seeds=1), loud)
    assert told.value.mend == "Start it with --yes; fewer with --rows or --seeds."
    # 2,513,000 multiply-adds: 6 operations each for 3 x 32 pictures, 2 for three times 20 of validation.
    cost = "1 training, 1.75 GFLOP, about 2 s at 1 GFLOP a second, measured now with resnet20 on this machine"
    assert f"{NAME} at scale small: {cost}" in capsys.readouterr().err
    monkeypatch.setattr(job, "agreed", lambda question: asked.append(question) or False)
    with pytest.raises(InputError, match="not started"):
        reproduce(NAME, Ask("small", seeds=1), places)
    assert trainings == []
    monkeypatch.setattr(job, "agreed", lambda question: asked.append(question) or True)
    reproduce(NAME, Ask("small", seeds=1), places)
    assert (asked, len(trainings)) == (["Start?", "Start?"], 1)
    reproduce(NAME, Ask("small", seeds=1), places)
    assert len(asked) == 2, "where nothing is left to do nobody is asked"


class Typed:
    """Standard input or error of a person at a terminal."""

    def __init__(self, answer: str = "", terminal: bool = True) -> None:
        self.answer, self.terminal, self.written = answer, terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def readline(self) -> str:
        return self.answer

    def write(self, text: str) -> None:
        self.written += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(("answer", "terminal", "agreed"), [
    ("y\n", True, True), ("Yes\n", True, True), ("", True, False), ("n\n", True, False), ("y\n", False, False)])
def test_a_yes_is_that_of_a_person_at_a_terminal(answer: str, terminal: bool, agreed: bool,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    said = Typed()
    monkeypatch.setattr("sys.stdin", Typed(answer, terminal))
    monkeypatch.setattr("sys.stderr", said)
    assert console.agreed("Start?") is agreed
    assert said.written == ("Start? [y/N] " if terminal else "")


def test_data_that_are_not_here(register: Register, places: Places, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("layerwise.jobs.reproduce_cost.measured_rate", lambda recipe: 1e9)
    with pytest.raises(MachineError, match=r"cifar-10-binary\.tar\.gz is not on this machine") as told:
        reproduce(NAME, Ask("paper"), places)
    assert told.value.mend.endswith("--scale paper --data fashion-mnist")
    with pytest.raises(InputError, match="not started"):
        reproduce(NAME, Ask("paper"), dataclasses.replace(places, offline=False, quiet=False))
    said = capsys.readouterr().err
    assert "cifar10 is not on this machine and will be downloaded. Or let other data stand in for it" in said
    assert "1 training, 2.02 PFLOP" in said


def test_a_smoke_run_is_no_result(register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", NAME, "--scale", "smoke"]) == 0
    printed = capsys.readouterr().out
    assert "SMOKE: two steps on 16 digits" in printed
    assert "not measured" in printed
    assert "a made-up reason" in printed
    assert "NOT MEASURED: a smoke run says nothing of a claim" in printed
    assert not (tmp_path / "results").exists()
    saved = next((tmp_path / "runs").glob("reproduce/smoke/resnet20-*/evaluations/smoke/result.json"))
    assert json.loads(saved.read_text())["split"] == "4 of test"
    assert len(list((tmp_path / "runs/reproduce/smoke/figures").iterdir())) == 2


def test_json_is_one_document(register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", NAME, "--seeds", "1", "--yes", "--json", "--offline"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"table", "figures", "busy", "cost"}
    assert found["table"]["scale"] == "small"
    assert main(["reproduce", NAME, "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["cell"] for cell in listed] == ["deep: error", "deep: parameters", "cited: error", "claim better"]
    assert listed[0]["paper"] == "not run"
    assert listed[2]["small"] == "not measured here"
    assert main(["reproduce", "paper", "--list"]) == 0
    assert "3 x 1.76 GFLOP" in capsys.readouterr().out
