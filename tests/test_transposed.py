"""Convolution, transposed convolution and factorised convolution as matrices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.factorised import factorised_convolution
from layerwise.layers.transposed import convolution_matrix

CASES = [((2, 5, 6), 3, 3, 1, 0), ((2, 5, 6), 3, 3, 1, 1), ((3, 7, 7), 2, 3, 2, 1), ((1, 8, 6), 4, 4, 2, 1),
         ((2, 6, 6), 3, 2, 3, 0)]  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("shape", "out", "k", "stride", "padding"), CASES)
def test_convolution_is_the_matrix(shape, out, k, stride, padding):
    weight, x = numbers(out, shape[0], k, k), numbers(2, *shape)
    matrix = convolution_matrix(weight, shape, stride, padding)
    expected = F.conv2d(x, weight, stride=stride, padding=padding)
    torch.testing.assert_close(x.flatten(1) @ matrix.T, expected.flatten(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "out", "k", "stride", "padding"), CASES)
def test_transposed_convolution_is_the_transpose_of_the_matrix(shape, out, k, stride, padding):
    weight = numbers(out, shape[0], k, k)
    matrix = convolution_matrix(weight, shape, stride, padding)
    layer = nn.ConvTranspose2d(out, shape[0], k, stride, padding, bias=False).double()
    layer.weight = nn.Parameter(weight)
    sides = [(side + 2 * padding - k) // stride + 1 for side in shape[1:]]
    y = numbers(2, out, *sides).requires_grad_()
    up = layer(y, output_size=list(shape[1:]))
    torch.testing.assert_close(up.flatten(1), y.flatten(1) @ matrix, rtol=1e-12, atol=1e-12)
    # backwards it is the convolution, C
    g = numbers(2, *shape)
    up.backward(g)
    torch.testing.assert_close(y.grad.flatten(1), g.flatten(1) @ matrix.T, rtol=1e-12, atol=1e-12)
    # the control: kernels turned by a half turn are another matrix
    turned = convolution_matrix(weight.flip(2, 3), shape, stride, padding)
    assert not torch.allclose(up.flatten(1), y.flatten(1) @ turned)


@pytest.mark.parametrize(("shape", "out", "k", "stride", "padding"), CASES)
def test_the_gradient_of_a_convolution_is_the_transpose(shape, out, k, stride, padding):
    weight, x = numbers(out, shape[0], k, k), numbers(2, *shape).requires_grad_()
    y = F.conv2d(x, weight, stride=stride, padding=padding)
    g = torch.randn_like(y)
    y.backward(g)
    matrix = convolution_matrix(weight, shape, stride, padding)
    torch.testing.assert_close(x.grad.flatten(1), g.flatten(1) @ matrix, rtol=1e-12, atol=1e-12)


def test_gradients_by_the_weight():
    weight = numbers(2, 2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: convolution_matrix(w, (2, 4, 3), 2, 1), [weight])


def test_kernels_for_other_maps():
    with pytest.raises(AssertionError, match="another number of maps"):
        convolution_matrix(numbers(1, 2, 3, 3), (3, 5, 5))


def test_a_transposed_layer_by_differences():
    layer = nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1).double()
    assert torch.autograd.gradcheck(layer, [numbers(1, 2, 3, 3).requires_grad_()])


@pytest.mark.parametrize("n", [3, 7])
def test_a_factorised_convolution_is_one_with_products_for_kernels(n):
    """vertical (middle, in, n, 1) and horizontal (out, middle, 1, n) make kernels of (out, in, n, n)."""
    layer, x = factorised_convolution(2, 4, n).double(), numbers(2, 2, 9, 8)
    kernels = torch.einsum("mir,omc->oirc", layer.vertical.weight[..., 0], layer.horizontal.weight[:, :, 0])
    expected = F.conv2d(x, kernels, layer.horizontal.bias, padding=n // 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    # the control: the two the other way round
    assert not torch.allclose(F.conv2d(x, kernels.mT, layer.horizontal.bias, padding=n // 2), expected)


def test_a_factorised_3x3_costs_a_third_less():
    weights = sum(p.numel() for p in factorised_convolution(8, 8, 3).parameters() if p.ndim == 4)
    assert weights / nn.Conv2d(8, 8, 3).weight.numel() == pytest.approx(2 / 3)
    with pytest.raises(AssertionError, match="no centre"):
        factorised_convolution(1, 1, 4)
