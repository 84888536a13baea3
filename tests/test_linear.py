"""Linear layers made without numbers: every network that uses them fills them all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.layers.linear import unfilled_linear
from layerwise.models import build
from tests.model_counts import SMALL_ARGUMENTS


@pytest.fixture
def _memory_full_of_nan():
    """Memory that nobody fills is NaN, as torch promises in its deterministic mode."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.mark.usefixtures("_memory_full_of_nan")
@pytest.mark.parametrize("name", ["alexnet", "alexnet_six_conv", "zfnet", "zfnet512", "maxout", "vgg11", "vgg11_bn"])
def test_networks_fill_all_their_weights(name):
    model = build(name, num_classes=3, **SMALL_ARGUMENTS[name])
    assert [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()] == []


@pytest.mark.usefixtures("_memory_full_of_nan")
def test_the_layer_itself_holds_no_numbers():
    """The control: without a rule that fills them, the same test fails."""
    layer = unfilled_linear(3, 2)
    assert layer.weight.isnan().all()
    assert layer.bias.isnan().all()


def test_shape_device_and_dtype_are_those_of_an_ordinary_layer():
    layer = unfilled_linear(5, 4)
    assert (layer.in_features, layer.out_features) == (5, 4)
    assert {key: value.shape for key, value in layer.state_dict().items()} == {
        key: value.shape for key, value in nn.Linear(5, 4).state_dict().items()
    }
    assert layer.weight.dtype == torch.get_default_dtype()
    assert (layer.weight.device.type, layer.weight.requires_grad) == ("cpu", True)
    with torch.device("meta"):
        assert unfilled_linear(5, 4).weight.is_meta
