"""What a kill leaves of a run's record: state, branch and notes in one write; a test without its notes is redone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from layerwise import modelfile, rundir, train
from layerwise.errors import InputError
from layerwise.jobs import main_job
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.train import RunOptions
from layerwise.training import state

QUICK = ["threads=1", "precision=fp32", "unit=iterations", "duration=2", "evaluate_every=2", "schedule=constant",
         "warmup=none", "warmup_length=0", "batch_size=48", "network=lenet5", "resize=squash", "input_size=32",
         "protocol=single"]
QUIET = RunOptions(quiet=True, offline=True, confirmed=True)


class Killed(BaseException):
    """The process ends here."""


def recipe() -> Recipe:
    return changed(preset("digits"), QUICK)


def in_two_writes(run: Path, changes: dict[str, Any], *notes: str) -> None:
    """The negative control: the fields, and then the notes."""
    rundir.write_json(run / rundir.RUN, rundir.read_run(run) | changes)
    rundir.write_json(run / rundir.RUN, rundir.read_run(run) | {"notes": [*rundir.read_run(run)["notes"], *notes]})


def killed_behind(monkeypatch: pytest.MonkeyPatch, field: str, guarded: bool) -> None:
    """From now on the process ends behind the write after which the record has `field`, and says finished."""
    write = rundir.write_json

    def written(path: Path, contents: dict[str, Any]) -> None:
        write(path, contents)
        if contents["state"] == "finished" and contents.get(field):
            raise Killed

    monkeypatch.setattr(rundir, "write_json", written)
    if not guarded:
        monkeypatch.setattr(rundir, "update_run", in_two_writes)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_run_that_is_finished_has_its_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    write_model = train._write_model
    monkeypatch.setattr(train, "_write_model", lambda one: (state.note(one, "odd"), write_model(one)))
    killed_behind(monkeypatch, "state", guarded)
    with pytest.raises(Killed):
        train.train(recipe(), dataclasses.replace(QUIET, out=tmp_path / "run"))
    record = rundir.read_run(tmp_path / "run")
    assert record["state"] == "finished"
    assert ("odd" in record["notes"]) == guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_branch_has_its_notes_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 guarded: bool) -> None:
    run = train.train(recipe(), dataclasses.replace(QUIET, out=tmp_path / "run"))
    killed_behind(monkeypatch, "branches", guarded)
    with pytest.raises(Killed):
        train.resume(run, dataclasses.replace(QUIET, settings=("duration=3",)))
    noted = any(note.startswith("branch at 96 samples: duration 2") for note in rundir.read_run(run)["notes"])
    assert noted == guarded
    assert rundir.read_recipe(run).duration == 2


def test_a_test_without_its_notes_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model file gets the result last; so weights of a branch are tested too where an earlier test is kept."""
    def killed(run: Path, *notes: str) -> None:
        raise Killed

    evaluate, result = main_job.evaluate, tmp_path / "run/evaluations/test-single/result.json"
    monkeypatch.setattr(main_job, "evaluate", lambda *given: dataclasses.replace(evaluate(*given), notes=["odd"]))
    with monkeypatch.context() as patched:
        patched.setattr(rundir, "add_notes", killed)
        with pytest.raises(Killed):
            main_job.train(recipe(), dataclasses.replace(QUIET, out=tmp_path / "run"))
    assert result.exists()
    run = main_job.resume(tmp_path / "run", QUIET)
    assert "odd" in rundir.read_run(run)["notes"]
    assert (run / "report.html").exists()
    with pytest.raises(InputError, match="finished after 2 iterations"):
        main_job.resume(run, QUIET)
    train.resume(run, dataclasses.replace(QUIET, settings=("duration=3",)))  # killed before its test
    assert modelfile.read(run).results == []
    before = result.read_text("utf-8")
    assert modelfile.read(main_job.resume(run, QUIET)).results
    assert result.read_text("utf-8") != before


@pytest.mark.parametrize(("duration", "more", "found"), [
    (600000, 640583, "1240583"), (10, 10, "20"), (0.1, 0.2, "0.3")])
def test_what_is_added_to_a_run_is_not_rounded(tmp_path: Path, duration: float, more: float, found: str) -> None:
    (tmp_path / rundir.RECIPE).write_text(changed(recipe(), [f"duration={duration}"]).to_json(), "utf-8")
    assert main_job.extended(tmp_path, more) == f"duration={found}"
