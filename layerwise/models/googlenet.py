"""GoogLeNet (Inception v1).

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going deeper with convolutions", 2014:
sections 4 to 6, table 1, figures 2 and 3.

Deviations from the paper: none. What it leaves open: poolings of stride 2 round the size up, which alone gives the
56, 28, 14 and 7 of table 1; response normalisation has AlexNet's constants; weights start after He et al. 2015, eq. 10
("Delving deep into rectifiers"), biases at 0. The 3x3 pooling inside a module is padded by 1.
`googlenet_3x3` is not the paper's: it is the network that others publish weights for under the bare name, with a 3x3
where the paper has a 5x5, batch normalisation (epsilon 1e-3) after each convolution, no response normalisation, a 2x2
window in the last pooling, dropout of 0.2 before the last layer, and auxiliary heads that average their map to 4x4
from any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from layerwise.layers.branches import Branches
from layerwise.layers.convolution import conv_bn_relu, conv_relu, convolutions
from layerwise.layers.initialise import he_normal
from layerwise.layers.repeatable import AdaptiveAvgPool2d
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.network import Network, Paper, Reported, SupervisedNetwork, named

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj
Widths = tuple[int, int, int, int, int, int]
TABLE_1: dict[str, Widths] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class Parts:
    """What tells the networks apart: the unit of convolution, the side of the larger kernel, the normalisation after
    pool1 and conv2, the last pooling, the pooling to 4x4 of the auxiliary heads."""

    unit: Callable[..., nn.Module]
    large_kernel: int
    response_norm: Callable[[], nn.Module]
    last_pool: Callable[[], nn.Module]
    auxiliary_pool: Callable[[], nn.Module]


def halving_pool(kernel_size: int = 3) -> nn.MaxPool2d:
    """Max-pooling of stride 2 that rounds the size up: 112, 56, 28, 14, 7."""
    return nn.MaxPool2d(kernel_size, stride=2, ceil_mode=True)


def inception(parts: Parts, in_channels: int, widths: Widths) -> Branches:
    """1x1; 3x3; 5x5; pooling, each large kernel behind a 1x1 that reduces (figure 2b)."""
    one, three_reduce, three, five_reduce, five, pool = widths
    chain = partial(convolutions, in_channels, unit=parts.unit)
    return Branches(
        chain((one, 1)),
        chain((three_reduce, 1), (three, 3)),
        chain((five_reduce, 1), (five, parts.large_kernel)),
        chain((pool, 1), first=nn.MaxPool2d(3, stride=1, padding=1)),
    )


def auxiliary_head(parts: Parts, in_channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """A classifier on maps of the middle (section 5): pooling to 4x4, 1x1 with 128 maps, 1024 units, dropout."""
    return named(
        {
            "pool": parts.auxiliary_pool(),
            "conv": parts.unit(in_channels, 128, 1),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(128 * 4 * 4, 1024),
            "relu": nn.ReLU(),
            "dropout": nn.Dropout(dropout),
            "fc2": nn.Linear(1024, num_classes),
        }
    )


class GoogLeNet(SupervisedNetwork):
    """Table 1 for 224x224 pictures (N, C, H, W), with auxiliary heads after inception_4a and inception_4d.

    `dropout` stands before the last layer, `auxiliary_dropout` before that of each auxiliary head.
    """

    def __init__(
        self,
        parts: Parts,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.4,
        auxiliary_dropout: float = 0.7,
    ) -> None:
        features: dict[str, nn.Module] = {
            "conv1": parts.unit(in_channels, 64, 7, 2),
            "pool1": halving_pool(),
            "norm1": parts.response_norm(),
            "conv2": convolutions(64, (64, 1), (192, 3), unit=parts.unit),
            "norm2": parts.response_norm(),
            "pool2": halving_pool(),
        }
        heads: dict[str, nn.Module] = {}
        channels = 192
        for module, widths in TABLE_1.items():
            if module == "4a":
                features["pool3"] = halving_pool()
            elif module == "5a":
                features["pool4"] = parts.last_pool()
            features[f"inception_{module}"] = inception(parts, channels, widths)
            channels = widths[0] + widths[2] + widths[4] + widths[5]
            if module in ("4a", "4d"):
                heads[f"inception_{module}"] = auxiliary_head(parts, channels, num_classes, auxiliary_dropout)
        head: dict[str, nn.Module] = {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(dropout),
            "fc": nn.Linear(channels, num_classes),
        }
        super().__init__(features, head, heads)
        he_normal(self)


PAPER_PARTS = Parts(conv_relu, 5, ResponseNorm, halving_pool, partial(nn.AvgPool2d, 5, stride=3))
PUBLISHED_PARTS = Parts(conv_bn_relu, 3, nn.Identity, partial(halving_pool, 2), partial(AdaptiveAvgPool2d, 4))


def published(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, auxiliary_dropout: float = 0.7
) -> GoogLeNet:
    """The network that others publish weights for, with half the paper's dropout before the last layer."""
    return GoogLeNet(PUBLISHED_PARTS, num_classes, in_channels, dropout, auxiliary_dropout)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Table 1
    "googlenet": partial(GoogLeNet, PAPER_PARTS),
    # not in the paper
    "googlenet_3x3": published,
}
INPUTS = dict.fromkeys(VARIANTS, (3, 224, 224))
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = dict.fromkeys(VARIANTS, Paper("Szegedy et al.", 2014, "Going deeper with convolutions", "branches"))
REPORTED = {
    "googlenet": (
        Reported(10.07, "top-5, 1 crop", "ImageNet val", "table 3"),
        Reported(9.15, "top-5, 10 crops", "ImageNet val", "table 3"),
        Reported(7.89, "top-5, 144 crops", "ImageNet val", "table 3"),
    )
}
