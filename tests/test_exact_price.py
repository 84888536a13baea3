"""benchmarks/exact.py: what counts as the time of a step, and where the ratios are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import exact
from layerwise.recipe import changed
from layerwise.recipes.presets import preset

SETTINGS = ["network=lenet5", "data=noise", "batch_size=4", "unit=iterations", "duration=3", "evaluate_every=3",
            "warmup_length=1", "validation=0", "threads=1", "device=cpu", "precision=fp32", "memory_format=contiguous",
            "compile=no", "micro_batch=4", "input_size=32", "channels=1"]


def test_a_step_costs_what_it_takes_whatever_a_checkpoint_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes two seconds of a clock that only steps and checkpoints move."""
    now, gradients = [0.0], exact.command.gradients

    def step(*arguments: Any) -> Any:
        now[0] += 2
        return gradients(*arguments)

    def save(training: object) -> None:
        now[0] += 600

    monkeypatch.setattr(exact.time, "process_time", lambda: now[0])
    monkeypatch.setattr(exact.command, "gradients", step)
    monkeypatch.setattr(exact.command, "save", save)
    assert exact.step_seconds(changed(preset("fast"), SETTINGS), exact.noise(32, 1, 12)) == 2
    assert exact.command.save is save  # put back
    save(None)  # the control: a checkpoint would have been counted
    assert now[0] == 3 * 2 + 600


def test_the_ratios_are_kept_where_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"network": "lenet5", "batch_size": 128, "size": 32, "virtual_workers": 8, "exact_seconds": 0.3,
           "plain_seconds": 0.2, "ratio": 1.5, "ratio_least": 1.4, "ratio_most": 1.6}
    monkeypatch.setattr(exact, "measure", lambda network, rounds: row)
    told = tmp_path / "told.json"
    assert exact.main(["--networks", "lenet5", "--save", str(told)]) == 0
    assert json.loads(told.read_text("utf-8"))["rows"] == [row]
