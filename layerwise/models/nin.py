"""Network in Network.

Lin, Chen, Yan, "Network in network", 2013: section 3 and the CIFAR-10 network of section 4.

Deviations from the paper: none. The paper draws three mlpconv layers and global average pooling and leaves the sizes to
the authors' published definition, from which widths, kernels, 3x3 windows at stride 2 that reach over the border, and
the start of the weights (N(0, 0.05^2), biases 0) are taken. That definition averages in its second pooling layer; the
paper's section 4.1 says max-pooling after each mlpconv layer, and so it is here.
The last 1x1 convolution, whose maps are the classes, stands in the head, so that a new head can replace it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from layerwise.layers.initialise import normal
from layerwise.models.network import Network, Paper, Reported, named


def mlpconv(number: int, in_channels: int, widths: tuple[int, ...], kernel_size: int) -> dict[str, nn.Module]:
    """A convolution and 1x1 convolutions, a ReLU after each (eq. 2): conv, relu, cccp1, relu1 ... by their numbers.

    `number` counts the mlpconv layers from 1; 1x1 convolutions are numbered through the network, two to a layer.
    """
    conv = nn.Conv2d(in_channels, widths[0], kernel_size, padding=kernel_size // 2)
    layers: dict[str, nn.Module] = {f"conv{number}": conv, f"relu{number}": nn.ReLU()}
    for place, (before, after) in enumerate(pairwise(widths), 2 * number - 1):
        layers |= {f"cccp{place}": nn.Conv2d(before, after, 1), f"relu_cccp{place}": nn.ReLU()}
    return layers


def reduction(number: int, dropout: float) -> dict[str, nn.Module]:
    """Max-pooling that halves the map, then dropout (section 4.1)."""
    return {f"pool{number}": nn.MaxPool2d(3, stride=2, ceil_mode=True), f"dropout{number}": nn.Dropout(dropout)}


def nin(num_classes: int = 10, in_channels: int = 3, dropout: float = 0.5) -> Network:
    """The CIFAR-10 network: 32x32 pictures (N, C, H, W), also any from 4x4; 966,986 parameters."""
    features: dict[str, nn.Module] = {
        "mlpconv1": named(mlpconv(1, in_channels, (192, 160, 96), 5)),
        **reduction(1, dropout),
        "mlpconv2": named(mlpconv(2, 96, (192, 192, 192), 5)),
        **reduction(2, dropout),
        "mlpconv3": named(mlpconv(3, 192, (192, 192), 3)),
    }
    head: dict[str, nn.Module] = {
        "cccp6": nn.Conv2d(192, num_classes, 1),
        "relu_cccp6": nn.ReLU(),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }
    network = Network(features, head)
    normal(network, 0.05)
    return network


VARIANTS: dict[str, Callable[..., Network]] = {"nin": nin}
INPUTS = {"nin": (3, 32, 32)}
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = {"nin": Paper("Lin et al.", 2013, "Network in network", "chain")}
REPORTED = {
    "nin": (
        Reported(8.81, "top-1, augmented training", "CIFAR-10 test", "table 1"),
        Reported(10.41, "top-1, no augmentation", "CIFAR-10 test", "table 1"),
    ),
}
