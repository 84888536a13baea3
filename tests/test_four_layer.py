"""The four-layer network of AlexNet's Figure 1 and its kin: layers by hand, pooling, start of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.layers.locally_connected import LocallyConnected2d
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models import build, four_layer
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_layers_by_hand() -> None:
    """Kernel, maps before and after, side of the map."""
    for name, sides in (("four_layer", (32, 16, 8, 4)), ("four_layer_28", (28, 14, 7, 3))):
        rows = {row.name.rsplit(".", 1)[1]: row for row in cost(name).rows if row.parameters}
        assert list(rows) == ["conv1", "conv2", "conv3", "fc"]  # four layers
        for layer, before, after, side in zip(rows, (3, 32, 32), (32, 32, 64), sides, strict=False):
            assert rows[layer].output == (after, side, side)
            assert rows[layer].parameters == 25 * before * after + after
            assert rows[layer].multiply_adds == 25 * before * after * side * side
        assert rows["fc"].parameters == 64 * sides[3] ** 2 * 10 + 10


def test_locally_connected_layers_are_counted() -> None:
    rows = {row.name.rsplit(".", 1)[1]: row for row in cost("four_layer_local").rows if row.parameters}
    assert list(rows) == ["conv1", "conv2", "local3", "local4", "fc"]
    assert rows["local3"].output == rows["local4"].output == (32, 6, 6)
    assert rows["local3"].parameters == 36 * (9 * 64 * 32 + 32)  # kernels of its own for each place
    assert rows["local3"].multiply_adds == 36 * 9 * 64 * 32


def layers(name: str, kind: type[nn.Module]) -> list[str]:
    with torch.device("meta"):
        return [one.rsplit(".", 1)[1] for one, layer in build(name).named_modules() if type(layer) is kind]


def test_what_each_name_changes() -> None:
    assert layers("four_layer", nn.ReLU) == layers("four_layer_tanh", nn.Tanh)
    assert layers("four_layer_tanh", nn.ReLU) == layers("four_layer", nn.Tanh) == []
    assert layers("four_layer", ResponseNorm) == layers("four_layer_local", ResponseNorm) == []
    assert layers("four_layer_lrn", ResponseNorm) == layers("four_layer_local_lrn", ResponseNorm) == ["norm1", "norm2"]
    order = [name for name, _ in build("four_layer_lrn").features.named_children()]
    assert order.index("pool1") < order.index("norm1") < order.index("conv2")  # after the pooling, as in the files
    order = [name for name, _ in build("four_layer_local_lrn").features.named_children()]
    assert order.index("norm1") < order.index("pool1")
    assert layers("four_layer", nn.Dropout) == []
    assert layers("four_layer_hidden", nn.Dropout) == ["dropout4"]
    assert build("four_layer_hidden_28").head.dropout4.p == 0.5
    assert build("four_layer_hidden_without_dropout_28").head.dropout4.p == 0
    assert build("four_layer_groups_28").features.conv2.groups == 2
    assert build("four_layer_half_28").features.conv3.out_channels == 32
    assert layers("four_layer_without_conv2_28", nn.Conv2d) == ["conv1", "conv3"]


def test_both_poolings_give_maps_of_the_same_side() -> None:
    """Section 3.4: "output of equivalent dimensions"."""
    for name in ("four_layer", "four_layer_28"):
        other = name.replace("layer", "layer_adjacent")
        assert stage_shapes(name) == stage_shapes(other)
    for side in range(4, 40):
        maps = torch.empty(1, 1, side, side, device="meta")
        pools = (four_layer.overlapping_maximum, four_layer.overlapping_average, four_layer.adjacent_maximum,
                 four_layer.adjacent_average)  # fmt: skip
        assert {pool()(maps).shape[2] for pool in pools} == {side // 2}
    assert nn.MaxPool2d(3, stride=2)(torch.empty(1, 1, 32, 32, device="meta")).shape[2] == 15  # the control: no border


def test_windows_overlap_or_do_not() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 2, 2] = 1  # the last row of the first window of 3, the first of the second one of 2
    assert four_layer.overlapping_maximum()(maps).sum() == 4
    assert four_layer.adjacent_maximum()(maps).sum() == 1


def test_the_start_of_the_weights() -> None:
    model = build("four_layer_hidden")
    deviations = {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01, "fc4": 0.1, "fc": 0.1}
    found = {name.rsplit(".", 1)[1]: layer for name, layer in model.named_modules()
             if isinstance(layer, nn.Conv2d | nn.Linear)}  # fmt: skip
    assert {name: pytest.approx(layer.weight.std().item(), rel=0.1) for name, layer in found.items()} == deviations
    assert not any(layer.bias.any() for layer in found.values())
    assert build("four_layer").head.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    local = build("four_layer_local").features.local3
    assert isinstance(local, LocallyConnected2d)
    assert local.weight.std().item() == pytest.approx(0.04, rel=0.05)
    ones = [name for name, value in build("four_layer_bias_one_28").named_parameters()
            if name.endswith("bias") and (value == 1).all()]  # fmt: skip
    assert ones == ["features.conv2.bias", "features.conv3.bias"]


def test_conv2s_towers_are_apart() -> None:
    features = build("four_layer_groups_28", in_channels=1).features
    maps = torch.rand(1, 32, 6, 6, requires_grad=True)
    features.conv2(maps)[:, :16].sum().backward()
    assert maps.grad is not None
    assert maps.grad[:, :16].any()
    assert not maps.grad[:, 16:].any()
