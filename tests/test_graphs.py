"""Recorded steps: which trainings have them, what they replay, and when they are given up. No GPU is needed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from layerwise import hardware, train
from layerwise.data.loader import training_batches
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.distributed import World
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training import graphs
from layerwise.training.state import Recorded, Training, assemble

BATCH = 8


def training(place: Path, *settings: str) -> Training:
    noise = np.random.default_rng(0)
    count = 5 * BATCH + 3  # the last batch of an epoch is smaller
    samples = Samples(name="train", class_names=("a", "b", "c"), labels=noise.integers(0, 3, count),
                      ids=tuple(map(str, range(count))),
                      images=noise.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
    data = DataSet(name="noise", train=samples, val=None, test=None, notes=(), licence="none: noise")
    recipe = hardware.resolve(changed(preset("fast"), [
        "network=resnet20", f"batch_size={BATCH}", "threads=1", "validation=0", "input_size=32", "channels=3",
        "precision=fp32", *settings]))
    place.mkdir()
    return assemble(place, recipe, data, fit_preprocess(samples, recipe), None)


def steps(state: Training) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The sums of an epoch's steps, and the weights after them."""
    state.model.train()
    found = []
    for batch in training_batches(state.train, state.recipe, state.preprocess, 0, 0):
        found.append(train.gradients(state, batch))
        train.set_rate(state.optimiser, 0.05)
        state.optimiser.step()
    return found, state.model.state_dict()


class Played:
    """Stands in for a CUDA graph: it computes on the recorded tensors, and writes into the recorded tensors."""

    def __init__(self, state: Training, factor: float = 1.0) -> None:
        self.state, self.factor, self.count = state, factor, 0
        self.recorded: Recorded | None = None

    def replay(self) -> None:
        assert self.recorded is not None
        self.count += 1
        self.state.model.zero_grad(set_to_none=True)
        losses = graphs._ordinary(self.state, self.recorded.batch, 1.0)
        with torch.no_grad():
            for slope, parameter in zip(self.recorded.slopes, self.state.model.parameters(), strict=True):
                slope.copy_(parameter.grad * self.factor)
            for name, value in self.recorded.losses.items():
                value.copy_(losses[name])


def recording(player: Played) -> object:
    def record(state: Training, batch: dict[str, Tensor]) -> Recorded:
        static = {name: torch.zeros_like(value) for name, value in batch.items()}
        losses = {"loss": torch.zeros(()), "errors": torch.zeros((), dtype=torch.int64)}
        player.recorded = Recorded(player, static, losses, [torch.empty_like(p) for p in state.model.parameters()])
        return player.recorded

    return record


def test_replayed_steps_are_the_ordinary_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, weights = steps(training(tmp_path / "plain"))
    state = training(tmp_path / "replayed")
    player = Played(state)
    monkeypatch.setattr(graphs, "record", recording(player))
    state.replay.reason = ""
    sums, found = steps(state)
    assert player.count == 2  # once to compare in step 4, then step 5; the last batch is smaller
    assert state.replay.recorded is not None
    assert state.notes == []
    assert sums == plain
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_recording_with_another_gradient_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, weights = steps(training(tmp_path / "plain"))
    state = training(tmp_path / "replayed")
    player = Played(state, factor=1.01)
    monkeypatch.setattr(graphs, "record", recording(player))
    state.replay.reason = ""
    sums, found = steps(state)
    assert state.notes == ["steps are not replayed as a CUDA graph: a recorded step had another gradient"]
    assert player.count == 1
    assert sums == plain
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    # the comparison taken out, the wrong gradient would have been learnt from
    state = training(tmp_path / "unguarded")
    monkeypatch.setattr(graphs, "record", recording(Played(state, factor=1.01)))
    monkeypatch.setattr(graphs, "alike", lambda ours, theirs: True)
    state.replay.reason = ""
    assert not all(torch.equal(value, weights[name]) for name, value in steps(state)[1].items())


