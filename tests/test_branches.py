"""A recipe that changes within a run: what it asks for is done, and what can't be leaves the run as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from faults import tiny
from layerwise import checkpoint, rundir, train
from layerwise.errors import InputError
from layerwise.tasks.classify import Classify
from layerwise.train import RunOptions
from layerwise.training import resumption


@pytest.fixture(autouse=True)
def small() -> Any:
    with tiny.tiny():
        yield


def begun(where: Path, *settings: str) -> Path:
    """A run of three steps."""
    return tiny.begin(where, tiny.recipe("duration=3", "evaluate_every=3", *settings))


def branch(run: Path, *settings: str) -> Path:
    return train.resume(run, RunOptions(quiet=True, offline=True, settings=settings))


def newest(run: Path) -> checkpoint.Generation:
    generation, problems = checkpoint.newest(run / rundir.CHECKPOINTS)
    assert generation is not None
    assert problems == ()
    return generation


def sizes(patch: pytest.MonkeyPatch) -> list[int]:
    """The pictures of each micro-batch from now on, as they come."""
    found, loss = list[int](), Classify.loss

    def counted(task: Classify, model: torch.nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        found.append(len(batch["label"]))
        return loss(task, model, batch)

    patch.setattr(Classify, "loss", counted)
    return found


@pytest.mark.parametrize(("before", "after"), [(8, 2), (2, 8)])
def test_another_micro_batch_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int) -> None:
    run = begun(tmp_path / "run", f"micro_batch={before}")
    found = sizes(monkeypatch)
    branch(run, "duration=5", f"micro_batch={after}")
    assert found == [after] * (2 * 8 // after)
    assert newest(run).state["position"]["micro_batch"] == after
    said = f"step 3: micro-batches of {after} from here on, {before} before"
    assert said in rundir.read_run(run)["notes"]


def test_a_micro_batch_that_was_halved_stays_where_the_recipe_does(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without a branch the position's own counts, for memory ran out."""
    loss = Classify.loss

    def scarce(task: Classify, model: torch.nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if len(batch["label"]) > 4:
            raise torch.OutOfMemoryError("made up")
        return loss(task, model, batch)

    saved = train.save

    def killed(training: Any) -> None:
        saved(training)
        if training.position.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Classify, "loss", scarce)
        patch.setattr(train, "save", killed)
        with pytest.raises(BaseException):  # noqa: B017, PT011  how it ends is another test's
            begun(tmp_path / "run")
    found = sizes(monkeypatch)
    tiny.go_on(tmp_path / "run")
    assert found == [4, 4]


def test_an_average_may_begin_within_a_run(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "ema=0")
    assert "average_count" not in newest(run).state
    branch(run, "duration=5", "ema=0.9")
    assert newest(run).state["average_count"] == 2
    averages = [name for name in newest(run).tensors if name.startswith("average/")]
    assert averages
    assert rundir.read_recipe(run).ema == 0.9
    assert len(rundir.read_run(run)["branches"]) == 1


def test_an_average_that_was_lost_does_not_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: only where a branch lies between may the generation have none."""
    run, restore = begun(tmp_path / "run"), train.restore

    def forgetful(training: Any, generation: checkpoint.Generation) -> None:
        del generation.state["average_count"]
        generation.state["recipe"] = training.recipe.hash
        restore(training, generation)

    monkeypatch.setattr(train, "restore", forgetful)
    with pytest.raises(KeyError, match="average_count"):
        branch(run, "duration=5")


def test_rmsprops_momentum_may_begin_within_a_run(tmp_path: Path) -> None:
    settings = ("optimiser=rmsprop", "nesterov=no", "learning_rate=0.001")
    run = begun(tmp_path / "run", *settings, "momentum=0")
    assert not [name for name in newest(run).tensors if name.endswith("/momentum_buffer")]
    branch(run, "duration=5", "momentum=0.9")
    buffers = [tensor for name, tensor in newest(run).tensors.items() if name.endswith("/momentum_buffer")]
    assert buffers
    assert all(tensor.any() for tensor in buffers)


def record(run: Path) -> tuple[Any, ...]:
    """All that a branch changes, and the checkpoints."""
    return (rundir.read_recipe(run), rundir.read_run(run)["branches"], rundir.read_run(run)["notes"],
            sorted(path.name for path in run.iterdir()), newest(run).state)


def test_what_does_not_fit_the_checkpoint_leaves_the_recipe_as_it_was(tmp_path: Path) -> None:
    first = begun(tmp_path / "first")
    run = begun(tmp_path / "run", f"start_from={first}")
    before = record(run)
    with pytest.raises(InputError, match=r"optimiser state: it is not this run's\n.*no such parameter is trained here"):
        branch(run, "duration=5", "freeze=features")
    assert record(run) == before
    branch(run, "duration=5")  # and so it goes on
    assert rundir.read_recipe(run).duration == 5


def test_what_fits_is_written(tmp_path: Path) -> None:
    """The control: layers may thaw by a branch, which then stands in the record."""
    first = begun(tmp_path / "first")
    run = begun(tmp_path / "run", f"start_from={first}", "freeze=features")
    before = record(run)
    branch(run, "duration=5", "freeze=")
    assert rundir.read_recipe(run).freeze == ()
    assert rundir.read_run(run)["branches"] != before[1]


@pytest.mark.parametrize("setting", ["whiten=first", "colour=pca", "zero_init_last_scale=yes"])
def test_what_is_made_before_the_first_step_does_not_begin_later(tmp_path: Path, setting: str) -> None:
    run = begun(tmp_path / "run")
    before = record(run)
    with pytest.raises(InputError, match=r"can't change within a run") as error:
        branch(run, "duration=5", setting)
    assert error.value.details[0].startswith(setting.partition("=")[0])
    assert record(run) == before


def test_the_colours_may_end_within_a_run(tmp_path: Path) -> None:
    """The control of the test above."""
    chosen = tiny.recipe("colour=pca", "colour_sigma=0.1", "channels=3")
    found = resumption.branched(tmp_path, chosen, {"state": "interrupted"}, ("colour=none",), None)
    assert (chosen.colour, found.colour) == ("pca", "none")
