"""MobileNet: tables 1, 2 and 4 to 7 of the paper, counted by hand from table 1."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from layerwise.models import build
from layerwise.models.mobilenet import TABLE_1, MobileNet, Row, convolution, separable, thinner
from layerwise.models.shapes import cost, stage_shapes

walked = cache(cost)

# Table 1 as printed: the side and the maps that reach each pair of depthwise and pointwise layers, the maps it gives.
PRINTED = [
    (112, 32, 64), (112, 64, 128), (56, 128, 128), (56, 128, 256), (28, 256, 256), (28, 256, 512),
    *[(14, 512, 512)] * 5, (14, 512, 1024), (7, 1024, 1024),
]  # fmt: skip
OUTPUT_SIDES = (112, 56, 56, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7)


def by_hand(alpha: float, pairs: list[tuple[int, int, int]], sides: tuple[int, ...], scale: float = 1.0):
    """Parameters and multiply-adds by equation 4 of the paper, with batch normalisation and the classifier."""
    first = int(32 * alpha)
    parameters = 27 * first + 2 * first
    multiply_adds = 27 * first * int(112 * scale) ** 2
    for (_, inputs, outputs), side in zip(pairs, sides, strict=True):
        m, n, pixels = int(inputs * alpha), int(outputs * alpha), int(side * scale) ** 2
        parameters += 9 * m + 2 * m + m * n + 2 * n
        multiply_adds += (9 * m + m * n) * pixels
    last = int(1024 * alpha)
    return parameters + (last + 1) * 1000, multiply_adds + last * 1000


@pytest.mark.parametrize(("name", "alpha"), [("100", 1.0), ("075", 0.75), ("050", 0.5), ("025", 0.25)])
def test_counts_by_hand_from_table_1(name, alpha):
    counted = cost(f"mobilenet_{name}")
    assert (counted.parameters, counted.multiply_adds) == by_hand(alpha, PRINTED, OUTPUT_SIDES)


def test_counts_of_the_controls_by_hand():
    shallow = walked("mobilenet_shallow")
    pairs, sides = PRINTED[:6] + PRINTED[-2:], OUTPUT_SIDES[:6] + OUTPUT_SIDES[-2:]
    assert (shallow.parameters, shallow.multiply_adds) == by_hand(1.0, pairs, sides)
    full = walked("mobilenet_full_convolutions")
    blocks = [(9 * m * n, 9 * m * n * side**2, n) for (_, m, n), side in zip(PRINTED, OUTPUT_SIDES, strict=True)]
    weights = 27 * 32 + sum(block[0] for block in blocks)
    assert full.parameters == weights + 2 * (32 + sum(block[2] for block in blocks)) + 1_025_000
    assert full.multiply_adds == 27 * 32 * 112**2 + sum(block[1] for block in blocks) + 1_024_000


def test_stages_of_table_1():
    shapes = stage_shapes("mobilenet_100")
    assert shapes["conv1"] == (32, 112, 112)
    assert [shapes[f"block{i}"] for i in range(1, 14)] == [
        (maps, side, side) for (_, _, maps), side in zip(PRINTED, OUTPUT_SIDES, strict=True)
    ]


def test_28_layers_counting_depthwise_and_pointwise_each():
    rows = walked("mobilenet_100").rows
    assert len([row for row in rows if row.kind in ("Conv2d", "Linear")]) == 28
    assert len([row for row in rows if row.kind == "ReLU"]) == len([row for row in rows if "bn" in row.name]) == 27


@pytest.mark.parametrize(
    ("name", "millions", "parameters"),
    [
        ("mobilenet_100", 569, 4.2),
        ("mobilenet_075", 325, 2.6),
        ("mobilenet_050", 149, 1.3),
        ("mobilenet_025", 41, 0.5),
        ("mobilenet_shallow", 307, 2.9),
    ],
)
def test_tables_5_and_6_to_the_printed_digit(name, millions, parameters):
    counted = walked(name)
    assert (round(counted.multiply_adds / 1e6), round(counted.parameters / 1e6, 1)) == (millions, parameters)


def test_table_4_holds_for_the_parameters_and_misses_the_multiply_adds_by_one_million():
    full = walked("mobilenet_full_convolutions")
    assert round(full.parameters / 1e6, 1) == 29.3
    assert round(full.multiply_adds / 1e6) == 4867  # printed: 4866


@pytest.mark.parametrize(("side", "millions"), [(224, 569), (192, 418), (160, 291), (128, 186)])  # printed for 160: 290
def test_table_7_the_resolution_multiplier_is_the_size_of_the_picture(side, millions):
    counted = walked("mobilenet_100", (3, side, side))
    assert round(counted.multiply_adds / 1e6) == millions
    assert counted.parameters == 4_231_976


@pytest.mark.parametrize(("kind", "share"), [("pointwise", 0.946), ("depthwise", 0.031), ("fc", 0.002)])
def test_nearly_all_multiply_adds_are_in_1x1_convolutions(kind, share):
    counted = walked("mobilenet_100")
    part = sum(row.multiply_adds for row in counted.rows if row.name.endswith(kind))
    assert part / counted.multiply_adds == pytest.approx(share, abs=0.006)


def test_the_saving_of_section_3_1():
    maps = torch.zeros(1, 64, 8, 8)
    for stride, outputs in ((1, 64), (2, 128)):
        weights = [
            sum(p.numel() for p in block(64, outputs, stride).parameters() if p.ndim == 4)
            for block in (separable, convolution)
        ]
        assert weights[0] / weights[1] == pytest.approx(1 / outputs + 1 / 9)
        assert separable(64, outputs, stride)(maps).shape == convolution(64, outputs, stride)(maps).shape


def test_table_1_contradicts_itself_in_the_last_depthwise_layer():
    printed = (*TABLE_1[:-1], Row(1024, 2))
    with torch.device("meta"):
        literal = MobileNet(printed)
    assert stage_shapes("mobilenet_100")["block13"] == (1024, 7, 7)
    assert stage_shapes(literal, (3, 224, 224))["block13"] == (1024, 4, 4)


def test_any_width():
    network = build("mobilenet", width_multiplier=0.75)
    assert sum(p.numel() for p in network.parameters()) == 2_585_560
    assert [thinner(32, alpha) for alpha in (0.3, 0.01, 2.0)] == [9, 1, 64]
    narrow = build("mobilenet", num_classes=3, in_channels=1, width_multiplier=0.1)
    assert narrow.eval()(torch.zeros(1, 1, 1, 1)).shape == (1, 3)


def test_relu6_is_another_function_with_the_same_entries():
    torch.manual_seed(0)
    paper, capped = build("mobilenet_100", num_classes=3), build("mobilenet_100_relu6", num_classes=3)
    capped.load_state_dict(paper.state_dict())
    image = 20 * torch.randn(2, 3, 33, 33)
    outputs = []
    for network in (paper, capped):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 8.0)
        outputs.append(network.features(image))
    assert outputs[0].max() > 6
    assert outputs[1].max() == 6


def test_weights_start_after_he_2015():
    torch.manual_seed(0)
    network = build("mobilenet_100")
    depthwise = network.get_submodule("features.block13.depthwise").weight
    pointwise = network.get_submodule("features.block13.pointwise").weight
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert pointwise.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.01)
