"""Inception v4: sizes of figures 3 and 9, modules by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.models import build, inception_v4
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_sizes_of_figure_9():
    assert stage_shapes("inception_v4") == {
        "stem": (384, 35, 35), "inception_a": (384, 35, 35), "reduction_a": (1024, 17, 17),
        "inception_b": (1024, 17, 17), "reduction_b": (1536, 8, 8), "inception_c": (1536, 8, 8),
    }  # fmt: skip


def test_sizes_of_figure_3():
    with torch.device("meta"):
        stem, maps = inception_v4.stem(3).eval(), torch.empty(1, 3, 299, 299)
        shapes = []
        for layer in stem:
            maps = layer(maps)
            shapes.append((maps.shape[1], maps.shape[2]))
    assert shapes == [(32, 149), (32, 147), (64, 147), (160, 73), (192, 71), (384, 35)]


def test_4_7_and_3_modules():
    with torch.device("meta"):
        features = build("inception_v4").features
    depths = {name: list(features.get_submodule(name)._modules) for name in ("inception_a", "inception_c")}
    assert depths == {"inception_a": ["a1", "a2", "a3", "a4"], "inception_c": ["c1", "c2", "c3"]}
    assert len(features.inception_b) == 7


def unit(inputs, outputs, weights):
    return inputs * outputs * weights + 2 * outputs


def test_parameters_of_the_modules_by_hand():
    a = 2 * unit(384, 96, 1) + 2 * unit(384, 64, 1) + 2 * unit(64, 96, 9) + unit(96, 96, 9)
    b = unit(1024, 384, 1) + unit(1024, 128, 1) + 2 * unit(1024, 192, 1)
    b += unit(192, 224, 7) + unit(224, 256, 7)
    b += unit(192, 192, 7) + unit(192, 224, 7) + unit(224, 224, 7) + unit(224, 256, 7)
    c = 2 * unit(1536, 256, 1) + 2 * unit(1536, 384, 1) + 2 * unit(384, 256, 3)
    c += unit(384, 448, 3) + unit(448, 512, 3) + 2 * unit(512, 256, 3)
    reduction_a = unit(384, 384, 9) + unit(384, 192, 1) + unit(192, 224, 9) + unit(224, 256, 9)
    reduction_b = unit(1024, 192, 1) + unit(192, 192, 9)
    reduction_b += unit(1024, 256, 1) + unit(256, 256, 7) + unit(256, 320, 7) + unit(320, 320, 9)
    stem = unit(3, 32, 9) + unit(32, 32, 9) + unit(32, 64, 9) + unit(64, 96, 9)
    stem += 2 * unit(160, 64, 1) + 2 * unit(64, 96, 9) + 2 * unit(64, 64, 7) + unit(192, 192, 9)
    expected = {"stem": stem, "inception_a": 4 * a, "reduction_a": reduction_a, "inception_b": 7 * b}
    expected |= {"reduction_b": reduction_b, "inception_c": 3 * c}
    found = dict.fromkeys(expected, 0)
    for row in cost("inception_v4").rows:
        if row.name.startswith("features"):
            found[row.name.split(".")[1]] += row.parameters
    assert found == expected
    assert sum(expected.values()) + 1536 * 1000 + 1000 == 42_679_816


def test_modules_concatenate_in_the_figures_order():
    module, maps = inception_v4.inception_a().eval(), torch.randn(1, 384, 5, 5)
    with torch.no_grad():
        found = module(maps)
        third = module.branch3.layer3(module.branch3.layer2(module.branch3.layer1(maps)))
    torch.testing.assert_close(found[:, 192:288], third)
    assert not torch.allclose(found[:, 96:192], third)  # the control: another branch's maps


def test_pooling_leaves_the_zeros_around_the_map_out():
    ones = torch.ones(1, 1, 5, 5)
    assert torch.equal(inception_v4.average_pool()(ones), ones)
    assert not torch.equal(nn.AvgPool2d(3, 1, 1)(ones), ones)  # the control


def test_arguments():
    with torch.device("meta"):
        model = build("inception_v4", dropout=0.5, num_classes=4, in_channels=2)
    assert model.head.dropout.p == 0.5
    assert model(torch.empty(2, 2, 96, 96, device="meta")).shape == (2, 4)
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}
