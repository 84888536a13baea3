"""Frozen layers that learn from the middle of an epoch on: their batch normalisations too, resumed or not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from torch.nn.modules.batchnorm import _BatchNorm

from layerwise import rundir, train
from layerwise.errors import Interrupted
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.train import RunOptions
from layerwise.training.state import Training

QUICK = ["threads=1", "precision=fp32", "unit=iterations", "duration=6", "evaluate_every=6", "schedule=constant",
         "warmup=none", "warmup_length=0", "batch_size=48", "label_smoothing=0", "ema=0"]
THAWED = 2  # steps; an epoch has 27


def run(where: Path, *settings: str) -> Path:
    chosen = changed(changed(preset("digits"), QUICK), settings)
    return train.train(chosen, RunOptions(out=where, quiet=True, offline=True, confirmed=True))


def test_a_run_that_is_resumed_after_the_thaw_ends_as_the_whole_one(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "first", "duration=1", "evaluate_every=1")
    settings = (f"start_from={first}", "freeze=features", f"unfreeze_at={THAWED}", "learning_rate=0.1")
    modes, ordinary = list[set[bool]](), train.gradients

    def looked(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        modes.append({layer.training for layer in training.model.modules() if isinstance(layer, _BatchNorm)})
        if len(modes) == 10:  # in the fourth step of the second run
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(training, batch)

    monkeypatch.setattr(train, "gradients", looked)
    whole = run(tmp_path / "whole", *settings)
    # Before the thaw their statistics stay: without that half the other would say nothing.
    assert modes == [{False}] * THAWED + [{True}] * (6 - THAWED)
    with pytest.raises(Interrupted, match="stopped at step 4 with everything saved"):
        run(tmp_path / "run", *settings)
    train.resume(tmp_path / "run", RunOptions(quiet=True, offline=True))
    assert modes[6:] == modes[:6]
    for name in (rundir.METRICS, "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name
