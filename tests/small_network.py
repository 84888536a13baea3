"""A small network, its training and its comparison to the bit, for the tests of what trains a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layerwise.training.optimiser import set_rate


def network(seed: int = 0) -> nn.Sequential:
    """A small network with the names, batch normalisations and dropout of the real ones; pictures (N, 1, 6, 6)."""
    torch.manual_seed(seed)
    parts: dict[str, nn.Module] = {
        "conv1": nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()),
        "conv10": nn.Conv2d(3, 2, 3, bias=False),
    }
    model = nn.Sequential()
    model.add_module("features", nn.Sequential())
    for name, part in parts.items():
        model.get_submodule("features").add_module(name, part)
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)))
    return model


def learn(model: nn.Module, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
    """Steps `first` to `last` on random pictures that depend on the step alone."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(5, 1, 6, 6, generator=generator)
        labels = torch.randint(0, 4, (5,), generator=generator)
        torch.manual_seed(step)  # dropout
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        set_rate(optimiser, 0.05 / (1 + step))
        optimiser.step()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that are not equal to the bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
