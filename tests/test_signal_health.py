"""Forward variances and gradient norms: by hand, against torch's own, and where signals do vanish."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from layerwise import models
from layerwise.errors import InputError
from layerwise.explain.signal_health import Health, signal_health, spread


def test_variance_and_gradient_by_hand() -> None:
    """x in {-1, 1}, w = 2: responses of variance 4; logits (0, v h) with v = 0.5."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
    nn.init.constant_(model[1].weight, 2.0)
    model[2].weight.data = torch.tensor([[0.0], [0.5]])
    images, labels = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), torch.tensor([0, 1])
    first, second = signal_health(model, images, labels)
    p = 1 / (1 + math.exp(-1.0))  # of the right class in both pictures: logits 0 and 0.5 * 2 = 1
    assert first == Health("1", 4.0, pytest.approx(0.5 * (1 - p)), pytest.approx(0.5 * (1 - p) / 2))
    # By the logits' weights: (1 - p) h for each class, h = 2 and with both signs alike.
    assert second.gradient == pytest.approx(2 * (1 - p) * math.sqrt(2))
    assert second.variance == pytest.approx(0.5)  # logits 0, -1, 0, 1


def test_norms_are_those_of_the_backward_pass() -> None:
    torch.manual_seed(0)
    model = models.build("plain20", in_channels=1)
    images, labels = torch.randn(8, 1, 12, 12), torch.randint(0, 10, (8,))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = signal_health(model, images, labels)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [one.layer for one in found][:2] == ["features.conv1.conv", "features.conv2_x.conv2_1.plain.conv1"]
    assert len(found) == 20
    nn.functional.cross_entropy(model(images), labels).backward()  # training mode: the batch's own statistics
    for one in found:
        weight = model.get_parameter(f"{one.layer}.weight")
        norm, own = float(weight.grad.norm()), float(weight.detach().norm())
        assert one.gradient == pytest.approx(norm, rel=1e-4)
        assert one.relative == pytest.approx(norm / own, rel=1e-4)


def test_batch_normalisation_holds_variances_at_one() -> None:
    """Behind it, with scale 1 and shift 0, every layer's variance is 1 but for epsilon: section 4.1's argument."""
    torch.manual_seed(0)
    found = signal_health(models.build("plain56", in_channels=1), torch.randn(8, 1, 16, 16), torch.arange(8))
    assert all(one.variance == pytest.approx(1.0, abs=0.02) for one in found[:-1])
    assert found[0].gradient > found[-1].gradient  # nothing has vanished on its way to the first layer


def test_without_it_signals_vanish() -> None:
    """The negative control: 20 layers of small weights and no batch normalisation let nothing through.

    A weight's gradient is a product of what comes from both sides, so that all of them vanish, not the first alone.
    """
    torch.manual_seed(0)
    model = models.build("plain20", in_channels=1)
    for block in list(model.modules()):
        for name, child in list(block.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(block, name, nn.Identity())
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.01)
    found = signal_health(model, torch.randn(8, 1, 16, 16), torch.arange(8))
    assert spread([one.variance for one in found[:-1]]) < 1e-20
    assert all(one.gradient < 1e-8 for one in found[:-1])
    assert found[-1].gradient < 1e-8


def test_dropout_leaves_the_generator_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    signal_health(model, torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1]))
    assert torch.equal(torch.rand(1), expected)


def test_frozen_layers_have_gradients_too_and_stay_frozen() -> None:
    model = models.build("resnet20", in_channels=1).requires_grad_(False)
    found = signal_health(model, torch.randn(4, 1, 8, 8), torch.arange(4))
    assert all(one.gradient > 0 for one in found)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_network_is_restored_after_an_exception() -> None:
    model = models.build("resnet20", in_channels=1)
    with pytest.raises(IndexError):
        signal_health(model, torch.randn(2, 1, 8, 8), torch.tensor([0, 99]))  # no such class
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(InputError, match="1 pictures are too few"):
        signal_health(model, torch.randn(1, 1, 8, 8), torch.tensor([0]))


def test_spread() -> None:
    assert spread([2.0, 8.0, 4.0]) == 0.25
    assert spread([0.0, 1.0]) == 0.0
    assert spread([0.0]) == 0.0
