"""Residual networks and their plain counterparts.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015: sections 3 and 4, tables 1 and 6.

Deviations from the paper: none. What it leaves open: weights start after eq. 10 of He et al. 2015 ("Delving deep into
rectifiers"; fan-in), the last layer's too, biases at 0; batch normalisation keeps torch's epsilon 1e-5 and momentum
0.1; padding is half the kernel. The last scale of a residual branch starts at 1 unless `zero_last_scales` is called.
The CIFAR networks' stages are called conv2_x to conv4_x as in table 1.
`_v1_5` networks are not the paper's: they move the stride from the first 1x1 to the 3x3 convolution, as most libraries
do under the bare name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, another, named

Shortcut = Callable[[int, int, int], nn.Module]


class ZeroPaddedIdentity(nn.Module):
    """Option A: every stride-th pixel, and zeros in the channels that are new (section 3.3). No parameters.

    Input (N, in_channels, H, W), output (N, in_channels + new_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, maps: Tensor) -> Tensor:
        return F.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))

    def extra_repr(self) -> str:
        return f"{self.new_channels}, stride={self.stride}"


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias (batch normalisation follows), padded by half its kernel."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A 1x1 convolution W_s of eq. 2, with batch normalisation as after every convolution."""
    layers = {"conv": convolution(in_channels, out_channels, 1, stride), "bn": nn.BatchNorm2d(out_channels)}
    return named(layers)


