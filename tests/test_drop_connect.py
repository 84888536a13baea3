"""DropConnect against all masks one by one; forward and update share the mask."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from layerwise.layers.drop_connect import DropConnect, DropConnectReLU, rectified_mean


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def all_masks(layer: DropConnect, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u for every mask of one output unit's connections, and the probability of each; the bias is a connection."""
    weights = np.append(layer.weight.detach().numpy()[0], layer.bias.detach().numpy())
    masks = np.array(list(itertools.product((0, 1), repeat=len(weights))))
    probability = (layer.drop ** (1 - masks) * (1 - layer.drop) ** masks).prod(1)
    return (masks * weights) @ np.append(v, 1), probability


@pytest.mark.parametrize("drop", [0.5, 0.2])
def test_moments_are_those_of_all_masks(drop):
    layer, v = DropConnect(5, 1, drop).double(), torch.randn(1, 5, dtype=torch.float64)
    values, probability = all_masks(layer, v.numpy()[0])
    mean, variance = (moment.item() for moment in layer.moments(v))
    assert mean == pytest.approx((probability * values).sum(), rel=1e-12)
    assert variance == pytest.approx((probability * (values - mean) ** 2).sum(), rel=1e-12)
    assert layer.eval()(v).item() == pytest.approx(mean, rel=1e-12)
    assert nn.functional.linear(v, layer.weight, layer.bias).item() != pytest.approx(mean, rel=1e-2)  # the control


def test_training_draws_from_all_masks():
    layer, v = DropConnect(3, 1, 0.3).double(), torch.randn(1, 3, dtype=torch.float64)
    draws = 20_000
    drawn = layer(v.expand(draws, -1)).detach().numpy().ravel()
    values, probability = all_masks(layer, v.numpy()[0])
    for value, part in zip(values, probability, strict=True):
        found = np.isclose(drawn, value).mean()
        assert abs(found - part) < 4.5 * math.sqrt(part * (1 - part) / draws)
    assert np.isclose(drawn[:, None], values).any(1).all()


def test_each_picture_has_its_own_mask():
    layer = DropConnect(20, 30)
    same = layer(torch.ones(2, 20))
    assert not torch.equal(same[0], same[1])


def test_the_update_has_the_mask_of_the_forward_pass():
    """For one picture: a dropped weight does not move, a kept one moves by delta v (algorithm 1)."""
    layer, v = DropConnect(6, 4).double(), torch.randn(1, 6, dtype=torch.float64)
    before, bias, coefficients = layer.weight.detach().clone(), layer.bias.detach().clone(), torch.randn(4).double()
    torch.manual_seed(5)
    u = layer(v)
    torch.manual_seed(5)
    mask, bias_mask = torch.rand(1, 4, 6)[0] >= 0.5, torch.rand(1, 4)[0] >= 0.5
    torch.testing.assert_close(u[0], (mask * before) @ v[0] + bias_mask * bias)
    (u[0] * coefficients).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    full = coefficients[:, None] * v
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * mask * full)
    torch.testing.assert_close(layer.bias.detach(), bias - 0.1 * bias_mask * coefficients)
    assert torch.equal(layer.weight.detach()[~mask], before[~mask])
    assert 0 < mask.sum() < mask.numel()
    # the control: an update that forgets the mask is another one
    assert not torch.allclose(layer.weight.detach(), before - 0.1 * full)


def test_gradients_by_differences():
    layer = DropConnect(3, 2).double()
    v = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def masked(vectors, weight, bias):
        torch.manual_seed(3)
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (vectors,))

    inputs = [v, *(p.detach().clone().requires_grad_() for p in layer.parameters())]
    assert torch.autograd.gradcheck(masked, inputs)
    assert torch.autograd.gradcheck(DropConnectReLU(3, 2).double().eval(), [v])


def test_the_rectified_mean_is_that_of_many_samples():
    """Algorithm 2 with Z = 400,000 samples."""
    mean = torch.tensor([-2.0, -0.3, 0.0, 0.7, 3.0], dtype=torch.float64)
    variance = torch.tensor([0.5, 2.0, 1.0, 0.1, 1.5], dtype=torch.float64)
    samples = (mean + variance.sqrt() * torch.randn(400_000, 5, dtype=torch.float64)).relu()
    error = (samples.mean(0) - rectified_mean(mean, variance)).abs() / (samples.std(0) / math.sqrt(400_000))
    assert error.max() < 4
    assert (mean.relu() - rectified_mean(mean, variance)).abs().max() > 0.3  # the control: Dropout's way
    torch.testing.assert_close(rectified_mean(mean, torch.zeros(5).double()), mean.relu())


def test_rectified_evaluation_against_all_masks():
    """Five connections of +1 and five of -1: a mean of 0, and ten terms are nearly a normal distribution."""
    layer, v = DropConnectReLU(10, 1).double(), torch.ones(1, 10, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -1.0] * 5))
        layer.bias.zero_()
    values, probability = all_masks(layer, v.numpy()[0])
    exact = (probability * np.maximum(values, 0)).sum()
    assert exact == pytest.approx(5 * math.comb(10, 5) / 2**10 / 2)  # half the mean distance of 10 throws from 5
    assert layer.eval()(v).item() == pytest.approx(exact, rel=0.03)
    assert layer.moments(v)[0].item() == 0  # the control: the mean alone says 0
    assert layer.train()(v).item() >= 0


def test_evaluation_draws_nothing():
    for layer in (DropConnect(4, 3).eval(), DropConnectReLU(4, 3, bias=False).eval()):
        v = torch.randn(2, 4)
        assert torch.equal(layer(v), layer(v))
        assert not torch.equal(layer.train()(v), layer(v))


def test_no_drop_is_a_linear_layer():
    layer, v = DropConnect(4, 3, 0.0), torch.randn(2, 4)
    torch.testing.assert_close(layer(v), nn.functional.linear(v, layer.weight, layer.bias))
    with pytest.raises(AssertionError, match="a part of the connections"):
        DropConnect(4, 3, 1.0)
