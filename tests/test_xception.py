"""Xception: figure 5 of the paper."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from layerwise.layers.separable import SeparableConv2d
from layerwise.models import build, xception
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@cache
def on_meta(**arguments):
    with torch.device("meta"):
        return build("xception", **arguments)


def test_sizes_of_figure_5():
    shapes = stage_shapes("xception")
    assert shapes == {"entry_flow": (728, 19, 19), "middle_flow": (728, 19, 19), "exit_flow": (2048, 10, 10)}
    with torch.device("meta"):
        entry, maps, sides = on_meta().features.entry_flow.eval(), torch.empty(1, 3, 299, 299), []
        for layer in entry:
            maps = layer(maps)
            sides.append((maps.shape[1], maps.shape[2]))
    assert sides == [(32, 149), (64, 147), (128, 74), (256, 37), (728, 19)]


def test_36_convolutions_in_14_modules():
    """Section 3: 36 convolutional layers in 14 modules, all but the first and last with linear shortcuts."""
    features = on_meta().features
    sums = [module for module in features.modules() if isinstance(module, xception.Sum)]
    separable = [module for module in features.modules() if isinstance(module, SeparableConv2d)]
    assert len(sums) == 12
    assert len(separable) + len(["conv1", "conv2"]) == 36
    assert [type(module.shortcut) for module in sums].count(nn.Identity) == 8


def test_parameters_by_hand():
    """Table 3 prints 22,855,952."""

    def separable(inputs, outputs):
        return inputs * 9 + inputs * outputs + 2 * outputs

    def shortcut(inputs, outputs):
        return inputs * outputs + 2 * outputs

    total = 3 * 32 * 9 + 64 + 32 * 64 * 9 + 128
    for inputs, width in ((64, 128), (128, 256), (256, 728)):
        total += separable(inputs, width) + separable(width, width) + shortcut(inputs, width)
    total += 8 * 3 * separable(728, 728)
    total += separable(728, 728) + separable(728, 1024) + shortcut(728, 1024)
    total += separable(1024, 1536) + separable(1536, 2048) + 2048 * 1000 + 1000
    assert cost("xception").parameters == total == 22_855_952


def test_activations_stand_before_the_separable_convolutions_but_at_the_ends():
    features = on_meta().features
    assert list(features.entry_flow.block1.branch.layer1._modules) == ["conv", "bn"]
    assert list(features.entry_flow.block1.branch.layer2._modules) == ["relu", "conv", "bn"]
    assert list(features.middle_flow.block4.branch.layer1._modules) == ["relu", "conv", "bn"]
    assert list(features.exit_flow.conv4._modules) == ["conv", "bn", "relu"]


@pytest.mark.parametrize("block", [xception.halving_block(4, 5, 6), xception.middle_block()])
def test_a_block_is_branch_plus_shortcut_and_nothing_after(block):
    block = block.eval()
    channels = 4 if isinstance(block.shortcut, nn.Sequential) else 728
    maps = torch.randn(2, channels, 7, 7)
    with torch.no_grad():
        found = block(maps)
        torch.testing.assert_close(found, block.branch(maps) + block.shortcut(maps))
        assert not torch.allclose(found, block.branch(maps))  # the control: without the shortcut
    assert (found < 0).any()


def test_blocks_halve_every_size():
    block = xception.halving_block(2, 3, 3).eval()
    for side in range(1, 10):
        assert block(torch.randn(1, 2, side, side)).shape == (1, 3, (side + 1) // 2, (side + 1) // 2)


def test_arguments_and_start():
    model = build("xception", num_classes=4, in_channels=1, dropout=0.25)
    assert model.head.dropout.p == 0.25
    assert model.features.entry_flow.conv1.conv.weight.shape == (32, 1, 3, 3)
    depthwise = model.features.exit_flow.conv4.conv.depthwise.weight
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.03)
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-5}
