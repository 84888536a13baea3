"""Fully convolutional networks: equal at the trained size, a map of scores above it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.models import build, published_input
from layerwise.models.dense import fully_convolutional


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lively(name: str, **arguments: object) -> nn.Module:
    """A network in evaluation mode whose logits are not all nearly alike."""
    model = build(name, **arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return model


@pytest.mark.parametrize(
    "name",
    ["alexnet", "alexnet_one_gpu", "alexnet_one_tower", "lenet1990", "lenet5", "resnet18", "resnet20", "plain20"],
)
def test_equal_scores_at_the_trained_size(name):
    model, (channels, side, _) = lively(name, num_classes=5), published_input(name)
    side = 64 if name == "resnet18" else side
    images = torch.randn(2, channels, side, side)
    with torch.no_grad():
        expected, dense = model(images), fully_convolutional(model)
        assert (dense(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert expected.std() > 1e-2
        # the control: kernels turned by a half turn are other kernels
        wide = next((m for m in dense.head if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)), None)
        if wide is not None:
            wide.weight.copy_(wide.weight.flip(2, 3))
            assert not torch.allclose(dense(images), expected, rtol=1e-3, atol=1e-3)


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
