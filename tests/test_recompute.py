"""Activations computed again: the same bits as without, statistics taken in once, the same masks, the same names."""

from __future__ import annotations

import copy
import dataclasses
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise import hardware
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.errors import InputError
from layerwise.layers import recompute
from layerwise.layers.recompute import recomputable, recompute_blocks, statistics_kept
from layerwise.models import build
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.signals import Signals
from layerwise.train import loop
from layerwise.training.preparation import RunOptions
from layerwise.training.state import assemble

RECOMPUTE = ("none", "blocks")
NAMES = ("resnet20", "preact_resnet110", "densenet40_k12", "densenet_bc40_k12", "resnext29_32x4d")
DROPOUT = {"densenet40_k12": 0.2, "densenet_bc40_k12": 0.2}


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    return build(name, num_classes=3, **({"dropout": DROPOUT[name]} if name in DROPOUT else {}))


def train(model: nn.Module, steps: int = 2) -> dict[str, torch.Tensor]:
    """Everything that a few steps change, and the last gradients."""
    torch.manual_seed(2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    noise = torch.Generator().manual_seed(3)
    for _ in range(steps):
        optimiser.zero_grad()
        images = torch.randn(4, 3, 8, 8, generator=noise)
        F.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        optimiser.step()
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    return {name: tensor.clone() for name, tensor in (model.state_dict() | gradients).items()}


def different(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_bit_identical(name):
    """Weights, running statistics, counts of batches and gradients; with dropout where the network has it."""
    plain, again = made(name), made(name)
    names = list(again.state_dict())
    recompute_blocks(again.features)
    assert list(again.state_dict()) == names
    assert different(train(plain), train(again)) == []


def test_without_the_guard_the_statistics_take_in_a_batch_twice(monkeypatch):
    """The negative control."""
    plain, again = made("densenet_bc40_k12"), made("densenet_bc40_k12")
    recompute_blocks(again.features)
    monkeypatch.setattr(recompute, "statistics_kept", lambda block: nullcontext())
    found = different(train(plain, 1), train(again, 1))
    assert any(name.endswith("running_mean") for name in found)
    assert any(name.endswith("num_batches_tracked") for name in found)
    counts = {int(tensor) for name, tensor in again.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {1, 2}


def test_without_the_same_random_numbers_masks_differ(monkeypatch):
    """The negative control of dropout: random numbers of the second pass drawn anew."""
    plain, again = made("densenet_bc40_k12"), made("densenet_bc40_k12")
    recompute_blocks(again.features)
    kept = recompute.checkpoint

    def careless(*arguments, **options):
        return kept(*arguments, preserve_rng_state=False, **options)

    monkeypatch.setattr(recompute, "checkpoint", careless)
    found = different(train(plain, 1), train(again, 1))
    assert any(name.startswith("gradient") for name in found)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_runs_twice(name):
    model = made(name)
    blocks = recomputable(model.features)
    first = [next(layer for layer in block.modules() if not list(layer.children())) for block in blocks]
    recompute_blocks(model.features)
    runs = dict.fromkeys(first, 0)

    def count(layer, inputs, output):
        runs[layer] += 1

    for layer in first:
        layer.register_forward_hook(count)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert set(runs.values()) == {2}
    runs.update(dict.fromkeys(first, 0))
    with torch.no_grad():
        model(torch.randn(2, 3, 8, 8))
    assert set(runs.values()) == {1}  # nothing to compute again


def kept_numbers(model: nn.Module) -> int:
    """How many numbers the forward pass keeps for the backward pass, each storage once, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(torch.randn(4, 3, 16, 16))
    sizes = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() // 4 for one in alive}
    assert output.requires_grad
    return sum(size for place, size in sizes.items() if place not in own)


@pytest.mark.parametrize(("name", "most"), [("resnet56", 0.45), ("densenet_bc100_k12", 0.45), ("densenet40_k12", 0.25)])
def test_less_is_kept(name, most):
    plain, again = made(name), made(name)
    recompute_blocks(again.features)
    assert kept_numbers(again) < most * kept_numbers(plain)


def test_evaluation_is_the_same():
    plain, again = made("densenet_bc40_k12").eval(), made("densenet_bc40_k12").eval()
    recompute_blocks(again.features)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(plain(images), again(images))
    (plain(images).sum() + again(images).sum()).backward()  # gradients in evaluation mode, as for explanations
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    with torch.no_grad():
        assert torch.equal(plain(images), again(images))


def test_a_copy_computes_with_its_own_weights():
    model = made("resnet20")
    recompute_blocks(model.features)
    twin = copy.deepcopy(model)
    images = torch.randn(2, 3, 8, 8)
    before = model.eval()(images)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(model(images), before)
    assert not twin.eval()(images).any()


def test_statistics_are_followed_again_after_an_error():
    block = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False))
    mean = block[0].running_mean

    def fails() -> None:
        with statistics_kept(block):
            block(torch.randn(4, 2, 3, 3))
            assert block[0].running_mean.any()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fails()
    assert block[0].running_mean is mean
    assert not mean.any()
    assert block[0].num_batches_tracked == 0
    block(torch.randn(4, 2, 3, 3))
    assert mean.any()


def test_in_bf16():
    plain, again = made("densenet_bc40_k12"), made("densenet_bc40_k12")
    recompute_blocks(again.features)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(4)
        one = plain(torch.randn(2, 3, 8, 8)).float().sum()
        torch.manual_seed(4)
        other = again(torch.randn(2, 3, 8, 8)).float().sum()
    one.backward()
    other.backward()
    for first, second in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(first.grad, second.grad)


@pytest.mark.parametrize("name", ["lenet5", "alexnet_one_gpu"])
def test_a_chain_of_single_layers_has_nothing_to_compute_again(name):
    with torch.device("meta"), pytest.raises(InputError, match="recompute=blocks: the network has no blocks"):
        recompute_blocks(build(name).features)


def test_twice_is_our_mistake():
    model = made("resnet20")
    assert recompute_blocks(model.features) == 9
    with pytest.raises(AssertionError, match="already"):
        recompute_blocks(model.features)


def test_a_shape_only_walk_works():
    """Networks are measured on the meta device."""
    with torch.device("meta"):
        model = build("densenet_bc40_k12")
        recompute_blocks(model.features)
        model(torch.empty(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def trained(where: Path, settings: list[str]) -> dict[str, torch.Tensor]:
    """The weights after three steps of the training loop on made-up pictures."""
    noise = np.random.default_rng(0)
    samples = Samples(
        name="train", class_names=("a", "b"), labels=noise.integers(0, 2, 12), ids=tuple(map(str, range(12))),
        images=noise.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8))  # fmt: skip
    data = DataSet(name="noise", train=samples, val=None, test=None, notes=(), licence="none: noise")
    recipe = changed(preset("digits"), [
        "unit=iterations", "duration=3", "evaluate_every=3", "warmup_length=1", "validation=0", "batch_size=4",
        "device=cpu", "threads=1", "compile=no", *settings])  # fmt: skip
    recipe = hardware.resolve(recipe)
    preprocess = fit_preprocess(samples, recipe)
    recipe = dataclasses.replace(recipe, channels=preprocess.channels, input_size=preprocess.size)
    where.mkdir()
    training = assemble(where, recipe, data, preprocess, None)
    with Signals() as signals:
        loop(training, signals, RunOptions(quiet=True))
    return training.model.state_dict()


def test_the_training_loop_gives_the_same_weights(tmp_path):
    runs = [trained(tmp_path / value, ["network=densenet_bc40_k12", f"recompute={value}"]) for value in RECOMPUTE]
    assert different(*runs) == []
    other = trained(tmp_path / "other", ["network=densenet_bc40_k12", "learning_rate=0.3"])
    assert different(runs[0], other)  # the control: another rate, other weights


def test_the_training_refuses_a_network_without_blocks(tmp_path):
    with pytest.raises(InputError, match="recompute=blocks: the network has no blocks"):
        trained(tmp_path / "run", ["network=lenet5", "recompute=blocks"])
