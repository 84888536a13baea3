"""Training warns when batch normalisation's running averages are not those of the weights, and only then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from layerwise import checkpoint, modelfile, models, rundir, train
from layerwise.errors import InputError
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.train import RunOptions
from layerwise.training import running_statistics
from layerwise.training.optimiser import freeze
from layerwise.training.preparation import open_split
from layerwise.training.running_statistics import MARK, errors_both_ways, look_at_running_averages, one_value_told
from layerwise.training.state import Training, assemble, read_input, restore

QUICK = ["threads=1", "precision=fp32", "unit=iterations", "duration=30", "evaluate_every=15", "schedule=constant",
         "warmup=none", "warmup_length=0", "batch_size=64", "label_smoothing=0", "ema=0", "crop=none", "pad=0"]


def recipe(*settings: str) -> Recipe:
    return changed(changed(preset("digits"), QUICK), settings)


def run(where: Path, *settings: str) -> Path:
    return train.train(recipe(*settings), RunOptions(out=where, quiet=True, offline=True, confirmed=True))


def with_momentum(patch: pytest.MonkeyPatch, momentum: float) -> None:
    """Networks are built with this momentum of their running averages."""
    build = models.build

    def changed_build(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
        network = build(name, num_classes=num_classes, in_channels=in_channels)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        return network

    patch.setattr(models, "build", changed_build)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        with_momentum(patch, 0.5)
        return run(tmp_path_factory.mktemp("healthy") / "run")


def restored(run: Path, where: Path) -> Training:
    """The training at its end."""
    chosen = rundir.read_recipe(run)
    where.mkdir()
    data = open_split(chosen, RunOptions(quiet=True, offline=True))
    training = assemble(where, chosen, data, *read_input(run))
    generation, _ = checkpoint.newest(run / rundir.CHECKPOINTS)
    assert generation is not None
    (where / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
    restore(training, generation)
    return training


def notes(run: Path) -> list[str]:
    return [text for text in rundir.read_run(run)["notes"] if MARK in text]


def test_averages_that_never_move_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: Path) -> None:
    assert notes(healthy) == []  # the control: the same training with averages that follow
    with_momentum(monkeypatch, 1e-7)
    wrecked = run(tmp_path / "run")
    found = notes(wrecked)
    assert len(found) == 1
    assert found[0].startswith("step 30: ")
    for part in ("`layerwise doctor bn RUN`", "--recalibrate NEW.safetensors", "points", "144 pictures"):
        assert part in found[0], part


def test_looking_changes_nothing(tmp_path: Path, healthy: Path) -> None:
    training = restored(healthy, tmp_path / "again")
    training.model.train()
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    random = torch.random.get_rng_state()
    errors_both_ways(training)
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not training.model.training  # as after every validation
    with torch.no_grad():  # the control: a pass in this mode does move the averages
        training.model.train()(torch.zeros(20, 1, 8, 8))
    assert not all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())


def test_runs_with_and_without_the_look_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "with", "duration=4", "evaluate_every=1")
    monkeypatch.setattr(train, "look_at_running_averages", lambda training: "")
    without = run(tmp_path / "without", "duration=4", "evaluate_every=1")
    assert (whole / "metrics.jsonl").read_bytes() == (without / "metrics.jsonl").read_bytes()
    one, other = (modelfile.read(each).model.state_dict() for each in (whole, without))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_when_it_looks_and_what_it_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: Path) -> None:
    training = restored(healthy, tmp_path / "again")
    looked: list[int] = []
    wrong, right = np.ones(100, bool), np.zeros(100, bool)
    answers = [(wrong, right), (wrong, right), (right, right)]

    def told(training: Training) -> tuple[np.ndarray, np.ndarray]:
        looked.append(training.position.step)
        return answers[len(looked) - 1]

    monkeypatch.setattr(running_statistics, "errors_both_ways", told)
    training.notes.clear()
    for step in (5, 10, 15, 20, 25, 30):
        training.position.step, training.position.samples = step, 64 * step
        training.recipe = changed(training.recipe, ["evaluate_every=5"])
        look_at_running_averages(training)
    assert looked == [15, 30]
    assert [text.split(":")[0] for text in training.notes] == ["step 30"]
    assert look_at_running_averages(training) == ""  # sound now: the note of the past goes
    assert training.notes == []


@pytest.mark.parametrize(("running", "own", "warned"), [
    (30, 10, True), (21, 10, True), (19, 10, False), (10, 30, False)])
def test_the_gap_has_to_be_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: Path, running: int, own: int, warned: bool
) -> None:
    training = restored(healthy, tmp_path / "again")
    errors = np.arange(100) < running, np.arange(100) < own
    monkeypatch.setattr(running_statistics, "errors_both_ways", lambda training: errors)
    assert bool(look_at_running_averages(training)) is warned


def test_few_pictures_are_no_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: Path) -> None:
    training = restored(healthy, tmp_path / "again")
    errors = np.arange(16) < 4, np.arange(16) < 1  # 19 points, and three pictures
    monkeypatch.setattr(running_statistics, "errors_both_ways", lambda training: errors)
    assert look_at_running_averages(training) == ""


def test_networks_and_splits_that_have_nothing_to_look_at(tmp_path: Path, healthy: Path) -> None:
    training = restored(healthy, tmp_path / "again")
    assert errors_both_ways(training) is not None
    val = training.val
    assert val is not None
    training.val = val.subset(range(15), "val")
    assert errors_both_ways(training) is None
    training.val, training.recipe = val, changed(training.recipe, ["freeze=all-but-head"])
    freeze(training.model, training.recipe)
    assert errors_both_ways(training) is None  # frozen layers are trained with the averages they are tested with


ALONE = ("network=mobilenet_025", "resize=squash", "duration=1", "evaluate_every=1", "validation=0")


@pytest.mark.parametrize("setting", ["batch_size=1", "micro_batch=1"])
def test_one_picture_alone_with_a_map_of_1x1_is_told_with_the_way_on(tmp_path: Path, setting: str) -> None:
    with pytest.raises(InputError) as error:
        run(tmp_path / "run", *ALONE, "input_size=32", setting)
    assert error.value.what.startswith(f"{tmp_path / 'run'}: step 0: batch normalisation met one picture alone, with a "
                                       "map of 1x1 (Expected more than 1 value per channel")
    assert "a single value has no variance" in error.value.why
    assert error.value.mend.startswith("Set micro_batch=2 or more, a larger batch_size (")
    assert error.value.mend.endswith("or input_size.")
    assert rundir.read_run(tmp_path / "run")["state"] == "failed"


@pytest.mark.parametrize("settings", [("batch_size=2", "input_size=32"), ("batch_size=1", "input_size=64")])
def test_with_what_the_error_advises_it_trains(tmp_path: Path, settings: tuple[str, ...]) -> None:
    assert rundir.read_run(run(tmp_path / "run", *ALONE, *settings))["state"] == "finished"


@pytest.mark.parametrize(("weight", "end"), [(0.3, "or input_size, or auxiliary_weight=0."), (0.0, "or input_size.")])
def test_auxiliary_heads_are_named_where_there_are_some(tmp_path: Path, weight: float, end: str) -> None:
    training = cast(Training, SimpleNamespace(run=tmp_path, position=SimpleNamespace(step=3),
                                              recipe=SimpleNamespace(auxiliary_weight=weight)))
    with pytest.raises(InputError) as error, one_value_told(training):
        nn.BatchNorm2d(2)(torch.zeros(1, 2, 1, 1))
    assert error.value.mend.endswith(end)
    with pytest.raises(ValueError, match=r"^something else$"), one_value_told(training):
        raise ValueError("something else")
