"""The paths of a residual network: how long they are, and what gradient reaches the picture along them.

Veit, Wilber, Belongie, "Residual networks behave like ensembles of relatively shallow networks", 2016, section 5 and
figure 6. A path goes through the residual function of some of the n blocks and takes the shortcut past the others, so
there are 2^n, and C(n, k) of length k: most are near n / 2. The gradient along a path falls with its length; what both
together give is how much the paths of a length contribute to learning.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerwise.errors import InputError
from layerwise.explain.lesions import Block, blocks
from layerwise.explain.order import replaced
from layerwise.randomness import permutation


class Detached(nn.Module):
    """Computes as `module` does, and lets no gradient through."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.module(maps).detach()
        return output


@dataclass(frozen=True)
class PathLength:
    """The paths through `length` residual functions: how many there are, and along one of them the mean L2 norm of the
    loss's gradient by a picture. `contribution` is their product's share of the sum over all lengths that were asked.
    """

    length: int
    paths: int
    gradient: float
    contribution: float


def count_paths(n: int) -> tuple[int, ...]:
    """The number of paths of each length from 0 to n through n residual blocks."""
    return tuple(math.comb(n, length) for length in range(n + 1))


def path_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, lengths: Sequence[int], draws: int, seed: int
) -> tuple[PathLength, ...]:
    """The gradient along random paths of each length, through a network in evaluation mode (section 5).

    `images` (N, C, H, W), preprocessed, `labels` (N). The forward pass is whole; backward, the gradient goes through
    the residual functions of `length` random blocks and through the shortcuts of the others. A copy is looked at.
    Raises InputError where a block has no module for its shortcut, or a length is above the number of blocks.
    """
    network = copy.deepcopy(model).eval()
    known = blocks(network, images)
    without = [block.name for block in known if not _has_two_ways(network, block)]
    if without:
        raise InputError(f"{len(without)} blocks do not consist of a residual function and a shortcut",
                         "Only then can the gradient be sent one way or the other.",
                         "Choose a network such as resnet20 or preact_resnet110.", without)
    if max(lengths, default=0) > len(known):
        raise InputError(f"paths of length {max(lengths)}, but the network has {len(known)} residual blocks",
                         mend="Ask for shorter paths.")
    norms = {
        length: [_norm(network, known, permutation(seed, draw, len(known), f"path {length}")[:length].tolist(),
                       (images, labels)) for draw in range(draws)]
        for length in lengths
    }  # fmt: skip
    means = {length: math.fsum(found) / len(found) for length, found in norms.items()}
    counts = count_paths(len(known))
    total = math.fsum(counts[length] * mean for length, mean in means.items())
    return tuple(
        PathLength(length, counts[length], mean, counts[length] * mean / total if total else 0.0)
        for length, mean in means.items()
    )


def _has_two_ways(network: nn.Module, block: Block) -> bool:
    children = dict(network.get_submodule(block.name).named_children())
    return "residual" in children and "shortcut" in children


def _norm(network: nn.Module, known: Sequence[Block], through: Sequence[int], batch: tuple[Tensor, Tensor]) -> float:
    """The mean over the pictures of the norm of the gradient that comes along one path."""
    images, labels = batch
    closed = {}
    for index, block in enumerate(known):
        way = f"{block.name}.{'shortcut' if index in through else 'residual'}"
        closed[way] = Detached(network.get_submodule(way))
    entered = images.detach().clone().requires_grad_(True)
    with replaced(network, closed), torch.enable_grad():
        loss = cross_entropy(network(entered).float(), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, entered)
    return float(gradient.double().flatten(1).norm(dim=1).mean())
