"""Aggregated transformations: figure 3's three forms are one function, the printed counts, counts by hand."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.models import build, resnext
from layerwise.models.resnet import shortcut_b, zero_last_scales
from layerwise.models.resnext import Bottleneck8x64d, Bottleneck32x4d, GroupedBottleneck
from layerwise.models.shapes import stage_shapes
from tests.model_counts import COUNTS
from tests.test_resnet import batch_norm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Bottleneck4x4d(GroupedBottleneck):
    cardinality, group_width = 4, 4


def paths(block: GroupedBottleneck, x: torch.Tensor, stride: int) -> torch.Tensor:
    """Figure 3(a): eq. 2 as a sum of separate paths 1x1, 3x3, 1x1; batch normalisation as in the block."""
    layers, total = block.residual, torch.zeros(())
    for part in range(block.cardinality):
        own = slice(part * block.group_width, (part + 1) * block.group_width)
        inner = F.conv2d(x, layers.conv1.weight[own])
        inner = narrow_norm(inner, layers.bn1, own).clamp(min=0)
        inner = F.conv2d(inner, layers.conv2.weight[own], stride=stride, padding=1)
        inner = narrow_norm(inner, layers.bn2, own).clamp(min=0)
        total = total + F.conv2d(inner, layers.conv3.weight[:, own])
    return batch_norm(total, layers.bn3)


def narrow_norm(maps: torch.Tensor, bn: nn.BatchNorm2d, own: slice) -> torch.Tensor:
    part = nn.BatchNorm2d(maps.shape[1]).double()
    part.weight.data, part.bias.data = bn.weight.data[own], bn.bias.data[own]
    return batch_norm(maps, part)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_block_is_the_sum_of_its_paths(stride):
    block = Bottleneck4x4d(10, 64, stride, shortcut_b).double()
    for name, parameter in block.named_parameters():
        if "bn" in name:
            nn.init.normal_(parameter)
    x = torch.randn(3, 10, 6, 6, dtype=torch.float64)
    shortcut = batch_norm(F.conv2d(x, block.shortcut.conv.weight, stride=stride), block.shortcut.bn)
    torch.testing.assert_close(block(x), (paths(block, x, stride) + shortcut).clamp(min=0))
    expected = block(x)
    block.cardinality = 3  # the control: one path left out
    assert not torch.allclose(expected, (paths(block, x, stride) + shortcut).clamp(min=0))


def test_the_template_of_table_1():
    block = Bottleneck32x4d(256, 128, 2, shortcut_b)
    shapes = [tuple(block.residual.get_parameter(f"conv{i}.weight").shape) for i in (1, 2, 3)]
    assert shapes == [(256, 256, 1, 1), (256, 8, 3, 3), (512, 256, 1, 1)]
    assert block.residual.conv2.groups == 32
    assert [block.residual.get_submodule(f"conv{i}").stride[0] for i in (1, 2, 3)] == [1, 2, 1]
    assert zero_last_scales(block) == 1


def test_a_blocks_weights_of_section_3_4():
    """C (256 d + 9 d^2 + 256 d) = 70k for C = 32, d = 4, where a bottleneck has 256 64 + 9 64^2 + 64 256 = 70k."""
    block = Bottleneck32x4d(256, 64, 1, shortcut_b)
    weights = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Conv2d))
    assert weights == 32 * (256 * 4 + 9 * 4 * 4 + 256 * 4) == 70_144


def by_hand(cardinality, group_width, depths, widths, channels, pixels):
    """Blocks with option B: parameters and multiply-adds; each stage but the first halves the map."""
    parameters = operations = 0
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        inner = cardinality * group_width * width // 64
        for unit in range(depth):
            before = pixels
            pixels = pixels // 4 if unit == 0 and stage else pixels
            grouped, last = 9 * inner * inner // cardinality, 4 * inner * width
            parameters += channels * inner + grouped + last + 4 * inner + 8 * width
            operations += before * channels * inner + pixels * (grouped + last)
            if unit == 0:
                parameters += 4 * channels * width + 8 * width
                operations += pixels * 4 * channels * width
            channels = 4 * width
    return parameters, operations, channels


@pytest.mark.parametrize("name", resnext.VARIANTS)
def test_counts_by_hand(name):
    depth, cardinality, group_width = map(int, re.findall(r"\d+", name))
    if depth == 29:
        parameters, operations, channels = by_hand(cardinality, group_width, (3, 3, 3), (64, 128, 256), 64, 32 * 32)
        parameters, operations = parameters + 27 * 64 + 128, operations + 27 * 64 * 1024
    else:
        depths = (3, 4, 6 if depth == 50 else 23, 3)
        parameters, operations, channels = by_hand(
            cardinality, group_width, depths, (64, 128, 256, 512), 64, 56 * 56)  # fmt: skip
        parameters, operations = parameters + 147 * 64 + 128, operations + 147 * 64 * 112 * 112
    classes = 10 if depth == 29 else 1000
    assert (parameters + channels * classes + classes, operations + channels * classes) == COUNTS[name][:2]


def test_counts_that_the_paper_prints():
    """Table 1: 25.0 million and 4.2 billion hold; table 7: 34.4 million holds, 68.1 is 68.155 with its end cut off."""
    assert round(COUNTS["resnext50_32x4d"][0] / 1e6, 1) == 25.0
    assert round(COUNTS["resnext50_32x4d"][1] / 1e9, 1) == 4.2
    assert round(COUNTS["resnext29_8x64d"][0] / 1e6, 1) == 34.4
    assert COUNTS["resnext29_16x64d"][0] // 100_000 == 681
    assert round(COUNTS["resnext29_16x64d"][0] / 1e6, 1) == 68.2


def test_stages():
    assert list(stage_shapes("resnext50_32x4d").values()) == [
        (64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]  # fmt: skip
    assert list(stage_shapes("resnext29_8x64d").values()) == [
        (64, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8)]  # fmt: skip


def test_cardinality_and_width_in_each_stage():
    with torch.device("meta"):
        model = build("resnext29_8x64d")
    grouped = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert [(module.groups, module.out_channels) for module in grouped[::3]] == [(8, 512), (8, 1024), (8, 2048)]
    assert isinstance(model.features.conv2_x.conv2_1, Bottleneck8x64d)
