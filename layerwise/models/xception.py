"""Xception.

Chollet, "Xception: deep learning with depthwise separable convolutions", 2016: section 3, figure 5.

Deviations from the paper: none. What it leaves open: the first two convolutions are not padded, separable ones and
poolings are padded by half their window; batch normalisation keeps torch's epsilon 1e-5; a separable convolution has no
bias. The optional fully connected layers before the classifier are left out, as in the paper's table 1. Weights start
after He et al. 2015, eq. 10, with the inputs of a depthwise kernel those of its one map.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from layerwise.layers.convolution import conv_bn_relu
from layerwise.layers.initialise import he_normal
from layerwise.layers.separable import SeparableConv2d
from layerwise.models.network import Network, Paper, Reported, named

EPSILON = 1e-5


def separable(in_channels: int, out_channels: int) -> dict[str, nn.Module]:
    """A padded 3x3 separable convolution and its batch normalisation."""
    return {
        "conv": SeparableConv2d(in_channels, out_channels, 3, padding=1),
        "bn": nn.BatchNorm2d(out_channels, eps=EPSILON),
    }


def relu_then_separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """ReLU, separable convolution, batch normalisation: the unit of figure 5 but at its ends."""
    return named({"relu": nn.ReLU(), **separable(in_channels, out_channels)})


def separable_then_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Separable convolution, batch normalisation, ReLU: the last layers of the exit flow."""
    return named({**separable(in_channels, out_channels), "relu": nn.ReLU()})


def separable_alone(in_channels: int, out_channels: int) -> nn.Sequential:
    """Separable convolution, batch normalisation: the first of the entry flow, which a ReLU precedes already."""
    return named(separable(in_channels, out_channels))


Unit = Callable[[int, int], nn.Sequential]


class Sum(nn.Module):
    """y = branch(x) + shortcut(x); nothing follows the sum. (N, C, H, W) to (N, C', H', W')."""

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.branch(maps) + self.shortcut(maps)
        return output


def halving_block(in_channels: int, width: int, out_channels: int, first: Unit = relu_then_separable) -> Sum:
    """Two separable convolutions and a max-pooling beside a 1x1 convolution of stride 2 (entry and exit flow)."""
    branch = {
        "layer1": first(in_channels, width),
        "layer2": relu_then_separable(width, out_channels),
        "pool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    shortcut = {
        "conv": nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False),
        "bn": nn.BatchNorm2d(out_channels, eps=EPSILON),
    }
    return Sum(named(branch), named(shortcut))


def middle_block() -> Sum:
    """Three separable convolutions of 728 maps beside the identity (middle flow)."""
    return Sum(named({f"layer{number}": relu_then_separable(728, 728) for number in (1, 2, 3)}), nn.Identity())


class Xception(Network):
    """Figure 5 for 299x299 pictures (N, C, H, W). `dropout` stands before the last layer (section 4.3)."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> None:
        entry: dict[str, nn.Module] = {
            "conv1": conv_bn_relu(in_channels, 32, 3, 2, 0, epsilon=EPSILON),
            "conv2": conv_bn_relu(32, 64, 3, 1, 0, epsilon=EPSILON),
            "block1": halving_block(64, 128, 128, first=separable_alone),
            "block2": halving_block(128, 256, 256),
            "block3": halving_block(256, 728, 728),
        }
        leaving: dict[str, nn.Module] = {
            "block12": halving_block(728, 728, 1024),
            "conv3": separable_then_relu(1024, 1536),
            "conv4": separable_then_relu(1536, 2048),
        }
        features: dict[str, nn.Module] = {
            "entry_flow": named(entry),
            "middle_flow": named({f"block{number}": middle_block() for number in range(4, 12)}),
            "exit_flow": named(leaving),
        }
        head: dict[str, nn.Module] = {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(dropout),
            "fc": nn.Linear(2048, num_classes),
        }
        super().__init__(features, head)
        he_normal(self)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 5
    "xception": partial(Xception),
}
INPUTS = {"xception": (3, 299, 299)}
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = {
    "xception": Paper("Chollet", 2016, "Xception: deep learning with depthwise separable convolutions", "sum"),
}
REPORTED = {
    "xception": (
        Reported(21.0, "top-1, 1 crop", "ImageNet val", "table 1"),
        Reported(5.5, "top-5, 1 crop", "ImageNet val", "table 1"),
    )
}
