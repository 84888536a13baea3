"""FitNets: the table of students, and why the fully connected layer has two pieces."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.models import build, fitnet
from layerwise.models.shapes import cost, stage_shapes
from tests.test_maxout_network import weights

# Depth, parameters and multiplications as the paper prints them.
PRINTED = {"fitnet11_250k": (11, "250K", 30), "fitnet11_862k": (11, "862K", 108), "fitnet19": (19, "2.5M", 382)}


def short(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.0f}K"


@pytest.mark.parametrize("name", fitnet.VARIANTS)
def test_the_printed_counts_need_two_pieces_and_no_biases(name):
    depth, parameters, multiplications = PRINTED[name]
    counted = cost(name)
    assert sum(row.kind in ("Conv2d", "Linear") for row in counted.rows) == depth
    assert short(weights(name, 2)) == parameters
    assert short(weights(name, 5)) != parameters  # the control: the published configuration's five pieces
    assert round(counted.multiply_adds / 1e6) == multiplications


def test_counts_of_fitnet19_by_hand():
    widths, channels, expected = (32, 32, 32, 48, 48, *[80] * 6, *[128] * 6), 3, []
    for width in widths:
        expected.append(2 * width * (9 * channels + 1))
        channels = width
    expected += [1000 * 129, 10 * 501]
    assert [row.parameters for row in cost("fitnet19").rows if row.parameters] == expected
    assert sum(expected) == 2_548_602
    assert sum(expected) + 3 * 500 * 129 == 2_742_102  # five pieces


def test_sizes():
    shapes = stage_shapes("fitnet19")
    expected = {"conv5": (48, 32, 32), "pool1": (48, 16, 16), "conv11": (80, 16, 16), "pool2": (80, 8, 8)}
    expected |= {"conv17": (128, 8, 8), "pool3": (128, 1, 1)}
    assert {name: shapes[name] for name in expected} == expected
    assert [name for name in shapes if name.startswith("conv")] == [f"conv{i}" for i in range(1, 18)]


def test_the_last_pooling_is_the_maximum_of_the_map():
    torch.manual_seed(0)
    model, images = build("fitnet11_250k").eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = model.features[:-1](images)
        assert maps.shape == (2, 64, 8, 8)
        assert torch.equal(model.features(images)[:, :, 0, 0], maps.amax((2, 3)))
    assert not any(isinstance(layer, nn.Dropout) for layer in model.modules())
