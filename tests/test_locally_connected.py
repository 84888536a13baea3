"""Locally connected layers against loops; with one shared block they are a convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.locally_connected import LocallyConnected2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lively(*arguments: object, **named: object) -> LocallyConnected2d:
    layer = LocallyConnected2d(*arguments, **named).double()
    nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("share", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_against_loops(share, stride, padding):
    layer = lively(2, 3, (7, 8), 3, stride, padding, share)
    x = torch.randn(2, 2, 7, 8, dtype=torch.float64)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    found = layer(x).detach().numpy()
    assert found.shape[2:] == F.conv2d(x, torch.zeros(1, 2, 3, 3).double(), None, stride, padding).shape[2:]
    expected = np.empty_like(found)
    for n, o, i, j in np.ndindex(*found.shape):
        window = padded[n, :, i * stride : i * stride + 3, j * stride : j * stride + 3]
        block = i // share, j // share
        expected[n, o, i, j] = (window.ravel() * weight[block][o]).sum() + bias[block][o]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_one_block_for_all_positions_is_a_convolution():
    layer = lively(2, 3, (6, 5), 3, padding=1, share=6)
    assert layer.weight.shape == (1, 1, 3, 18)
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    expected = F.conv2d(x, layer.weight[0, 0].view(3, 2, 3, 3), layer.bias[0, 0], padding=1)
    torch.testing.assert_close(layer(x), expected)
    # the control: kernels of its own for each position are no convolution
    assert not torch.allclose(lively(2, 3, (6, 5), 3, padding=1)(x), expected)


def test_a_kernel_sees_only_its_block():
    layer, x = lively(1, 1, (6, 6), 3, share=2), torch.randn(1, 1, 6, 6, dtype=torch.float64)
    before = layer(x)
    with torch.no_grad():
        layer.weight[1, 0] += 1
    changed = (layer(x) != before)[0, 0]
    assert changed[2:, :2].all()
    assert changed.sum() == 4


@pytest.mark.parametrize("share", [1, 2])
def test_gradients_by_differences(share):
    layer = lively(2, 2, (4, 5), 2, share=share)

    def function(maps, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (maps,))

    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, [x, *layer.parameters()])


def test_weights_of_deepface_and_deepid():
    """DeepFace's L4: 16 kernels of 9x9x16 at 55x55 positions; DeepID's layers 3 and 4: 60 maps of 6x4, 80 of 2x1."""
    with torch.device("meta"):
        l4 = LocallyConnected2d(16, 16, (63, 63), 9)
        third, fourth = LocallyConnected2d(40, 60, (8, 6), 3, share=2), LocallyConnected2d(60, 80, (3, 2), 2)
    assert l4.output_size == (55, 55)
    assert l4.weight.numel() == 55 * 55 * 16 * 16 * 81 == l4.multiply_adds
    assert third.output_size == (6, 4)
    assert third.weight.numel() == 3 * 2 * 60 * 40 * 9
    assert third.multiply_adds == 6 * 4 * 60 * 40 * 9
    assert fourth.output_size == (2, 1)
    assert fourth.weight.numel() == 2 * 1 * 80 * 60 * 4


def test_another_map_and_wrong_sizes():
    with pytest.raises(RuntimeError, match="unflatten"):
        LocallyConnected2d(1, 1, (6, 6), 3)(torch.zeros(1, 1, 7, 6))
    with pytest.raises(AssertionError, match="does not fit"):
        LocallyConnected2d(1, 1, (2, 6), 3)
    with pytest.raises(AssertionError, match="at least one position"):
        LocallyConnected2d(1, 1, (6, 6), 3, share=0)


def test_memory_format_does_not_matter():
    layer, x = lively(2, 3, (5, 5), 3), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), layer(x))
