"""The drill on real processes that are killed and starved: bit-identical; without a guard it says what differs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from layerwise import hardware
from layerwise.errors import InputError, MachineError, ToleranceError
from layerwise.jobs import drill as job
from layerwise.jobs.differing import differing
from layerwise.jobs.drill import Finding, Plan, Trainings, drill
from layerwise.recipe import changed
from layerwise.recipes.presets import preset

unix = pytest.mark.skipif(os.name != "posix", reason="this system has no signals that kill")
SLOW = pytest.mark.skipif(not os.environ.get("LAYERWISE_ALL_PROCESSES"),
                          reason="half a minute each; LAYERWISE_ALL_PROCESSES=1 runs them")

# In place of a process that trains: it waits, and copies a finished run; a resumed one copies another.
COPIES = """
import json, os, shutil, sys, time
from pathlib import Path
first, resumed, job = *sys.argv[1:3], json.loads(sys.argv[3])
run = Path(job["run"])
run.mkdir(exist_ok=True)
shutil.copy(job["recipe"], run / "recipe.json")
(run / "run.json").touch()
time.sleep(0.4)
shutil.copytree(first if job["action"] == "train" else resumed, run, dirs_exist_ok=True)
os._exit(0)  # at once: killed between its last file and its end it would have nothing left to resume
"""


def plan(*drills: str, **changes: object) -> Plan:
    settings = ["threads=1", "batch_size=64", "network=lenet5", "input_size=32", "resize=squash", "crop=pad", "pad=2"]
    return Plan(changed(preset("digits"), settings), 8, 1, offline=True, drills=drills, **changes)  # type: ignore[arg-type]


@unix
@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_a_killed_process_is_resumed_and_compared(tmp_path: Path, weight: float) -> None:
    """The negative control is a resumption that ends with another weight."""
    runs = [made(tmp_path / "first"), made(tmp_path / "resumed", weight)]
    for run in runs:
        (run / "recipe.json").unlink()
    asked = plan("killed", program=(sys.executable, "-c", COPIES, *map(str, runs)))
    chosen = dataclasses.replace(asked, recipe=hardware.resolve(asked.recipe))
    if weight == 1.0:
        told = drill(chosen, tmp_path / "out").lines()
        assert told[0] == "drilled: lenet5 on digits, 8 steps instead of the whole training"
        assert told[1] == "killed: bit-identical"
        assert re.match(r"  SIGKILL about \d+\.\d\d s into the training", told[2])
        assert [path.name for path in (tmp_path / "out").iterdir()] == [job.RECEIPT]  # the runs are gone
    else:
        with pytest.raises(ToleranceError, match=r"a resumed training is not the undisturbed one") as caught:
            drill(chosen, tmp_path / "out")
        assert "killed: model.safetensors: 1 of 2 tensors differ: b by up to 0.5" in caught.value.details
        assert len(list((tmp_path / "out").iterdir())) == 2  # they are kept
    receipt = json.loads((tmp_path / "out" / job.RECEIPT).read_text("utf-8"))
    assert receipt["drills"][0]["verdict"] == ("bit-identical" if weight == 1.0 else "differs")


@unix
@SLOW
def test_killed_and_starved_it_ends_bit_identical(tmp_path: Path) -> None:
    found = drill(plan("killed", "quota"), tmp_path)
    receipt = json.loads((tmp_path / job.RECEIPT).read_text("utf-8"))
    assert receipt == json.loads(json.dumps(found.contents))
    assert [one["verdict"] for one in receipt["drills"]] == ["bit-identical"] * 2
    assert "SIGKILL" in receipt["drills"][0]["done"][0]
    assert "exit status 3" in receipt["drills"][1]["done"][0]
    assert receipt["recipe"] == plan().recipe.hash
    assert any("duration 8 iterations instead of" in text for text in receipt["shortened"])
    assert {"machine", "revision", "versions", "seed", "drilled_recipe"} <= receipt.keys()
    assert found.lines()[0] == "drilled: lenet5 on digits, 8 steps instead of the whole training"
    assert "killed: bit-identical" in found.lines()
    assert [path.name for path in tmp_path.iterdir()] == [job.RECEIPT]  # the runs are gone


@unix
@SLOW
def test_with_a_carried_random_state_it_says_what_differs(tmp_path: Path) -> None:
    """The negative control. The runs are kept, and the receipt too."""
    child = (sys.executable, str(Path(__file__).with_name("drill_child.py")))
    with pytest.raises(ToleranceError, match=r"a resumed training is not the undisturbed one") as caught:
        drill(plan("quota", program=child), tmp_path)  # whose kill falls behind a checkpoint
    assert any(text.startswith("quota: model.safetensors: ") and "tensors differ" in text
               for text in caught.value.details)
    receipt = json.loads((tmp_path / job.RECEIPT).read_text("utf-8"))
    assert receipt["drills"][0]["verdict"] == "differs"
    assert len(list(tmp_path.iterdir())) == 2


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


def made(run: Path, weight: float = 1.0, loss: float = 0.5, step: int = 3, code: str = "1a2b") -> Path:
    last = run / "checkpoints" / "000000000008"
    last.mkdir(parents=True)
    for file in (run / "model.safetensors", last / "weights.safetensors"):
        save_file({"a": torch.ones(3), "b": torch.tensor([weight])}, file,
                  {"layerwise": json.dumps({"architecture": "x" * 100, "versions": {"code": code}})})
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
    assert differing(whole, made(tmp_path / "later", code="3c4d"))[1] == (
        "model.safetensors: the header differs: layerwise.versions.code 1a2b against 3c4d")
    lost = made(tmp_path / "lost")
    (lost / "model.safetensors").unlink()
    (lost / "recipe.json").write_text("{")
    told = differing(whole, lost)
    assert told[0] == "model.safetensors: only in the undisturbed run"
    assert told[1].startswith("recipe.json: the bytes differ, and one can't be read")
