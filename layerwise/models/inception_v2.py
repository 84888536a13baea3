"""Inception v2 (BN-Inception).

Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", 2015:
section 4.2 and figure 5.

Deviations from the paper: the first convolution is a plain one; the paper's is separable with a depth multiplier of 8.
Convolutions keep the bias that section 3.2 calls superfluous before batch normalisation, as the network that is counted
and given out under this name (11.3 million parameters) does.
Section 4.2 prints 13.6 million parameters: fails, the widths of figure 5 give 11,295,240 with these biases.
What the paper leaves open: epsilon 1e-5; average pooling inside a module leaves the zeros around the map out; poolings
of stride 2 are padded by 1, so that their maps fit those of the convolutions beside them for every size of picture;
there are no auxiliary heads. Figure 5's pool projections of 128 in inception_4c and 4d give 608 maps, and 4e 1056; a
published graph of this network has 96 there and so keeps 576 and 1024. Weights start after He et al. 2015, eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.branches import Branches
from layerwise.layers.convolution import convolutions
from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, named

# Figure 5: #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool proj
Widths = tuple[int, int, int, int, int, int]


def unit(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """`conv` with bias, padded by half its kernel, `bn`, `relu`."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
    return named({"conv": conv, "bn": nn.BatchNorm2d(out_channels, eps=1e-5), "relu": nn.ReLU()})


def average_pool() -> nn.Module:
    """3x3 at stride 1; the zeros of the padding do not count."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def max_pool(stride: int = 1) -> nn.Module:
    """3x3, padded: the same size of map at stride 1, half of it (rounded up) at stride 2."""
    return nn.MaxPool2d(3, stride, padding=1)


def inception(in_channels: int, widths: Widths, pool: Callable[[], nn.Module] = average_pool) -> Branches:
    """1x1; 3x3; two 3x3 in place of the 5x5; pooling."""
    one, three_reduce, three, double_reduce, double, projection = widths
    chain = partial(convolutions, in_channels, unit=unit)
    return Branches(
        chain((one, 1)),
        chain((three_reduce, 1), (three, 3)),
        chain((double_reduce, 1), (double, 3), (double, 3)),
        chain((projection, 1), first=pool()),
    )


def reduction(in_channels: int, widths: tuple[int, int, int, int]) -> Branches:
    """The last 3x3 of each branch with stride 2, beside the pooling, which passes its maps through (3c and 4e)."""
    three_reduce, three, double_reduce, double = widths
    chain = partial(convolutions, in_channels, unit=unit)
    return Branches(
        chain((three_reduce, 1), (three, 3, 2)),
        chain((double_reduce, 1), (double, 3), (double, 3, 2)),
        max_pool(2),
    )


class InceptionV2(Network):
    """Figure 5 for 224x224 pictures (N, C, H, W)."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        features: dict[str, nn.Module] = {
            "conv1": unit(in_channels, 64, 7, 2),
            "pool1": max_pool(2),
            "conv2": convolutions(64, (64, 1), (192, 3), unit=unit),
            "pool2": max_pool(2),
            "inception_3a": inception(192, (64, 64, 64, 64, 96, 32)),
            "inception_3b": inception(256, (64, 64, 96, 64, 96, 64)),
            "inception_3c": reduction(320, (128, 160, 64, 96)),
            "inception_4a": inception(576, (224, 64, 96, 96, 128, 128)),
            "inception_4b": inception(576, (192, 96, 128, 96, 128, 128)),
            "inception_4c": inception(576, (160, 128, 160, 128, 160, 128)),
            "inception_4d": inception(608, (96, 128, 192, 160, 192, 128)),
            "inception_4e": reduction(608, (128, 192, 192, 256)),
            "inception_5a": inception(1056, (352, 192, 320, 160, 224, 128)),
            "inception_5b": inception(1024, (352, 192, 320, 192, 224, 128), max_pool),
        }
        head: dict[str, nn.Module] = {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(1024, num_classes),
        }
        super().__init__(features, head)
        he_normal(self)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 5
    "inception_v2": partial(InceptionV2),
}
INPUTS = {"inception_v2": (3, 224, 224)}
FOR_SMALL_PICTURES: dict[str, str] = {}
TITLE = "Batch normalization: accelerating deep network training by reducing internal covariate shift"
PAPERS = {"inception_v2": Paper("Ioffe & Szegedy", 2015, TITLE, "branches")}
REPORTED = {
    "inception_v2": (
        Reported(25.2, "top-1, 1 crop", "ImageNet val", "figure 4"),
        Reported(7.82, "top-5, 1 crop", "ImageNet val", "figure 4"),
    )
}
