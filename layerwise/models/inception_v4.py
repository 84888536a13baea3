"""Inception v4.

Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the impact of residual connections on learning",
2016: section 3.1, figures 3 to 9.

Deviations from the paper: which of a pair 1 x n and n x 1 comes first is as in the network that the authors gave out,
also where figures 3, 5 and 6 draw it the other way round; the counts are the same.
What the paper leaves open: epsilon of batch normalisation (1e-3, as in the given-out network); average pooling inside a
module leaves the zeros around the map out of the average. Weights start after He et al. 2015, eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.branches import Branches
from layerwise.layers.convolution import conv_bn_relu, convolutions
from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, named


def average_pool() -> nn.AvgPool2d:
    """3x3 at stride 1; the zeros of the padding do not count."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def stem(in_channels: int) -> nn.Sequential:
    """Figure 3, also of Inception-ResNet-v2: 299x299 pictures to 35x35x384."""
    return named(
        {
            "conv1": conv_bn_relu(in_channels, 32, 3, 2, 0),
            "conv2": conv_bn_relu(32, 32, 3, 1, 0),
            "conv3": conv_bn_relu(32, 64, 3),
            "mixed1": Branches(nn.MaxPool2d(3, stride=2), conv_bn_relu(64, 96, 3, 2, 0)),
            "mixed2": Branches(
                convolutions(160, (64, 1), (96, 3, 1, 0)),
                convolutions(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, 0)),
            ),
            "mixed3": Branches(conv_bn_relu(192, 192, 3, 2, 0), nn.MaxPool2d(3, stride=2)),
        }
    )


def inception_a() -> Branches:
    """35x35 maps (figure 4). 384 to 384 maps."""
    return Branches(
        convolutions(384, (96, 1)),
        convolutions(384, (64, 1), (96, 3)),
        convolutions(384, (64, 1), (96, 3), (96, 3)),
        convolutions(384, (96, 1), first=average_pool()),
    )


def reduction_a(in_channels: int, k: int, l: int, m: int, n: int) -> Branches:  # noqa: E741 (the paper's letters)
    """35x35 to 17x17 maps (figure 7; k, l, m, n of table 1). in_channels + m + n maps."""
    return Branches(
        convolutions(in_channels, (n, 3, 2, 0)),
        convolutions(in_channels, (k, 1), (l, 3), (m, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2),
    )


def inception_b() -> Branches:
    """17x17 maps (figure 5). 1024 to 1024 maps."""
    return Branches(
        convolutions(1024, (384, 1)),
        convolutions(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
        convolutions(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
        convolutions(1024, (128, 1), first=average_pool()),
    )


def reduction_b() -> Branches:
    """17x17 to 8x8 maps (figure 8). 1024 to 1536 maps."""
    return Branches(
        convolutions(1024, (192, 1), (192, 3, 2, 0)),
        convolutions(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2),
    )


def one_by_three_and_three_by_one(in_channels: int) -> Branches:
    """The ends of an expanded branch of figure 6. 512 maps."""
    return Branches(conv_bn_relu(in_channels, 256, (1, 3)), conv_bn_relu(in_channels, 256, (3, 1)))


def inception_c() -> Branches:
    """8x8 maps (figure 6). 1536 to 1536 maps."""
    short, long = convolutions(1536, (384, 1)), convolutions(1536, (384, 1), (448, (3, 1)), (512, (1, 3)))
    short.add_module("expanded", one_by_three_and_three_by_one(384))
    long.add_module("expanded", one_by_three_and_three_by_one(512))
    return Branches(
        convolutions(1536, (256, 1)), short, long, convolutions(1536, (256, 1), first=average_pool())
    )  # fmt: skip


def repeated(block: Callable[[], nn.Module], times: int, name: str) -> nn.Sequential:
    """`times` blocks one after the other, called name1, name2 ..."""
    return named({f"{name}{number}": block() for number in range(1, times + 1)})


def classifier(in_channels: int, num_classes: int, dropout: float) -> dict[str, nn.Module]:
    """Global average pooling, dropout ("keep 0.8"), one fully connected layer (figures 9 and 15)."""
    return {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "dropout": nn.Dropout(dropout),
        "fc": nn.Linear(in_channels, num_classes),
    }


class InceptionV4(Network):
    """Figure 9 for 299x299 pictures (N, C, H, W). `dropout` stands before the last layer."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2) -> None:
        features: dict[str, nn.Module] = {
            "stem": stem(in_channels),
            "inception_a": repeated(inception_a, 4, "a"),
            "reduction_a": reduction_a(384, 192, 224, 256, 384),
            "inception_b": repeated(inception_b, 7, "b"),
            "reduction_b": reduction_b(),
            "inception_c": repeated(inception_c, 3, "c"),
        }
        super().__init__(features, classifier(1536, num_classes, dropout))
        he_normal(self)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 9
    "inception_v4": partial(InceptionV4),
}
INPUTS = {"inception_v4": (3, 299, 299)}
FOR_SMALL_PICTURES: dict[str, str] = {}
TITLE = "Inception-v4, Inception-ResNet and the impact of residual connections on learning"
PAPERS = {"inception_v4": Paper("Szegedy et al.", 2016, TITLE, "branches")}
REPORTED = {
    "inception_v4": (
        Reported(20.0, "top-1, 1 crop", "ImageNet val", "table 2"),
        Reported(5.0, "top-5, 1 crop", "ImageNet val", "table 2"),
    )
}
