"""Separable convolution against loops; gradients against differences in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from layerwise.layers.separable import SeparableConv2d


def by_loops(x: np.ndarray, depthwise: np.ndarray, pointwise: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Each map with its own kernel, then a mixture of maps at each position."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    k = depthwise.shape[-1]
    height, width = ((side - k) // stride + 1 for side in x.shape[2:])
    between = np.zeros((*x.shape[:2], height, width))
    for n, c, i, j in np.ndindex(*between.shape):
        top, left = i * stride, j * stride
        between[n, c, i, j] = (x[n, c, top : top + k, left : left + k] * depthwise[c, 0]).sum()
    return np.einsum("oc,nchw->nohw", pointwise[:, :, 0, 0], between)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1)])
def test_against_loops(stride, padding):
    torch.manual_seed(0)
    layer = SeparableConv2d(3, 4, 3, stride, padding).double()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    expected = by_loops(x.numpy(), *(p.detach().numpy() for p in layer.parameters()), stride, padding)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    # the control: a full convolution with the product kernels of one other map is not it
    assert not np.allclose(layer(x.flip(1)).detach().numpy(), expected)


def test_it_is_the_convolution_whose_kernels_are_products():
    torch.manual_seed(0)
    layer, full = SeparableConv2d(3, 5, 3, padding=1).double(), nn.Conv2d(3, 5, 3, padding=1, bias=False).double()
    with torch.no_grad():
        full.weight.copy_(layer.pointwise.weight * layer.depthwise.weight.transpose(0, 1))
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), full(x), rtol=1e-12, atol=1e-12)


def test_gradients():
    torch.manual_seed(0)
    layer = SeparableConv2d(2, 3, 3, bias=True).double()
    names = [name for name, _ in layer.named_parameters()]
    assert names == ["depthwise.weight", "pointwise.weight", "pointwise.bias"]

    def function(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(function, (x, *layer.parameters()))


def test_weights_as_mobilenets_section_3_1_counts_them():
    """k^2 M + M N instead of k^2 M N: 1/N + 1/k^2 of the cost."""
    layer, full = SeparableConv2d(32, 64, 3), nn.Conv2d(32, 64, 3, bias=False)
    weights = sum(p.numel() for p in layer.parameters())
    assert weights == 9 * 32 + 32 * 64
    assert weights / full.weight.numel() == pytest.approx(1 / 64 + 1 / 9)
