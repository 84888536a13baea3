"""VGG: very deep chains of 3x3 convolutions.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014: section 2, tables 1
and 2, all six columns: A, A-LRN, B, C, D and E have 11, 11, 13, 16, 16 and 19 layers with weights.

Deviations from the paper: none. What it leaves open or offers twice: weights start after Glorot & Bengio 2010, which
section 3.1 says does as well as its own way (the shallow network first, N(0, 0.01) where nothing is copied), and
biases at 0; response normalisation in A-LRN has AlexNet's constants (the end of section 2.1 refers to it).
`_bn` networks are not the paper's: batch normalisation follows every convolution, which keeps its bias.
Table 2 prints 133, 133, 134, 138 and 144 million parameters for A, B, C, D and E: all hold. Section 2.3: a 7x7 has 81 %
more weights than three 3x3 (49 against 27): holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.initialise import glorot_uniform
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.network import Network, Paper, Reported

WIDTHS = (64, 128, 256, 512, 512)  # of the five blocks
# Kernel sizes of the convolutions of each block: the columns of table 1.
Column = tuple[tuple[int, ...], ...]
COLUMN_A: Column = ((3,), (3,), (3, 3), (3, 3), (3, 3))
COLUMN_B: Column = ((3, 3),) * 5
COLUMN_C: Column = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
COLUMN_D: Column = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
COLUMN_E: Column = ((3, 3), (3, 3), (3,) * 4, (3,) * 4, (3,) * 4)
Layer = Callable[[str, int, int, int], dict[str, nn.Module]]


def convolution(place: str, in_channels: int, out_channels: int, kernel_size: int) -> dict[str, nn.Module]:
    """conv1_1, relu1_1 ...: a convolution that keeps the map's size, then ReLU (section 2.1). `place`: "1_1" ..."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return {f"conv{place}": conv, f"relu{place}": nn.ReLU()}


def convolution_lrn(place: str, in_channels: int, out_channels: int, kernel_size: int) -> dict[str, nn.Module]:
    """As `convolution`, with response normalisation after the network's first (table 1, column A-LRN)."""
    layers = convolution(place, in_channels, out_channels, kernel_size)
    return layers | {"norm1_1": ResponseNorm()} if place == "1_1" else layers


def convolution_bn(place: str, in_channels: int, out_channels: int, kernel_size: int) -> dict[str, nn.Module]:
    """As `convolution`, with batch normalisation before ReLU; not in the paper."""
    conv, relu = convolution(place, in_channels, out_channels, kernel_size).items()
    return dict((conv, (f"bn{place}", nn.BatchNorm2d(out_channels)), relu))


class VGG(Network):
    """Five blocks of convolutions, each followed by 2x2 max-pooling, then fc6, fc7, fc8 (table 1).

    (N, C, 224, 224) to logits (N, num_classes). `dropout` follows fc6 and fc7 (section 3.1). For other pictures:
    `map_side` is the side of the last map, 7 for 224 pixels and 1 for 32; `hidden_features` are fc6's and fc7's.
    """

    def __init__(
        self,
        column: Column,
        layer: Layer = convolution,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
        map_side: int = 7,
        hidden_features: int = 4096,
    ) -> None:
        features: dict[str, nn.Module] = {}
        channels = in_channels
        for block, (kernel_sizes, width) in enumerate(zip(column, WIDTHS, strict=True), 1):
            for number, kernel_size in enumerate(kernel_sizes, 1):
                features |= layer(f"{block}_{number}", channels, width, kernel_size)
                channels = width
            features[f"pool{block}"] = nn.MaxPool2d(2)
        head: dict[str, nn.Module] = {
            "flatten": nn.Flatten(),
            "fc6": nn.Linear(channels * map_side * map_side, hidden_features),
            "relu6": nn.ReLU(),
            "dropout6": nn.Dropout(dropout),
            "fc7": nn.Linear(hidden_features, hidden_features),
            "relu7": nn.ReLU(),
            "dropout7": nn.Dropout(dropout),
            "fc8": nn.Linear(hidden_features, num_classes),
        }
        super().__init__(features, head)
        glorot_uniform(self)


PAPER: dict[str, Callable[..., Network]] = {
    # Table 1, columns A, A-LRN, B, C, D, E
    "vgg11": partial(VGG, COLUMN_A),
    "vgg11_lrn": partial(VGG, COLUMN_A, convolution_lrn),
    "vgg13": partial(VGG, COLUMN_B),
    "vgg16_c": partial(VGG, COLUMN_C),
    "vgg16": partial(VGG, COLUMN_D),
    "vgg19": partial(VGG, COLUMN_E),
}
VARIANTS = PAPER | {
    # not in the paper: batch normalisation
    "vgg11_bn": partial(VGG, COLUMN_A, convolution_bn),
    "vgg13_bn": partial(VGG, COLUMN_B, convolution_bn),
    "vgg16_bn": partial(VGG, COLUMN_D, convolution_bn),
    "vgg19_bn": partial(VGG, COLUMN_E, convolution_bn),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 224, 224))
FOR_SMALL_PICTURES: dict[str, str] = {}
SIMONYAN_2014 = Paper(
    "Simonyan & Zisserman", 2014, "Very deep convolutional networks for large-scale image recognition", "chain"
)
PAPERS = dict.fromkeys(VARIANTS, SIMONYAN_2014)


def _dense(top1: float, top5: float) -> tuple[Reported, ...]:
    """Table 3: one scale, trained and tested with a shorter side of 256, the whole picture, fully convolutional."""
    return (
        Reported(top1, "top-1, dense, shorter side 256", "ImageNet val", "table 3"),
        Reported(top5, "top-5, dense, shorter side 256", "ImageNet val", "table 3"),
    )


REPORTED = {
    "vgg11": _dense(29.6, 10.4),
    "vgg11_lrn": _dense(29.7, 10.5),
    "vgg13": _dense(28.7, 9.9),
    "vgg16_c": _dense(28.1, 9.4),
    "vgg16": _dense(27.0, 8.8),
    "vgg19": _dense(27.3, 9.0),
}
