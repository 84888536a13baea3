"""The unit of the Inception networks, its chains, and branches: against the operations written out."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.branches import Branches
from layerwise.layers.convolution import conv_bn_relu, conv_relu, convolutions


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_unit_is_convolution_normalisation_relu():
    unit, maps = conv_bn_relu(3, 5, 3, 2, 0).double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    unit.bn.weight.data.uniform_(0.5, 1.5)
    unit.bn.bias.data.normal_()
    before = F.conv2d(maps, unit.conv.weight, stride=2)
    mean, variance = before.mean((0, 2, 3), keepdim=True), before.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = unit.bn.weight.view(1, -1, 1, 1), unit.bn.bias.view(1, -1, 1, 1)

    def expected(epsilon):
        return ((before - mean) / (variance + epsilon).sqrt() * scale + shift).relu()

    torch.testing.assert_close(unit(maps), expected(1e-3), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(unit(maps), expected(1e-5), rtol=1e-6)  # the control: torch's own epsilon
    assert conv_bn_relu(3, 5, 3, epsilon=1e-5).bn.eps == 1e-5
    assert unit.conv.bias is None


def test_gradients_of_a_unit():
    unit, maps = conv_bn_relu(2, 3, (1, 3)).double(), torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, maps)


@pytest.mark.parametrize("unit", [conv_bn_relu, conv_relu])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, (1, 7), (7, 1), (3, 1)])
def test_padding_is_half_the_kernel_unless_given(unit, kernel):
    maps = torch.randn(2, 2, 9, 8)
    assert unit(2, 4, kernel)(maps).shape == (2, 4, 9, 8)
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    assert unit(2, 4, kernel, 1, 0)(maps).shape == (2, 4, 10 - height, 9 - width)


def test_without_normalisation_there_is_a_bias():
    unit, maps = conv_relu(2, 3, 3), torch.randn(1, 2, 5, 5)
    expected = F.conv2d(maps, unit.conv.weight, unit.conv.bias, padding=1).relu()
    torch.testing.assert_close(unit(maps), expected)
    assert list(unit._modules) == ["conv", "relu"]


def test_a_chain_names_its_layers_and_counts_their_channels():
    chain = convolutions(6, (4, 1), (5, (1, 7)), (8, 3, 2, 0), first=nn.AvgPool2d(3, 1, 1))
    assert list(chain._modules) == ["pool", "layer1", "layer2", "layer3"]
    shapes = [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding)
              for c in chain.modules() if isinstance(c, nn.Conv2d)]  # fmt: skip
    assert shapes == [
        (6, 4, (1, 1), (1, 1), (0, 0)), (4, 5, (1, 7), (1, 1), (0, 3)), (5, 8, (3, 3), (2, 2), (0, 0))
    ]  # fmt: skip
    assert list(convolutions(6, (4, 1), unit=conv_relu).layer1._modules) == ["conv", "relu"]
    assert convolutions(6, (4, 1), unit=partial(conv_bn_relu, epsilon=0.5)).layer1.bn.eps == 0.5


def test_branches_lie_behind_one_another_in_their_order():
    one, two = nn.Conv2d(2, 3, 1), nn.MaxPool2d(1)
    maps = torch.randn(2, 2, 4, 4)
    found = Branches(one, two)(maps)
    assert torch.equal(found, torch.cat([one(maps), maps], 1))
    assert not torch.equal(found, Branches(two, one)(maps))  # the control: the order matters
    assert list(Branches(one, two)._modules) == ["branch1", "branch2"]