def test_a_recording_that_replays_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recording itself left in its tensors are the right gradients: of the very batch that is compared."""
    plain, weights = steps(training(tmp_path / "plain"))
    state = training(tmp_path / "replayed")

    class Empty(Played):
        def replay(self) -> None:
            self.count += 1

    player = Empty(state)

    def record(state: Training, batch: dict[str, Tensor]) -> Recorded:
        recorded = recording(player)(state, batch)
        for name, value in batch.items():
            recorded.batch[name].copy_(value)
        Played.replay(player)
        return recorded

    monkeypatch.setattr(graphs, "record", record)
    state.replay.reason = ""
    sums, found = steps(state)
    assert state.notes == ["steps are not replayed as a CUDA graph: a recorded step had another gradient"]
    assert state.replay.recorded is None
    assert sums == plain
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    # what replays is kept, though it was filled in the same way
    state = training(tmp_path / "kept")
    player = Played(state)
    state.replay.reason = ""
    assert steps(state)[0] == plain
    assert state.replay.recorded is not None


def test_steps_are_recorded_on_the_training_s_own_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else in a process chooses cuda:1: what is made without a device would be the first one's."""
    state = training(tmp_path / "one")
    state.device = torch.device("cuda:1")
    used = list[tuple[str, object]]()

    class Stream:
        def __init__(self, device: object = None) -> None:
            self.device = device
            used.append(("stream", device))

        def wait_stream(self, other: object) -> None: ...

    def graph(recorded: object, stream: Stream | None = None) -> AbstractContextManager[None]:
        used.append(("graph", stream and stream.device))
        return nullcontext()

    for name, stand_in in (("Stream", Stream), ("current_stream", Stream), ("CUDAGraph", object), ("graph", graph),
                           ("stream", lambda stream: nullcontext())):
        monkeypatch.setattr(graphs.torch.cuda, name, stand_in)
    batch = next(iter(training_batches(state.train, state.recipe, state.preprocess, 0, 0)))
    recorded = graphs.record(state, {name: batch[name] for name in ("image", "label")})
    assert {device for _, device in used} == {state.device}
    assert [kind for kind, _ in used].count("graph") == 1
    assert all(slope is not None and slope.any() for slope in recorded.slopes)


def test_a_recording_that_fails_is_given_up_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(state: Training, batch: dict[str, Tensor]) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    _, weights = steps(training(tmp_path / "plain"))
    state = training(tmp_path / "failed")
    monkeypatch.setattr(graphs, "record", record)
    state.replay.reason = ""
    _, found = steps(state)
    assert state.notes == ["steps are not replayed as a CUDA graph: the recording failed (operation not permitted when "
                           "stream is capturing)"]
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_what_is_recorded_and_what_is_not(tmp_path: Path) -> None:
    state = training(tmp_path / "one")
    assert graphs.why_not(state) == "the device is cpu"
    state.device = torch.device("cuda")
    assert graphs.why_not(state) == ""
    state.world = World(0, 2)
    assert graphs.why_not(state) == "several processes train together"
    state.world = World()
    state.position.micro_batch = BATCH // 2
    assert graphs.why_not(state) == "a step has several micro-batches"


@pytest.mark.parametrize(("setting", "reason"), [
    ("recompute=blocks", "activations are computed again"),
    ("freeze=features.conv1", "which layers learn is not the whole network"),
    ("dropout", "dropout draws new masks in each step"),
])
def test_recipes_that_are_not_recorded(setting: str, reason: str, tmp_path: Path) -> None:
    state = training(tmp_path / "one")
    if setting == "dropout":
        state.model.head.append(torch.nn.Dropout(0.5))
    else:
        state.recipe = changed(state.recipe, [setting])
    state.device = torch.device("cuda")
    assert graphs.why_not(state) == reason


def test_a_large_step_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = training(tmp_path / "one")
    state.device = torch.device("cuda")
    monkeypatch.setattr(graphs, "SMALL", 10)
    assert graphs.why_not(state) == "a step of 1e+09 multiply-adds is not small"


def test_gradients_are_compared_up_to_rounding() -> None:
    one = [torch.tensor([1.0, -2.0]), None]
    assert graphs.alike(one, [torch.tensor([1.0, -2.0001]), None])
    assert not graphs.alike(one, [torch.tensor([1.0, -2.1]), None])
    assert not graphs.alike(one, [torch.tensor([1.0, -2.0]), torch.zeros(1)])
    assert not graphs.alike([torch.tensor([float("nan")])], [torch.tensor([1.0])])


def test_numbers_are_read_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = training(tmp_path / "one", "micro_batch=2")
    read: list[int] = []
    really, asked = Tensor.tolist, Tensor.__float__

    def tolist(self: Tensor) -> list[float]:
        if self.is_floating_point():
            read.append(self.numel())
        return really(self)

    def as_float(self: Tensor) -> float:
        read.append(0)
        return asked(self)

    monkeypatch.setattr(Tensor, "tolist", tolist)
    monkeypatch.setattr(Tensor, "__float__", as_float)
    batch = next(iter(training_batches(state.train, state.recipe, state.preprocess, 0, 0)))
    state.model.train()
    train.gradients(state, batch)
    assert read == [9]  # loss and errors of four micro-batches, and the norm
