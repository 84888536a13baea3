"""ZFNet.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013: figure 3 and section 3.

Deviations from the paper: none in the layers. What it leaves open: figure 3's maps of 110, 55, 26, 13 and 6 need one
pixel of padding in conv1, none in conv2, half the kernel in conv3 to conv5, and pooling windows that reach over the
border of the map; "contrast normalisation across feature maps" comes after pooling, as the figure says, and is
AlexNet's response normalisation. The text keeps AlexNet's widths in conv3 to conv5 (384, 384, 256) and only joins the
two towers: "the sparse connections [...] are replaced with dense connections". Weights start at 0.01, biases at 0
(section 3), where the paper says 10^-2 and not of what: the deviation of a normal distribution, as in AlexNet. Kernels
of the first layer, which the paper shrinks to a fixed length when they exceed it, are left to the recipe.
`zfnet_wide` has 512, 1024 and 512 maps in conv3 to conv5: table 2 (b). `zfnet512` is not in the paper: the network
that another library's model collection publishes under that name (512 maps thrice, normalisation before pooling, no
padding in conv1, fc7 of 1,024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from layerwise.layers.initialise import normal
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.network import Network, Paper, Reported

Reduction = Callable[[int], dict[str, nn.Module]]


def pool_norm(number: int) -> dict[str, nn.Module]:
    """3x3 max-pooling at stride 2, also over the border, then normalisation (figure 3)."""
    return {f"pool{number}": nn.MaxPool2d(3, stride=2, ceil_mode=True), f"norm{number}": ResponseNorm()}


def norm_pool(number: int) -> dict[str, nn.Module]:
    """Normalisation, then 3x3 max-pooling at stride 2 inside the map; not in the paper."""
    return {f"norm{number}": ResponseNorm(), f"pool{number}": nn.MaxPool2d(3, stride=2)}


@dataclass(frozen=True)
class Design:
    """What differs: maps of conv3 to conv5, what follows conv1 and conv2, conv1's padding, pool5's window, fc7."""

    widths: tuple[int, int, int]
    reduction: Reduction = pool_norm
    padding: int = 1
    window: int = 3
    last_hidden: int = 4096


class ZFNet(Network):
    """Figure 3: five convolutions, three fully connected layers. (N, C, 224, 224) to logits (N, num_classes).

    `dropout` follows fc6 and fc7. For other pictures: `map_side` is the side of the last map, 6 for 224 pixels;
    `hidden_features` are fc6's, at most fc7's.
    """

    def __init__(
        self,
        design: Design,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
        map_side: int = 6,
        hidden_features: int = 4096,
    ) -> None:
        three, four, five = design.widths
        last_hidden = min(hidden_features, design.last_hidden)
        features: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, 96, 7, stride=2, padding=design.padding),
            "relu1": nn.ReLU(),
            **design.reduction(1),
            "conv2": nn.Conv2d(96, 256, 5, stride=2),
            "relu2": nn.ReLU(),
            **design.reduction(2),
            "conv3": nn.Conv2d(256, three, 3, padding=1),
            "relu3": nn.ReLU(),
            "conv4": nn.Conv2d(three, four, 3, padding=1),
            "relu4": nn.ReLU(),
            "conv5": nn.Conv2d(four, five, 3, padding=1),
            "relu5": nn.ReLU(),
            "pool5": nn.MaxPool2d(design.window, stride=2),
        }
        head: dict[str, nn.Module] = {
            "flatten": nn.Flatten(),
            "fc6": nn.Linear(five * map_side * map_side, hidden_features),
            "relu6": nn.ReLU(),
            "dropout6": nn.Dropout(dropout),
            "fc7": nn.Linear(hidden_features, last_hidden),
            "relu7": nn.ReLU(),
            "dropout7": nn.Dropout(dropout),
            "fc8": nn.Linear(last_hidden, num_classes),
        }
        super().__init__(features, head)
        normal(self, 0.01)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 3
    "zfnet": partial(ZFNet, Design((384, 384, 256))),
    # Table 2 (b)
    "zfnet_wide": partial(ZFNet, Design((512, 1024, 512))),
    # not in the paper
    "zfnet512": partial(ZFNet, Design((512, 512, 512), norm_pool, 0, 2, 1024)),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 224, 224))
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = dict.fromkeys(
    VARIANTS, Paper("Zeiler & Fergus", 2013, "Visualizing and understanding convolutional networks", "chain")
)
REPORTED = {
    "zfnet": (
        Reported(38.4, "top-1", "ImageNet val", "table 2"),
        Reported(16.5, "top-5", "ImageNet val", "table 2"),
    ),
    "zfnet_wide": (
        Reported(37.5, "top-1", "ImageNet val", "table 2"),
        Reported(16.0, "top-5", "ImageNet val", "table 2"),
    ),
}
