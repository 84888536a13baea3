"""Activations that overwrite their input in training: the same bits, and only where nothing else reads it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from layerwise import models
from layerwise.training.in_place import overwrite_inputs


def learnt(model: nn.Module, size: int) -> dict[str, Tensor]:
    """Loss, gradients and statistics after a backward pass."""
    torch.manual_seed(1)
    model.train()
    images = torch.randn(2, 3, size, size)
    loss = torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1]))
    loss.backward()
    return {"loss": loss.detach(), **{name: value.grad for name, value in model.named_parameters()
                                      if value.grad is not None},
            **{f"{name} after": value for name, value in model.named_buffers()}}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    head = {"map_side": 1, "hidden_features": 16} if name in ("alexnet", "vgg11_lrn") else {}  # for small pictures
    return models.build(name, num_classes=3, **head)


@pytest.mark.parametrize(("name", "size"), [
    ("resnet20", 16), ("resnet50", 33), ("plain20", 16), ("wrn16_2", 16), ("mobilenet", 33), ("densenet_bc100_k12", 16),
    ("inception_v2", 64), ("mobilenet_v2", 33), ("nin", 32), ("highway19", 32), ("googlenet", 64),
    ("preact_resnet110", 16), ("alexnet", 67), ("vgg11_lrn", 32),
])
def test_every_number_stays_the_same(name: str, size: int) -> None:
    if name not in models.names():
        pytest.fail(f"no network {name}")
    plain, ours = built(name), built(name)
    overwrite_inputs(ours)
    expected, found = learnt(plain, size), learnt(ours, size)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_which_are_overwritten() -> None:
    model = built("resnet20")
    assert overwrite_inputs(model) == sum(isinstance(module, nn.ReLU) for module in model.modules())
    assert overwrite_inputs(built("vgg11")) == 8 + 2  # behind convolutions and linear layers


class Tapped(nn.Module):
    """Reads what stands before its activation a second time: such a network must not overwrite it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        before = self.norm(maps)
        after: Tensor = self.relu(before)
        return (after + before).mean((2, 3))


def test_activations_elsewhere_are_left_alone() -> None:
    model = Tapped()
    assert overwrite_inputs(model) == 0
    expected = learnt(model, 4)["loss"]
    torch.manual_seed(0)
    model = Tapped()
    model.relu.inplace = True  # the control: overwritten, the numbers are others
    assert not torch.equal(learnt(model, 4)["loss"], expected)
