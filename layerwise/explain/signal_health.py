"""Whether signals reach both ends of a network: forward variances and gradient norms by layer.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, section 4.1, "Plain networks": batch
normalisation gives the forward signals variances that are not 0, and the gradients have "healthy norms", so that
vanishing signals do not explain why deeper plain networks train worse.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerwise.errors import InputError
from layerwise.explain.order import executed, normalised, watched
from layerwise.models import build
from layerwise.models.network import Network


@dataclass(frozen=True)
class Health:
    """The signals at one layer with weights, on one batch.

    `variance`: of its responses, after batch normalisation where that follows, before ReLU; over all their values.
    `gradient`: L2 norm of the mean loss's gradient by its weights, and `relative` that norm over the weights' own.
    """

    layer: str
    variance: float
    gradient: float
    relative: float


def fresh(model: Network, seed: int) -> Network:
    """The same network with the random weights that torch's generator gives from `seed`, on the same device."""
    arguments = dict(model.architecture["arguments"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = build(model.architecture["name"], arguments.pop("num_classes"), arguments.pop("in_channels"), **arguments)
    return new.to(next(model.parameters()).device)


def signal_health(model: nn.Module, images: Tensor, labels: Tensor, training: bool = True) -> tuple[Health, ...]:
    """The health of each convolution and fully connected layer, in the order of the computation.

    `images` (N, C, H, W), preprocessed, `labels` (N): one batch; the loss is the mean cross-entropy. In training mode
    batch normalisation takes the batch's own statistics, as during training. A copy of the network is looked at, so
    that its running statistics and gradients stay as they are. Raises InputError for fewer than 2 pictures.
    """
    if len(images) < 2:
        raise InputError(f"{len(images)} pictures are too few for a variance", mend="Give a batch of at least 2.")
    network = copy.deepcopy(model)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    order = executed(network, images)
    follows = normalised(network, images)
    sources = {layer: follows.get(layer, layer) for layer in order}
    variances: dict[str, float] = {}

    def look(name: str, module: nn.Module, entered: Tensor, left: Tensor) -> None:
        variances[name] = float(left.detach().double().var(correction=0))

    network.train(training)
    layers = {source: network.get_submodule(source) for source in sources.values()}
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), watched(layers, look):
        loss = cross_entropy(network(images).float(), labels)
    weights = [network.get_parameter(f"{layer}.weight") for layer in order]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return tuple(
        _health(layer, variances[sources[layer]], gradient, weight.detach())
        for layer, gradient, weight in zip(order, gradients, weights, strict=True)
    )


def _health(layer: str, variance: float, gradient: Tensor | None, weight: Tensor) -> Health:
    # Norms in float64: the squares of a vanished gradient are 0 in float32 long before it is.
    norm = 0.0 if gradient is None else float(torch.linalg.vector_norm(gradient.double()))
    own = float(torch.linalg.vector_norm(weight.double()))
    return Health(layer, variance, norm, norm / own if own else 0.0)


def spread(values: list[float]) -> float:
    """The smallest of some norms or variances over the largest: near 0 where signals vanish or explode on the way."""
    largest = max(values, default=0.0)
    return min(values) / largest if largest > 0 else 0.0
