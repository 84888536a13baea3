"""MobileNet: depthwise separable convolutions with batch normalisation and ReLU after both parts.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam, "MobileNets: efficient convolutional neural networks for
mobile vision applications", 2017: section 3, tables 1, 4, 5 and 6.

Deviations from the paper: none; where table 1 contradicts itself (the last depthwise convolution has "s2" and keeps
its 7x7 map), the map is believed and the stride is 1.
The resolution multiplier rho (section 3.4) is no argument: it is the size of the pictures (224, 192, 160 or 128), and
global average pooling takes any. The width multiplier alpha (section 3.3) is `width_multiplier` of `mobilenet`.
What the paper leaves open: widths that alpha does not make whole are cut off; padding is half the kernel; there is no
dropout; batch normalisation has torch's epsilon 1e-5; weights start after He et al. 2015, eq. 10.
`mobilenet_100_relu6` is not the paper's: it caps ReLU at 6, as the public weights of version 1 expect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, named

Block = Callable[[int, int, int, Callable[[], nn.Module]], nn.Module]


def convolution(
    in_channels: int, out_channels: int, stride: int, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    """A full 3x3 convolution, batch normalisation, ReLU (figure 3, left)."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return named({"conv": conv, "bn": nn.BatchNorm2d(out_channels), "relu": activation()})


def separable(
    in_channels: int, out_channels: int, stride: int, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Module:
    """3x3 depthwise, 1x1 pointwise, batch normalisation and ReLU after each (figure 3, right)."""
    return named(
        {
            "depthwise": nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
            "depthwise_bn": nn.BatchNorm2d(in_channels),
            "depthwise_relu": activation(),
            "pointwise": nn.Conv2d(in_channels, out_channels, 1, bias=False),
            "pointwise_bn": nn.BatchNorm2d(out_channels),
            "pointwise_relu": activation(),
        }
    )


class Row(NamedTuple):
    """A block of table 1: its maps at width 1 and the stride of its 3x3 convolution."""

    channels: int
    stride: int


TABLE_1 = (
    Row(64, 1), Row(128, 2), Row(128, 1), Row(256, 2), Row(256, 1), Row(512, 2),
    *[Row(512, 1)] * 5, Row(1024, 2), Row(1024, 1),
)  # fmt: skip
# Section 4.1: "we remove the 5 layers of separable filters with feature size 14 x 14 x 512"
SHALLOW = (*TABLE_1[:6], *TABLE_1[-2:])


class MobileNet(Network):
    """Table 1: a 3x3 convolution, blocks, global average pooling, one fully connected layer.

    Any size of picture from 1x1; the maps are 32 times smaller. (N, C, H, W) to logits (N, num_classes).
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        block: Block = separable,
        activation: Callable[[], nn.Module] = nn.ReLU,
        num_classes: int = 1000,
        in_channels: int = 3,
        width_multiplier: float = 1.0,
    ) -> None:
        channels = thinner(32, width_multiplier)
        features: dict[str, nn.Module] = {"conv1": convolution(in_channels, channels, 2, activation)}
        for number, row in enumerate(rows, 1):
            width = thinner(row.channels, width_multiplier)
            features[f"block{number}"] = block(channels, width, row.stride, activation)
            channels = width
        pool, fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, num_classes)
        super().__init__(features, {"pool": pool, "flatten": nn.Flatten(), "fc": fc})
        he_normal(self)


def thinner(channels: int, width_multiplier: float) -> int:
    """alpha times the maps (section 3.3), cut off to a whole number of at least 1."""
    return max(1, int(channels * width_multiplier))


VARIANTS: dict[str, Callable[..., Network]] = {
    # Table 1, any width
    "mobilenet": partial(MobileNet, TABLE_1),
    # Table 6
    "mobilenet_100": partial(MobileNet, TABLE_1, width_multiplier=1.0),
    "mobilenet_075": partial(MobileNet, TABLE_1, width_multiplier=0.75),
    "mobilenet_050": partial(MobileNet, TABLE_1, width_multiplier=0.5),
    "mobilenet_025": partial(MobileNet, TABLE_1, width_multiplier=0.25),
    # Table 4: full convolutions in place of separable ones
    "mobilenet_full_convolutions": partial(MobileNet, TABLE_1, convolution, width_multiplier=1.0),
    # Table 5
    "mobilenet_shallow": partial(MobileNet, SHALLOW, width_multiplier=1.0),
    # not in the paper: ReLU6
    "mobilenet_100_relu6": partial(MobileNet, TABLE_1, separable, nn.ReLU6, width_multiplier=1.0),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 224, 224))
FOR_SMALL_PICTURES: dict[str, str] = {}
HOWARD_2017 = Paper(
    "Howard et al.", 2017, "MobileNets: efficient convolutional neural networks for mobile vision applications", "chain"
)
PAPERS = dict.fromkeys(VARIANTS, HOWARD_2017)


def _imagenet(accuracy: float, table: int) -> tuple[Reported, ...]:
    return (Reported(round(100 - accuracy, 1), "top-1", "ImageNet val", f"table {table}"),)


REPORTED = {
    "mobilenet_100": _imagenet(70.6, 6),
    "mobilenet_075": _imagenet(68.4, 6),
    "mobilenet_050": _imagenet(63.7, 6),
    "mobilenet_025": _imagenet(50.6, 6),
    "mobilenet_full_convolutions": _imagenet(71.7, 4),
    "mobilenet_shallow": _imagenet(65.3, 5),
}
