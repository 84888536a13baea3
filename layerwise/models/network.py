"""What every classifier is: `features`, whose children carry the paper's names, then `head`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def named(layers: Mapping[str, nn.Module]) -> nn.Sequential:
    """The layers one after the other, under their names."""
    return nn.Sequential(OrderedDict(layers))


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
