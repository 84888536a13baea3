"""VGG: the columns of table 1, the counts of table 2, the published graph, the conversion to convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.layers.initialise import he_normal
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models import build, vgg
from layerwise.models.dense import fully_convolutional
from layerwise.models.shapes import cost, stage_shapes

# Table 1, written as the paper does: kernel and maps of each convolution, "|" where a map is pooled.
TABLE_1 = {
    "vgg11": "3-64 | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512 |",
    "vgg11_lrn": "3-64 LRN | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512 |",
    "vgg13": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512 |",
    "vgg16_c": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 1-256 | 3-512 3-512 1-512 | 3-512 3-512 1-512 |",
    "vgg16": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 | 3-512 3-512 3-512 | 3-512 3-512 3-512 |",
    "vgg19": (
        "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 3-256 | 3-512 3-512 3-512 3-512 | 3-512 3-512 3-512 3-512 |"
    ),
}
LAYERS = {"vgg11": 11, "vgg11_lrn": 11, "vgg13": 13, "vgg16_c": 16, "vgg16": 16, "vgg19": 19}
TABLE_2 = {"vgg11": 133, "vgg11_lrn": 133, "vgg13": 133, "vgg16_c": 134, "vgg16": 138, "vgg19": 144}  # millions


def written(name: str) -> str:
    words = []
    with torch.device("meta"):
        features = build(name).features
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            words.append(f"{layer.kernel_size[0]}-{layer.out_channels}")
        elif isinstance(layer, nn.MaxPool2d | ResponseNorm):
            words.append("|" if isinstance(layer, nn.MaxPool2d) else "LRN")
    return " ".join(words)


@pytest.mark.parametrize("name", vgg.PAPER)
def test_table_1(name):
    assert written(name) == TABLE_1[name]
    counted = cost(name)
    assert sum(row.kind in ("Conv2d", "Linear") for row in counted.rows) == LAYERS[name]
    assert round(counted.parameters / 1e6) == TABLE_2[name]


@pytest.mark.parametrize("name", vgg.VARIANTS)
def test_sizes(name):
    shapes = stage_shapes(name)
    pools = [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]
    assert [shapes[f"pool{i}"] for i in range(1, 6)] == pools


def test_vgg19_is_the_published_graph():
    """Layer by layer as in the graph: output shapes, weights, order."""
    expected, channels = [], 3
    for depth, width, side in zip((2, 2, 4, 4, 4), (64, 128, 256, 512, 512), (224, 112, 56, 28, 14), strict=True):
        for _ in range(depth):
            maps = (width, side, side)
            expected += [("Conv2d", maps, 9 * channels * width + width), ("ReLU", maps, 0)]
            channels = width
        expected.append(("MaxPool2d", (width, side // 2, side // 2), 0))
    expected += [("Flatten", (25_088,), 0), ("Linear", (4096,), 4096 * 25_089), ("ReLU", (4096,), 0)]
    expected += [("Dropout", (4096,), 0), ("Linear", (4096,), 4096 * 4097), ("ReLU", (4096,), 0)]
    expected += [("Dropout", (4096,), 0), ("Linear", (1000,), 1000 * 4097)]
    assert [(row.kind, row.output, row.parameters) for row in cost("vgg19").rows] == expected


def test_column_c_by_hand():
    """Three 1x1 convolutions in place of D's third 3x3."""
    less = {256: 28 * 28 * 16, 512: 28 * 28 + 14 * 14}  # maps: positions
    d, c = cost("vgg16"), cost("vgg16_c")
    assert d.parameters - c.parameters == 8 * (256**2 + 2 * 512**2)
    assert less[256] == 112 * 112  # conv3 works at 56x56
    assert d.multiply_adds - c.multiply_adds == 8 * (256**2 * 56**2 + 512**2 * less[512])


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_batch_normalisation_adds_two_numbers_a_map(depth):
    name = f"vgg{depth}"
    maps = sum(row.output[0] for row in cost(name).rows if row.kind == "Conv2d")
    assert cost(f"{name}_bn").parameters - cost(name).parameters == 2 * maps
    with torch.device("meta"):
        model = build(f"{name}_bn")
    kinds = [type(layer) for layer in model.features]
    after = [kinds[i + 1 : i + 3] for i, kind in enumerate(kinds) if kind is nn.Conv2d]
    assert after == [[nn.BatchNorm2d, nn.ReLU]] * (depth - 3)
    assert {layer.eps for layer in model.features if isinstance(layer, nn.BatchNorm2d)} == {1e-5}
    assert all(layer.bias is not None for layer in model.features if isinstance(layer, nn.Conv2d))


def test_section_2_3():
    """Three 3x3 have 27 C^2 weights, one 7x7 has 49 C^2, 81 % more; two 3x3 have 18 C^2, one 5x5 has 25."""
    channels = 8
    three = sum(nn.Conv2d(channels, channels, 3, bias=False).weight.numel() for _ in range(3))
    one = nn.Conv2d(channels, channels, 7, bias=False).weight.numel()
    assert (three, one) == (27 * channels**2, 49 * channels**2)
    assert round(100 * (one / three - 1)) == 81


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_equal_scores_as_a_fully_convolutional_network(name):
    """Section 3.2, at the trained size; the whole 25,088 inputs of fc6, few hidden features; in float64."""
    torch.manual_seed(0)
    model = build(name, num_classes=5, hidden_features=8).eval().double()
    he_normal(model)  # logits that are not all nearly alike
    dense, images = fully_convolutional(model), torch.randn(1, 3, 224, 224).double()
    with torch.no_grad():
        expected = model(images)
        assert expected.std() > 1e-2
        assert (dense(images) - expected).abs().max() <= 1e-12 * expected.abs().max()
        assert dense.head.fc6.kernel_size == (7, 7)
        dense.head.fc6.weight.copy_(dense.head.fc6.weight.flip(2, 3))  # the control: kernels after half a turn
        assert not torch.allclose(dense(images), expected, rtol=1e-3, atol=1e-3)


def test_the_conversion_of_the_whole_network_has_its_shapes():
    with torch.device("meta"):
        model = build("vgg16")
        dense = fully_convolutional(model)
        assert dense.score_map(torch.empty(1, 3, 224, 224)).shape == (1, 1000, 1, 1)
        assert dense.score_map(torch.empty(1, 3, 256, 288)).shape == (1, 1000, 2, 3)
    assert tuple(dense.head.fc6.weight.shape) == (4096, 512, 7, 7)


def test_weights_start_after_glorot():
    torch.manual_seed(0)
    model = build("vgg13", num_classes=100, map_side=1, hidden_features=256)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            assert not module.bias.any()


def test_dropout_follows_both_hidden_layers():
    model = build("vgg11", dropout=0.25, map_side=1, hidden_features=8)
    names = [name for name, layer in model.head.named_children() if isinstance(layer, nn.Dropout) and layer.p == 0.25]
    assert names == ["dropout6", "dropout7"]
