"""Deeply supervised network.

Lee, Xie, Gallagher, Zhang, Tu, "Deeply-supervised nets", 2014: section 2 (eqs. 3 and 4) and the CIFAR-10 network of
section 3, which is NIN's with a companion classifier at each convolution.

Deviations from the paper: all companions carry one weight, the recipe's `auxiliary_weight` (the paper's alpha_m), and
act for the whole training: the paper lets alpha_m fade and drops a companion whose loss is below gamma. What it leaves
open is closed by the authors' published definition: companions see the maps of conv1 to conv3 before ReLU, at every
position, through one fully connected layer; the last 1x1 convolution has no ReLU, because a hinge needs values below
zero; its weights start at N(0, 0.05^2), the companions' after Glorot & Bengio 2010. Train it with loss=squared-hinge.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from layerwise.layers.initialise import glorot_uniform, normal
from layerwise.models.network import Network, Paper, Reported, SupervisedNetwork, named
from layerwise.models.nin import mlpconv, reduction


def companion(features: int, num_classes: int) -> nn.Sequential:
    """The classifier at a hidden layer (eq. 3): one linear function of its flattened maps, to (N, num_classes)."""
    head = named({"flatten": nn.Flatten(), "svm": nn.Linear(features, num_classes)})
    glorot_uniform(head)
    return head


def supervised(layers: dict[str, nn.Module], number: int) -> dict[str, nn.Module]:
    """An mlpconv layer in two stages, so that a companion can follow its convolution: conv1, mlp1 ..."""
    conv = layers.pop(f"conv{number}")
    return {f"conv{number}": conv, f"mlp{number}": named(layers)}


def dsn(num_classes: int = 10, in_channels: int = 3, dropout: float = 0.5, input_side: int = 32) -> Network:
    """The CIFAR-10 network, 966,986 parameters and 2,580,510 of its companions; pictures of input_side^2 (N, C, H, W).

    Without the companions, pictures of any size go through.
    """
    features: dict[str, nn.Module] = {
        **supervised(mlpconv(1, in_channels, (192, 160, 96), 5), 1),
        **reduction(1, dropout),
        **supervised(mlpconv(2, 96, (192, 192, 192), 5), 2),
        **reduction(2, dropout),
        **supervised(mlpconv(3, 192, (192, 192), 3), 3),
    }
    head: dict[str, nn.Module] = {
        "cccp6": nn.Conv2d(192, num_classes, 1),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    side, companions = input_side, {}
    for number in (1, 2, 3):
        companions[f"conv{number}"] = companion(192 * side * side, num_classes)
        side = max(1, side // 2)
    network = SupervisedNetwork(features, head, companions)
    for part in (network.features, network.head):
        normal(part, 0.05)
    return network


VARIANTS: dict[str, Callable[..., Network]] = {"dsn": dsn}
INPUTS = {"dsn": (3, 32, 32)}
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = {"dsn": Paper("Lee et al.", 2014, "Deeply-supervised nets", "chain")}
REPORTED = {
    "dsn": (Reported(8.22, "top-1, augmented training", "CIFAR-10 test", "as in He et al. 2015, table 6"),),
}
