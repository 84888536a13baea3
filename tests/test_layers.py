"""Layers against numpy or an explicit matrix; gradients against differences in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.initialise import he_normal, normal_by_inputs, uniform_by_inputs
from layerwise.layers.partial import PartialConv2d
from layerwise.layers.response_norm import ResponseNorm
from layerwise.layers.squash import ScaledTanh
from layerwise.layers.subsampling import Subsampling

TABLE = ((0, 2), (1,), (0, 1, 2))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def response_norm_by_hand(a: np.ndarray, n: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """The formula of AlexNet's section 3.3, index by index."""
    b = np.empty_like(a)
    for i in range(a.shape[1]):
        first, last = max(0, i - n // 2), min(a.shape[1] - 1, i + n // 2)
        b[:, i] = a[:, i] / (k + alpha * sum(a[:, j] ** 2 for j in range(first, last + 1))) ** beta
    return b


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_response_norm_sums_over_the_neighbours(channels):
    a = 20 * maps(2, channels, 3, 4)
    by_hand = response_norm_by_hand(a.numpy(), 5, 0.02, 0.75, 2.0)
    np.testing.assert_allclose(ResponseNorm(5, 0.02, 0.75, 2.0)(a).numpy(), by_hand, rtol=1e-12)
    # the control: torch's own layer with the same numbers averages, and is another function
    assert not np.allclose(nn.LocalResponseNorm(5, 0.02, 0.75, 2.0)(a).numpy(), by_hand, rtol=1e-2)


def test_response_norm_starts_with_the_papers_constants():
    a = 50 * maps(1, 8, 2, 2)
    by_hand = response_norm_by_hand(a.numpy(), 5, 1e-4, 0.75, 2.0)
    np.testing.assert_allclose(ResponseNorm()(a).numpy(), by_hand, rtol=1e-12)


def test_partial_convolution_against_loops():
    layer, a = PartialConv2d(3, TABLE, 2, stride=2).double(), maps(2, 3, 5, 6)
    nn.init.normal_(layer.bias)
    weight, expected = layer.weight.detach().numpy(), np.zeros((2, 3, 2, 3))
    for n, y, x in np.ndindex(2, 2, 3):
        kernel = 0
        for o, row in enumerate(TABLE):
            expected[n, o, y, x] = layer.bias[o].item()
            for i in row:
                expected[n, o, y, x] += (a[n, i, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].numpy() * weight[kernel]).sum()
                kernel += 1
    np.testing.assert_allclose(layer(a).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_partial_convolution_has_no_parameter_for_a_missing_connection():
    layer = PartialConv2d(3, TABLE, 5)
    assert sum(p.numel() for p in layer.parameters()) == 6 * 25 + 3
    missing = torch.tensor([[1 - (i in row) for i in range(3)] for row in TABLE], dtype=torch.bool)
    assert (layer.full_weight()[missing] == 0).all()
    assert (layer.full_weight()[~missing] != 0).all()
    a = torch.randn(1, 3, 9, 9)
    changed = a.clone()
    changed[:, 0] += 1
    difference = (layer(changed) - layer(a)).abs().amax((0, 2, 3))
    assert difference[1] == 0
    assert (difference[[0, 2]] > 0).all()


def test_partial_convolution_with_all_connections_is_a_convolution():
    layer = PartialConv2d(3, ((0, 1, 2),) * 4, 3, bias=False)
    a = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer(a), F.conv2d(a, layer.weight.view(4, 3, 3, 3)))


@pytest.mark.parametrize("table", [((0, 3),), ((-1,),), ((1, 1),)])
def test_partial_convolution_refuses_a_wrong_table(table):
    with pytest.raises(AssertionError, match=r"does not exist|names a connection twice"):
        PartialConv2d(3, table, 3)


def test_subsampling_against_loops():
    layer, a = Subsampling(2).double(), maps(2, 2, 4, 6)
    nn.init.normal_(layer.coefficient)
    nn.init.normal_(layer.bias)
    expected = np.empty((2, 2, 2, 3))
    for n, c, y, x in np.ndindex(expected.shape):
        total = a[n, c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum().item()
        expected[n, c, y, x] = total * layer.coefficient[c].item() + layer.bias[c].item()
    np.testing.assert_allclose(layer(a).detach().numpy(), expected, rtol=1e-12)


def test_subsampling_starts_as_the_average():
    a = maps(1, 3, 4, 4)
    torch.testing.assert_close(Subsampling(3).double()(a), F.avg_pool2d(a, 2))


def test_scaled_tanh_keeps_plus_and_minus_one():
    values = torch.tensor([-1.0, 0.0, 1.0, 100.0], dtype=torch.float64)
    np.testing.assert_allclose(ScaledTanh()(values).numpy(), [-1, 0, 1, 1.7159], atol=1e-4)
    assert abs(ScaledTanh()(torch.tensor(0.5)) - 1.7159 * math.tanh(1 / 3)) < 1e-6


LAYERS = [
    (ResponseNorm(3, 0.1), (2, 5, 2, 3)),
    (PartialConv2d(3, TABLE, 2, stride=2), (2, 3, 4, 4)),
    (Subsampling(3), (2, 3, 4, 4)),
    (ScaledTanh(), (2, 7)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__)
def test_gradients_by_differences(layer, shape):
    layer = layer.double()
    names = [name for name, _ in layer.named_parameters()]

    def function(image, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (image,))

    inputs = [maps(*shape).requires_grad_(), *(p.detach().clone().requires_grad_() for p in layer.parameters())]
    assert torch.autograd.gradcheck(function, inputs)


def test_gradcheck_can_fail():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values**2

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(Wrong.apply, [maps(3).requires_grad_()])


@pytest.mark.parametrize(("layer", "shape"), LAYERS[:3], ids=lambda value: type(value).__name__)
def test_memory_format_does_not_matter(layer, shape):
    a = maps(*shape)
    torch.testing.assert_close(layer.double()(a.contiguous(memory_format=torch.channels_last)), layer(a))


def test_he_normal_counts_the_inputs():
    model = nn.Sequential(nn.Conv2d(16, 400, 3), nn.Conv2d(32, 400, 5, groups=4), nn.Linear(50, 4000))
    he_normal(model)
    for module, inputs in zip(model, (16 * 9, 8 * 25, 50), strict=True):
        assert module.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.02)
        assert abs(module.weight.mean().item()) < 0.02 * math.sqrt(2 / inputs)
        assert not module.bias.any()
    # the control: torch's own start is another one
    assert nn.Linear(50, 4000).weight.std().item() != pytest.approx(math.sqrt(2 / 50), rel=0.02)


def test_uniform_by_inputs_stays_within_its_bounds():
    model = nn.Sequential(nn.Conv2d(8, 100, 5), nn.Linear(30, 1000), PartialConv2d(3, TABLE * 50, 5), Subsampling(500))
    uniform_by_inputs(model)
    for tensor, inputs in [(model[0].weight, 200), (model[0].bias, 200), (model[1].weight, 30), (model[1].bias, 30)]:
        assert 0.9 * 2.4 / inputs < tensor.abs().max().item() <= 2.4 / inputs
    for output, kernels in enumerate(model[2].kernels()):
        assert 0.5 * 2.4 / kernels.numel() < kernels.abs().max().item() <= 2.4 / kernels.numel() + 1e-6
        assert 0 < model[2].bias[output].abs().item() <= 2.4 / kernels.numel()
    assert 0.9 * 0.6 < model[3].coefficient.abs().max().item() <= 0.6


def test_normal_by_inputs_keeps_the_variance():
    model = nn.Sequential(nn.Conv2d(8, 200, 5), PartialConv2d(3, ((0, 1),) * 400, 5), nn.Linear(300, 300))
    normal_by_inputs(model)
    for module, inputs in zip(model, (200, 50, 300), strict=True):
        assert module.weight.std().item() == pytest.approx(inputs**-0.5, rel=0.03)
        assert not module.bias.any()
