"""How strongly the layers of a trained network answer: the standard deviation of their responses.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, section 4.2 "Analysis of layer responses" and
figure 7: "the outputs of each 3x3 layer, after BN and before other nonlinearity (ReLU/addition)". In a residual network
they are the strength of the residual functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.order import executed, mode, normalised, watched


@dataclass(frozen=True)
class Response:
    """The responses of one layer over all pictures, positions and maps: their mean and standard deviations.

    `deviation` is that of all values together, which the figure shows; it includes how the maps' means differ.
    `within` leaves that out: the root of the maps' mean variance. Both divide by the number of values.
    """

    layer: str
    mean: float
    deviation: float
    within: float


@dataclass
class _Moments:
    """Number of values a map, and mean (C) and sum of squared deviations (C) of each map, in float64."""

    count: int
    mean: Tensor
    squares: Tensor

    def add(self, maps: Tensor) -> None:
        """Takes in (N, C, H, W), with the sums of two parts put together after Chan, Golub and LeVeque 1979."""
        values = maps.detach().double().transpose(0, 1).flatten(1)  # (C, N H W)
        count, mean = values.shape[1], values.mean(1)
        total, shift = self.count + count, mean - self.mean
        self.squares += (values - mean[:, None]).square().sum(1) + shift.square() * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total


def responses(
    model: nn.Module, batches: Iterable[dict[str, Any]], kernel_size: tuple[int, int] = (3, 3)
) -> tuple[Response, ...]:
    """The responses of each convolution with this kernel, in the order of the computation.

    `batches` are dicts whose `image` is (N, C, H, W), preprocessed; the network is in evaluation mode meanwhile. A
    layer's response is what the batch normalisation behind it gives, or the convolution itself where none follows at
    once. Raises InputError where there is no such convolution, or no picture.
    """
    found: dict[str, _Moments] = {}
    sources: dict[str, str] = {}

    def look(name: str, module: nn.Module, entered: Tensor, left: Tensor) -> None:
        if name not in found:
            zeros = torch.zeros(left.shape[1], dtype=torch.float64, device=left.device)
            found[name] = _Moments(0, zeros, zeros.clone())
        found[name].add(left)

    device = next(model.parameters()).device
    with mode(model, training=False), torch.no_grad():
        for batch in batches:
            images = batch["image"].to(device)
            if not len(images):
                continue
            if not sources:
                sources = _sources(model, images, kernel_size)
            with watched({source: model.get_submodule(source) for source in sources.values()}, look):
                model(images)
    if not found:
        raise InputError("no pictures to see the responses to", mend="Name a split with pictures.")
    return tuple(_response(layer, found[source]) for layer, source in sources.items())


def _sources(model: nn.Module, images: Tensor, kernel_size: tuple[int, int]) -> dict[str, str]:
    """Of each convolution with this kernel, the module whose output is its response."""
    follows = normalised(model, images)
    convolutions = [name for name in executed(model, images, (nn.Conv2d,))
                    if model.get_submodule(name).kernel_size == kernel_size]
    if not convolutions:
        raise InputError(
            f"this network has no convolution with a {kernel_size[0]}x{kernel_size[1]} kernel",
            "Responses are compared between layers of one kind.",
            "Name the kernel size of its convolutions.",
        )
    return {name: follows.get(name, name) for name in convolutions}


def _response(layer: str, moments: _Moments) -> Response:
    mean, variances = moments.mean.mean(), moments.squares / moments.count
    between = (moments.mean - mean).square().mean()
    return Response(layer, float(mean), math.sqrt(float(variances.mean() + between)),
                    math.sqrt(float(variances.mean())))
