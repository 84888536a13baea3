"""The same answers as torchvision for the same weights: numbers only, torchvision is not needed."""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np
import pytest
import torch

from layerwise.models import build


def philox(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of variance 1 that depend on the name alone."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(math.prod(shape))
    return (((words >> np.uint64(11)) * 2.0**-53 - 0.5) * math.sqrt(12)).reshape(shape)


def entry(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    u = philox(name, shape)
    if name.endswith("running_var"):
        return torch.from_numpy(1 + 0.25 * u)
    if len(shape) == 1:
        return torch.from_numpy(1 + 0.1 * u if name.endswith("weight") else 0.1 * u)
    return torch.from_numpy(u * math.sqrt(2 / math.prod(shape[1:])))


def torchvision_name(name: str) -> str:
    """What torchvision calls this entry of its resnet."""
    name = re.sub(r"^features\.conv1\.(conv|bn)\.", r"\g<1>1.", name).removeprefix("head.")
    name = re.sub(r"^features\.conv(\d)_x\.conv\d_(\d+)\.", lambda m: f"layer{int(m[1]) - 1}.{int(m[2]) - 1}.", name)
    return name.replace("residual.", "").replace("shortcut.conv", "downsample.0").replace("shortcut.bn", "downsample.1")


# What torchvision 0.28.0 answers in float64 for such weights and such a picture: first logits, norm, largest.
TORCHVISION = {
    "resnet34": ((-958.830815741, -2102.07473111, -635.448850488, -1488.967031), 40695.1697441, 57),
    "resnet50_v1_5": ((-2744.23198588, 376.259898346, 847.049057359, 692.460193488), 65619.6525019, 507),
}


def answers(name: str) -> torch.Tensor:
    with torch.device("meta"):
        model = build(name).double().eval()
    state = {key: entry(torchvision_name(key), tuple(value.shape)) for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    with torch.no_grad():
        return model(torch.from_numpy(philox("input", (1, 3, 96, 96))))[0]


@pytest.mark.parametrize("name", TORCHVISION)
def test_same_answers_as_torchvision(name):
    first, norm, largest = TORCHVISION[name]
    found = answers(name)
    np.testing.assert_allclose(found[: len(first)].numpy(), first, rtol=1e-9)
    assert found.norm().item() == pytest.approx(norm, rel=1e-9)
    assert found.argmax() == largest


def test_the_papers_resnet50_answers_otherwise():
    """The control: the stride in the first 1x1 is another network with the same entries."""
    first, _, _ = TORCHVISION["resnet50_v1_5"]
    assert not np.allclose(answers("resnet50")[: len(first)].numpy(), first, rtol=1e-2)
