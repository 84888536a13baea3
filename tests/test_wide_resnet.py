"""Wide residual networks: any depth and width, units by their formulas, counts by hand, the ImageNet bottleneck."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.errors import InputError
from layerwise.models import build, wide_resnet
from layerwise.models.resnet import shortcut_b, zero_last_scales
from layerwise.models.shapes import cost, stage_shapes
from layerwise.models.wide_resnet import WideBottleneck, WideProjectionUnit, WideUnit
from tests.model_counts import COUNTS
from tests.test_resnet import batch_norm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_hand(depth: int, width: int) -> tuple[int, int]:
    """Table 1, with a 1x1 convolution where the number of maps changes."""
    parameters = 27 * 16
    operations, channels = parameters * 1024, 16
    for group, maps in enumerate((16 * width, 32 * width, 64 * width)):
        for _ in range((depth - 4) // 6):
            weights = 9 * maps * (channels + maps) + (channels * maps if channels != maps else 0)
            parameters += weights + 2 * channels + 2 * maps
            operations += weights * 1024 // 4**group
            channels = maps
    return parameters + 2 * channels + 10 * channels + 10, operations + 10 * channels


@pytest.mark.parametrize("name", [name for name in wide_resnet.CIFAR if name != "wrn"])
def test_counts_by_hand(name):
    depth, width = map(int, re.findall(r"\d+", name))
    assert by_hand(depth, width) == COUNTS[name][:2]


@pytest.mark.parametrize(
    ("name", "printed"),
    [("wrn40_4", 8.9), ("wrn40_8", 35.7), ("wrn28_10", 36.5), ("wrn16_8", 11.0), ("wrn16_10", 17.1),
     ("wide_resnet50_2", 68.9)],
)  # fmt: skip
def test_millions_that_tables_4_and_8_print(name, printed):
    assert round(COUNTS[name][0] / 1e6, 1) == printed


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2), (22, 3), (40, 1)])
def test_any_depth_and_width(depth, width):
    with torch.device("meta"):
        model = build("wrn", depth=depth, width=width)
    counted = cost(model)
    assert (counted.parameters, counted.multiply_adds) == by_hand(depth, width)
    assert model.architecture["arguments"]["depth"] == depth
    assert model.architecture["arguments"]["width"] == width
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == depth - (width == 1)  # with k = 1 the first group's shortcut is the identity


def test_wrn40_1_prints_0_6_million():
    assert round(by_hand(40, 1)[0] / 1e6, 1) == 0.6
    assert round(by_hand(40, 2)[0] / 1e6, 1) == 2.2


@pytest.mark.parametrize(("depth", "near"), [(29, 28), (27, 28), (4, 10), (18, 16), (20, 22), (1, 10)])
def test_a_depth_that_is_not_6n_and_4(depth, near):
    message = f"depth={depth}: a wide residual network has 6N + 4 layers"
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        build("wrn", depth=depth)
    assert f"depth={near}" in str(caught.value)


def test_names_with_numbers_have_no_free_depth():
    with pytest.raises(InputError, match="width is not an argument of wrn28_10"):
        build("wrn28_10", width=3)


def test_stages_of_table_1():
    assert list(stage_shapes("wrn28_10").values()) == [
        (16, 32, 32), (160, 32, 32), (320, 16, 16), (640, 8, 8), (640, 8, 8)]  # fmt: skip
    assert list(stage_shapes("wide_resnet50_2").values()) == [
        (64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]  # fmt: skip


def start_anywhere(module: nn.Module) -> nn.Module:
    for parameter in module.double().parameters():
        nn.init.normal_(parameter)
    return module


def test_units_are_their_formulas():
    x = torch.randn(4, 6, 6, 6, dtype=torch.float64)
    unit = start_anywhere(WideUnit(6, 0.0))
    inner = F.conv2d(batch_norm(x, unit.residual.bn1).clamp(min=0), unit.residual.conv1.weight, padding=1)
    inner = F.conv2d(batch_norm(inner, unit.residual.bn2).clamp(min=0), unit.residual.conv2.weight, padding=1)
    torch.testing.assert_close(unit(x), x + inner)

    unit = start_anywhere(WideProjectionUnit(6, 9, 2, 0.0))
    activated = batch_norm(x, unit.activation.bn).clamp(min=0)
    inner = F.conv2d(activated, unit.residual.conv1.weight, stride=2, padding=1)
    inner = F.conv2d(batch_norm(inner, unit.residual.bn2).clamp(min=0), unit.residual.conv2.weight, padding=1)
    torch.testing.assert_close(unit(x), F.conv2d(activated, unit.shortcut.weight, stride=2) + inner)
    assert not torch.allclose(unit(x), F.conv2d(x, unit.shortcut.weight, stride=2) + inner)  # the control


def test_dropout_stands_between_the_two_convolutions():
    model = build("wrn", depth=10, width=1, num_classes=3, dropout=0.3)
    units = [module for module in model.modules() if isinstance(module, WideUnit | WideProjectionUnit)]
    for unit in units:
        order = [type(layer) for layer in unit.residual]
        assert order[-3:] == [nn.ReLU, nn.Dropout, nn.Conv2d]
        assert unit.residual.dropout.p == 0.3
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(model(x), model(x))
    still = build("wrn", depth=10, width=1, num_classes=3)
    assert torch.equal(still(x), still(x))


def test_the_bottleneck_is_twice_as_wide_inside_and_strides_in_its_3x3():
    block = WideBottleneck(8, 4, 2, shortcut_b)
    assert [tuple(block.residual.get_parameter(f"conv{i}.weight").shape) for i in (1, 2, 3)] == [
        (8, 8, 1, 1), (8, 8, 3, 3), (16, 8, 1, 1)]  # fmt: skip
    assert [block.residual.get_submodule(f"conv{i}").stride for i in (1, 2, 3)] == [(1, 1), (2, 2), (1, 1)]
    assert zero_last_scales(block) == 1


def test_imagenet_counts_from_the_bottleneck():
    """Between resnet50 and its wide one: the 1x1 double, the 3x3 quadruple; three more pairs of scales and shifts."""
    for wide, narrow, depths in (("wide_resnet50_2", "resnet50_v1_5", (3, 4, 6, 3)),
                                 ("wide_resnet101_2", "resnet101_v1_5", (3, 4, 23, 3))):  # fmt: skip
        more, operations, channels = 0, 0, 64
        for stage, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
            for unit in range(depth):
                pixels = (56 >> stage) ** 2
                before = (56 >> (stage - 1)) ** 2 if unit == 0 and stage else pixels
                more += channels * width + 27 * width * width + 4 * width * width + 4 * width
                operations += before * channels * width + pixels * 31 * width * width
                channels = 4 * width
        assert COUNTS[wide][0] - COUNTS[narrow][0] == more
        assert COUNTS[wide][1] - COUNTS[narrow][1] == operations


def test_weights_start_after_he():
    for module in build("wrn40_4").modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / module.weight[0].numel()), rel=0.08)
