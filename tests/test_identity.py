"""A deeper network with the same function: plain and residual, in evaluation mode and the latter in training too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.layers.identity import deepen, plain_identity, zero_branch
from layerwise.models import build


def zero_residual(block: nn.Module) -> None:
    zero_branch(block.residual)


def trained(name: str) -> nn.Module:
    """A small network whose scales, shifts and running statistics are not those it starts with."""
    torch.manual_seed(0)
    model = build(name, widths=[4, 6, 8]).double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(("shallow", "deep", "start"), [
    ("plain20", "plain44", plain_identity),
    ("resnet20", "resnet44", zero_residual),
    ("resnet32", "resnet110", zero_residual),
])  # fmt: skip
def test_a_deeper_network_with_the_same_function(shallow, deep, start):
    small, large = trained(shallow), trained(deep)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = small(images)
        assert expected.std() > 0.1
        assert not torch.allclose(large(images), expected, rtol=0.1)
        added = deepen(small, large, start)
        found = large.eval()(images)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        # the control: with blocks as they start, copying alone is not enough
        deepen(small, other := trained(deep), lambda block: None)
        assert not torch.allclose(other(images), expected, rtol=1e-3)
    layers = [int("".join(c for c in name if c.isdigit())) for name in (shallow, deep)]
    assert len(added) == (layers[1] - layers[0]) // 2  # blocks of two layers
    assert added[0] == f"features.conv2_x.conv2_{(layers[0] - 2) // 6 + 1}"


def test_the_residual_construction_holds_in_training_mode_exactly():
    small, large = trained("resnet20").train(), trained("resnet32").train()
    deepen(small, large, zero_residual)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(large(images), small(images))


def test_the_plain_construction_does_not_hold_in_training_mode():
    """Batch normalisation by the batch is no identity: said in the docstring, so that nobody trains on it unawares."""
    small, large = trained("plain20").train(), trained("plain32").train()
    deepen(small, large, plain_identity)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert not torch.allclose(large(images), small(images), rtol=1e-2)


def test_a_zero_branch_can_learn():
    """Its last scale and shift have a gradient, so the added layers are no dead weight."""
    small, large = trained("resnet20"), trained("resnet32")
    added = deepen(small, large, zero_residual)
    large(torch.randn(2, 3, 16, 16, dtype=torch.float64)).square().sum().backward()
    assert all(large.get_submodule(name).residual[-1].weight.grad.any() for name in added)


def test_plain_identity_needs_maps_of_at_least_zero():
    block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()).double().eval()
    plain_identity(block)
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x.relu()), x.relu(), rtol=1e-12, atol=0)
        assert not torch.allclose(block(x), x)
        grouped = nn.Conv2d(4, 4, 1, groups=2, bias=False)
        plain_identity(grouped)
        assert torch.equal(grouped(torch.ones(1, 4, 2, 2)), torch.ones(1, 4, 2, 2))


@pytest.mark.parametrize(("layer", "message"), [
    (nn.Conv2d(3, 3, 3, 2, padding=1), "changes the map's size"),
    (nn.Conv2d(3, 3, 3), "changes the map's size"),
    (nn.Conv2d(3, 3, 2, padding=1), "changes the map's size"),
    (nn.Conv2d(3, 4, 3, padding=1), "changes the number of maps"),
    (nn.BatchNorm2d(3, affine=False), "it always normalises"),
    (nn.MaxPool2d(2), "MaxPool2d is no identity"),
    (nn.Tanh(), "Tanh is no identity"),
])  # fmt: skip
def test_what_cannot_be_the_identity(layer, message):
    with pytest.raises(InputError, match=f"the block cannot be the identity\n  - 0: .*{message}"):
        plain_identity(nn.Sequential(layer))


def test_a_branch_without_parameters():
    with pytest.raises(InputError, match="no parameters that could be zero"):
        zero_branch(nn.Identity())


def test_networks_that_do_not_contain_each_other():
    with pytest.raises(InputError, match=r"does not contain the shallower one: \d+ entries\n  - .* is missing"):
        deepen(trained("resnet32"), trained("resnet20"), zero_residual)
    with pytest.raises(InputError, match=r"features.conv1.conv.weight is \(16, 3, 3, 3\), not \(4, 3, 3, 3\)"):
        deepen(trained("resnet20"), build("resnet20"), zero_residual)
