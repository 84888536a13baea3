"""The account of a run's memory: predicted before, measured beside it, kept in run.json."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layerwise import rundir, train
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.train import RunOptions
from layerwise.training import memory

QUICK = ["threads=1", "precision=fp32", "unit=iterations", "duration=2", "evaluate_every=2", "schedule=constant",
         "warmup=none", "warmup_length=0", "batch_size=64"]
CPU = torch.device("cpu")

linux = pytest.mark.skipif(not memory.CLEAR.exists(), reason="this kernel keeps no account of a process's peak")


def test_a_run_tells_and_keeps_its_account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train.train(changed(preset("digits"), QUICK), RunOptions(out=tmp_path / "run", offline=True))
    kept = rundir.read_run(run)["memory"]
    said = capsys.readouterr().err
    assert kept["device"] == "cpu"
    assert memory.Account(**kept).line() in said
    assert "GiB at its peak" in said
    assert "allocator" in said
    if memory.CLEAR.exists():
        assert 0.8 * kept["peak"] < kept["predicted"]


def test_recomputation_keeps_no_freed_buffers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for value in ("none", "blocks"):
        recipe = changed(preset("digits"), [*QUICK, f"recompute={value}"])
        train.train(recipe, RunOptions(out=tmp_path / value, offline=True))
        said[value] = "as the system has it: recompute=blocks is there to take little memory" in capsys.readouterr().err
    assert said == {"none": False, "blocks": True}


@linux
def test_the_prediction_is_near_in_a_fresh_process(tmp_path: Path) -> None:
    """A third of this process's memory at the peak is the step's; the rest is there before."""
    command = [sys.executable, "-m", "layerwise", "train", "resnet20", "digits", "--out", str(tmp_path / "run"),
               "--recipe", "digits", "--set", "input_size=32", "--set", "resize=squash", "--set", "crop=none"]
    for setting in QUICK:
        command += ["--set", setting]
    subprocess.run(command, check=True, capture_output=True)
    kept = rundir.read_run(tmp_path / "run")["memory"]
    assert abs(kept["predicted"] - kept["peak"]) < 0.15 * kept["peak"]


@linux
def test_the_peak_begins_anew() -> None:
    """Without the reset the peak is that of the buffer that is gone: the negative control."""
    memory.reset_peak(CPU)
    torch.ones(200 << 18)
    high, now = memory.peak(CPU), memory._told("VmRSS")
    assert high is not None
    assert now is not None
    assert high - now > 100 << 20
    memory.reset_peak(CPU)
    assert (memory.peak(CPU) or 0) < high - (100 << 20)


def test_a_kernel_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Path("there is no such file")
    monkeypatch.setattr(memory, "STATUS", nowhere)
    monkeypatch.setattr(memory, "CLEAR", nowhere / "below")
    memory.reset_peak(CPU)
    assert memory.peak(CPU) is None
    assert memory.Account("cpu", None, None).line() == "memory: this system does not tell the peak"
    assert memory.Account("cpu", None, 1 << 30).line() == "memory at its peak: 1.00 GiB; was not predicted"
    assert memory.Account("cpu", 3 << 29, 1 << 30).line() == "memory at its peak: 1.00 GiB; 1.50 GiB were predicted"
