"""ResNeXt: aggregated residual transformations.

Xie, Girshick, Dollar, Tu, He, "Aggregated residual transformations for deep neural networks", 2016 (CVPR 2017):
sections 3 and 5, tables 1, 2, 3 and 7.

Deviations from the paper: resnext101_32x8d and resnext29_32x4d are not in its tables; they are made by its rules.
Blocks are figure 3(c), grouped convolutions, which section 3.3 shows to be the same as 3(a) and 3(b). The 3x3
convolution carries the stride and shortcuts are option B (section 4). A name CxDd has cardinality C and width d in the
first stage; later stages double d. For CIFAR the first 3x3 convolution has 64 maps and three stages of three blocks end
in 256, 512, 1024 (section 5.3). Left open: weights start after He et al. 2015 ("Delving deep into rectifiers"), eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, named
from layerwise.models.resnet import Residual, ResNet, convolution, residual_network, shortcut_b, stage


class GroupedBottleneck(Residual):
    """1x1, grouped 3x3, 1x1 (figure 3c): `cardinality` groups of `group_width` maps each where `width` is 64."""

    expansion = 4
    layers = 3
    cardinality = 1
    group_width = 64

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        inner, groups = self.cardinality * self.group_width * width // 64, self.cardinality
        return named({
            "conv1": convolution(in_channels, inner, 1),
            "bn1": nn.BatchNorm2d(inner),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False),
            "bn2": nn.BatchNorm2d(inner),
            "relu2": nn.ReLU(),
            "conv3": convolution(inner, 4 * width, 1),
            "bn3": nn.BatchNorm2d(4 * width),
        })  # fmt: skip


class Bottleneck32x4d(GroupedBottleneck):
    """32 groups of 4 maps: the template of table 1."""

    cardinality, group_width = 32, 4


class Bottleneck32x8d(GroupedBottleneck):
    """32 groups of 8 maps."""

    cardinality, group_width = 32, 8


class Bottleneck64x4d(GroupedBottleneck):
    """64 groups of 4 maps."""

    cardinality, group_width = 64, 4


class Bottleneck2x40d(GroupedBottleneck):
    """2 groups of 40 maps: as many parameters as 1x64d and 32x4d (tables 2 and 3)."""

    cardinality, group_width = 2, 40


class Bottleneck4x24d(GroupedBottleneck):
    """4 groups of 24 maps."""

    cardinality, group_width = 4, 24


class Bottleneck8x14d(GroupedBottleneck):
    """8 groups of 14 maps."""

    cardinality, group_width = 8, 14


class Bottleneck8x64d(GroupedBottleneck):
    """8 groups of 64 maps."""

    cardinality, group_width = 8, 64


class Bottleneck16x64d(GroupedBottleneck):
    """16 groups of 64 maps."""

    cardinality, group_width = 16, 64


class ResNeXtCifar(Network):
    """Section 5.3: three stages of three blocks for 32x32 pictures (N, C, H, W); 29 layers."""

    def __init__(self, block: type[GroupedBottleneck], num_classes: int = 10, in_channels: int = 3) -> None:
        stem = {"conv": convolution(in_channels, 64, 3), "bn": nn.BatchNorm2d(64), "relu": nn.ReLU()}
        stages, channels = [], 64
        for number, width in enumerate((64, 128, 256), 2):
            stages.append(stage(block, 3, (channels, width), shortcut_b, f"conv{number}"))
            channels = width * block.expansion
        super().__init__(*residual_network(stem, stages, channels, num_classes))
        he_normal(self)


IMAGENET: dict[str, Callable[..., Network]] = {
    # Table 1
    "resnext50_32x4d": partial(ResNet, Bottleneck32x4d, (3, 4, 6, 3)),
    # Table 3: cardinality against width at the same cost; 1x64d is resnet50_v1_5
    "resnext50_2x40d": partial(ResNet, Bottleneck2x40d, (3, 4, 6, 3)),
    "resnext50_4x24d": partial(ResNet, Bottleneck4x24d, (3, 4, 6, 3)),
    "resnext50_8x14d": partial(ResNet, Bottleneck8x14d, (3, 4, 6, 3)),
    # Tables 3 and 4
    "resnext101_32x4d": partial(ResNet, Bottleneck32x4d, (3, 4, 23, 3)),
    "resnext101_64x4d": partial(ResNet, Bottleneck64x4d, (3, 4, 23, 3)),
    # not in the paper
    "resnext101_32x8d": partial(ResNet, Bottleneck32x8d, (3, 4, 23, 3)),
}
CIFAR: dict[str, Callable[..., Network]] = {
    # Table 7
    "resnext29_8x64d": partial(ResNeXtCifar, Bottleneck8x64d),
    "resnext29_16x64d": partial(ResNeXtCifar, Bottleneck16x64d),
    # not in the paper
    "resnext29_32x4d": partial(ResNeXtCifar, Bottleneck32x4d),
}
VARIANTS = IMAGENET | CIFAR
INPUTS = dict.fromkeys(IMAGENET, (3, 224, 224)) | dict.fromkeys(CIFAR, (3, 32, 32))
FOR_SMALL_PICTURES = dict.fromkeys(IMAGENET, "resnext29_32x4d")
PAPERS = dict.fromkeys(
    VARIANTS, Paper("Xie et al.", 2016, "Aggregated residual transformations for deep neural networks", "sum")
)


def _imagenet(error: float, where: str) -> tuple[Reported, ...]:
    return (Reported(error, "top-1, single crop", "ImageNet val", where),)


def _cifar(ten: float, hundred: float) -> tuple[Reported, ...]:
    return (
        Reported(ten, "top-1", "CIFAR-10 test", "table 7"),
        Reported(hundred, "top-1", "CIFAR-100 test", "table 7"),
    )


REPORTED = {
    "resnext50_2x40d": _imagenet(23.0, "table 3"),
    "resnext50_4x24d": _imagenet(22.6, "table 3"),
    "resnext50_8x14d": _imagenet(22.3, "table 3"),
    "resnext50_32x4d": _imagenet(22.2, "table 3"),
    "resnext101_32x4d": _imagenet(21.2, "table 3"),
    "resnext101_64x4d": _imagenet(20.4, "table 4"),
    "resnext29_8x64d": _cifar(3.65, 17.77),
    "resnext29_16x64d": _cifar(3.58, 17.31),
}
