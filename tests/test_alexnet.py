"""AlexNet: counts layer by layer, shapes, start of the weights, and what the paper says of its own network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from layerwise.models import build
from layerwise.models.dense import fully_convolutional
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


def test_the_one_gpu_net_of_footnote_2_has_a_whole_last_convolution():
    """Holds: both have "approximately the same number of parameters". The network of the bare name is smaller."""
    rows = {row.name.rsplit(".", 1)[1]: row for row in cost("alexnet_one_gpu_conv5_256").rows if row.parameters}
    expected = {"conv1": (48, 3 * 121, 3025), "conv2": (128, 48 * 25, 729), "conv3": (192, 128 * 9, 169),
                "conv4": (192, 192 * 9, 169), "conv5": (256, 192 * 9, 169), "fc6": (4096, 9216, 1),
                "fc7": (4096, 4096, 1), "fc8": (1000, 4096, 1)}  # kernels, weights of one, positions
    assert {name: (row.parameters, row.multiply_adds) for name, row in rows.items()} == {
        name: (kernels * (each + 1), kernels * each * places) for name, (kernels, each, places) in expected.items()}
    two, one, halved = (cost(f"alexnet{name}").parameters for name in ("", "_one_gpu_conv5_256", "_one_gpu"))
    assert (one, halved) == (59_798_312, 40_702_632)
    assert 0.98 < one / two < 1
    assert halved / two < 0.67


def test_dropout_of_the_one_tower_stands_as_in_its_authors_file():
    """After both hidden layers (cuda-convnet2, layers-223-1gpu), where torchvision's stands before them."""
    with torch.device("meta"):
        head = [name for name, _ in build("alexnet_one_tower").head.named_children()]
    assert head == ["flatten", "fc6", "relu6", "dropout6", "fc7", "relu7", "dropout7", "fc8"]
    start = build("alexnet_one_tower", num_classes=3, map_side=1, hidden_features=64)
    assert start.head.fc6.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert (start.head.fc7.bias == 1).all()


