"""AlexNet: counts layer by layer, shapes, start of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.models import build
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_alexnet_layer_by_layer():
    counts = {row.name.rsplit(".", 1)[1]: row.parameters for row in cost("alexnet").rows if row.parameters}
    assert counts == dict(
        zip(
            ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
            (34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000),
            strict=True,
        )
    )
    shapes = stage_shapes("alexnet")
    expected = {"conv1": (96, 55, 55), "pool1": (96, 27, 27), "conv2": (256, 27, 27), "pool2": (256, 13, 13)}
    expected |= {"conv3": (384, 13, 13), "conv4": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6)}
    assert {name: shapes[name] for name in expected} == expected


def test_alexnet_starts_as_section_5_says():
    model = build("alexnet_one_gpu", num_classes=10)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
            ones = name.endswith(("conv2", "conv4", "conv5", "fc6", "fc7"))
            assert (module.bias == (1.0 if ones else 0.0)).all()
    assert [m.p for m in model.modules() if type(m) is nn.Dropout] == [0.5, 0.5]
    with torch.device("meta"):
        assert [m.p for m in build("alexnet", dropout=0.1).modules() if type(m) is nn.Dropout] == [0.1, 0.1]


def test_alexnets_towers_are_apart_in_conv2():
    with torch.device("meta"):
        model = build("alexnet")
    assert [getattr(model.features, f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]
