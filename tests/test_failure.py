"""What is advised after a non-finite number works: a lower rate, or, where the weights are ruined, a new start."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest
import torch

from faults import nonfinite, tiny
from layerwise import checkpoint, rundir, train
from layerwise.errors import MachineError, ToleranceError
from layerwise.jobs.recipe_choice import for_training
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.tasks.classify import Classify
from layerwise.train import RunOptions
from layerwise.training import failure
from layerwise.training.optimiser import optimiser_tensors

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

    def look(training: train.Training, rows: list[int], loss: float, norm: float) -> None:
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
    monkeypatch.setattr(failure, "stop_before_step", look)
    with pytest.raises(ToleranceError, match="stop"):
        run(recipe("network=resnet20", "resize=none", "input_size=8", "learning_rate=0.01"), tmp_path / "run")
    assert seen[0] == ""
    assert "their momentum would carry them away" in seen[1]
    assert "they are ruined: their loss on other pictures is" in seen[2]
    assert seen[3] == "not all of them are finite numbers"


def a_tensor(training: train.Training, name: str) -> torch.Tensor:
    """The first tensor of a part of the state."""
    parts = {"weights": training.model.state_dict(), "optimiser": optimiser_tensors(training.optimiser),
             "average": training.average.state_tensors() if training.average else {}}
    return next(iter(parts[name].values()))


@pytest.mark.parametrize("part", ["weights", "optimiser", "average"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_each_part_of_the_state_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str,
                                             number: float) -> None:
    found: list[str] = []

    def look(training: train.Training, *_: object) -> str:
        if training.position.step == 1:
            found.append(failure.first_non_finite(training))
            a_tensor(training, part).view(-1)[-1] = number
            found.append(failure.first_non_finite(training))
            raise ToleranceError("seen")
        return failure.TAKE

    monkeypatch.setattr(train, "judged", look)
    with tiny.tiny(), pytest.raises(ToleranceError, match="seen"):
        tiny.begin(tmp_path / "run", tiny.recipe())
    assert found[0] == ""
    assert found[1].startswith(f"{part}/")


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """A weight becomes NaN whenever one of these steps begins: its cause does not go away."""
    gradients = train.gradients

    def spoilt(training: train.Training, batch: dict) -> dict:
        if training.position.step in steps:
            with torch.no_grad():
                next(training.model.parameters()).view(-1)[0] = math.nan
        return gradients(training, batch)

    monkeypatch.setattr(train, "gradients", spoilt)


def test_what_does_not_go_away_stops_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 3)
    with tiny.tiny(), pytest.raises(ToleranceError, match="Too many steps had to be left out") as error:
        tiny.begin(tmp_path / "run", tiny.recipe("non_finite=skip"))
    assert "is not finite, so nothing was saved; the last checkpoint stands" in error.value.why
    assert error.value.mend.startswith("Go on with a lower rate: layerwise resume")
    newest, problems = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert problems == ()
    assert all(bool(torch.isfinite(one).all()) for one in newest.tensors.values())
    notes = rundir.read_run(tmp_path / "run")["notes"]
    assert any("step 3: weights/features.conv1.weight had a number that is not finite; went back to step 3" in text
               for text in notes)


def test_an_update_that_spoils_the_state_again_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The update of step 2 makes a NaN each time it is made: the second time its batch is left out."""
    step = torch.optim.SGD.step
    at: list[train.Training] = []
    gradients = train.gradients

    def noted(training: train.Training, batch: dict) -> dict:
        at[:] = [training]
        return gradients(training, batch)

    def overflowing(optimiser: torch.optim.SGD, *arguments: object) -> object:
        made = step(optimiser, *arguments)
        if at[0].position.step == 2:
            with torch.no_grad():
                next(at[0].model.parameters()).view(-1)[0] = math.inf
        return made

    monkeypatch.setattr(train, "gradients", noted)
    monkeypatch.setattr(torch.optim.SGD, "step", overflowing)
    with tiny.tiny():
        done = tiny.begin(tmp_path / "run", tiny.recipe("non_finite=skip", "checkpoint_seconds=3600"))
        notes = rundir.read_run(done)["notes"]
        assert any("step 3: weights/" in text and "went back to step 0 and left step 2 out" in text for text in notes)
        monkeypatch.undo()
        with nonfinite.without(2):
            assert tiny.digest(done) == tiny.digest(tiny.begin(tmp_path / "clean", tiny.recipe()))


def test_the_last_update_is_looked_at_before_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.SGD.step
    made = [0]

    def overflowing(optimiser: torch.optim.SGD, *arguments: object) -> object:
        made[0] += 1
        done = step(optimiser, *arguments)
        if made[0] == 8:
            with torch.no_grad():
                optimiser.param_groups[0]["params"][0].view(-1)[0] = math.inf
        return done

    monkeypatch.setattr(torch.optim.SGD, "step", overflowing)
    with tiny.tiny():
        done = tiny.begin(tmp_path / "run", tiny.recipe("non_finite=skip", "checkpoint_seconds=3600"))
        assert any("went back to step 0" in text for text in rundir.read_run(done)["notes"])
        assert tiny.digest(done) == tiny.digest(tiny.begin(tmp_path / "clean", tiny.recipe()))


def test_with_stop_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 3)
    with tiny.tiny():
        with pytest.raises(ToleranceError, match="the step was not taken") as error:
            tiny.begin(tmp_path / "run", tiny.recipe())
        assert "so nothing was saved; the last checkpoint stands" in error.value.why
        monkeypatch.undo()
        tiny.go_on(tmp_path / "run")
        assert tiny.digest(tmp_path / "run") == tiny.digest(tiny.begin(tmp_path / "clean", tiny.recipe()))


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate 2 GiB\nmore", "something else"])
def test_memory_that_runs_out_beside_the_passes_is_told_with_the_way_on(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    def never(*_: object) -> dict[str, float]:
        raise torch.OutOfMemoryError(message) if "memory" in message else RuntimeError(message)

    where = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(Classify, "evaluate", never)
        with pytest.raises(RuntimeError) as error:
            run(recipe(), where)
    assert rundir.read_run(where)["state"] == "failed"
    if "memory" not in message:  # the control: any other error comes as it is
        assert (type(error.value), str(error.value)) == (RuntimeError, message)
        return
    assert isinstance(error.value, MachineError)
    assert error.value.exit_code == 3
    assert error.value.what == (f"{where}: memory ran out at step 12 "
                                "(CUDA out of memory. Tried to allocate 2 GiB)")
    assert "the last checkpoint is untouched" in error.value.why
    follow(advice(error), where)
    assert rundir.read_run(where)["state"] == "finished"
