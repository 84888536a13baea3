"""MobileNet v2 and EfficientNet-Lite0: table 2 by hand, widths, residuals, linear bottlenecks, padding."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

from layerwise.layers.same_padding import SamePadding
from layerwise.models import build
from layerwise.models.efficientnet_lite import TABLE_1
from layerwise.models.mobilenet_v2 import TABLE_2, InvertedResidual, LinearBottleneck, multiple_of_8
from layerwise.models.shapes import cost, stage_shapes

walked = cache(cost)

# Table 2 as printed: the side that reaches the row, t, c, n, s. The last side is the input of the 1x1 convolution.
PRINTED = [
    (112, 1, 16, 1, 1), (112, 6, 24, 2, 2), (56, 6, 32, 3, 2), (28, 6, 64, 4, 2), (14, 6, 96, 3, 1),
    (14, 6, 160, 3, 2), (7, 6, 320, 1, 1),
]  # fmt: skip
WIDTHS = {
    "mobilenet_v2_100": (32, 16, 24, 32, 64, 96, 160, 320, 1280),
    "mobilenet_v2_140": (48, 24, 32, 48, 88, 136, 224, 448, 1792),
    "mobilenet_v2_075": (24, 16, 24, 24, 48, 72, 120, 240, 1280),
    "mobilenet_v2_050": (16, 8, 16, 16, 32, 48, 80, 160, 1280),
}
# EfficientNet's table 1 for B0, in the same columns, then the kernel.
LITE = [
    (112, 1, 16, 1, 1, 3), (112, 6, 24, 2, 2, 3), (56, 6, 40, 2, 2, 5), (28, 6, 80, 3, 2, 3), (14, 6, 112, 3, 1, 5),
    (14, 6, 192, 4, 2, 5), (7, 6, 320, 1, 1, 3),
]  # fmt: skip
LITE_WIDTHS = (32, 16, 24, 40, 80, 112, 192, 320, 1280)


def by_hand(table, widths):
    """Parameters and multiply-adds from a printed table with the given widths."""
    first, *rows, last = widths
    parameters, multiply_adds, inputs = 29 * first, 27 * first * 112**2, first
    for (side, t, _, n, s, *kernel), outputs in zip(table, rows, strict=True):
        k = kernel[0] if kernel else 3
        for number in range(n):
            after = side // s if number == 0 else side
            wide = t * inputs
            if t > 1:
                parameters += inputs * wide + 2 * wide
                multiply_adds += inputs * wide * side**2
            parameters += k * k * wide + 2 * wide + wide * outputs + 2 * outputs
            multiply_adds += (k * k * wide + wide * outputs) * after**2
            inputs, side = outputs, after
    parameters += inputs * last + 2 * last + (last + 1) * 1000
    return parameters, multiply_adds + inputs * last * 49 + last * 1000


@pytest.mark.parametrize("name", WIDTHS)
def test_counts_by_hand_from_table_2(name):
    counted = walked(name)
    assert (counted.parameters, counted.multiply_adds) == by_hand(PRINTED, WIDTHS[name])


def test_counts_of_lite0_by_hand():
    counted = walked("efficientnet_lite0")
    assert (counted.parameters, counted.multiply_adds) == by_hand(LITE, LITE_WIDTHS)


@pytest.mark.parametrize(
    ("name", "table", "widths"),
    [*((name, PRINTED, widths) for name, widths in WIDTHS.items()), ("efficientnet_lite0", LITE, LITE_WIDTHS)],
)
def test_stages_of_the_tables(name, table, widths):
    sides = [112, *(row[0] // row[4] for row in table), 7]
    assert list(stage_shapes(name).values()) == [(maps, side, side) for maps, side in zip(widths, sides, strict=True)]


def test_table_4_holds_for_300_million_multiply_adds_and_fails_for_the_rest():
    one, wide = walked("mobilenet_v2_100"), walked("mobilenet_v2_140")
    assert abs(one.multiply_adds / 1e6 - 300) < 1
    assert round(one.parameters / 1e6, 1) == 3.5  # printed: 3.4
    assert round(wide.multiply_adds / 1e6) == 582  # printed: 585
    assert round(wide.parameters / 1e6, 1) == 6.1  # printed: 6.9


@pytest.mark.parametrize(
    ("asked", "given"), [(32, 32), (44.8, 48), (22.4, 24), (3, 8), (12, 16), (18, 24), (11.2, 16), (84, 88), (89.6, 88)]
)
def test_widths_are_multiples_of_8_that_lose_at_most_a_tenth(asked, given):
    assert multiple_of_8(asked) == given


@pytest.mark.parametrize(("alpha", "last"), [(0.35, 1280), (0.5, 1280), (1.0, 1280), (1.3, 1664), (1.4, 1792)])
def test_a_multiplier_below_1_leaves_the_last_convolution(alpha, last):
    with torch.device("meta"):
        network = build("mobilenet_v2", width_multiplier=alpha)
    assert network.get_submodule("features.conv2.conv").out_channels == last


@pytest.mark.parametrize(("name", "table", "residuals"), [("mobilenet_v2_100", TABLE_2, 10),
                                                         ("efficientnet_lite0", TABLE_1, 9)])  # fmt: skip
def test_a_shortcut_where_stride_and_maps_allow_it(name, table, residuals):
    with torch.device("meta"):
        network = build(name)
    blocks = [module for module in network.modules() if isinstance(module, LinearBottleneck)]
    kinds = [isinstance(block, InvertedResidual) for block in blocks]
    assert sum(kinds) == residuals
    assert kinds == [number > 0 for row in table for number in range(row.repeats)]


def test_a_shortcut_adds_the_input():
    torch.manual_seed(0)
    network = build("mobilenet_v2_050").eval()
    block = network.get_submodule("features.bottleneck2.bottleneck2_2")
    maps = torch.randn(2, 16, 5, 5)
    with torch.no_grad():
        without = nn.Sequential(*block)(maps)
        torch.testing.assert_close(block(maps), maps + without)
        nn.init.zeros_(block.project_bn.weight)
        assert torch.equal(block(maps), maps)
    assert without.abs().max() > 0.01


def test_bottlenecks_are_linear():
    rows = [row for row in walked("mobilenet_v2_100").rows if "bottleneck" in row.name]
    before_relu = [row.name for row, after in pairwise(rows) if after.kind == "ReLU6"]
    assert not any(name.endswith("project_bn") for name in before_relu)
    assert sum(row.kind == "ReLU6" for row in rows) == 2 * 17 - 1
    assert not any(row.kind == "ReLU" for row in rows)


def test_any_size_and_dropout():
    network = build("mobilenet_v2", num_classes=3, in_channels=1, width_multiplier=0.1, dropout=0.9)
    assert network.eval()(torch.zeros(1, 1, 1, 1)).shape == (1, 3)
    assert network.head.dropout.p == 0.9
    assert build("mobilenet_v2_050", num_classes=3).head.dropout.p == 0.0
    assert build("efficientnet_lite0", num_classes=3).head.dropout.p == 0.2


def test_lite0_pads_its_strided_windows_as_tensorflow_and_has_its_epsilon():
    network = build("efficientnet_lite0", num_classes=3)
    modules = dict(network.named_modules())
    strided = {name for name, module in modules.items() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)}
    padded = {name.removesuffix("_pad") for name, module in modules.items() if isinstance(module, SamePadding)}
    assert strided == padded
    assert len(strided) == 5
    assert {modules[name].padding for name in strided} == {(0, 0)}
    assert {module.eps for module in modules.values() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    usual = build("mobilenet_v2_050", num_classes=3)
    assert {module.eps for module in usual.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-5}
