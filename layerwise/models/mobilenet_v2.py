"""MobileNet v2: inverted residuals with linear bottlenecks.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear bottlenecks", 2018: sections 3 and 4,
tables 1 and 2.

Deviations from the paper: none. A width multiplier below 1 leaves the last convolution its 1,280 maps (section 4);
above 1 it has more, which gives `mobilenet_v2_140` 6.1 million parameters, not the 6.9 million of table 4.
What the paper leaves open: multiplied widths go to the nearest multiple of 8 that loses at most a tenth, as in the
authors' code; padding is half the kernel; batch normalisation has torch's epsilon 1e-5; weights start after He et al.
2015, eq. 10; `dropout` before the classifier is free. The resolution multiplier is the size of the pictures.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, named

Window = Callable[[str, int, int, int, int, int], dict[str, nn.Module]]


def half_padded(
    name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int
) -> dict[str, nn.Module]:
    """A convolution under its name, padded by half its kernel."""
    padding = kernel_size // 2
    return {name: nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)}


class Style(NamedTuple):
    """How windows are padded, and how a number of maps is normalised."""

    window: Window
    norm: Callable[[int], nn.BatchNorm2d]


class Row(NamedTuple):
    """A line of table 2: expansion t, output channels c, repeats n, stride s of the first; the kernel of all."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel_size: int = 3


class LinearBottleneck(nn.Sequential):
    """Table 1: 1x1 to `expansion` times the maps, depthwise, 1x1 without activation; ReLU6 in between.

    An expansion by 1 has no first 1x1 ("bottleneck, t = 1" in table 2). Input (N, in_channels, H, W), output
    (N, row.channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, row: Row, stride: int, style: Style) -> None:
        wide = row.expansion * in_channels
        layers: dict[str, nn.Module] = {}
        if row.expansion > 1:
            layers["expand"] = nn.Conv2d(in_channels, wide, 1, bias=False)
            layers |= {"expand_bn": style.norm(wide), "expand_relu": nn.ReLU6()}
        layers |= style.window("depthwise", wide, wide, row.kernel_size, stride, wide)
        layers |= {"depthwise_bn": style.norm(wide), "depthwise_relu": nn.ReLU6()}
        layers["project"] = nn.Conv2d(wide, row.channels, 1, bias=False)
        layers["project_bn"] = style.norm(row.channels)
        super().__init__(OrderedDict(layers))


class InvertedResidual(LinearBottleneck):
    """A linear bottleneck and its input added: stride 1, as many maps out as in (figure 4 d)."""

    def forward(self, maps: Tensor) -> Tensor:
        residual = maps
        for layer in self:
            residual = layer(residual)
        return maps + residual


def bottlenecks(in_channels: int, row: Row, style: Style, name: str) -> nn.Module:
    """The row's blocks, called name_1, name_2 ...: the first with its stride, the others with stride 1."""
    blocks: dict[str, nn.Module] = {}
    for number in range(1, row.repeats + 1):
        stride = row.stride if number == 1 else 1
        kind = InvertedResidual if stride == 1 and in_channels == row.channels else LinearBottleneck
        blocks[f"{name}_{number}"] = kind(in_channels, row, stride, style)
        in_channels = row.channels
    return named(blocks)


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, but never below nine tenths of what was asked for."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class MobileNetV2(Network):
    """Table 2: a 3x3 convolution, rows of bottlenecks, a 1x1 convolution, global average pooling, the classifier.

    Any size of picture from 1x1; the maps are 32 times smaller. (N, C, H, W) to logits (N, num_classes).
    """

    def __init__(
        self,
        rows: Sequence[Row],
        style: Style,
        num_classes: int = 1000,
        in_channels: int = 3,
        width_multiplier: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        channels, last = multiple_of_8(32 * width_multiplier), multiple_of_8(1280 * max(1.0, width_multiplier))
        conv1 = style.window("conv", in_channels, channels, 3, 2, 1)
        features: dict[str, nn.Module] = {
            "conv1": named({**conv1, "bn": style.norm(channels), "relu": nn.ReLU6()}),
        }
        for number, row in enumerate(rows, 1):
            row = row._replace(channels=multiple_of_8(row.channels * width_multiplier))
            features[f"bottleneck{number}"] = bottlenecks(channels, row, style, f"bottleneck{number}")
            channels = row.channels
        conv2 = nn.Conv2d(channels, last, 1, bias=False)
        features["conv2"] = named({"conv": conv2, "bn": style.norm(last), "relu": nn.ReLU6()})
        head: dict[str, nn.Module] = {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(dropout),
            "fc": nn.Linear(last, num_classes),
        }
        super().__init__(features, head)
        he_normal(self)


TABLE_2 = (
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 32, 3, 2),
    Row(6, 64, 4, 2),
    Row(6, 96, 3, 1),
    Row(6, 160, 3, 2),
    Row(6, 320, 1, 1),
)
USUAL = Style(half_padded, nn.BatchNorm2d)
VARIANTS: dict[str, Callable[..., Network]] = {
    # Table 2, any width
    "mobilenet_v2": partial(MobileNetV2, TABLE_2, USUAL),
    # Section 4 and table 4
    "mobilenet_v2_140": partial(MobileNetV2, TABLE_2, USUAL, width_multiplier=1.4),
    "mobilenet_v2_100": partial(MobileNetV2, TABLE_2, USUAL, width_multiplier=1.0),
    "mobilenet_v2_075": partial(MobileNetV2, TABLE_2, USUAL, width_multiplier=0.75),
    "mobilenet_v2_050": partial(MobileNetV2, TABLE_2, USUAL, width_multiplier=0.5),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 224, 224))
FOR_SMALL_PICTURES: dict[str, str] = {}
SANDLER_2018 = Paper("Sandler et al.", 2018, "MobileNetV2: inverted residuals and linear bottlenecks", "sum")
PAPERS = dict.fromkeys(VARIANTS, SANDLER_2018)
REPORTED = {
    "mobilenet_v2_100": (Reported(28.0, "top-1", "ImageNet val", "table 4"),),
    "mobilenet_v2_140": (Reported(25.3, "top-1", "ImageNet val", "table 4"),),
}
