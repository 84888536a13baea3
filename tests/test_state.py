"""The state of a training: how it begins, what of it is saved, restored and evaluated, and how large it is."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from faults import tiny
from layerwise import checkpoint, rundir, train
from layerwise.data.colour import Colour
from layerwise.data.order import class_weights
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.models.network import Network, SupervisedNetwork
from layerwise.training import state
from layerwise.training.average import Average
from layerwise.training.optimiser import optimiser_tensors
from layerwise.training.state import Position, Training, assemble, restore, save


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with tiny.tiny():
        yield


def assembled(run: Path, *settings: str) -> Training:
    run.mkdir(exist_ok=True)
    chosen, data = tiny.recipe(*settings), tiny.data()
    return assemble(run, chosen, data, fit_preprocess(data.train, chosen), None)


def learned(training: Training, steps: int = 3) -> Training:
    """The training after a few steps on random pictures, with the record and the average of them."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        images, labels = torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 4
        training.optimiser.zero_grad()
        training.task.loss(training.forward, {"image": images, "label": labels})["loss"].backward()
        training.optimiser.step()
        if training.average:
            training.average.update(training.model)
        training.metrics.write({"step": step})
    return training


def equal(some: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return some.keys() == other.keys() and all(torch.equal(some[name], other[name]) for name in some)


def test_a_training_begins_at_nothing_with_the_weights_of_its_seed(tmp_path: Path) -> None:
    one = assembled(tmp_path / "run")
    assert dataclasses.asdict(one.position) == {
        "epoch": 0, "batch": 0, "step": 0, "samples": 0, "window_loss": 0.0, "window_errors": 0, "window_samples": 0,
        "best_score": None, "best_step": 0, "metrics_bytes": 0, "micro_batch": 8, "unread": 0, "left_out": [],
        "went_back": []}
    assert Position() == dataclasses.replace(one.position, micro_batch=0)
    assert (one.best, one.notes, one.replay.reason, one.replay.steps, one.replay.recorded) == ({}, [], None, 0, None)
    assert (one.train, one.val, one.run) == (tiny.data().train, tiny.data().val, tmp_path / "run")
    assert (one.metrics.path.name, one.speed.path.name) == (rundir.METRICS, rundir.SPEED)
    assert one.forward is one.model
    assert one.colour is None
    assert one.average is not None
    assert (one.average.decay, one.average.count) == (0.9, 0)
    assert equal(one.average.state_tensors(), one.model.state_dict())
    assert one.schedule.batches_per_epoch == 5
    assert one.schedule.samples_per_epoch == 40
    assert [group["params"] for group in one.optimiser.param_groups] == [group["params"] for group in one.groups]
    assert equal(assembled(tmp_path / "again").model.state_dict(), one.model.state_dict())
    assert not equal(assembled(tmp_path / "other", "seed=4").model.state_dict(), one.model.state_dict())
    assert assembled(tmp_path / "plain", "ema=0").average is None
    assert not isinstance(one.metrics, state.NoLines)


def test_the_task_is_the_recipes(tmp_path: Path) -> None:
    plain = assembled(tmp_path / "plain", "label_smoothing=0.1").task
    assert (plain.label_smoothing, plain.class_weights, plain.kind, plain.auxiliary_weight) == (
        0.1, (), "cross-entropy", 0)
    chosen = tiny.recipe("balance=loss")
    weighed = assembled(tmp_path / "weighed", "balance=loss").task
    assert weighed.class_weights == tuple(class_weights(tiny.data().train, chosen).tolist())


@pytest.mark.parametrize("average", ["ema=0.9", "ema=0"])
def test_what_is_saved_is_restored(tmp_path: Path, average: str) -> None:
    one = learned(assembled(tmp_path / "run", average))
    one.best = {name: tensor.clone() + 1 for name, tensor in one.model.state_dict().items()}
    one.position = Position(1, 2, 3, 24, 1.5, 6, 7, 0.25, 2, 0, 4, 1, [5], [6])
    one.notes = ["a note"]
    if one.average:
        assert not equal(one.average.state_tensors(), one.model.state_dict())
    save(one)
    size = one.metrics.path.stat().st_size
    assert one.position.metrics_bytes == size > 0
    one.metrics.write({"behind": "the checkpoint"})
    generation, problems = checkpoint.newest(tmp_path / "run" / rundir.CHECKPOINTS)
    assert problems == ()
    assert generation is not None
    assert generation.directory.name == f"{24:012d}"
    assert generation.state["recipe"] == one.recipe.hash
    assert ("average_count" in generation.state) == (one.average is not None)
    other = assembled(tmp_path / "run", average)
    restore(other, generation)
    assert other.position == one.position
    assert (other.notes, other.schedule.state()) == (["a note"], one.schedule.state())
    assert equal(other.model.state_dict(), one.model.state_dict())
    assert equal(other.best, one.best)
    assert optimiser_tensors(one.optimiser)
    assert equal(optimiser_tensors(other.optimiser), optimiser_tensors(one.optimiser))
    if one.average and other.average:
        assert equal(other.average.state_tensors(), one.average.state_tensors())
        assert other.average.count == one.average.count == 3
    assert other.metrics.path.stat().st_size == size


def test_a_generation_without_one_of_its_parts_is_not_restored_as_it_was(tmp_path: Path) -> None:
    """The negative control of the test above."""
    one = learned(assembled(tmp_path / "run"))
    save(one)
    generation, _ = checkpoint.newest(tmp_path / "run" / rundir.CHECKPOINTS)
    assert generation is not None
    without = {name: tensor for name, tensor in generation.tensors.items() if not name.startswith("optimiser/")}
    other = assembled(tmp_path / "run")
    restore(other, dataclasses.replace(generation, tensors=without))
    assert not equal(optimiser_tensors(other.optimiser), optimiser_tensors(one.optimiser))


def test_frozen_layers_are_thawed_again_where_the_run_was(tmp_path: Path) -> None:
    settings = ("freeze=features", "unfreeze_at=2")
    one = assembled(tmp_path / "run", *settings)
    frozen = {name for name, parameter in one.model.named_parameters() if not parameter.requires_grad}
    assert frozen
    for step, expected in ((1, frozen), (2, set()), (3, set())):
        one.position.step = one.position.samples = step
        save(one)
        generation, _ = checkpoint.newest(tmp_path / "run" / rundir.CHECKPOINTS)
        assert generation is not None
        other = assembled(tmp_path / "run", *settings)
        restore(other, generation)
        assert {name for name, one in other.model.named_parameters() if not one.requires_grad} == expected


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_and_what_can_not_be_removed_are_noted_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    one = assembled(tmp_path / "run")
    one.position.step = 7
    failures: list[OSError] = [OSError(number, "no room"), OSError(number, "no room"),
                               checkpoint.LeftOverError(errno.EIO, "input/output error")]
    failures.append(OSError(errno.EIO, "broken"))

    def fail(*_: object) -> None:
        raise failures.pop(0)

    monkeypatch.setattr(checkpoint, "write", fail)
    for _ in range(3):
        save(one)
    assert one.notes == ["no room for the checkpoint at step 7 (no room); the one before stands",
                         "an old checkpoint could not be removed (input/output error); the next save tries it again"]
    with pytest.raises(OSError, match="broken"):
        save(one)


def test_progress_is_in_the_recipes_unit(tmp_path: Path) -> None:
    one = assembled(tmp_path / "run")
    one.position.step, one.position.samples = 7, 50
    assert one.progress == 7
    one.recipe = dataclasses.replace(one.recipe, unit="epochs")
    assert one.progress == 50 / 40


def test_more_than_ten_to_one_is_imbalanced(tmp_path: Path) -> None:
    one = assembled(tmp_path / "run")

    def with_counts(*counts: int) -> bool:
        labels = np.repeat(np.arange(len(counts)), counts)
        one.train = Samples("train", ("a", "b", "c"), labels, tuple(map(str, range(len(labels)))),
                            np.zeros((len(labels), 8, 8, 1), np.uint8))
        assert state.class_counts(one.train).tolist() == [*counts, *[0] * (3 - len(counts))]
        return one.imbalanced

    assert not with_counts(20, 2, 5)
    assert with_counts(21, 2, 5)
    assert with_counts(0, 11, 1)
    assert not with_counts(10, 1)  # a class without pictures has no part in it
    assert type(one.imbalanced) is bool


@pytest.mark.parametrize(("optimiser", "slots"), [("sgd", 1), ("adagrad", 1), ("adadelta", 2), ("rmsprop", 2),
                                                  ("adam", 2), ("adamw", 2)])
def test_a_checkpoints_size_is_said_before_it_is_written(tmp_path: Path, optimiser: str, slots: int) -> None:
    one = assembled(tmp_path / "run", f"optimiser={optimiser}", "ema=0", "nesterov=no")
    own = sum(tensor.nbytes for tensor in one.model.state_dict().values())
    assert state.checkpoint_size(one) == own * (1 + slots)
    one.recipe = dataclasses.replace(one.recipe, select="best")
    assert state.checkpoint_size(one) == own * (2 + slots)
    one.average = Average(one.model, 0.9)
    assert state.checkpoint_size(one) == own * (3 + slots)


def test_what_is_evaluated_is_the_average_and_the_training_stays_as_it_is(tmp_path: Path) -> None:
    one = learned(assembled(tmp_path / "run"))
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    one.model.train()
    assert one.average is not None
    shown = one.evaluated()
    assert equal(shown.state_dict(), one.average.state_tensors())
    assert equal(one.current(), one.average.state_tensors())
    assert not shown.training
    assert one.model.training
    assert equal(one.model.state_dict(), before)
    one.average = None
    assert one.evaluated() is one.model
    assert not one.model.training
    assert equal(one.current(), before)


def test_what_is_selected_is_what_the_recipe_says(tmp_path: Path) -> None:
    one = learned(assembled(tmp_path / "run", "select=best"))
    assert equal(one.selected(), one.current()), "there is no best one yet"
    one.best = {"weight": torch.ones(1)}
    assert equal(one.selected(), one.best)
    one.recipe = dataclasses.replace(one.recipe, select="last")
    assert equal(one.selected(), one.current())


@pytest.mark.parametrize("settings", [(), ("mean=per-pixel", "std=none")])
def test_what_was_computed_from_the_pictures_is_read_again(tmp_path: Path, settings: tuple[str, ...]) -> None:
    preprocess = fit_preprocess(tiny.data().train, tiny.recipe(*settings))
    colour = Colour(np.arange(9.0).reshape(3, 3), np.array([3.0, 2.0, 1.0]))
    for given in (None, colour):
        state.write_input(tmp_path, preprocess, given)
        found, principal = state.read_input(tmp_path)
        assert found.to_json() == preprocess.to_json()
        assert equal(found.tensors(), preprocess.tensors())
        if given is None:
            assert principal is None
    assert principal is not None
    assert np.array_equal(principal.vectors, colour.vectors)
    assert np.array_equal(principal.values, colour.values)
    file = tmp_path / "input.safetensors"
    for damaged in (b"", b"x" * 40, file.read_bytes()[:-1]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"input\.safetensors: can't be read \(.*\n.*preprocessing of this run"):
            state.read_input(tmp_path)


def test_only_the_first_process_writes_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(state.world(), rank=1, size=2)
    monkeypatch.setattr(state, "world", lambda: other)
    one = assembled(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    for lines in (one.metrics, one.speed):
        lines.write({"step": 1})
        lines.cut(5)
        assert lines.sync() == 0
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(("settings", "called"), [
    (("whiten=none", "recompute=none", "zero_init_last_scale=no"), set()),
    (("zero_init_last_scale=yes",), {"zero_last_scales"}),
    (("recompute=blocks",), {"recompute_blocks"}),
])
def test_what_the_recipe_asks_of_the_network_is_done(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], called: set[str]) -> None:
    done: dict[str, object] = {}
    for name in ("zero_last_scales", "recompute_blocks", "whiten_first"):
        monkeypatch.setattr(state, name, lambda part, *_, name=name: done.update({name: part}))
    model = assembled(tmp_path / "run", *settings).model
    assert done.keys() == called
    assert all(part is (model.features if name == "recompute_blocks" else model) for name, part in done.items())


def test_the_first_layer_is_whitened_with_the_preprocessed_pictures(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(state, "whiten_first", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(state, "freeze", lambda model, recipe: given.append((model, recipe)))
    one = assembled(tmp_path / "run")
    one.recipe = dataclasses.replace(one.recipe, whiten="first")
    (tmp_path / "white").mkdir()
    white = assemble(tmp_path / "white", one.recipe, tiny.data(), one.preprocess, None)
    assert given[-2:] == [(white.model, one.recipe), (white.model, tiny.data().train, one.preprocess)]
    assert isinstance(white.model, nn.Module)


def test_a_run_that_is_cut_anywhere_ends_as_the_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("select=best", "evaluate_every=2", "mixup=0.4")
    whole = tiny.digest(tiny.begin(tmp_path / "whole", tiny.recipe(*settings)))
    saved = train.save

    def cut(training: Training) -> None:
        saved(training)
        if training.position.step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "save", cut)
        with pytest.raises(BaseException):  # noqa: B017, PT011  how it ends is another test's
            tiny.begin(tmp_path / "cut", tiny.recipe(*settings))
    tiny.go_on(tmp_path / "cut")
    assert tiny.digest(tmp_path / "cut") == whole


def test_the_network_is_where_and_how_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("contiguous", "channels-last"):
        weight = assembled(tmp_path / form, "channels=3", f"memory_format={form}").model.get_parameter(
            "features.conv1.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last) == (form == "channels-last")
    monkeypatch.setattr(state.hardware, "prepare", lambda _: torch.device("meta"))
    elsewhere = assembled(tmp_path / "elsewhere")
    assert elsewhere.device.type == "meta"
    assert {tensor.device.type for tensor in elsewhere.model.state_dict().values()} == {"meta"}


def test_a_compiled_network_is_what_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = nn.Identity()
    monkeypatch.setattr(state.torch, "compile", lambda _: compiled)
    assert assembled(tmp_path / "run", "compile=yes").forward is compiled


def headed(name: str, num_classes: int, in_channels: int) -> Network:
    plain = tiny.build(name, num_classes, in_channels)
    head = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    model = SupervisedNetwork(dict(plain.features.named_children()), dict(plain.head.named_children()),
                              {"relu1": head})
    model.architecture = plain.architecture
    return model


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_auxiliary_heads_learn_where_they_have_a_weight(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float) -> None:
    checked: list[object] = []
    monkeypatch.setattr(state, "check_auxiliary", lambda model, shape: checked.append(shape))
    with monkeypatch.context() as inner:  # undone before `small` is, which replaces it too
        inner.setattr(state.models, "build", headed)
        one = assembled(tmp_path / "run", f"auxiliary_weight={weight}")
    assert checked == ([(1, 8, 8)] if weight else [])
    assert one.task.auxiliary_weight == weight
    assert [part.requires_grad for part in one.model.get_submodule("auxiliary").parameters()] == [weight > 0] * 2


class Counting:
    """Stands in for a compiled network or function: it counts its calls, and hands on what else is asked of it."""

    def __init__(self, called: Any) -> None:
        self.called, self.count = called, 0

    def __call__(self, *given: Any) -> Any:
        self.count += 1
        return self.called(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.called, name)


@pytest.mark.parametrize(("weight", "calls"), [(0.0, [1]), (0.3, [0, 1])])
def test_what_a_step_calls_is_compiled_also_with_auxiliary_heads(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float, calls: list[int]) -> None:
    compiled = list[Counting]()

    def compile_it(called: Any) -> Counting:
        compiled.append(Counting(called))
        return compiled[-1]

    monkeypatch.setattr(state.torch, "compile", compile_it)
    monkeypatch.setattr(state, "check_auxiliary", lambda *_: None)
    with monkeypatch.context() as inner:
        inner.setattr(state.models, "build", headed)
        one = assembled(tmp_path / "run", f"auxiliary_weight={weight}", "compile=yes")
    batch = {"image": torch.zeros(4, 1, 8, 8), "label": torch.arange(4)}
    one.task.loss(one.forward, batch)["loss"].backward()
    assert [each.count for each in compiled] == calls
    assert "with_auxiliary" not in vars(one.model)  # copies of the network are not compiled


def test_auxiliary_heads_that_there_are_not_have_no_weight(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"auxiliary_weight=0\.3: lenet5 has no auxiliary heads"):
        assembled(tmp_path / "run", "auxiliary_weight=0.3")
