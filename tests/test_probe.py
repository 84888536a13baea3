"""The micro-batch is found before the start: by walking through the step on a CPU, by trying it elsewhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from layerwise import hardware, models, rundir, train
from layerwise.distributed import World
from layerwise.errors import InputError, MachineError
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.presets import preset
from layerwise.tasks.classify import Classify
from layerwise.train import RunOptions
from layerwise.training import probe
from layerwise.training.preparation import banner, open_split
from layerwise.training.state import Training, assemble, read_input

QUICK = ["threads=1", "precision=fp32", "unit=iterations", "duration=2", "evaluate_every=1", "schedule=constant",
         "warmup=none", "warmup_length=0", "batch_size=48", "label_smoothing=0", "ema=0"]


def recipe(*settings: str) -> Recipe:
    return changed(changed(preset("digits"), QUICK), settings)


def run(where: Path, *settings: str) -> Path:
    return train.train(recipe(*settings), RunOptions(out=where, quiet=True, offline=True, confirmed=True))


def assembled(where: Path, *settings: str) -> Training:
    """A training at its start."""
    done = run(where, *settings, "duration=1", "evaluate_every=1")
    chosen = rundir.read_recipe(done)
    (where / "again").mkdir()
    data = open_split(chosen, RunOptions(quiet=True, offline=True))
    return assemble(where / "again", chosen, data, *read_input(done))


def files(run: Path) -> dict[str, bytes]:
    """What equal runs have equal."""
    return {name: (run / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl", "recipe.json")}


def state_of(training: Training) -> str:
    """Everything that could change, as text: tensors to the bit, modes, optimiser, random state."""
    tensors = {name: value.tolist() for name, value in training.model.state_dict().items()}
    modes = [module.training for module in training.model.modules()]
    gradients = [parameter.grad is None for parameter in training.model.parameters()]
    return json.dumps([tensors, modes, gradients, str(training.optimiser.state_dict()),
                       torch.random.get_rng_state().tolist()])


def scarce(room: int) -> pytest.MonkeyPatch:
    """Makes the free memory such that `room` bytes remain beside the margin."""
    patch = pytest.MonkeyPatch()
    patch.setattr(probe, "available_memory", lambda device: int(room / (1 - probe.MARGIN)) + 2)
    return patch


def peak(training: Training, micro: int) -> int:
    need = probe.needed(training, micro)
    assert need is not None
    return need.peak


def test_a_run_with_a_found_micro_batch_is_that_with_it_given(tmp_path: Path) -> None:
    given = run(tmp_path / "given", "micro_batch=12")
    state = assembled(tmp_path / "state")
    patch = scarce(peak(state, 12))
    try:
        found = run(tmp_path / "found", "micro_batch=0")
    finally:
        patch.undo()
    assert rundir.read_recipe(found).micro_batch == 12
    assert files(found) == files(given)
    notes = rundir.read_run(found)["notes"]
    assert "micro-batches of 12 in a batch of 48: batch normalisation takes its statistics over those 12" in notes
    assert files(run(tmp_path / "whole", "micro_batch=0")) != files(given)  # the control: nothing is scarce


def test_what_fits_by_far_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = assembled(tmp_path / "state")
    monkeypatch.setattr(probe, "needed", None)
    assert probe.probe_micro_batch(state, True) == "micro-batch 48: memory does not limit it"
    assert state.notes == []
    monkeypatch.setattr(probe, "available_memory", lambda device: None)
    assert "not probed, this system does not tell" in probe.probe_micro_batch(state, True)


@pytest.mark.parametrize(("micro", "words"), [
    (48, "the whole batch"), (24, "found by probing"), (6, "found by probing")])
def test_the_largest_that_fits_is_taken(tmp_path: Path, micro: int, words: str) -> None:
    state = assembled(tmp_path / "state")
    patch = scarce(peak(state, micro))
    try:
        line = probe.probe_micro_batch(state, True)
    finally:
        patch.undo()
    assert (state.recipe.micro_batch, state.position.micro_batch) == (micro, micro)
    assert line.startswith(f"micro-batch {micro}, {words}: needs about 0.0")
    patch = scarce(peak(state, 6) - 100)  # the control: less memory, another answer
    try:
        probe.probe_micro_batch(state, True)
    finally:
        patch.undo()
    assert state.recipe.micro_batch < 6


@pytest.mark.parametrize(("settings", "micro"), [(["batch_size=50"], 13), (["batch_size=17"], 5), (["mixup=0.2"], 1)])
def test_a_recipe_with_a_found_micro_batch_is_one_that_may_be_given(
    tmp_path: Path, settings: list[str], micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves are rounded up, so that they need not divide the batch: what is found is read again by many commands."""
    state = assembled(tmp_path / "state", *settings)
    monkeypatch.setattr(probe, "needed", lambda training, count: probe.Need(count, 0, 0, 1000 * count, 0, 0, 0))
    patch = scarce(1000 * micro)
    try:
        probe.probe_micro_batch(state, True)
    finally:
        patch.undo()
    assert state.recipe.micro_batch == micro
    check(state.recipe)
    with pytest.raises(InputError, match="1 problem"):  # the control: not everything may be given
        check(changed(state.recipe, ["micro_batch=51"]))


