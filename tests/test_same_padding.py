"""TensorFlow's "SAME": where the windows stand, and that an even side is not padded as usual."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.layers.same_padding import SamePadding


@pytest.mark.parametrize(
    ("side", "kernel_size", "stride", "before", "after"),
    [
        (4, 3, 2, 0, 1),
        (5, 3, 2, 1, 1),
        (224, 3, 2, 0, 1),
        (224, 5, 2, 1, 2),
        (56, 7, 2, 2, 3),
        (7, 3, 1, 1, 1),
        (5, 1, 2, 0, 0),
        (6, 2, 3, 0, 0),
    ],
)
def test_the_border_of_known_cases(side, kernel_size, stride, before, after):
    padded = SamePadding(kernel_size, stride, 5.0)(torch.zeros(1, 1, side, side))
    expected = torch.full((before + side + after,) * 2, 5.0)
    expected[before : before + side, before : before + side] = 0
    assert torch.equal(padded[0, 0], expected)


@pytest.mark.parametrize("side", range(1, 12))
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 2), (7, 2), (3, 1), (3, 3)])
def test_as_many_outputs_as_the_side_over_the_stride_rounded_up(side, kernel_size, stride):
    layers = nn.Sequential(SamePadding(kernel_size, stride), nn.Conv2d(1, 1, kernel_size, stride))
    assert layers(torch.zeros(1, 1, side, side + 1)).shape[2:] == (-(-side // stride), -(-(side + 1) // stride))


@pytest.mark.parametrize(("side", "equal"), [(7, True), (8, False)])
def test_only_on_odd_sides_it_is_padding_by_half_the_kernel(side, equal):
    maps = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    weight = torch.arange(9.0).reshape(1, 1, 3, 3)
    same = torch.nn.functional.conv2d(SamePadding(3, 2)(maps), weight, stride=2)
    usual = torch.nn.functional.conv2d(maps, weight, stride=2, padding=1)
    assert torch.equal(same, usual) is equal


def test_a_border_of_minus_infinity_never_wins_the_maximum():
    maps = torch.full((1, 1, 5, 5), -3.0)
    assert nn.MaxPool2d(3, 2)(SamePadding(3, 2, -torch.inf)(maps)).eq(-3).all()
    assert nn.MaxPool2d(3, 2)(SamePadding(3, 2)(maps)).eq(0).any()  # the control: a border of zeros does
