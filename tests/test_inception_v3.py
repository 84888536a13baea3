"""Inception v3: table 1 of the paper, where it holds, the modules of figures 5 to 7, the auxiliary head."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.branches import Branches
from layerwise.models import build, inception_v3
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@cache
def on_meta(**arguments):
    with torch.device("meta"):
        return build("inception_v3", **arguments)


def test_stages():
    stem = {"conv1a": (32, 149), "conv2a": (32, 147), "conv2b": (64, 147), "pool3a": (64, 73), "conv3b": (80, 73)}
    stem |= {"conv4a": (192, 71), "pool5a": (192, 35)}
    modules = {"mixed_5b": (256, 35), "mixed_5c": (288, 35), "mixed_5d": (288, 35)}
    modules |= {f"mixed_6{letter}": (768, 17) for letter in "abcde"}
    modules |= {"mixed_7a": (1280, 8), "mixed_7b": (2048, 8), "mixed_7c": (2048, 8)}
    expected = {stage: (channels, side, side) for stage, (channels, side) in (stem | modules).items()}
    assert stage_shapes("inception_v3") == expected


def test_table_1_holds_but_for_the_last_layers_of_its_stem():
    """The input size of each line of table 1; the line after pooling has two more convolutions in the table."""
    shapes = stage_shapes("inception_v3")
    printed = {
        "conv1a": (32, 149), "conv2a": (32, 147), "conv2b": (64, 147), "pool3a": (64, 73), "conv3b": (80, 71),
        "conv4a": (192, 35), "pool5a": (288, 35), "mixed_5d": (768, 17), "mixed_6e": (1280, 8), "mixed_7c": (2048, 8),
    }  # fmt: skip
    follows = shapes | {"mixed_5d": shapes["mixed_6a"], "mixed_6e": shapes["mixed_7a"]}
    fails = [stage for stage, (channels, side) in printed.items() if follows[stage] != (channels, side, side)]
    assert fails == ["conv3b", "conv4a", "pool5a"]


def test_5_billion_and_25_million_of_the_abstract():
    counted = cost("inception_v3")
    assert counted.parameters < 25e6  # "less than 25 million parameters": holds
    assert round(counted.multiply_adds / 1e9) == 6  # "5 billion multiply-adds": fails


def test_parameters_of_a_module_by_hand():
    def unit(inputs, outputs, weights):
        return inputs * outputs * weights + 2 * outputs

    expected = unit(768, 192, 1) + unit(768, 160, 1) + unit(160, 160, 7) + unit(160, 192, 7)
    expected += unit(768, 160, 1) + 3 * unit(160, 160, 7) + unit(160, 192, 7) + unit(768, 192, 1)
    rows = [row.parameters for row in cost("inception_v3").rows if ".mixed_6c." in row.name]
    assert sum(rows) == expected


def test_7x7_as_1x7_and_7x1():
    branches = on_meta().features.mixed_6b._modules
    kernels = [[layer.kernel_size for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
               for branch in branches.values()]  # fmt: skip
    one, row, column = (1, 1), (1, 7), (7, 1)
    assert kernels == [[one], [one, row, column], [one, column, row, column, row], [one]]


def test_a_row_then_a_column_is_a_kernel_of_rank_one():
    """Section 3.2: n x 1 after 1 x n sees n x n pixels, at 2n of n^2 multiply-adds."""
    row, column = torch.randn(1, 1, 1, 7, dtype=torch.float64), torch.randn(1, 1, 7, 1, dtype=torch.float64)
    maps = torch.randn(1, 1, 12, 12, dtype=torch.float64)
    found = F.conv2d(F.conv2d(maps, row, padding=(0, 3)), column, padding=(3, 0))
    torch.testing.assert_close(found, F.conv2d(maps, column * row, padding=3), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(found, F.conv2d(maps, column.flip(2) * row, padding=3))  # the control


def test_expanded_banks_see_the_same_maps():
    module = inception_v3.grid_8(16).eval()
    maps = torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        found = module(maps)
        before = module.branch2.layer1(maps)
        ends = [module.branch2.expanded.branch1(before), module.branch2.expanded.branch2(before)]
    assert found.shape == (1, 2048, 4, 4)
    torch.testing.assert_close(found[:, 320:1088], torch.cat(ends, 1))
    assert isinstance(module.branch3.expanded, Branches)


def test_pooling_counts_the_zeros_around_the_map():
    pooled = on_meta().features.mixed_5b.branch4.pool.to("cpu")(torch.ones(1, 1, 5, 5))
    assert pooled[0, 0, 0, 0] == pytest.approx(4 / 9)
    assert pooled[0, 0, 2, 2] == pytest.approx(1)


def test_auxiliary_head():
    model = on_meta()
    head = model.auxiliary.mixed_6e
    assert sum(p.numel() for p in head.parameters()) == 27_161_264 - 23_834_568
    assert sum(p.numel() for p in model.parameters()) == 27_161_264
    assert [type(layer).__name__ for layer in head.modules()].count("BatchNorm2d") == 2  # figure 8: BN-auxiliary
    logits, answers = model.with_auxiliary(torch.empty(2, 3, 299, 299, device="meta"))
    assert logits.shape == answers["mixed_6e"].shape == (2, 1000)
    assert head.pool(torch.empty(1, 768, 17, 17, device="meta")).shape == (1, 768, 5, 5)


def test_arguments_and_start():
    model = on_meta(dropout=0.4, num_classes=7, in_channels=1)
    assert model.head.dropout.p == 0.4
    assert model.features.conv1a.conv.weight.shape == (32, 1, 3, 3)
    assert model.auxiliary.mixed_6e.fc.out_features == model.head.fc.out_features == 7
    weight = inception_v3.grid_17(64, 96).branch3.layer3.conv.weight
    assert weight.shape == (96, 96, 1, 7)
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}
    whole = build("inception_v3", num_classes=2)
    assert whole.features.mixed_7c.branch3.layer2.conv.weight.std().item() == pytest.approx(
        (2 / (448 * 9)) ** 0.5, rel=0.01
    )
