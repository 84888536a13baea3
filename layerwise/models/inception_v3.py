"""Inception v3.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception architecture for computer vision", 2015: sections
3 to 6, table 1, figures 5 to 8.

Deviations from the paper: table 1 does not describe the network whose weights its authors gave out, and which all
know as Inception v3; this is that network. Where the table has three 3x3 convolutions (80, 192, 288 maps, the second
with stride 2) it has a 1x1 with 80 maps, a 3x3 with 192 maps and a max-pooling, so that the first module sees
35x35x192 maps, not 35x35x288. The modules of figure 5 keep one 5x5 convolution (figure 4) beside the pair of 3x3.
What the paper leaves open: the widths inside the modules, the stage names (`conv1a` to `mixed_7c`), the epsilon 1e-3 of
batch normalisation and the part 0.2 of dropout are those of the given-out network. Average pooling inside a module
counts the zeros around the map, as the weights that most users have do. Weights start after He et al. 2015, eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.branches import Branches
from layerwise.layers.convolution import conv_bn_relu, convolutions
from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, SupervisedNetwork, named


def average_pool() -> nn.AvgPool2d:
    """3x3 at stride 1; the zeros of the padding count."""
    return nn.AvgPool2d(3, stride=1, padding=1)


def grid_35(in_channels: int, pool_width: int) -> Branches:
    """35x35 maps: 1x1; 5x5; two 3x3; pooling (figures 4 and 5). 224 + pool_width maps."""
    return Branches(
        convolutions(in_channels, (64, 1)),
        convolutions(in_channels, (48, 1), (64, 5)),
        convolutions(in_channels, (64, 1), (96, 3), (96, 3)),
        convolutions(in_channels, (pool_width, 1), first=average_pool()),
    )


def reduction_35(in_channels: int) -> Branches:
    """35x35 to 17x17: convolutions of stride 2 beside the pooling (section 5, figure 10). in_channels + 480 maps."""
    return Branches(
        convolutions(in_channels, (384, 3, 2, 0)),
        convolutions(in_channels, (64, 1), (96, 3), (96, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2),
    )


def grid_17(in_channels: int, width: int) -> Branches:
    """17x17 maps: 7x7 convolutions as 1x7 and 7x1 (figure 6, n = 7). 768 maps."""
    return Branches(
        convolutions(in_channels, (192, 1)),
        convolutions(in_channels, (width, 1), (width, (1, 7)), (192, (7, 1))),
        convolutions(in_channels, (width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))),
        convolutions(in_channels, (192, 1), first=average_pool()),
    )


def reduction_17(in_channels: int) -> Branches:
    """17x17 to 8x8, as `reduction_35`. in_channels + 512 maps."""
    return Branches(
        convolutions(in_channels, (192, 1), (320, 3, 2, 0)),
        convolutions(in_channels, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2),
    )


def one_by_three_and_three_by_one() -> Branches:
    """The ends of an expanded branch: 1x3 and 3x1 beside each other (figure 7). 384 to 768 maps."""
    return Branches(conv_bn_relu(384, 384, (1, 3)), conv_bn_relu(384, 384, (3, 1)))


def grid_8(in_channels: int) -> Branches:
    """8x8 maps: expanded banks of 1x3 and 3x1 (figure 7). 2048 maps."""
    three, double = convolutions(in_channels, (384, 1)), convolutions(in_channels, (448, 1), (384, 3))
    three.add_module("expanded", one_by_three_and_three_by_one())
    double.add_module("expanded", one_by_three_and_three_by_one())
    return Branches(
        convolutions(in_channels, (320, 1)),
        three,
        double,
        convolutions(in_channels, (192, 1), first=average_pool()),
    )


def auxiliary_head(in_channels: int, num_classes: int) -> nn.Sequential:
    """The classifier on the last 17x17 maps, with batch normalisation (figure 8, section 4): 5x5x768, 5x5x128, 768."""
    return named(
        {
            "pool": nn.AvgPool2d(5, stride=3),
            "conv1": conv_bn_relu(in_channels, 128, 1),
            "conv2": conv_bn_relu(128, 768, 5, 1, 0),
            "average": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(768, num_classes),
        }
    )


class InceptionV3(SupervisedNetwork):
    """Table 1 for 299x299 pictures (N, C, H, W), with an auxiliary head after the last 17x17 stage.

    `dropout` stands before the last layer.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2) -> None:
        features: dict[str, nn.Module] = {
            "conv1a": conv_bn_relu(in_channels, 32, 3, 2, 0),
            "conv2a": conv_bn_relu(32, 32, 3, 1, 0),
            "conv2b": conv_bn_relu(32, 64, 3),
            "pool3a": nn.MaxPool2d(3, stride=2),
            "conv3b": conv_bn_relu(64, 80, 1),
            "conv4a": conv_bn_relu(80, 192, 3, 1, 0),
            "pool5a": nn.MaxPool2d(3, stride=2),
            "mixed_5b": grid_35(192, 32),
            "mixed_5c": grid_35(256, 64),
            "mixed_5d": grid_35(288, 64),
            "mixed_6a": reduction_35(288),
            "mixed_6b": grid_17(768, 128),
            "mixed_6c": grid_17(768, 160),
            "mixed_6d": grid_17(768, 160),
            "mixed_6e": grid_17(768, 192),
            "mixed_7a": reduction_17(768),
            "mixed_7b": grid_8(1280),
            "mixed_7c": grid_8(2048),
        }
        head: dict[str, nn.Module] = {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(dropout),
            "fc": nn.Linear(2048, num_classes),
        }
        super().__init__(features, head, {"mixed_6e": auxiliary_head(768, num_classes)})
        he_normal(self)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Tables 3 and 4: the last line of both
    "inception_v3": partial(InceptionV3),
}
INPUTS = {"inception_v3": (3, 299, 299)}
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = {
    "inception_v3": Paper(
        "Szegedy et al.", 2015, "Rethinking the Inception architecture for computer vision", "branches"
    )
}
REPORTED = {
    "inception_v3": (
        Reported(21.2, "top-1, 1 crop", "ImageNet val", "table 3"),
        Reported(5.6, "top-5, 1 crop", "ImageNet val", "table 3"),
    )
}
