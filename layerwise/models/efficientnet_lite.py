"""EfficientNet-Lite0: a MobileNet-v2 found by search, without squeeze-and-excitation; an extra of the MobileNets.

Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019: section 4, table 1. The Lite
networks, which have no paper, replace swish by ReLU6 and leave squeeze-and-excitation out.

Deviations from the paper: the two above. What it leaves open, closed as in the weights that are public: strided windows
are padded as by TensorFlow's "SAME", epsilon is 1e-3, dropout before the classifier is 0.2; drop-connect of whole
blocks in training is left out. Weights start after He et al. 2015, eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.same_padding import SamePadding
from layerwise.models.mobilenet_v2 import MobileNetV2, Row, Style, half_padded
from layerwise.models.network import Network, Paper

TABLE_1 = (
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 40, 2, 2, kernel_size=5),
    Row(6, 80, 3, 2),
    Row(6, 112, 3, 1, kernel_size=5),
    Row(6, 192, 4, 2, kernel_size=5),
    Row(6, 320, 1, 1),
)


def same_padded(
    name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int
) -> dict[str, nn.Module]:
    """A convolution under its name, padded as by TensorFlow's "SAME"; without a stride that is half the kernel."""
    if stride == 1:
        return half_padded(name, in_channels, out_channels, kernel_size, stride, groups)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)
    return {f"{name}_pad": SamePadding(kernel_size, stride), name: conv}


STYLE = Style(same_padded, partial(nn.BatchNorm2d, eps=1e-3))


class EfficientNetLite(MobileNetV2):
    """The network of table 1 at width 1. (N, C, H, W) to logits (N, num_classes)."""

    def __init__(
        self, rows: tuple[Row, ...], num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2
    ) -> None:
        super().__init__(rows, STYLE, num_classes, in_channels, dropout=dropout)


VARIANTS: dict[str, Callable[..., Network]] = {"efficientnet_lite0": partial(EfficientNetLite, TABLE_1)}
INPUTS = {"efficientnet_lite0": (3, 224, 224)}
FOR_SMALL_PICTURES: dict[str, str] = {}
TAN_2019 = Paper(
    "Tan & Le", 2019, "EfficientNet: rethinking model scaling for convolutional neural networks", "sum"
)
PAPERS = dict.fromkeys(VARIANTS, TAN_2019)
REPORTED: dict[str, tuple[()]] = {}
