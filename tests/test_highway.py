"""Highway networks: equation 3, gates that start nearly closed, printed counts, the same network without gates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.models import build, highway, paper
from layerwise.models.highway import Highway
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def convolution(before: int, after: int, kernel: int = 3) -> int:
    return after * (kernel * kernel * before + 1)


def by_hand(depths: tuple[int, ...], widths: tuple[int, ...], last: int, gates: int = 2) -> int:
    """Parameters: a plain convolution a block, then layers of `gates` convolutions each; 1x1; fully connected."""
    count, channels = 0, 3
    for depth, width in zip(depths, widths, strict=True):
        count += convolution(channels, width) + (depth - 1) * gates * convolution(width, width)
        channels = width
    return count + convolution(channels, last, 1) + 10 * (last + 1)


def test_counts_by_hand_and_as_printed():
    assert cost("highway19").parameters == by_hand((5, 6, 6), (32, 80, 128), 100)
    assert cost("highway32").parameters == by_hand((10,) * 3, (32, 48, 64), 64)
    assert cost("highway19_plain").parameters == by_hand((5, 6, 6), (32, 80, 128), 100, gates=1)
    assert cost("highway32_plain").parameters == by_hand((10,) * 3, (32, 48, 64), 64, gates=1)
    assert f"{cost('highway19').parameters / 1e6:.1f}M" == "2.3M"
    assert f"{cost('highway32').parameters / 1e6:.2f}M" == "1.25M"


def test_the_widths_of_highway32_are_the_only_ones():
    """In steps of 16, not falling, three blocks of ten, the 1x1 convolution as wide as the last block."""
    steps = range(16, 161, 16)
    triples = [(a, b, c) for a in steps for b in steps for c in steps if a <= b <= c]
    assert [one for one in triples if f"{by_hand((10,) * 3, one, one[2]) / 1e6:.2f}" == "1.25"] == [(32, 48, 64)]


@pytest.mark.parametrize("name", highway.VARIANTS)
def test_depth_is_in_the_name(name):
    """Layers in a row: a gate stands beside its layer. Blocks halve the map."""
    rows = [row for row in cost(name).rows if row.kind in ("Conv2d", "Linear") and ".gate." not in row.name]
    assert f"highway{len(rows)}" in name
    sides = [shape[1] for stage, shape in stage_shapes(name).items() if stage.startswith("pool")]
    assert sides == [16, 8]
    assert paper(name).flow == ("chain" if name.endswith("plain") else "gates")


def test_equation_3():
    layer, x = Highway(4), torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        h = nn.functional.conv2d(x, layer.transform.conv.weight, layer.transform.conv.bias, padding=1).relu()
        t = nn.functional.conv2d(x, layer.gate.conv.weight, layer.gate.conv.bias, padding=1).sigmoid()
        torch.testing.assert_close(layer(x), h * t + x * (1 - t))
        assert not torch.allclose(layer(x), h * (1 - t) + x * t, atol=1e-3)  # the control: gates the other way


def test_open_and_closed_gates():
    """T = 0: the input is carried on; T = 1: the plain layer (eqs. 4 and 5)."""
    layer, x = Highway(3), torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        layer.gate.conv.weight.zero_()
        layer.gate.conv.bias.fill_(-200)
        assert torch.equal(layer(x), x)
        layer.gate.conv.bias.fill_(200)
        assert torch.equal(layer(x), layer.transform(x))


def test_gates_start_nearly_closed():
    model = build("highway19")
    gates = [layer.gate.conv for layer in model.modules() if isinstance(layer, Highway)]
    assert len(gates) == 14
    assert all((gate.bias == -2).all() for gate in gates)
    others = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in gates]
    assert not any(layer.bias.any() for layer in others)
    assert model.features.conv9.gate.conv.weight.std().item() == pytest.approx((2 / 720) ** 0.5, rel=0.05)


def test_the_deep_network_hears_its_input_at_the_start_only_with_gates():
    """Weights drawn too small: 32 carrying layers keep the differences between pictures, plain ones lose them."""

    def spread(name):
        model = build(name).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data.mul_(0.3)
        with torch.no_grad():
            maps = model.features(torch.randn(4, 3, 16, 16))
        return maps.std(0).mean().item()

    assert spread("highway32") > 1e3 * spread("highway32_plain")


def test_dropout():
    model = build("highway19", dropout=0.1)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.1] * 4
