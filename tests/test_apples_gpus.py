"""Apple's GPUs have no float64: what is added up in it leaves the device first. No such GPU is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faults import tiny
from layerwise.data.preprocess import Preprocess, fit_preprocess
from layerwise.evaluate import forward
from layerwise.modelfile import ModelFile
from layerwise.tasks.classify import Classify
from layerwise.training import failure
from layerwise.training.state import assemble
from tests.small_network import network


@pytest.fixture
def no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor becomes float64 that was not asked to come to the CPU."""
    came, to_cpu, as_double = list[Tensor](), Tensor.cpu, Tensor.double

    def cpu(tensor: Tensor) -> Tensor:
        came.append(to_cpu(tensor).view_as(tensor))  # another object: the one on the device stays refused
        return came[-1]

    def double(tensor: Tensor) -> Tensor:
        if not any(tensor is one for one in came):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return as_double(tensor)

    monkeypatch.setattr(Tensor, "cpu", cpu)
    monkeypatch.setattr(Tensor, "double", double)


def pictures() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randn(6, 1, 6, 6, generator=generator), "label": torch.tensor([0, 2, 1, 1, 0, 3])}


def test_a_validation(no_float64: None) -> None:
    model, batch = network().eval(), pictures()
    found = Classify().evaluate(model, [batch])
    with torch.inference_mode():
        losses = nn.functional.cross_entropy(model(batch["image"]).to(torch.float64), batch["label"])
    assert found["loss"] == pytest.approx(float(losses), rel=1e-12)
    with pytest.raises(TypeError, match="MPS Tensor to float64"):  # the control
        model(batch["image"]).double()
    with pytest.raises(TypeError, match="MPS Tensor to float64"):
        model(batch["image"]).double().cpu()


def test_an_evaluation(no_float64: None) -> None:
    zeros, ones = np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    preprocess = Preprocess(1, 6, "none", 0, "bilinear", "apply", zeros, ones)
    model = network().eval()
    member = ModelFile(model, ("a", "b", "c", "d"), preprocess, path=Path("m.safetensors"))
    shown = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 1), dtype=np.uint8)
    logits = forward(model, member, shown, torch.device("cpu"))
    assert logits.dtype == np.float64
    with torch.inference_mode():
        expected = model(preprocess.normalise(torch.from_numpy(shown)))
    assert (logits == expected.numpy()).all()


def test_what_is_asked_after_a_failure(no_float64: None, tmp_path: Path) -> None:
    with tiny.tiny():
        chosen, data = tiny.recipe(), tiny.data()
        training = assemble(tmp_path, chosen, data, fit_preprocess(data.train, chosen), None)
        assert failure.ruined(training, [0, 1]) == ""
        with torch.no_grad():
            training.model.get_parameter("head.fc.weight").mul_(1e6)
        assert "their loss on other pictures is" in failure.ruined(training, [0, 1])  # it was asked
