"""What a training costs: operations, from the network's multiply-adds and the pictures that are seen.

Operations are 6 x multiply-adds of a forward pass x training pictures: a multiply and an add each, and a backward pass
that costs twice the forward pass. Validation adds a third of that for each of its pictures.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from layerwise import models
from layerwise.data.imagenet import EDITIONS
from layerwise.models import shapes
from layerwise.models.costs import costs
from layerwise.recipe import Recipe

NATIVE = {"digits": (1, 8), "mnist": (1, 28), "fashion-mnist": (1, 28), "cifar10": (3, 32), "cifar100": (3, 32)}
PICTURES = {"digits": 1438, "mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000,
            **{name: edition.pictures["train"] for name, edition in EDITIONS.items() if "train" in edition.pictures},
            "imagenet-fall2009": 4_450_000}  # half of 8.9 million (AlexNet, section 6)
VALIDATED = {name: edition.pictures["val"] for name, edition in EDITIONS.items() if "val" in edition.pictures}
FORWARD, TRAINING = 2, 6  # operations a multiply-add
PREFIXES = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


def operations(recipe: Recipe) -> float:
    """The operations of a training with its validation."""
    return multiply_adds(recipe.network, *input_of(recipe)) * passes(recipe)


def quick_operations(recipe: Recipe) -> float:
    """About the same, without building the network: the paper's count, in proportion to the pictures' area."""
    _, side = input_of(recipe)
    published = models.published_input(recipe.network)[1]
    return costs()[recipe.network].multiply_adds * (side / published) ** 2 * passes(recipe)


def passes(recipe: Recipe) -> float:
    """Operations a multiply-add of a picture's forward pass, over the whole training."""
    held = recipe.validation if recipe.validation >= 1 else recipe.validation * pictures(recipe)
    epoch = max(1.0, pictures(recipe) - held)
    if recipe.data in VALIDATED:  # validation pictures of its own: none are held out
        held, epoch = VALIDATED[recipe.data], pictures(recipe)
    seen = recipe.duration * (recipe.batch_size if recipe.unit == "iterations" else epoch)
    return TRAINING * seen + FORWARD * held * math.ceil(recipe.duration / recipe.evaluate_every)


def pictures(recipe: Recipe) -> int:
    """The training pictures of a named data set; of another ImageNet's number, or CIFAR-10's for small pictures."""
    return PICTURES.get(recipe.data, PICTURES["imagenet" if recipe.input_size > 64 else "cifar10"])


def input_of(recipe: Recipe) -> tuple[int, int]:
    """(channels, side in pixels) of the network's input under `recipe`."""
    published = models.published_input(recipe.network)
    channels, side = NATIVE.get(recipe.data, (published[0], published[1]))
    return recipe.channels or channels, recipe.input_size or side


@cache
def multiply_adds(network: str, channels: int, side: int) -> int:
    """The multiply-adds of a forward pass of one picture."""
    if (channels, side, side) == models.published_input(network):
        return costs()[network].multiply_adds
    with torch.device("meta"):
        model = models.build(network, None, channels)
    return shapes.cost(model, (channels, side, side)).multiply_adds


def operations_text(amount: float) -> str:
    """Operations with a prefix, as 2.02 PFLOP: three digits, and the prefix of the rounded number."""
    rounded = float(f"{amount:.3g}")
    size, unit = next(((size, unit) for size, unit in PREFIXES if rounded >= size), PREFIXES[-1])
    return f"{rounded / size:.3g} {unit}"
