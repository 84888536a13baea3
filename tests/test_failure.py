"""What is advised after a non-finite number works: a lower rate, or, where the weights are ruined, a new start."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest
import torch

from layerwise import rundir, train
from layerwise.errors import ToleranceError
from layerwise.jobs.recipe_choice import for_training
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.tasks.classify import Classify
from layerwise.train import RunOptions
from layerwise.training import failure

QUICK = ["network=lenet5", "resize=squash", "input_size=32", "threads=1", "precision=fp32", "unit=iterations",
         "duration=12", "evaluate_every=12", "schedule=constant", "warmup=none", "warmup_length=0", "batch_size=48",
         "reference_batch=48", "label_smoothing=0", "ema=0", "clip_norm=0"]


def recipe(*settings: str) -> Recipe:
    return changed(changed(preset("digits"), QUICK), settings)


def run(chosen: Recipe, where: Path) -> Path:
    return train.train(chosen, RunOptions(out=where, quiet=True, offline=True, confirmed=True))


def advice(error: pytest.ExceptionInfo[ToleranceError]) -> list[str]:
    """The words of the advised command."""
    command = error.value.mend.partition(": layerwise ")[2]
    return shlex.split(command)


def follow(words: list[str], where: Path) -> Path:
    """Does what the advised command says; offline, and in a new directory where it is a new start."""
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    if words[0] == "resume":
        return train.resume(Path(words[1]), RunOptions(quiet=True, offline=True, settings=tuple(settings)))
    assert words[0] == "train"
    return run(for_training(words[1], words[2], words[words.index("--recipe") + 1], settings), where)


@pytest.mark.parametrize("rate", ["1e16", "1e25"])
def test_ruined_weights_are_not_gone_on_with(tmp_path: Path, rate: str) -> None:
    with pytest.raises(ToleranceError, match="the step was not taken") as error:
        run(recipe(f"learning_rate={rate}"), tmp_path / "run")
    assert "Start anew with a lower rate: layerwise train lenet5 digits --recipe" in error.value.mend
    words = advice(error)
    assert f"learning_rate={float(rate) / 10:g}" in words
    chosen = for_training(words[1], words[2], words[words.index("--recipe") + 1], ["learning_rate=0.01"])
    assert rundir.read_run(run(chosen, tmp_path / "anew"))["state"] == "finished"
    # The negative control, what was advised before: even a tiny rate does not mend these weights.
    with pytest.raises(ToleranceError):
        train.resume(tmp_path / "run", RunOptions(quiet=True, offline=True, settings=(
            f"learning_rate={float(rate) / 10:g}",)))


def test_a_validation_loss_that_is_not_finite_is_null_and_said(tmp_path: Path) -> None:
    done = run(recipe("learning_rate=1e6"), tmp_path / "run")
    assert [line["loss"] for line in rundir.read_lines(done / "metrics.jsonl") if line["kind"] == "val"] == [None]
    assert any("the validation loss is not a finite number, so the weights are ruined" in text
               for text in rundir.read_run(done)["notes"])
    sound = run(recipe("learning_rate=0.01"), tmp_path / "sound")
    assert not rundir.read_run(sound)["notes"]


def test_sound_weights_go_on_with_a_lower_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, calls = Classify.loss, [0]

    def poisoned(task: Classify, model: torch.nn.Module, batch: dict) -> dict:
        calls[0] += 1
        found = loss(task, model, batch)
        return found | {"loss": found["loss"] * (math.nan if calls[0] == 3 else 1)}

    monkeypatch.setattr(Classify, "loss", poisoned)
    with pytest.raises(ToleranceError) as error:
        run(recipe("learning_rate=0.01"), tmp_path / "run")
    assert "The weights before it are saved; the batch's 48 pictures" in error.value.why
    words = advice(error)
    assert words[0] == "resume"
    assert words[-2:] == ["--set", "learning_rate=0.001"]
    assert rundir.read_run(follow(words, tmp_path / "no"))["state"] == "finished"


def test_asking_changes_nothing_and_each_reason_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(training: train.Training, batch: dict, loss: float, norm: float) -> None:
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        seen.append(failure.ruined(training, [0, 1]))
        assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
        parameter = next(training.model.parameters())
        velocity = training.optimiser.state[parameter]["momentum_buffer"]
        velocity.mul_(1e9)
        seen.append(failure.ruined(training, [0, 1]))
        velocity.mul_(1e-9)
        with torch.no_grad():
            for each in training.model.parameters():
                each.mul_(1e4)
        seen.append(failure.ruined(training, [0, 1]))
        with torch.no_grad():
            parameter.fill_(math.inf)
        seen.append(failure.ruined(training, [0, 1]))
        raise ToleranceError("stop")

    loss, calls = Classify.loss, [0]

    def poisoned(task: Classify, model: torch.nn.Module, batch: dict) -> dict:
        calls[0] += 1
        found = loss(task, model, batch)
        return found | {"loss": found["loss"] * (math.nan if calls[0] == 3 else 1)}

    monkeypatch.setattr(Classify, "loss", poisoned)
    monkeypatch.setattr(train, "stop_before_step", look)
    with pytest.raises(ToleranceError, match="stop"):
        run(recipe("network=resnet20", "resize=none", "input_size=8", "learning_rate=0.01"), tmp_path / "run")
    assert seen[0] == ""
    assert "their momentum would carry them away" in seen[1]
    assert "they are ruined: their loss on other pictures is" in seen[2]
    assert seen[3] == "not all of them are finite numbers"
