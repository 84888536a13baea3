"""Starting from a model file: nothing is loaded, adapted, new or unused without being said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from layerwise import models
from layerwise.data.preprocess import Preprocess
from layerwise.errors import InputError
from layerwise.modelfile import ModelFile
from layerwise.training import transfer


def source(names: tuple[str, ...], channels: int = 3, network: str = "resnet20") -> ModelFile:
    torch.manual_seed(1)
    zeros, ones = np.zeros((channels, 1, 1), np.float32), np.ones((channels, 1, 1), np.float32)
    model = models.build(network, num_classes=len(names), in_channels=channels).eval()
    return ModelFile(model, names, Preprocess(channels, 8, "none", 0, "bilinear", "apply", zeros, ones),
                     path=Path("m.safetensors"))


def network(classes: int, channels: int = 3) -> nn.Module:
    torch.manual_seed(2)
    return models.build("resnet20", num_classes=classes, in_channels=channels).eval()


def test_the_same_classes_load_everything() -> None:
    model, file = network(2), source(("a", "b"))
    report = transfer.start_from(model, ("a", "b"), file)
    assert (report.adapted, report.new, report.unused) == ((), (), ())
    assert len(report.loaded) == len(model.state_dict())
    picture = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(picture), file.model(picture))


def test_other_classes_get_a_new_head_and_it_is_said() -> None:
    model = network(3)
    before = next(model.head.parameters()).clone()
    report = transfer.start_from(model, ("a", "b", "c"), source(("a", "b")))
    assert len(report.new) == 2
    assert all(entry.endswith("the classes differ") for entry in report.new)
    assert torch.equal(next(model.head.parameters()), before)
    assert report.lines()[0].endswith("2 newly initialised, 0 of the file unused")


def test_the_same_classes_in_another_order_move_the_rows() -> None:
    model, file = network(3), source(("a", "b", "c"))
    report = transfer.start_from(model, ("c", "a", "b"), file)
    picture = torch.rand(2, 3, 8, 8)
    assert torch.allclose(model(picture), file.model(picture)[:, [2, 0, 1]])
    assert len(report.adapted) == 2


def test_grey_pictures_give_the_same_with_one_channel() -> None:
    model, file = network(2, channels=1), source(("a", "b"))
    report = transfer.start_from(model, ("a", "b"), file)
    picture = torch.rand(2, 1, 8, 8)
    assert torch.allclose(model(picture), file.model(picture.expand(-1, 3, -1, -1)), atol=1e-5)
    assert len(report.adapted) == 1
    assert report.adapted[0].endswith(": 3 input channels to 1")


def test_one_channel_is_spread_over_three() -> None:
    model, file = network(2, channels=3), source(("a", "b"), channels=1)
    transfer.start_from(model, ("a", "b"), file)
    picture = torch.rand(2, 1, 8, 8)
    assert torch.allclose(model(picture.expand(-1, 3, -1, -1)), file.model(picture), atol=1e-5)


def test_anything_else_that_does_not_fit_is_an_error() -> None:
    model = network(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match="Only the classifier may be newly initialised") as error:
        transfer.start_from(model, ("a", "b"), source(("a", "b"), network="lenet5", channels=3))
    assert "not in the file" in str(error.value)
    assert before.keys() == model.state_dict().keys()
