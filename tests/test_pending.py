"""Numbers that are read once a line: the same run to the byte, and the same end at the step that is not finite."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from layerwise import checkpoint, rundir, train
from layerwise.errors import Interrupted, ToleranceError
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.tasks.classify import Classify
from layerwise.train import RunOptions
from layerwise.training import pending
from layerwise.training.state import Training

# 47 steps an epoch, a line and a reading every eleven of them.
SETTINGS = ["network=resnet20", "threads=1", "precision=fp32", "duration=1.5", "evaluate_every=0.6", "batch_size=28",
            "reference_batch=48", "learning_rate=0.02", "schedule=cosine", "warmup=none", "warmup_length=0",
            "ema=0.9", "select=best"]
KEPT = ("metrics.jsonl", "model.safetensors")


@pytest.fixture(autouse=True)
def fewer_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few pictures have too few steps between two lines for waiting."""
    monkeypatch.setattr(train, "LINES_PER_EPOCH", 4)


def recipe(*settings: str) -> Recipe:
    return changed(changed(preset("digits"), SETTINGS), settings)


def run(where: Path, *settings: str) -> Path:
    return train.train(recipe(*settings), RunOptions(out=where, quiet=True, offline=True, confirmed=True))


def as_on_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """What is done on a GPU, here: whatever else speaks against waiting still does."""
    device, memory = pending.torch.device("cuda"), (1 << 40, 1 << 40)
    asked = pending.why_read
    patch.setattr(pending, "why_read", lambda training: asked(dataclasses.replace(training, device=device)))
    patch.setattr(torch.cuda, "mem_get_info", lambda device: memory)


def readings(patch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each later reading told of, as they come."""
    found, settled = list[int](), pending.settled

    def counted(training: Training) -> bool:
        if training.pending.steps:
            found.append(len(training.pending.steps))
        return settled(training)

    patch.setattr(train, "settled", counted)
    return found


def poisoned(patch: pytest.MonkeyPatch, index: int) -> None:
    """The loss of each batch with this training picture is not a number."""
    ordinary = train.gradients

    def gradients(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        loss, hit = Classify.loss, bool((batch["index"] == index).any())
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Classify, "loss", lambda *given: {
                name: value * (math.nan if hit and name == "loss" else 1) for name, value in loss(*given).items()})
            return ordinary(training, batch)

    patch.setattr(train, "gradients", gradients)


@pytest.mark.parametrize("settings", [
    [], ["micro_batch=7", "momentum=0", "nesterov=no", "ema=0"], ["optimiser=adamw", "nesterov=no", "mixup=0.2"]])
def test_a_run_is_the_same_to_the_byte(tmp_path: Path, settings: list[str]) -> None:
    at_once = run(tmp_path / "at-once", *settings)
    with pytest.MonkeyPatch.context() as patch:
        as_on_a_gpu(patch)
        told = readings(patch)
        later = run(tmp_path / "later", *settings)
    for name in KEPT:
        assert (later / name).read_bytes() == (at_once / name).read_bytes(), name
    newest = [checkpoint.newest(one / rundir.CHECKPOINTS)[0] for one in (at_once, later)]
    assert newest[0] is not None
    assert newest[1] is not None
    assert newest[0].state == newest[1].state
    steps = newest[0].state["position"]["step"]
    assert sum(told) == steps
    assert len(told) < steps / 5  # lines and validations


def test_on_a_cpu_each_step_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = readings(monkeypatch)
    run(tmp_path / "run")
    assert not told


def test_few_steps_between_two_lines_are_read_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LINES_PER_EPOCH", 10)  # a line every four steps
    as_on_a_gpu(monkeypatch)
    told = readings(monkeypatch)
    run(tmp_path / "run", "duration=0.3", "evaluate_every=0.3")
    assert not told


@pytest.mark.parametrize("index", [3, 700])
def test_a_step_that_is_not_finite_is_found_as_ever(tmp_path: Path, index: int) -> None:
    ends = []
    for way in ("at-once", "later"):
        with pytest.MonkeyPatch.context() as patch:
            poisoned(patch, index)
            told = readings(patch)
            if way == "later":
                as_on_a_gpu(patch)
            with pytest.raises(ToleranceError, match="the loss is nan") as error:
                run(tmp_path / way)
        assert bool(told) == (way == "later")
        generation = checkpoint.newest(tmp_path / way / rundir.CHECKPOINTS)[0]
        assert generation is not None
        (bundle,) = (tmp_path / way / "failures").iterdir()
        ends.append((error.value.what, generation, bundle.name, (bundle / "failure.json").read_bytes(),
                     (tmp_path / way / "metrics.jsonl").read_bytes()))
    assert ends[0][0] == ends[1][0]
    assert ends[0][2:] == ends[1][2:]
    assert ends[0][1].state == ends[1][1].state
    for name, tensor in ends[0][1].tensors.items():
        assert torch.equal(tensor, ends[1][1].tensors[name]), name


def test_without_going_back_the_weights_would_be_ruined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: what stands on the device when the numbers are read is not finite any more."""
    seen = list[bool]()
    restore = pending.restore

    def looked(training: Training, generation: checkpoint.Generation) -> None:
        states = [training.model.state_dict(), generation.tensors]
        seen.extend(all(bool(torch.isfinite(tensor).all()) for tensor in state.values()) for state in states)
        restore(training, generation)

    monkeypatch.setattr(pending, "restore", looked)
    as_on_a_gpu(monkeypatch)
    poisoned(monkeypatch, 3)
    with pytest.raises(ToleranceError):
        run(tmp_path / "run")
    assert seen == [False, True]


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole")
    as_on_a_gpu(monkeypatch)
    told, ordinary = readings(monkeypatch), train.gradients

    def stopped(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        if training.position.step == 50:
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(training, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train, "gradients", stopped)
        with pytest.raises(Interrupted, match="stopped at step 51 with everything saved"):
            run(tmp_path / "run")
    assert sum(told) == 51
    train.resume(tmp_path / "run", RunOptions(quiet=True, offline=True))
    for name in KEPT:
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name


def test_what_depends_on_a_step_has_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings, asked = list[Training](), pending.why_read
    monkeypatch.setattr(pending, "why_read", lambda training: trainings.append(training) or "")
    run(tmp_path / "run", "duration=0.1", "evaluate_every=0.1")
    (training,) = trainings
    assert "the device is cpu" in asked(training)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))

    def why(size: int = 1, **settings: Any) -> str:
        processes = dataclasses.replace(training.world, size=size)
        chosen = dataclasses.replace(training.recipe, **settings)
        return asked(dataclasses.replace(training, device=torch.device("cuda"), world=processes, recipe=chosen))

    assert why() == ""
    assert "looked at before each step" in why(non_finite="skip")
    assert "may end the warm-up" in why(warmup="training-error")
    assert "changes on the way" in why(unfreeze_at=1.0)
    assert "several processes or workers" in why(virtual_workers=2)
    assert "several processes or workers" in why(batch_norm="all")
    assert "several processes or workers" in why(size=2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 20, 1 << 20))
    assert "memory that the pictures need" in why()