def shortcut_a(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option A (section 3.3): zero padding where the shape changes, else the identity."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    if out_channels < in_channels:
        raise InputError(
            f"widths: a stage of {out_channels} channels follows one of {in_channels}",
            "Option A fills new channels with zeros and cannot take channels away.",
            "Let the widths grow or stay from stage to stage.",
        )
    return ZeroPaddedIdentity(out_channels - in_channels, stride)


def shortcut_b(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B (section 3.3): a projection where the shape changes, else the identity."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return projection(in_channels, out_channels, stride)


def shortcut_c(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option C (section 4.1): every shortcut is a projection."""
    return projection(in_channels, out_channels, stride)


def branch(*layers: tuple[int, int, int, int]) -> nn.Sequential:
    """conv, bn, relu, conv, bn ...: layers as (in_channels, out_channels, kernel_size, stride); no ReLU at the end."""
    modules: dict[str, nn.Module] = {}
    for number, (in_channels, out_channels, kernel_size, stride) in enumerate(layers, 1):
        modules[f"conv{number}"] = convolution(in_channels, out_channels, kernel_size, stride)
        modules[f"bn{number}"] = nn.BatchNorm2d(out_channels)
        modules[f"relu{number}"] = nn.ReLU()
    modules.popitem()
    return named(modules)


class Residual(nn.Module):
    """y = relu(F(x) + shortcut(x)) (eqs. 1 and 2). `expansion`: output channels over `width`; `layers`: depth of F."""

    expansion = 1
    layers = 0

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.residual = self.function(in_channels, width, stride)
        self.shortcut = shortcut(in_channels, width * self.expansion, stride)
        self.relu = nn.ReLU()

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        """The residual function F, ending in batch normalisation."""
        raise NotImplementedError

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.relu(self.residual(maps) + self.shortcut(maps))
        return output


class BasicBlock(Residual):
    """Two 3x3 convolutions (figure 5, left)."""

    layers = 2

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        return branch((in_channels, width, 3, stride), (width, width, 3, 1))


class OneLayerBlock(Residual):
    """One 3x3 convolution: y = W1 x + x, for which the paper saw no advantage (section 3.2)."""

    layers = 1

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        return branch((in_channels, width, 3, stride))


class ThreeLayerBlock(Residual):
    """Three 3x3 convolutions ("two or three layers, while more layers are possible", section 3.2)."""

    layers = 3

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        return branch((in_channels, width, 3, stride), (width, width, 3, 1), (width, width, 3, 1))


class Bottleneck(Residual):
    """1x1, 3x3, 1x1 with a fourth of the channels inside (figure 5, right); the first 1x1 carries the stride."""

    expansion = 4
    layers = 3

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        return branch((in_channels, width, 1, stride), (width, width, 3, 1), (width, 4 * width, 1, 1))


class BottleneckV1_5(Residual):  # noqa: N801 (the version is "1.5")
    """As `Bottleneck`, but the 3x3 carries the stride; not in the paper."""

    expansion = 4
    layers = 3

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        return branch((in_channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))


class PlainBlock(nn.Module):
    """The two layers of `BasicBlock` without a shortcut (section 3.3, plain network)."""

    expansion = 1
    layers = 2

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.plain = branch((in_channels, width, 3, stride), (width, width, 3, 1))
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.relu(self.plain(maps))
        return output


class PlainBottleneck(nn.Module):
    """The three layers of `Bottleneck` without a shortcut (section 4.1, footnote 4)."""

    expansion = 4
    layers = 3

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.plain = branch((in_channels, width, 1, stride), (width, width, 3, 1), (width, 4 * width, 1, 1))
        self.relu = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.relu(self.plain(maps))
        return output


Block = type[Residual] | type[PlainBlock] | type[PlainBottleneck]


def stage(block: Block, depth: int, channels: tuple[int, int], shortcut: Shortcut, name: str) -> dict[str, nn.Module]:
    """`depth` blocks from channels[0] maps to width channels[1], called name_1, name_2 ...

    The first halves the map (stride 2), but in conv2_x, where the maps have the right size already.
    """
    in_channels, width = channels
    blocks: list[nn.Module] = [block(in_channels, width, 1 if name == "conv2" else 2, shortcut)]
    if depth > 1:
        blocks.append(block(width * block.expansion, width, 1, shortcut))
    blocks += [another(blocks[1]) for _ in range(depth - 2)]
    return {f"{name}_{number}": one for number, one in enumerate(blocks, 1)}


def residual_network(
    stem: Mapping[str, nn.Module], stages: list[dict[str, nn.Module]], channels: int, num_classes: int
) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """`features` (conv1, conv2_x ...) and `head` (global average pooling, then one fully connected layer)."""
    features: dict[str, nn.Module] = {"conv1": named(stem)}
    for number, blocks in enumerate(stages, 2):
        features[f"conv{number}_x"] = named(blocks)
    pool, fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, num_classes)
    return features, {"pool": pool, "flatten": nn.Flatten(), "fc": fc}


class ResNet(Network):
    """Table 1: 7x7 convolution, 3x3 max-pooling, four stages; for 224x224 pictures (N, C, H, W)."""

    def __init__(
        self,
        block: Block,
        depths: tuple[int, int, int, int],
        shortcut: Shortcut = shortcut_b,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        stem = {"conv": convolution(in_channels, 64, 7, 2), "bn": nn.BatchNorm2d(64), "relu": nn.ReLU()}
        stages, channels = [], 64
        for number, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), 2):
            stages.append(stage(block, depth, (channels, width), shortcut, f"conv{number}"))
            channels = width * block.expansion
        stages[0] = {"pool": nn.MaxPool2d(3, 2, padding=1), **stages[0]}
        super().__init__(*residual_network(stem, stages, channels, num_classes))
        he_normal(self)


class ResNetCifar(Network):
    """Section 4.2: a 3x3 convolution, then 2n layers each on 16, 32, 64 maps, for 32x32 pictures; 6n+2 layers.

    A block of one, two or three layers makes the same depth. Shortcuts are option A "in all cases".
    """

    def __init__(
        self,
        n: int,
        block: Block = BasicBlock,
        shortcut: Shortcut = shortcut_a,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        assert 2 * n % block.layers == 0, "2n layers do not divide into such blocks"
        stem = {"conv": convolution(in_channels, widths[0], 3), "bn": nn.BatchNorm2d(widths[0]), "relu": nn.ReLU()}
        stages, channels = [], widths[0]
        for number, width in enumerate(widths, 2):
            stages.append(stage(block, 2 * n // block.layers, (channels, width), shortcut, f"conv{number}"))
            channels = width * block.expansion
        super().__init__(*residual_network(stem, stages, channels, num_classes))
        he_normal(self)


def zero_last_scales(model: nn.Module) -> int:
    """Set the scale of each residual branch's last batch normalisation to 0, so that the branch starts at zero.

    Not in the paper (Goyal et al. 2017, section 5.1). Returns the number of branches. Raises InputError where the
    network has none.
    """
    branches = [module for module in model.modules() if isinstance(module, Residual)]
    for module in branches:
        last = module.residual[-1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.zeros_(last.weight)
    if not branches:
        raise InputError(
            "zero_init_last_scale: the network has no residual branches that end in batch normalisation",
            "Only such a branch starts at zero by its last scale; without a shortcut it would cut the network in two.",
            "Set zero_init_last_scale=false, or train a residual network.",
        )
    return len(branches)


IMAGENET: dict[str, Callable[..., Network]] = {
    # Table 1; option B is table 3's "B"
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    # Tables 2 and 3: plain networks, options A and C
    "plain18": partial(ResNet, PlainBlock, (2, 2, 2, 2)),
    "plain34": partial(ResNet, PlainBlock, (3, 4, 6, 3)),
    "resnet18_a": partial(ResNet, BasicBlock, (2, 2, 2, 2), shortcut_a),
    "resnet34_a": partial(ResNet, BasicBlock, (3, 4, 6, 3), shortcut_a),
    "resnet18_c": partial(ResNet, BasicBlock, (2, 2, 2, 2), shortcut_c),
    "resnet34_c": partial(ResNet, BasicBlock, (3, 4, 6, 3), shortcut_c),
    # Footnote 4: plain networks of bottlenecks; the paper names no depth
    "plain50": partial(ResNet, PlainBottleneck, (3, 4, 6, 3)),
    "plain101": partial(ResNet, PlainBottleneck, (3, 4, 23, 3)),
    # not in the paper: stride in the 3x3
    "resnet50_v1_5": partial(ResNet, BottleneckV1_5, (3, 4, 6, 3)),
    "resnet101_v1_5": partial(ResNet, BottleneckV1_5, (3, 4, 23, 3)),
    "resnet152_v1_5": partial(ResNet, BottleneckV1_5, (3, 8, 36, 3)),
}
CIFAR: dict[str, Callable[..., Network]] = {
    # Table 6: 6n+2 layers
    "resnet20": partial(ResNetCifar, 3),
    "resnet32": partial(ResNetCifar, 5),
    "resnet44": partial(ResNetCifar, 7),
    "resnet56": partial(ResNetCifar, 9),
    "resnet110": partial(ResNetCifar, 18),
    "resnet1202": partial(ResNetCifar, 200),
    # Figure 6, left
    "plain20": partial(ResNetCifar, 3, PlainBlock),
    "plain32": partial(ResNetCifar, 5, PlainBlock),
    "plain44": partial(ResNetCifar, 7, PlainBlock),
    "plain56": partial(ResNetCifar, 9, PlainBlock),
    "plain110": partial(ResNetCifar, 18, PlainBlock),
    # Section 3.2: residual functions of one and of three layers, the same 20 layers and parameters
    "resnet20_one_layer": partial(ResNetCifar, 3, OneLayerBlock),
    "resnet20_three_layer": partial(ResNetCifar, 3, ThreeLayerBlock),
    # The same where depth tells plain from residual
    "resnet56_one_layer": partial(ResNetCifar, 9, OneLayerBlock),
}
# Footnote 4 on CIFAR-10, which the paper does not try: 2n layers a stage are 2n/3 bottlenecks, four times the maps.
BOTTLENECKS: dict[str, Callable[..., Network]] = {
    "resnet20_bottleneck": partial(ResNetCifar, 3, Bottleneck),
    "resnet56_bottleneck": partial(ResNetCifar, 9, Bottleneck),
    "plain20_bottleneck": partial(ResNetCifar, 3, PlainBottleneck),
    "plain56_bottleneck": partial(ResNetCifar, 9, PlainBottleneck),
}
VARIANTS = IMAGENET | CIFAR | BOTTLENECKS
INPUTS = dict.fromkeys(IMAGENET, (3, 224, 224)) | dict.fromkeys(CIFAR | BOTTLENECKS, (3, 32, 32))
# Which of the paper's CIFAR networks is nearest in depth to its ImageNet network.
FOR_SMALL_PICTURES = {
    **dict.fromkeys(("resnet18", "resnet18_a", "resnet18_c"), "resnet20"),
    **dict.fromkeys(("resnet34", "resnet34_a", "resnet34_c"), "resnet32"),
    **dict.fromkeys(("resnet50", "resnet50_v1_5"), "resnet56"),
    **dict.fromkeys(("resnet101", "resnet101_v1_5", "resnet152", "resnet152_v1_5"), "resnet110"),
    **{"plain18": "plain20", "plain34": "plain32", "plain50": "plain56", "plain101": "plain110"},
}
HE_2015 = partial(Paper, "He et al.", 2015, "Deep residual learning for image recognition")
PAPERS = {name: HE_2015("chain" if name.startswith("plain") else "sum") for name in VARIANTS}


def _imagenet(top1: float, top5: float | None, table: int) -> tuple[Reported, ...]:
    measured = (("top-1", top1), ("top-5", top5))
    return tuple(Reported(error, f"{measure}, 10 crops", "ImageNet val", f"table {table}")
                 for measure, error in measured if error is not None)  # fmt: skip


def _cifar(error: float, measure: str = "top-1") -> tuple[Reported, ...]:
    return (Reported(error, measure, "CIFAR-10 test", "table 6"),)


REPORTED = {
    "plain18": _imagenet(27.94, None, 2),
    "resnet18_a": _imagenet(27.88, None, 2),
    "plain34": _imagenet(28.54, 10.02, 3),
    "resnet34_a": _imagenet(25.03, 7.76, 3),
    "resnet34": _imagenet(24.52, 7.46, 3),
    "resnet34_c": _imagenet(24.19, 7.40, 3),
    "resnet50": _imagenet(22.85, 6.71, 3),
    "resnet101": _imagenet(21.75, 6.05, 3),
    "resnet152": _imagenet(21.43, 5.71, 3),
    "resnet20": _cifar(8.75),
    "resnet32": _cifar(7.51),
    "resnet44": _cifar(7.17),
    "resnet56": _cifar(6.97),
    "resnet110": _cifar(6.43, "top-1, best of 5 runs"),
    "resnet1202": _cifar(7.93),
}
