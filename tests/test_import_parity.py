"""Imported weights answer as in the library they are from: 20 networks of torchvision 0.28.0 and timm 1.0.31.

tests/data/parity holds, for each network, its layers with their shapes and what it answers (evaluation mode, float64,
one picture) when every entry and the picture are filled by the rule below; neither library is needed. Each network is
imported as a user's file is. The entries matched in the file's float64 must answer the same to 1e-9 of the largest
logit, the model file that the command writes, in float32, to 1e-5.

A run of the tests takes the six smallest; LAYERWISE_ALL_NETWORKS=1 all 20 (some minutes, up to 4 GiB of memory).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from layerwise import modelfile, models
from layerwise.cli import main
from layerwise.importing.importer import import_weights

DATA = Path(__file__).parent / "data" / "parity"
# File: our network, and whether it is among the six of every run.
NETWORKS = {
    "torchvision-resnet34": ("resnet34", True),
    "torchvision-resnet50": ("resnet50_v1_5", False),
    "torchvision-resnet152": ("resnet152_v1_5", False),
    "torchvision-resnext101_32x8d": ("resnext101_32x8d", False),
    "torchvision-wide_resnet50_2": ("wide_resnet50_2", False),
    "timm-resnet50": ("resnet50_v1_5", False),
    "torchvision-alexnet": ("alexnet_one_tower", False),
    "torchvision-vgg11": ("vgg11", False),
    "torchvision-vgg16_bn": ("vgg16_bn", False),
    "torchvision-googlenet": ("googlenet_3x3", True),
    "torchvision-inception_v3": ("inception_v3", False),
    "torchvision-densenet121": ("densenet121", True),
    "torchvision-densenet161": ("densenet161", False),
    "timm-inception_v4": ("inception_v4", False),
    "timm-inception_resnet_v2": ("inception_resnet_v2", False),
    "timm-legacy_xception": ("xception", False),
    "timm-mobilenetv1_100": ("mobilenet_100_relu6", True),
    "torchvision-mobilenet_v2": ("mobilenet_v2_100", True),
    "timm-mobilenetv2_140": ("mobilenet_v2_140", True),
    "timm-nasnetalarge": ("nasnet_large", False),
}
EVERY = os.environ.get("LAYERWISE_ALL_NETWORKS") == "1"
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def philox(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers of variance 1, float64, that depend on the name alone."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(math.prod(shape))
    return torch.from_numpy((((words >> np.uint64(11)) * 2.0**-53 - 0.5) * math.sqrt(12)).reshape(shape))


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """The rule for an entry."""
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    u = philox(name, shape)
    if last == "running_var":
        return 1 + 0.25 * u
    if last == "running_mean":
        return 0.1 * u
    if len(shape) == 1:
        return 1 + 0.1 * u if last == "weight" else 0.1 * u
    return u * math.sqrt(2 / math.prod(shape[1:]))


def reference(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    return found


def shapes(layers: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each entry of the layers and its shape: "bn1: 64 bn", "fc: 1000x512 weight, bias"."""
    for line in layers:
        layer, text = line.split(": ")
        sides, kinds = text.split(" ", 1)
        shape = tuple(int(side) for side in sides.split("x"))
        for kind in BATCH_NORM if kinds == "bn" else kinds.split(", "):
            first = {"weight": shape, "num_batches_tracked": ()}
            yield f"{layer}.{kind}", first.get(kind, shape[:1])


def weight_file(name: str, folder: Path) -> Path:
    """The reference's weight file, float64, as its library would write it."""
    path = folder / f"{name}.safetensors"
    save_file({entry: filled(entry, shape) for entry, shape in shapes(reference(name)["layers"])}, path)
    return path


def answers(model: nn.Module, name: str) -> Tensor:
    """The logits for the reference's picture, in the precision of the model."""
    picture = philox("input", tuple(reference(name)["input"]))
    with torch.inference_mode():
        logits: Tensor = model.eval()(picture.to(next(model.parameters()).dtype))[0].double()
    return logits


def agree(found: Tensor, name: str, tolerance: float) -> list[str]:
    """What differs from the reference by more than `tolerance` of its largest logit; nothing where all is well."""
    wanted = reference(name)
    logits = torch.tensor(wanted["logits"], dtype=torch.float64)
    problems = []
    worst = float((found[: len(logits)] - logits).abs().max() / logits.abs().max())
    if not worst <= tolerance:
        problems.append(f"logits: {worst:.1e}")
    of_norm = abs(float(found.norm()) - wanted["norm"]) / wanted["norm"]
    if not of_norm <= tolerance:
        problems.append(f"norm: {of_norm:.1e}")
    if int(found.argmax()) != wanted["argmax"]:
        problems.append(f"largest: {int(found.argmax())}")
    return problems


def in_float64(path: Path, name: str) -> nn.Module:
    """Our network with what the command would load, before it becomes float32."""
    imported = import_weights(path, NETWORKS[name][0], name.split("-")[0])
    assert imported.report.unused == {}
    assert [entry for entry in imported.report.new if not entry.startswith("auxiliary.")] == []
    with torch.device("meta"):
        model = models.build(imported.name).double()
    unused = {entry: torch.zeros_like(model.state_dict()[entry], device="cpu") for entry in imported.report.new}
    model.load_state_dict(imported.tensors | unused, assign=True)
    return model


def chosen() -> list[Any]:
    why = "one of the large ones: LAYERWISE_ALL_NETWORKS=1 compares all 20"
    return [pytest.param(name, marks=[] if small or EVERY else pytest.mark.skip(reason=why), id=name)
            for name, (_, small) in NETWORKS.items()]


@pytest.mark.parametrize("name", chosen())
def test_same_answers_as_the_source(name: str, tmp_path: Path) -> None:
    path, ours = weight_file(name, tmp_path), tmp_path / "ours.safetensors"
    assert agree(answers(in_float64(path, name), name), name, 1e-9) == []
    command = ["import", str(path), "--as", NETWORKS[name][0], "--source", name.split("-")[0], "--out", str(ours)]
    assert main(command) == 0
    path.unlink()
    found = answers(modelfile.read(ours).model, name)
    assert agree(found, name, 1e-5) == []
    assert agree(found, name, 1e-9) != []  # the control: float32 is not float64, and the comparison sees it


def test_two_entries_that_change_places_are_found(tmp_path: Path) -> None:
    """The negative control: entries of one shape, swapped, give another answer."""
    name = "torchvision-resnet34"
    model = in_float64(weight_file(name, tmp_path), name)
    assert agree(answers(model, name), name, 1e-9) == []
    first, second = (f"features.conv2_x.conv2_{block}.residual.conv1.weight" for block in (2, 3))
    state = model.state_dict()
    state[first], state[second] = state[second], state[first]
    model.load_state_dict(state, assign=True)
    assert agree(answers(model, name), name, 1e-5) != []


def test_the_references_are_whole() -> None:
    """Each of the 20 has a row, with the number of entries that the library has."""
    assert {path.stem for path in DATA.glob("*.json")} == set(NETWORKS)
    counts = {name: sum(1 for _ in shapes(reference(name)["layers"])) for name in NETWORKS}
    assert counts["torchvision-resnet34"] == 218
