"""The drill: what it refuses, what it says of processes that fail or end too soon, and what differs between runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from layerwise.errors import InputError, MachineError
from layerwise.jobs import drill as job
from layerwise.jobs.differing import differing
from layerwise.jobs.drill import Finding, Plan, Trainings, drill
from layerwise.recipe import changed
from layerwise.recipes.presets import preset


def plan(*drills: str, **changes: object) -> Plan:
    settings = ["threads=1", "batch_size=64", "network=lenet5", "input_size=32", "resize=squash", "crop=none", "pad=0"]
    return Plan(changed(preset("digits"), settings), 8, 1, offline=True, drills=drills, **changes)  # type: ignore[arg-type]


def test_a_plan_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"drill: 2 steps and 1 kills\nA kill must fall between two steps"):
        drill(Plan(preset("digits"), 2, 1), tmp_path)


def test_a_training_that_fails_by_itself_is_said(tmp_path: Path) -> None:
    says = (sys.executable, "-c", "import sys; sys.exit('no such data')")
    with pytest.raises(MachineError, match=r"the whole training could not train \(exit status \[1\]\)\nno such data"):
        drill(plan("killed", program=says), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_is_over_too_soon_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "TRIES", 2)
    ends = Trainings(plan(program=(sys.executable, "-c", "")), tmp_path, "killed")
    with pytest.raises(MachineError, match=r"over before it could be killed, 2 times\nAsk for more steps with --st"):
        ends.begin_and_lose("run.json")


def test_what_was_left_out_says_why() -> None:
    assert Finding("worker", left_out="no process prepares pictures here").verdict == "left out"
    assert Finding("killed", differs=["x"]).verdict == "differs"
    one_picture = plan()
    object.__setattr__(one_picture, "recipe", changed(one_picture.recipe, ["batch_size=1"]))
    assert job._rank(one_picture, Path("nowhere"), job.random.Random(0)).left_out == (
        "a batch of one picture has no second share")


def made(run: Path, weight: float = 1.0, loss: float = 0.5, step: int = 3) -> Path:
    last = run / "checkpoints" / "000000000008"
    last.mkdir(parents=True)
    for file in (run / "model.safetensors", last / "weights.safetensors"):
        save_file({"a": torch.ones(3), "b": torch.tensor([weight])}, file)
    (run / "metrics.jsonl").write_text(json.dumps({"loss": 0.25}) + "\n" + json.dumps({"loss": loss}) + "\n")
    (run / "recipe.json").write_text("{}")
    (last / "state.json").write_text(json.dumps({"position": {"step": step}}))
    return run


def test_what_differs_is_named(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole")
    assert differing(whole, made(tmp_path / "same")) == []
    assert differing(whole, made(tmp_path / "other", weight=1.5, loss=0.75, step=4)) == [
        "checkpoints/000000000008/state.json: position.step 3 against 4",
        "checkpoints/000000000008/weights.safetensors: 1 of 2 tensors differ: b by up to 0.5",
        "metrics.jsonl: line 2: loss 0.5 against 0.75",
        "model.safetensors: 1 of 2 tensors differ: b by up to 0.5",
    ]
    lost = made(tmp_path / "lost")
    (lost / "model.safetensors").unlink()
    (lost / "recipe.json").write_text("{")
    told = differing(whole, lost)
    assert told[0] == "model.safetensors: only in the undisturbed run"
    assert told[1].startswith("recipe.json: the bytes differ, and one can't be read")
