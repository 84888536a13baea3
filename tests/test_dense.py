"""Fully convolutional networks: equal at the trained size, a map of scores above it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.layers.drop_connect import DropConnect
from layerwise.layers.locally_connected import LocallyConnected2d
from layerwise.layers.maxout import Maxout
from layerwise.models import build, names, paper, published_input
from layerwise.models.dense import fully_convolutional
from layerwise.models.network import Network


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lively(name: str, **arguments: object) -> nn.Module:
    """A network in evaluation mode whose logits are not all nearly alike."""
    model = build(name, **arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return model


# Name, side of the pictures, arguments that make it small.
TRAINED = [
    ("alexnet", 227, {"hidden_features": 64}), ("alexnet_one_gpu", 227, {"hidden_features": 64}), ("lenet1990", 28, {}),
    ("lenet5", 32, {}), ("resnet18", 64, {}), ("resnet20", 32, {}), ("plain20", 32, {}), ("nin", 32, {}),
    ("highway19", 32, {}), ("maxout", 32, {}), ("fitnet11_250k", 32, {}), ("zfnet", 224, {"hidden_features": 8}),
    ("vgg11", 96, {"map_side": 3, "hidden_features": 8}), ("vgg11", 32, {"map_side": 1, "hidden_features": 8}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "side", "arguments"), TRAINED)
def test_equal_scores_at_the_trained_size(name, side, arguments):
    model, channels = lively(name, num_classes=5, **arguments).double(), published_input(name)[0]
    images = torch.randn(2, channels, side, side, dtype=torch.float64)
    with torch.no_grad():
        expected, dense = model(images), fully_convolutional(model)
        assert (dense(images) - expected).abs().max() <= 1e-12 * expected.abs().max()
        assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()  # it looks at the pictures
        # the control: kernels turned by a half turn are other kernels
        wide = next((m for m in dense.head if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)), None)
        if wide is not None:
            wide.weight.copy_(wide.weight.flip(2, 3))
            assert not torch.allclose(dense(images), expected, rtol=1e-3, atol=1e-3)


def test_a_network_of_each_paper_can_be_converted_or_says_why_not():
    refused = {}
    first_of_its_paper = {paper(name).title: name for name in reversed(names())}
    for name in {*first_of_its_paper.values(), "lenet5_1998"}:
        with torch.device("meta"):
            model = build(name)
            try:
                fully_convolutional(model)
            except InputError as error:
                refused[name] = str(error)
    assert sorted(refused) == ["airnet", "lenet1989", "lenet5_1998"]
    assert "head.pool is not known as a convolution" in refused["airnet"]  # the maximum over the whole map


def own(features: dict[str, nn.Module], head: dict[str, nn.Module]) -> Network:
    """A network of one's own for lenet5's pictures, in evaluation mode and float64, with no two statistics alike."""
    network = Network(features, head).double().eval()
    network.architecture = {"name": "lenet5", "arguments": {"in_channels": 1}}
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return network


STEM = {"conv1": nn.Conv2d(1, 6, 3, stride=4), "relu1": nn.ReLU()}  # 8x8
HEADS: dict[str, dict[str, nn.Module]] = {
    "maxout": {"flatten": nn.Flatten(), "fc": nn.Linear(384, 8), "maxout": Maxout(2), "last": nn.Linear(4, 3)},
    "maxout of maps": {"maxout": Maxout(3), "flatten": nn.Flatten(), "fc": nn.Linear(128, 3)},
    "prelu": {"flatten": nn.Flatten(), "fc": nn.Linear(384, 4), "prelu": nn.PReLU(4), "last": nn.Linear(4, 3)},
    "batch normalisation, convolution": {
        "bn": nn.BatchNorm2d(6), "conv": nn.Conv2d(6, 5, 3), "elu": nn.ELU(), "flatten": nn.Flatten(),
        "fc": nn.Linear(180, 4), "sigmoid": nn.Sigmoid(), "last": nn.Linear(4, 3)},
    "maximum pooling": {"pool": nn.MaxPool2d(2), "flatten": nn.Flatten(), "fc": nn.Linear(96, 3), "tanh": nn.Tanh()},
    "average pooling": {"pool": nn.AvgPool2d(8), "softsign": nn.Softsign(), "flatten": nn.Flatten(),
                        "fc": nn.Linear(6, 3)},
    "no layer after the average": {"conv": nn.Conv2d(6, 3, 1), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()},
    "linear layers after the average": {"pool": nn.AdaptiveAvgPool2d((1, 1)), "flatten": nn.Flatten(),
                                        "drop": nn.Dropout(), "fc": nn.Linear(6, 3)},
    "others after the average": {"conv": nn.Conv2d(6, 6, 3), "pool": nn.AdaptiveAvgPool2d(1), "tanh": nn.Tanh(),
                                 "flatten": nn.Flatten(), "fc": nn.Linear(6, 3)},
    "an average to the size that is there": {"pool": nn.AdaptiveAvgPool2d((8, 8)), "flatten": nn.Flatten(),
                                             "fc": nn.Linear(384, 3)},
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_other_layers(head):
    """Equal at the trained size; above it the score of a position is the answer to that crop, 4 pixels a position."""
    model, images = own(STEM, HEADS[head]), torch.randn(2, 1, 40, 36, dtype=torch.float64)
    dense = fully_convolutional(model)
    with torch.no_grad():
        torch.testing.assert_close(dense(images[:, :, :32, :32]), model(images[:, :, :32, :32]), rtol=1e-9, atol=1e-12)
        scores = dense.score_map(images)
        if scores.shape[2:] == (3, 2):
            for y in range(3):
                crop = images[:, :, 4 * y : 4 * y + 32, 4:36]
                torch.testing.assert_close(scores[:, :, y, 1], model(crop), rtol=1e-9, atol=1e-12)
            assert not torch.allclose(scores[:, :, 0], scores[:, :, 1])
        else:  # scores before the average, or a stride within the head
            assert head in ("maximum pooling", "average pooling", "no layer after the average",
                            "linear layers after the average")  # fmt: skip
            assert dense(images).shape == (2, 3)


def test_the_average_before_other_layers_cannot_be_left_out():
    """The control: scores averaged after a tanh are not the tanh of an average."""
    model, images = own(STEM, HEADS["others after the average"]), torch.randn(1, 1, 32, 32, dtype=torch.float64)
    dense = fully_convolutional(model)
    dense.head.pool = nn.Identity()
    with torch.no_grad():
        assert (dense(images) - model(images)).abs().max() > 1e-4


@pytest.mark.parametrize(("features", "head", "message"), [
    (STEM, {"pool": nn.AdaptiveAvgPool2d(3), "flatten": nn.Flatten(), "fc": nn.Linear(54, 3)},
     r"head\.pool averages a 8x8 map to 3"),
    (STEM, {"flatten": nn.Flatten(), "fc": DropConnect(384, 3)}, r"head\.fc is not known as a convolution"),
    ({"local": LocallyConnected2d(1, 2, (32, 32), 5)}, {"flatten": nn.Flatten(), "fc": nn.Linear(1568, 3)},
     r"features\.local has kernels of its own for each position"),
])  # fmt: skip
def test_layers_that_cannot_be_converted(features, head, message):
    with pytest.raises(InputError, match=message):
        fully_convolutional(own(features, head))


def test_a_larger_picture_gives_a_map_of_scores_that_is_averaged():
    """LeNet-5 has no padding: the score of a position is the network's answer to that crop, 4 pixels apart."""
    model = lively("lenet5")
    dense, images = fully_convolutional(model), torch.randn(2, 1, 40, 44)
    with torch.no_grad():
        scores = dense.score_map(images)
        assert scores.shape == (2, 10, 3, 4)
        crops = [[model(images[:, :, 4 * y : 4 * y + 32, 4 * x : 4 * x + 32]) for x in range(4)] for y in range(3)]
        expected = torch.stack([torch.stack(row, 2) for row in crops], 2)
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(dense(images), expected.mean((2, 3)), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(scores[:, :, 0, 0], scores[:, :, 1, 1], atol=1e-3)


def test_a_residual_network_has_a_score_for_each_position():
    model = lively("resnet18", num_classes=4)
    dense, images = fully_convolutional(model), torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        assert dense.score_map(images).shape == (1, 4, 3, 4)
        torch.testing.assert_close(dense(images), model(images), rtol=1e-4, atol=1e-5)


def test_alexnets_map_of_scores():
    dense = fully_convolutional(lively("alexnet_one_gpu", num_classes=4))
    with torch.no_grad():
        assert dense.score_map(torch.randn(1, 3, 227, 259)).shape == (1, 4, 1, 2)


def test_weights_are_shared_and_the_mode_is_kept():
    model = build("lenet5")
    dense = fully_convolutional(model)
    assert dense.training
    assert dense.head.F6.weight.data_ptr() == model.head.F6.weight.data_ptr()
    assert not fully_convolutional(model.eval()).training
    assert not any("Dropout" in type(m).__name__ and m.training for m in fully_convolutional(model).modules())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "lenet1989",
            r"cannot be made fully convolutional: features\.H1\.bias has a bias of its own for each position",
        ),
        ("lenet5_1998", r"cannot be made fully convolutional: head\.output is not known as a convolution"),
    ],
)
def test_what_cannot_be_converted(name, message):
    with pytest.raises(InputError, match=message):
        fully_convolutional(build(name))


def test_a_foreign_module_is_refused():
    with pytest.raises(InputError, match="Sequential cannot be made fully convolutional"):
        fully_convolutional(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
