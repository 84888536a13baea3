"""Maxout network.

Goodfellow, Warde-Farley, Mirza, Courville, Bengio, "Maxout networks", 2013: section 3 and the CIFAR-10 network of
section 5.2: three convolutional maxout layers, a fully connected maxout layer, a softmax layer.

Deviations from the paper: dropout divides by the kept part in training, also at the input. The paper leaves the sizes
to the authors' published configuration, from which they are taken: 96, 192 and 192 units of two pieces with kernels of
8, 8 and 5, windows that reach over the border (33, 15 and 9 pixels become 16, 7 and 5), 500 units of five pieces; a
fifth of the pixels and half of every other layer's inputs are dropped. Weights start there at U(-0.005, 0.005), made
for the paper's hundreds of epochs at a rate of 0.17; here at N(0, 1 / inputs), which keeps the second moment, since
the larger of two independent normal numbers has the second moment of one; only the softmax layer keeps the published
start, so that the first answers are alike. The bound on each unit's weight norm is left
to the recipe.
Romero et al. 2014 call this network 9 M parameters: that holds without biases and with two pieces in the fully
connected layer (9,044,360), not for the published five (16,247,830).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from layerwise.layers.initialise import normal_by_inputs
from layerwise.layers.maxout import Maxout
from layerwise.models.network import Network, Paper, Reported, named


def maxout_convolution(
    in_channels: int, out_channels: int, kernel_size: int, padding: int, pool: nn.Module | None = None
) -> dict[str, nn.Module]:
    """A convolution with two pieces for each of out_channels units, their maximum, and pooling if any."""
    conv = nn.Conv2d(in_channels, 2 * out_channels, kernel_size, padding=padding)
    return {"conv": conv, "maxout": Maxout(2)} | ({} if pool is None else {"pool": pool})


def over_border(window: int) -> nn.Module:
    """Max-pooling at stride 2 whose last windows may reach over the border."""
    return nn.MaxPool2d(window, stride=2, ceil_mode=True)


def maxout(
    num_classes: int = 10,
    in_channels: int = 3,
    dropout: float = 0.5,
    input_dropout: float = 0.2,
    map_side: int = 5,
) -> Network:
    """The CIFAR-10 network: 16,247,830 parameters. `map_side`: side of the last map, 5 for 32x32 pictures (N, C, H, W).

    `input_dropout` is the part of the pixels that is dropped, `dropout` that of every other layer's inputs.
    """
    features: dict[str, nn.Module] = {
        "dropout0": nn.Dropout(input_dropout),
        "h0": named(maxout_convolution(in_channels, 96, 8, 4, over_border(4))),
        "dropout1": nn.Dropout(dropout),
        "h1": named(maxout_convolution(96, 192, 8, 3, over_border(4))),
        "dropout2": nn.Dropout(dropout),
        "h2": named(maxout_convolution(192, 192, 5, 3, over_border(2))),
    }
    head: dict[str, nn.Module] = {
        "flatten": nn.Flatten(),
        "dropout3": nn.Dropout(dropout),
        "h3": nn.Linear(192 * map_side * map_side, 500 * 5),
        "maxout": Maxout(5),
        "dropout4": nn.Dropout(dropout),
        "y": (answer := nn.Linear(500, num_classes)),
    }
    network = Network(features, head)
    normal_by_inputs(network)
    nn.init.uniform_(answer.weight, -0.005, 0.005)
    return network


VARIANTS: dict[str, Callable[..., Network]] = {"maxout": maxout}
INPUTS = {"maxout": (3, 32, 32)}
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = {"maxout": Paper("Goodfellow et al.", 2013, "Maxout networks", "chain")}
REPORTED = {
    "maxout": (
        Reported(9.38, "top-1, augmented training", "CIFAR-10 test", "section 5.2"),
        Reported(11.68, "top-1, no augmentation", "CIFAR-10 test", "section 5.2"),
    ),
}