def test_alexnets_towers_are_apart_in_conv2():
    with torch.device("meta"):
        model = build("alexnet")
    assert [getattr(model.features, f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]


# Figure 2 of the paper: the input, then the neurons of conv1 to conv5, fc6, fc7 and fc8.
PRINTED_INPUT, PRINTED = 150_528, (253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000)


def neurons(name: str = "alexnet") -> tuple[int, ...]:
    """The outputs of the layers with weights."""
    return tuple(math.prod(row.output) for row in cost(name).rows if row.kind in ("Conv2d", "Linear"))


def steps(side: int) -> float:
    """The positions of an 11x11 kernel at stride 4 without padding: a whole number where it reaches the border."""
    return (side - 11) / 4 + 1


def test_224_or_227():
    """Fails: 224x224 does not give the paper's maps. Holds: 227x227 does, and 55x55 pools to 27 and 13."""
    assert steps(224) == 54.25
    assert steps(227) == 55
    assert PRINTED_INPUT == 3 * 224 * 224 != 3 * 227 * 227
    with torch.device("meta"):
        features = build("alexnet").features
        assert features[0](torch.empty(1, 3, 224, 224)).shape[2:] == (54, 54)
        assert features[:8](torch.empty(1, 3, 224, 224)).shape[2:] == (12, 12)  # the paper's conv3 has 13x13
        assert features[:8](torch.empty(1, 3, 227, 227)).shape[2:] == (13, 13)


def test_the_neurons_of_figure_2():
    """Holds in every layer but the first, whose printed number fits no square map of 96 channels."""
    ours = neurons()
    assert ours[1:] == PRINTED[1:]
    assert (ours[0], PRINTED[0]) == (96 * 55 * 55, 96 * 55 * 48)
    assert math.isqrt(PRINTED[0] // 96) ** 2 != PRINTED[0] // 96


def test_650_000_neurons():
    """Fails for the printed layers and for ours, to two digits; holds for our convolutions alone."""
    assert sum(PRINTED) == 622_312
    assert sum(neurons()) == 659_272
    assert [round(count, -4) for count in (sum(PRINTED), sum(neurons()))] == [620_000, 660_000]
    assert round(sum(neurons()[:5]), -4) == 650_000


def test_60_million_parameters():
    """Holds cut off to millions, fails rounded."""
    count = cost("alexnet").parameters
    assert count // 10**6 == 60
    assert round(count / 10**6) == 61


def test_each_convolution_has_at_most_one_percent_of_the_parameters():
    """Section 1. Holds for conv1, conv2 and conv5; fails for conv3 and conv4."""
    counted = cost("alexnet")
    parts = {row.name[-5:]: row.parameters / counted.parameters for row in counted.rows if row.kind == "Conv2d"}
    assert {name for name, part in parts.items() if part <= 0.01} == {"conv1", "conv2", "conv5"}
    assert (round(100 * parts["conv3"], 2), round(100 * parts["conv4"], 2)) == (1.45, 1.09)


def test_the_sixth_convolution_is_over_the_last_pooling_layer():
    shapes = stage_shapes("alexnet_six_conv")
    assert list(shapes)[-3:] == ["pool5", "conv6", "relu_conv6"]
    assert shapes["pool5"] == shapes["conv6"] == (256, 6, 6)
    sixth, plain = cost("alexnet_six_conv"), cost("alexnet")
    assert sixth.parameters - plain.parameters == 256 * 128 * 9 + 256
    assert sixth.multiply_adds - plain.multiply_adds == 256 * 128 * 9 * 36
    assert list(shapes)[:-2] == list(stage_shapes("alexnet"))


def test_the_sixth_convolutions_bias_is_one_and_22_000_classes_fit():
    model = build("alexnet_six_conv", num_classes=5, map_side=1, hidden_features=8)
    assert (model.features.conv6.bias == 1).all()
    with torch.device("meta"):
        assert build("alexnet_six_conv", num_classes=22_000)(torch.empty(1, 3, 227, 227)).shape == (1, 22_000)


def test_other_pictures_and_hidden_layers_are_arguments():
    model = build("alexnet", num_classes=4, map_side=2, hidden_features=10).eval()
    assert (model.head.fc6.in_features, model.head.fc7.out_features) == (256 * 4, 10)
    with torch.no_grad():
        assert model(torch.randn(1, 3, 99, 99)).shape == (1, 4)
        with pytest.raises(RuntimeError):  # the control: a map of another side
            model(torch.randn(1, 3, 67, 67))


def test_the_sixth_convolution_goes_on_above_the_trained_size():
    model = build("alexnet_six_conv", num_classes=3, hidden_features=8).eval().double()
    for layer in (model.head.fc6, model.head.fc7, model.head.fc8):
        nn.init.kaiming_normal_(layer.weight)
    images = torch.randn(1, 3, 227, 227).double()
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(fully_convolutional(model)(images), expected, rtol=1e-12, atol=1e-12)
        assert fully_convolutional(model).score_map(torch.randn(1, 3, 227, 259).double()).shape == (1, 3, 1, 2)


def test_the_ablations_take_one_thing_away():
    with torch.device("meta"):
        lrn, adjacent, dropout, middle3, middle4 = (build(f"alexnet_{name}") for name in (
            "without_lrn", "adjacent", "without_dropout", "without_conv3", "without_conv4"))  # fmt: skip
        whole = build("alexnet")
    children = [name for name, _ in whole.features.named_children()]
    assert [type(lrn.features.get_submodule(name)) for name in ("norm1", "norm2")] == [nn.Identity] * 2
    assert [getattr(adjacent.features, f"pool{i}").kernel_size for i in (1, 2, 5)] == [2, 2, 2]
    assert [getattr(whole.features, f"pool{i}").kernel_size for i in (1, 2, 5)] == [3, 3, 3]
    assert (dropout.head.dropout6.p, whole.head.dropout6.p) == (0.0, 0.5)
    for number, model in ((3, middle3), (4, middle4)):
        left = [name for name, _ in model.features.named_children()]
        assert [name for name in children if name not in left] == [f"conv{number}", f"relu{number}"]
    assert middle3.features.conv4.weight.shape == (384, 128, 3, 3)  # of conv2's 256 maps those of its own tower
    assert stage_shapes("alexnet_adjacent") == stage_shapes("alexnet")  # section 3.4: equivalent dimensions


def test_biases_of_zero_and_of_one():
    arguments = {"num_classes": 3, "map_side": 1, "hidden_features": 8}
    zero, one = build("alexnet_biases_zero", **arguments), build("alexnet", **arguments)
    assert not any(value.any() for name, value in zero.named_parameters() if name.endswith("bias"))
    assert any(value.any() for name, value in one.named_parameters() if name.endswith("bias"))
    assert zero.features.conv3.weight.std().item() == pytest.approx(0.01, rel=0.05)
