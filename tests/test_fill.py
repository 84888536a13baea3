"""Numbers drawn in parts by all threads: their distribution, one answer for any number of threads, small tensors."""

from __future__ import annotations

import pytest
import torch

from layerwise.layers import fill
from layerwise.layers.fill import fill_normal, fill_uniforms
from layerwise.layers.initialise import glorot_uniform


@pytest.fixture
def _small_parts(monkeypatch):
    monkeypatch.setattr(fill, "LARGE", 1000)
    monkeypatch.setattr(fill, "PART", 301)  # odd: two numbers come from 64 bits


def drawn(count: int, threads: int = 2, seed: int = 0) -> torch.Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tensor = torch.full((count // 10, 10), torch.nan)
    fill_normal(tensor, 0.5)
    torch.set_num_threads(before)
    return tensor


@pytest.mark.usefixtures("_small_parts")
def test_the_same_numbers_for_any_number_of_threads():
    one = drawn(5000, threads=1)
    assert torch.equal(one, drawn(5000, threads=3))
    assert not torch.equal(one, drawn(5000, seed=1))
    assert one.isfinite().all()
    parts = one.flatten().split(301)
    assert not any(torch.equal(parts[0], part) for part in parts[1:])  # a generator of its own for each part


@pytest.mark.usefixtures("_small_parts")
def test_the_distribution():
    normal, uniform = drawn(200_000).flatten(), torch.empty(200_000)
    assert normal.std().item() == pytest.approx(0.5, rel=0.01)
    assert abs(normal.mean()) < 0.005
    assert normal.abs().gt(1).float().mean().item() == pytest.approx(0.0455, rel=0.05)
    fill_uniforms([(uniform, 0.2)])
    assert uniform.abs().max() <= 0.2
    assert torch.histc(uniform, 10, -0.2, 0.2).div(20_000).sub(1).abs().max() < 0.05


def test_small_tensors_are_drawn_as_torch_does():
    found = drawn(500)
    torch.manual_seed(0)
    assert torch.equal(found, torch.empty(50, 10).normal_(0, 0.5))
    assert not torch.equal(found, torch.empty(50, 10).normal_(0, 0.5))


@pytest.mark.usefixtures("_small_parts")
def test_parameters_and_the_meta_device():
    weight = torch.nn.Parameter(torch.full((200, 10), torch.nan))
    fill_uniforms([(weight, 1.0)])
    assert weight.requires_grad
    assert weight.grad_fn is None
    assert weight.isfinite().all()
    with torch.device("meta"):
        tensor = torch.empty(200, 10)
        fill_normal(tensor, 1.0)
        assert tensor.is_meta


def test_glorots_bound_is_torchs():
    torch.manual_seed(0)
    layers = torch.nn.ModuleList([torch.nn.Conv2d(3, 8, 5), torch.nn.Linear(7, 9)])
    glorot_uniform(layers)
    found = [layer.weight.clone() for layer in layers]
    torch.manual_seed(0)
    torch.nn.Conv2d(3, 8, 5), torch.nn.Linear(7, 9)
    for layer, weight in zip(layers, found, strict=True):
        expected = torch.nn.init.xavier_uniform_(torch.empty_like(weight))
        torch.testing.assert_close(weight, expected)
        assert layer.bias.eq(0).all()
