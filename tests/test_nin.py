"""Network in Network: its layers by hand, max-pooling in both places, classes as maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.models import build
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_layers_by_hand():
    """Kernel, maps before and after, side of the map: three mlpconv layers of three, the second half of them 1x1."""
    layers = [
        ("conv1", 5, 3, 192, 32), ("cccp1", 1, 192, 160, 32), ("cccp2", 1, 160, 96, 32),
        ("conv2", 5, 96, 192, 16), ("cccp3", 1, 192, 192, 16), ("cccp4", 1, 192, 192, 16),
        ("conv3", 3, 192, 192, 8), ("cccp5", 1, 192, 192, 8), ("cccp6", 1, 192, 10, 8),
    ]  # fmt: skip
    found = {row.name.rsplit(".", 1)[1]: row for row in cost("nin").rows if row.kind == "Conv2d"}
    assert list(found) == [layer[0] for layer in layers]
    for name, kernel, before, after, side in layers:
        assert found[name].output == (after, side, side)
        assert found[name].parameters == kernel * kernel * before * after + after
        assert found[name].multiply_adds == kernel * kernel * before * after * side * side


def test_sizes_and_pooling():
    shapes = stage_shapes("nin")
    assert {name: shapes[name] for name in shapes if not name.startswith("dropout")} == {
        "mlpconv1": (96, 32, 32), "pool1": (96, 16, 16), "mlpconv2": (192, 16, 16), "pool2": (192, 8, 8),
        "mlpconv3": (192, 8, 8),
    }  # fmt: skip
    model = build("nin")
    assert type(model.features.pool1) is type(model.features.pool2) is nn.MaxPool2d
    assert sum(isinstance(layer, nn.Linear) for layer in model.modules()) == 0
    assert sum(isinstance(layer, nn.ReLU) for layer in model.modules()) == 9  # eq. 2: after every convolution


def test_the_score_of_a_class_is_the_mean_of_its_map():
    model, images = build("nin", num_classes=4).eval(), torch.randn(2, 3, 20, 24)
    with torch.no_grad():
        maps = model.head[:2](model.features(images))
        assert maps.shape == (2, 4, 5, 6)
        torch.testing.assert_close(model(images), maps.flatten(2).mean(2))
        assert not torch.allclose(model(images), maps[:, :, 0, 0])  # the control: one position is not the mean


def test_dropout_after_all_but_the_last():
    model = build("nin", dropout=0.3)
    found = {name: layer.p for name, layer in model.named_modules() if isinstance(layer, nn.Dropout)}
    assert found == {"features.dropout1": 0.3, "features.dropout2": 0.3}


def test_weights_start_at_a_twentieth():
    for module in build("nin").modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.05, rel=0.1)
            assert not module.bias.any()
