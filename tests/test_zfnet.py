"""ZFNet: the sizes of figure 3, the widths that two implementations disagree on, the network of another collection."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.layers.response_norm import ResponseNorm
from layerwise.models import build
from layerwise.models.dense import fully_convolutional
from layerwise.models.shapes import cost, stage_shapes


def parameters(name: str) -> list[int]:
    return [row.parameters for row in cost(name).rows if row.parameters]


def test_the_maps_of_figure_3():
    shapes = stage_shapes("zfnet")
    sides = {"conv1": 110, "pool1": 55, "conv2": 26, "pool2": 13, "conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}
    assert {name: shapes[name][1] for name in sides} == sides
    assert [shapes[f"conv{i}"][0] for i in range(1, 6)] == [96, 256, 384, 384, 256]
    assert list(shapes).index("norm1") == list(shapes).index("pool1") + 1  # pooled, then normalised


def test_windows_inside_the_map_would_not_give_figure_3():
    """The control: what `ceil_mode` is for."""
    with torch.device("meta"):
        model = build("zfnet")
        model.features.pool1.ceil_mode = model.features.pool2.ceil_mode = False
        assert model.features(torch.empty(1, 3, 224, 224)).shape == (1, 256, 5, 5)


def test_dense_connections_are_what_differs_from_alexnet_in_conv3_to_conv5():
    """The text: AlexNet's sparse connections in layers 3, 4 and 5 become dense. conv3 was dense already."""
    ours, theirs = parameters("zfnet"), parameters("alexnet")
    assert ours[2] == theirs[2]
    assert [ours[i] - theirs[i] for i in (3, 4)] == [384 * 192 * 9, 256 * 192 * 9]
    assert ours[5:] == theirs[5:]


def test_wide_counts_by_hand():
    """Table 2 (b): 512, 1024, 512 maps; the rest as in figure 3."""
    wide = [512 * 256 * 9 + 512, 1024 * 512 * 9 + 1024, 512 * 1024 * 9 + 512, 512 * 36 * 4096 + 4096]
    assert parameters("zfnet_wide") == [14_208, 614_656, *wide, 16_781_312, 4_097_000]
    maps = 512 * 256 * 9 + 2 * 1024 * 512 * 9
    counted = 14_112 * 110**2 + 614_400 * 26**2 + maps * 13**2 + 512 * 36 * 4096 + 4096**2 + 4_096_000
    assert cost("zfnet_wide").multiply_adds == counted


def test_zfnet512_is_the_published_graph():
    """Layer by layer: output, weights."""
    expected = {
        "conv1": ((96, 109, 109), (96, 3, 7, 7)), "pool1": ((96, 54, 54), None),
        "conv2": ((256, 25, 25), (256, 96, 5, 5)), "pool2": ((256, 12, 12), None),
        "conv3": ((512, 12, 12), (512, 256, 3, 3)), "conv4": ((512, 12, 12), (512, 512, 3, 3)),
        "conv5": ((512, 12, 12), (512, 512, 3, 3)), "pool5": ((512, 6, 6), None),
    }  # fmt: skip
    shapes = stage_shapes("zfnet512")
    with torch.device("meta"):
        model = build("zfnet512")
    found = {
        name: (shapes[name], tuple(layer.weight.shape) if isinstance(layer, nn.Conv2d) else None)
        for name, layer in model.features.named_children()
        if name in expected
    }
    assert found == expected
    assert [tuple(getattr(model.head, f"fc{i}").weight.shape) for i in (6, 7, 8)] == [
        (4096, 18432), (1024, 4096), (1000, 1024)]  # fmt: skip
    norm = model.features.norm1
    assert isinstance(norm, ResponseNorm)
    assert (norm.size, norm.alpha * norm.size, norm.beta, norm.k) == (5, pytest.approx(5e-4), 0.75, 2.0)
    assert list(shapes).index("norm1") == list(shapes).index("pool1") - 1


def test_weights_start_at_a_hundredth():
    torch.manual_seed(0)
    model = build("zfnet", num_classes=10, map_side=1, hidden_features=64)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.1)
            assert not module.bias.any()
    assert [m.p for m in build("zfnet512", dropout=0.2, map_side=1, hidden_features=8).modules()
            if type(m) is nn.Dropout] == [0.2, 0.2]  # fmt: skip


def test_equal_scores_as_a_fully_convolutional_network():
    torch.manual_seed(0)
    model = build("zfnet", num_classes=3, hidden_features=8).eval().double()
    for layer in (model.head.fc6, model.head.fc7, model.head.fc8):
        nn.init.kaiming_normal_(layer.weight)
    images = torch.randn(1, 3, 224, 224).double()
    with torch.no_grad():
        expected = model(images)
        assert (fully_convolutional(model)(images) - expected).abs().max() <= 1e-12 * expected.abs().max()
