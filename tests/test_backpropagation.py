"""The survey's equations 6 to 8 against autograd, in float64, to 1e-12."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.backpropagation import (
    NONLINEARITIES,
    AveragePooling,
    Convolution,
    FullyConnected,
    MaximumPooling,
    outputs,
    weight_changes,
)

RATE = 0.3
TORCHS = {"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "softsign": nn.Softsign(), "relu": nn.ReLU(),
          "linear": nn.Identity()}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def fully_connected(inputs: int, out: int, nonlinearity: str) -> FullyConnected:
    return FullyConnected(numbers(out, inputs) / inputs**0.5, numbers(out) / 3, nonlinearity)


def convolution(inputs: int, out: int, size: int, nonlinearity: str, stride: int = 1) -> Convolution:
    return Convolution(numbers(out, inputs, size, size) / size, numbers(out) / 3, nonlinearity, stride)


def by_torch(layer, x: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    if isinstance(layer, AveragePooling):
        return F.avg_pool2d(x, layer.size, layer.stride)
    if isinstance(layer, MaximumPooling):
        return F.max_pool2d(x, layer.size, layer.stride)
    convolves = isinstance(layer, Convolution)
    sums = F.conv2d(x, *parameters, stride=layer.stride) if convolves else F.linear(x.flatten(1), *parameters)
    return TORCHS[layer.nonlinearity](sums)


def by_autograd(layers, x: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, ...]]]:
    """The outputs and -alpha dE/dw with E = 1/2 sum of (T - Y)^2."""
    parameters = [[getattr(layer, name).clone().requires_grad_() for name in ("weight", "bias") if hasattr(layer, name)]
                  for layer in layers]  # fmt: skip
    for layer, own in zip(layers, parameters, strict=True):
        x = by_torch(layer, x, own)
    (0.5 * (targets - x).square().sum()).backward()
    return x.detach(), [tuple(-RATE * p.grad for p in own) for own in parameters]


def agree(layers, shape: tuple[int, ...], largest: float = 1e-12) -> bool:
    x = numbers(*shape)
    targets = numbers(*outputs(layers, x).shape)
    expected, changes = by_autograd(layers, x, targets)
    torch.testing.assert_close(outputs(layers, x), expected, rtol=1e-12, atol=1e-12)
    found = weight_changes(layers, x, targets, RATE)
    pairs = [(a, b) for one, two in zip(found, changes, strict=True) for a, b in zip(one, two, strict=True)]
    assert all(b.abs().max() > 1e-3 for _, b in pairs)
    return all((a - b).abs().max() <= largest * b.abs().max() for a, b in pairs)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_fully_connected_layers(nonlinearity):
    layers = [fully_connected(6, 5, nonlinearity), fully_connected(5, 4, nonlinearity),
              fully_connected(4, 3, nonlinearity)]  # fmt: skip
    assert agree(layers, (7, 6))


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("pooling", [AveragePooling(2, 2), MaximumPooling(2, 2), AveragePooling(3, 2),
                                     MaximumPooling(3, 2)], ids=str)  # fmt: skip
def test_a_convolutional_network(nonlinearity, pooling):
    """Figure 4: convolution, non-linearity, pooling, twice; then fully connected."""
    layers = [convolution(2, 3, 3, nonlinearity), pooling, convolution(3, 4, 2, nonlinearity), AveragePooling(2, 1)]
    inputs = outputs(layers, numbers(1, 2, 13, 13)).numel()
    assert agree([*layers, fully_connected(inputs, 3, "sigmoid")], (2, 2, 13, 13))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strided_convolution(stride):
    assert agree([convolution(2, 3, 3, "tanh", stride), convolution(3, 2, 2, "sigmoid")], (3, 2, 11, 12))


def test_equal_values_in_a_window():
    """After a ReLU many are 0: the first of equal ones gets all, as in torch."""
    layers = [replace(convolution(1, 2, 2, "relu"), bias=torch.tensor([-0.5, 0.2]).double()), MaximumPooling(2, 2),
              fully_connected(8, 2, "linear")]  # fmt: skip
    assert (outputs(layers[:1], numbers(3, 1, 5, 5)) == 0).double().mean() > 0.3
    assert agree(layers, (3, 1, 5, 5))


def test_one_unit_by_hand():
    """w = 0.5, X = 2, T = 1: y = 1, Y = 1/(1+e^-1), delta = (T - Y) Y (1 - Y), the change alpha delta X."""
    unit = FullyConnected(torch.tensor([[0.5]]).double(), torch.zeros(1).double(), "sigmoid")
    (weight, bias), = weight_changes([unit], torch.tensor([[2.0]]).double(), torch.ones(1, 1).double(), 0.1)
    delta = (1 - 0.7310585786300049) * 0.19661193324148185
    assert weight.item() == pytest.approx(0.1 * delta * 2, rel=1e-12)
    assert bias.item() == pytest.approx(0.1 * delta, rel=1e-12)


def test_the_change_goes_downhill():
    layers = [fully_connected(4, 5, "tanh"), fully_connected(5, 2, "sigmoid")]
    x, targets = numbers(6, 4), torch.rand(6, 2, dtype=torch.float64)
    changed = [replace(layer, weight=layer.weight + change[0], bias=layer.bias + change[1])
               for layer, change in zip(layers, weight_changes(layers, x, targets, 0.01), strict=True)]  # fmt: skip
    errors = [(targets - outputs(net, x)).square().sum() for net in (layers, changed)]
    assert errors[1] < errors[0]


def test_a_wrong_slope_is_found(monkeypatch):
    """The control: eq. 8 without h' of the hidden layer, or a slope that is a little off, does not agree."""
    layers = [fully_connected(6, 5, "tanh"), fully_connected(5, 3, "linear")]
    assert agree(layers, (4, 6))
    value, slope = NONLINEARITIES["tanh"]
    monkeypatch.setitem(NONLINEARITIES, "tanh", (value, lambda y: slope(y) * (1 + 1e-9)))
    assert not agree(layers, (4, 6))
    monkeypatch.setitem(NONLINEARITIES, "tanh", (value, torch.ones_like))
    assert not agree(layers, (4, 6), largest=1e-2)
