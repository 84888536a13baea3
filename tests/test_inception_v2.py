"""Inception v2: figure 5 of the paper, and where its widths lead."""

from __future__ import annotations

import torch
from torch import nn

from layerwise.models import build, inception_v2
from layerwise.models.shapes import cost, stage_shapes

# Figure 5: in, then #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool proj
FIGURE_5 = {
    "3a": (192, 64, 64, 64, 64, 96, 32), "3b": (256, 64, 64, 96, 64, 96, 64),
    "4a": (576, 224, 64, 96, 96, 128, 128), "4b": (576, 192, 96, 128, 96, 128, 128),
    "4c": (576, 160, 128, 160, 128, 160, 128), "4d": (608, 96, 128, 192, 160, 192, 128),
    "5a": (1056, 352, 192, 320, 160, 224, 128), "5b": (1024, 352, 192, 320, 192, 224, 128),
}  # fmt: skip
REDUCTIONS = {"3c": (320, 128, 160, 64, 96), "4e": (608, 128, 192, 192, 256)}


def unit(inputs, outputs, side):
    """Weights, bias, scale and shift."""
    return inputs * outputs * side**2 + 3 * outputs


def test_parameters_by_hand():
    total = unit(3, 64, 7) + unit(64, 64, 1) + unit(64, 192, 3) + 1024 * 1000 + 1000
    for inputs, one, three_reduce, three, double_reduce, double, pool in FIGURE_5.values():
        total += unit(inputs, one, 1) + unit(inputs, pool, 1)
        total += unit(inputs, three_reduce, 1) + unit(three_reduce, three, 3)
        total += unit(inputs, double_reduce, 1) + unit(double_reduce, double, 3) + unit(double, double, 3)
    for inputs, three_reduce, three, double_reduce, double in REDUCTIONS.values():
        total += unit(inputs, three_reduce, 1) + unit(three_reduce, three, 3)
        total += unit(inputs, double_reduce, 1) + unit(double_reduce, double, 3) + unit(double, double, 3)
    assert total == cost("inception_v2").parameters == 11_295_240
    assert round(total / 1e6, 1) == 11.3  # section 4.2 prints 13.6: fails


def test_the_docstring_says_that_the_printed_number_fails():
    assert inception_v2.__doc__ is not None
    assert "13.6 million parameters: fails, the widths of figure 5 give 11,295,240" in inception_v2.__doc__


def test_biases_are_what_implementations_differ_by():
    with torch.device("meta"):
        model = build("inception_v2")
    biases = sum(layer.bias.numel() for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert (
        biases == 10_016 == sum(row.output[0] for row in cost("inception_v2").rows if row.kind == "BatchNorm2d")
    )  # a bias for every shift


def test_sizes_of_figure_5():
    shapes = stage_shapes("inception_v2")
    sides = {"conv1": 112, "pool1": 56, "conv2": 56, "pool2": 28, "inception_3a": 28, "inception_3b": 28}
    sides |= {"inception_3c": 14, "inception_4a": 14, "inception_4b": 14, "inception_4c": 14, "inception_4d": 14}
    sides |= {"inception_4e": 7, "inception_5a": 7, "inception_5b": 7}
    assert {stage: shape[1] for stage, shape in shapes.items()} == sides
    channels = {stage[-2:]: shape[0] for stage, shape in shapes.items() if stage.startswith("inception")}
    assert channels == {"3a": 256, "3b": 320, "3c": 576, "4a": 576, "4b": 576, "4c": 608, "4d": 608, "4e": 1056,
                        "5a": 1024, "5b": 1024}  # fmt: skip


def test_576_maps_after_4c_would_need_projections_of_96():
    def maps(one, three_reduce, three, double_reduce, double, pool):
        return one + three + double + pool

    assert maps(*FIGURE_5["4a"][1:]) == maps(*FIGURE_5["4b"][1:]) == 576
    assert maps(*FIGURE_5["4c"][1:]) == maps(*FIGURE_5["4d"][1:]) == 608 == 576 + 128 - 96


def test_pooling_averages_but_in_the_last_module():
    with torch.device("meta"):
        features = build("inception_v2").features
    kinds = {name[-2:]: type(module.branch4.pool) for name, module in features.named_children() if "inception" in name
             and len(module._modules) == 4}  # fmt: skip
    assert kinds == dict.fromkeys(("3a", "3b", "4a", "4b", "4c", "4d", "5a"), nn.AvgPool2d) | {"5b": nn.MaxPool2d}
    ones = torch.ones(1, 1, 5, 5)
    assert torch.equal(inception_v2.average_pool()(ones), ones)
    assert not torch.equal(nn.AvgPool2d(3, 1, 1)(ones), ones)  # the control: zeros around the map count


def test_reductions_fit_every_size():
    module = inception_v2.reduction(4, (2, 3, 2, 3)).eval()
    for side in range(1, 12):
        assert module(torch.randn(1, 4, side, side)).shape == (1, 10, (side + 1) // 2, (side + 1) // 2)
    sides = [nn.MaxPool2d(3, 2, ceil_mode=True)(torch.randn(1, 1, side, side)).shape[-1] for side in (7, 9)]
    assert sides == [3, 4]  # the control: without padding odd sizes lose a row beside the convolutions' 4 and 5


def test_start_and_epsilon():
    torch.manual_seed(0)
    model = build("inception_v2", num_classes=3)
    layer = model.features.inception_5b.branch2.layer2.conv
    assert abs(layer.weight.std().item() / (2 / (192 * 9)) ** 0.5 - 1) < 0.02
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-5}