def test_probing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = assembled(tmp_path / "state")
    before = state_of(state)
    probe.needed(state, 48)
    assert probe._trial(state, 48) == 0
    assert state_of(state) == before
    loss = Classify.loss
    monkeypatch.setattr(Classify, "loss", lambda *a: loss(*a) if len(a[2]["label"]) < 9 else (_ for _ in ()).throw(
        torch.OutOfMemoryError("injected")))
    assert probe._trial(state, 9) is None
    assert state_of(state) == before
    monkeypatch.setattr(probe, "_kept", lambda training: torch.no_grad())  # the control: nothing is put back
    monkeypatch.setattr(Classify, "loss", loss)
    with torch.enable_grad():
        state.model(probe._batch(state, 4, 8, state.model)["image"])
    assert state_of(state) != before


def test_a_device_is_tried_and_halved_when_its_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor stands for the device: the walk on it is not consulted, an injected error is."""
    state = assembled(tmp_path / "state")
    loss, tried = Classify.loss, []

    def limited(task: Classify, model: nn.Module, batch: dict) -> dict:
        if batch["image"].device.type == "cpu":
            tried.append(len(batch["label"]))
            if len(batch["label"]) > 12:
                raise torch.OutOfMemoryError("injected")
        return loss(task, model, batch)

    monkeypatch.setattr(Classify, "loss", limited)
    monkeypatch.setattr(probe, "available_memory", lambda device: probe.rough_bound(state) // 5)
    monkeypatch.setattr(probe, "tried_on", lambda device: True)
    before = state_of(state)
    assert probe.probe_micro_batch(state, True).startswith("micro-batch 12, found by probing")
    assert tried == [48, 24, 12]
    assert state_of(state) == before
    monkeypatch.setattr(Classify, "loss", lambda *a: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        probe._trial(state, 12)


def test_one_picture_that_does_not_fit_ends_before_the_start(tmp_path: Path) -> None:
    state = assembled(tmp_path / "state")
    patch = scarce(peak(state, 1) - 100)
    try:
        with pytest.raises(MachineError, match="not even one picture at a time fits into memory") as error:
            run(tmp_path / "run", "micro_batch=0")
    finally:
        patch.undo()
    text = str(error.value)
    for phase in ("weights", "gradients, optimiser and best weights", "activations of one picture",
                  "batches that wait", "validation"):
        assert f"  - {phase}" in text, phase
    assert "20 % are left as a margin" in text
    assert "Choose a smaller network" in text
    assert not (tmp_path / "run").exists()


def test_a_size_that_would_fit_is_named(tmp_path: Path) -> None:
    state = assembled(tmp_path / "state", "resize=squash", "input_size=64", "crop=none", "batch_size=2")
    small = probe.needed(state, 1, 40)
    assert small is not None
    assert "--set input_size=40 (needs about" in str(probe._too_large(
        state, probe.needed(state, 1), int(small.peak / (1 - probe.MARGIN)) + 2))


def test_a_micro_batch_that_was_set_stays_and_is_doubted(tmp_path: Path) -> None:
    state = assembled(tmp_path / "state", "micro_batch=24")
    patch = scarce(peak(state, 12))
    try:
        line = probe.probe_micro_batch(state, False)
    finally:
        patch.undo()
    assert line.startswith("micro_batch=24 as set needs about")
    assert line.endswith("it may not fit")
    assert state.recipe.micro_batch == 24
    assert line in state.notes


def test_the_walk_counts_activations_in_proportion_and_recognises_frozen_layers(tmp_path: Path) -> None:
    state = assembled(tmp_path / "state")
    one, two, four = (probe.needed(state, micro) for micro in (12, 24, 48))
    assert one is not None
    assert two is not None
    assert four is not None
    assert four.activations - two.activations == pytest.approx(2 * (two.activations - one.activations), rel=0.02)
    # What the backward pass needs is at least the inputs of all convolutions; what is frozen needs less.
    kept = 0
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        batch = probe._batch(state, 48, 8, state.model)
        seen: set[int] = set()

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                kept += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = state.task.loss(state.model, batch)["loss"]
    weights = sum(parameter.numel() * 4 for parameter in state.model.parameters())
    del loss
    assert kept - weights < four.activations < 3 * kept + 2 * weights + four.weights * probe.SCRATCH
    for name, parameter in state.model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    frozen = probe.needed(state, 48)
    assert frozen is not None
    assert frozen.activations < four.activations
    assert frozen.optimiser < four.optimiser


def test_emulated_bf16_is_not_counted_as_half_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = assembled(tmp_path / "state", "precision=bf16")
    found = {}
    for native in (True, False):
        monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda native=native: native)
        need = probe.needed(state, 48)
        assert need is not None
        found[native] = need.activations
        assert any("this processor has no bf16" in line for line in banner(state)) is not native
    assert found[False] > 1.5 * found[True]


def test_of_several_processes_each_needs_its_share_and_has_its_part_of_the_memory(tmp_path: Path) -> None:
    alone, two = assembled(tmp_path / "alone"), assembled(tmp_path / "two")
    half = assembled(tmp_path / "half", "batch_size=24")
    two.world = World(0, 2)
    whole, shared, fewer = (probe.needed(state, 48) for state in (alone, two, half))
    assert whole is not None
    assert shared is not None
    assert fewer is not None
    assert (shared.activations, shared.pictures) == (fewer.activations, fewer.pictures)
    assert shared.activations < 0.7 * whole.activations  # the control: a process alone has all of them
    assert shared.validation == whole.validation  # the first process validates as one that is alone
    assert probe.rough_bound(two) < probe.rough_bound(alone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "available_memory", lambda device: 1000)
        assert (probe._free(alone), probe._free(two)) == (1000, 500)


@pytest.mark.parametrize("name", ["lenet1989", "lenet5_1998", "alexnet", "resnet50", "resnet20", "plain18"])
def test_networks_can_be_walked_through(tmp_path: Path, name: str) -> None:
    state = assembled(tmp_path / "state")
    channels, side, _ = models.published_input(name)
    state.model = models.build(name, num_classes=10, in_channels=channels)
    state.preprocess = dataclasses.replace(state.preprocess, channels=channels, size=side)
    need = probe.needed(state, 4)
    assert need is not None
    assert need.activations > 0
    assert need.peak < probe.rough_bound(state) * 48


def test_the_validation_batch_is_a_function_of_the_recipe() -> None:
    assert [probe._validation_batch(micro, 32) for micro in (1, 12, 128, 512)] == [8, 96, 256, 512]
    assert [probe._validation_batch(micro, 224) for micro in (1, 8, 64)] == [8, 20, 64]


def test_control_groups_limit_what_is_free(tmp_path: Path) -> None:
    """Version 2 with a limit above the own group, version 1, and no limit at all."""
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    for place, limit, used in (("a", "1000000", 300_000), ("a/b", "max", 200_000)):
        folder = tmp_path / "fs" / place
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 100000\n")
    assert list(probe._free_of_groups(tmp_path / "fs", own)) == [800_000]
    own.write_text("3:cpu:/x\n7:memory:/c\n")
    folder = tmp_path / "fs" / "memory" / "c"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("5000")
    (folder / "memory.usage_in_bytes").write_text("6000")
    (folder / "memory.stat").write_text("total_inactive_file 500\n")
    assert list(probe._free_of_groups(tmp_path / "fs", own)) == [0]
    (folder / "memory.limit_in_bytes").write_text(str((1 << 63) - 4096))
    assert list(probe._free_of_groups(tmp_path / "fs", own)) == []
    assert list(probe._free_of_groups(tmp_path / "fs", tmp_path / "none")) == []
    information = tmp_path / "meminfo"
    information.write_text("MemTotal: 8 kB\nMemAvailable:       4 kB\n")
    assert probe._free_of_machine(information) == 4096
    assert probe._free_of_machine(tmp_path / "none") is None
