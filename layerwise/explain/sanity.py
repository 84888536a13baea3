"""Whether a map explains the network at all: with redrawn weights it must become another.

Adebayo et al., "Sanity checks for saliency maps", 2018, section 3: weights are redrawn from the last layer down to the
first ("cascading randomization"), and each map is compared with the trained network's by Spearman's rank correlation. A
map that stays alike shows edges of the picture, not what was learned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.order import executed

ALIKE = 0.5  # a rank correlation from which on two maps count as alike
Method = Callable[[nn.Module], NDArray[Any]]


@dataclass(frozen=True)
class Randomised:
    """The map with `layer` and all layers behind it redrawn: its rank correlation with the trained network's map, from
    -1 to 1, the mean over the pictures; 0 where the new map is constant."""

    layer: str
    correlation: float


def sanity(
    model: nn.Module, images: Tensor, method: Method, seed: int = 0, most: int | None = None
) -> tuple[Randomised, ...]:
    """One row for each layer with weights, from the last to the first, in whose row all are redrawn.

    `most`: at most that many rows, evenly chosen, the last of all among them: a slow method is called once a row.

    `method` takes a network to maps (N, ...) of `images` (N, C, H, W). Weights are drawn from a normal distribution
    with the mean and deviation that the layer's own have, so that signals keep their size. A copy is redrawn. Raises
    InputError where the trained network's own map of a picture is constant.
    """
    trained = np.asarray(method(model), np.float64)
    if any(np.ptp(one) == 0 for one in trained):
        raise InputError("a map of the trained network is constant", "Nothing can be compared with it.",
                         "Choose another picture, class or layer.")
    network = copy.deepcopy(model)
    draws = torch.Generator().manual_seed(seed)
    names = [name for name in reversed(executed(network, images, (nn.Module,)))
             if any(True for _ in network.get_submodule(name).parameters(recurse=False))]
    shown = {names[len(names) * (row + 1) // most - 1] for row in range(most)} if most else set(names)
    rows = []
    for layer in names:
        for tensor in network.get_submodule(layer).parameters(recurse=False):
            _redraw(tensor, draws)
        if layer in shown:
            maps = np.asarray(method(network), np.float64)
            correlations = [rank_correlation(one, other) for one, other in zip(trained, maps, strict=True)]
            rows.append(Randomised(layer, float(np.mean(correlations))))
    return tuple(rows)


def depends(rows: Sequence[Randomised]) -> bool:
    """Whether the map changes once all weights are redrawn: its rank correlation stays within -0.5 to 0.5."""
    return abs(rows[-1].correlation) < ALIKE


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's, over all values; equal values share their mean rank. 0 where one of them is constant."""
    ranks = [rankdata(values, axis=None) for values in (one, other)]
    first, second = (rank - rank.mean() for rank in ranks)
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else 0.0


def _redraw(tensor: Tensor, draws: torch.Generator) -> None:
    """A single number, whose deviation is 0, keeps its value."""
    values = tensor.detach()
    noise = torch.randn(values.shape, generator=draws).to(values)
    values.copy_(values.mean() + noise * values.std(correction=0))
