"""What every classifier is: `features`, whose children carry the paper's names, then `head`; and its paper."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FLOWS = {
    "chain": "one layer after the other",
    "branches": "parallel branches, concatenated",
    "sum": "a shortcut is added",
    "gates": "a shortcut is mixed in by learned gates",
    "concatenation": "each layer sees all maps before it",
    "cells": "searched cells that see the two cells before them",
}


@dataclass(frozen=True)
class Paper:
    """Where a network comes from: authors and year as cited, title, kind of flow (a key of FLOWS)."""

    authors: str
    year: int
    title: str
    flow: str

    def __str__(self) -> str:
        return f"{self.authors} {self.year}"


@dataclass(frozen=True)
class Reported:
    """An error rate that the paper reports for a network: `error` in percent, of `measure` ("top-5, 10 crops") on
    `data` ("ImageNet val"), printed at `where` ("table 3")."""

    error: float
    measure: str
    data: str
    where: str


def named(layers: Mapping[str, nn.Module]) -> nn.Sequential:
    """The layers one after the other, under their names."""
    return nn.Sequential(OrderedDict(layers))


def another(layer: nn.Module) -> nn.Module:
    """A layer as `layer` was when new, with parameters and buffers of its own; convolutions draw their weights anew.

    The same as making it again, random numbers included, in half the time: the 1,202 layers of the deepest network
    take longer to make than to fill. Only for a layer that has neither been trained nor given hooks.
    """
    twin = object.__new__(type(layer))
    twin.__dict__.update({k: v.copy() if isinstance(v, dict | set | list) else v for k, v in layer.__dict__.items()})
    fresh = _unwritten if isinstance(layer, nn.Conv2d) else torch.clone
    for name, parameter in layer._parameters.items():
        twin._parameters[name] = None if parameter is None else nn.Parameter(fresh(parameter.detach()))
    for name, buffer in layer._buffers.items():
        twin._buffers[name] = None if buffer is None else buffer.clone()
    for name, child in layer._modules.items():
        twin._modules[name] = None if child is None else another(child)
    if isinstance(twin, nn.Conv2d):
        twin.reset_parameters()
    return twin


def _unwritten(tensor: Tensor) -> Tensor:
    """As torch.empty_like, which on the meta device imports torch's compiler: a tenth of a whole `predict`."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


class Network(nn.Module):
    """A classifier: pictures (N, C, H, W) to logits (N, num_classes).

    `features` ends in the last map (N, C', H', W'); `head` takes that map to the logits. `architecture` is
    {"name": ..., "arguments": {...}}, filled by `models.build`: building from it again gives the same network.
    """

    architecture: dict[str, Any]

    def __init__(self, features: Mapping[str, nn.Module], head: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.architecture = {}
        self.features = named(features)
        self.head = named(head)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


class SupervisedNetwork(Network):
    """A network with auxiliary heads in its middle: `auxiliary[stage]` takes the map after `features.stage`.

    `forward` leaves them out. They are trained with the recipe's auxiliary_weight and not used afterwards, so what the
    network costs is counted without them.
    """

    def __init__(
        self, features: Mapping[str, nn.Module], head: Mapping[str, nn.Module], auxiliary: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(features, head)
        unknown = sorted(auxiliary.keys() - features.keys())
        assert not unknown, f"auxiliary heads after stages that do not exist: {unknown}"
        self.auxiliary = nn.ModuleDict(auxiliary)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and those of each auxiliary head by the stage it follows: all (N, num_classes)."""
        maps, answers = images, {}
        for stage, layers in self.features.named_children():
            maps = layers(maps)
            if stage in self.auxiliary:
                answers[stage] = self.auxiliary[stage](maps)
        return self.head(maps), answers


def own_parameters(network: nn.Module) -> int:
    """The number of learnable parameters, those of auxiliary heads left out."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary."))
