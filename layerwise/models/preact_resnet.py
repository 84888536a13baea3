"""Residual networks with pre-activation.

He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", 2016: section 4, tables 2 to 5, appendix.

Deviations from the paper: none. As the appendix has it, the first unit takes the activation that follows conv1 before
the two paths part, the last one is followed by an activation of its own, and projections take the activated maps. What
it leaves open: ResNet-110 keeps option A of He et al. 2015, so its shortcuts, two of them padded with zeros, are never
activated; in units with a projection both paths share one activation, and the projection has no batch normalisation,
which the next unit begins with; the first 1x1 convolution of a bottleneck carries the stride, as in 2015. Weights start
after He et al. 2015 ("Delving deep into rectifiers"), eq. 10. The paper's 10.2 million parameters of ResNet-1001 are
those of its convolutions and fully connected layer; with batch normalisation's own there are 10.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, another, named
from layerwise.models.resnet import convolution, shortcut_a

Layers = tuple[tuple[int, int, int, int], ...]
Widths = tuple[tuple[int, int], ...]


def activation(channels: int) -> dict[str, nn.Module]:
    """Batch normalisation and ReLU: what comes before each weight layer (figure 4e)."""
    return {"bn": nn.BatchNorm2d(channels), "relu": nn.ReLU()}


def preactivated(layers: Layers) -> dict[str, nn.Module]:
    """bn, relu, conv, bn, relu, conv ...: layers as (in_channels, out_channels, kernel_size, stride)."""
    modules: dict[str, nn.Module] = {}
    for number, (in_channels, out_channels, kernel_size, stride) in enumerate(layers, 1):
        modules |= {f"{name}{number}": module for name, module in activation(in_channels).items()}
        modules[f"conv{number}"] = convolution(in_channels, out_channels, kernel_size, stride)
    return modules


def without_first_activation(layers: Layers) -> dict[str, nn.Module]:
    """`preactivated`, from its first convolution on."""
    modules = preactivated(layers)
    return {name: module for name, module in modules.items() if name not in ("bn1", "relu1")}


def basic(in_channels: int, width: int, stride: int) -> Layers:
    """Two 3x3 convolutions."""
    return (in_channels, width, 3, stride), (width, width, 3, 1)


def bottleneck(in_channels: int, width: int, stride: int) -> Layers:
    """1x1, 3x3, 1x1 with a fourth of the channels inside; the first carries the stride."""
    return (in_channels, width, 1, stride), (width, width, 3, 1), (width, 4 * width, 1, 1)


class PreactivationUnit(nn.Module):
    """y = x + F(x) (eq. 1 with h and f identities); `shortcut` changes the shape of x where F does."""

    def __init__(self, residual: Mapping[str, nn.Module], shortcut: nn.Module) -> None:
        super().__init__()
        self.residual = named(residual)
        self.shortcut = shortcut

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.residual(maps) + self.shortcut(maps)
        return output


class ProjectionUnit(nn.Module):
    """y = W a(x) + F(a(x)): where the dimensions grow, the projection takes the activated maps too (appendix)."""

    def __init__(self, layers: Layers, stride: int) -> None:
        super().__init__()
        in_channels, out_channels = layers[0][0], layers[-1][1]
        self.activation = named(activation(in_channels))
        self.residual = named(without_first_activation(layers))
        self.shortcut = convolution(in_channels, out_channels, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        activated = self.activation(maps)
        output: Tensor = self.residual(activated) + self.shortcut(activated)
        return output


Unit = Callable[[int, int, int], nn.Module]


def basic_unit(in_channels: int, width: int, stride: int) -> nn.Module:
    """A unit of two 3x3 convolutions; option A where the dimensions grow."""
    return PreactivationUnit(preactivated(basic(in_channels, width, stride)), shortcut_a(in_channels, width, stride))


def bottleneck_unit(in_channels: int, width: int, stride: int) -> nn.Module:
    """A bottleneck unit; a projection where the dimensions grow."""
    layers = bottleneck(in_channels, width, stride)
    if in_channels == 4 * width and stride == 1:
        return PreactivationUnit(preactivated(layers), nn.Identity())
    return ProjectionUnit(layers, stride)


def first_basic_unit(in_channels: int, width: int, stride: int) -> nn.Module:
    """The network's first unit: its maps are activated already."""
    layers = basic(in_channels, width, stride)
    return PreactivationUnit(without_first_activation(layers), shortcut_a(in_channels, width, stride))


def first_bottleneck_unit(in_channels: int, width: int, stride: int) -> nn.Module:
    """The network's first unit: its maps are activated already, and their number grows."""
    layers = without_first_activation(bottleneck(in_channels, width, stride))
    return PreactivationUnit(layers, convolution(in_channels, 4 * width, 1, stride))


BASIC: tuple[Unit, Unit] = (first_basic_unit, basic_unit)
BOTTLENECK: tuple[Unit, Unit] = (first_bottleneck_unit, bottleneck_unit)


def stages(
    units: tuple[Unit, Unit], depths: tuple[int, ...], channels: int, widths: Widths
) -> dict[str, dict[str, nn.Module]]:
    """conv2_x, conv3_x ...: depths[i] units each. `widths`: a unit's own width, and the channels it leaves."""
    first, unit = units
    found: dict[str, dict[str, nn.Module]] = {}
    for number, (depth, (width, out_channels)) in enumerate(zip(depths, widths, strict=True), 2):
        blocks = [first(channels, width, 1) if number == 2 else unit(channels, width, 2)]
        if depth > 1:
            blocks.append(unit(out_channels, width, 1))
        blocks += [another(blocks[1]) for _ in range(depth - 2)]
        found[f"conv{number}_x"] = {f"conv{number}_{index}": block for index, block in enumerate(blocks, 1)}
        channels = out_channels
    return found


def classifier(channels: int, num_classes: int) -> dict[str, nn.Module]:
    """Global average pooling and one fully connected layer."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(channels, num_classes)}


class PreactivationResNet(Network):
    """For 224x224 pictures (N, C, H, W): the stages of He et al. 2015, table 1, in bottleneck units."""

    def __init__(self, depths: tuple[int, int, int, int], num_classes: int = 1000, in_channels: int = 3) -> None:
        stem = {"conv": convolution(in_channels, 64, 7, 2), **activation(64)}
        features: dict[str, nn.Module] = {"conv1": named(stem)}
        found = stages(BOTTLENECK, depths, 64, tuple((width, 4 * width) for width in (64, 128, 256, 512)))
        found["conv2_x"] = {"pool": nn.MaxPool2d(3, 2, padding=1), **found["conv2_x"]}
        features |= {name: named(blocks) for name, blocks in found.items()}
        features["activation"] = named(activation(2048))
        super().__init__(features, classifier(2048, num_classes))
        he_normal(self)


class PreactivationResNetCifar(Network):
    """For 32x32 pictures (N, C, H, W): n units each of widths 16, 32, 64; 6n+2 layers, 9n+2 with bottlenecks."""

    def __init__(
        self,
        n: int,
        units: tuple[Unit, Unit],
        expansion: int,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        stem = {"conv": convolution(in_channels, widths[0], 3), **activation(widths[0])}
        grown = tuple((width, expansion * width) for width in widths)
        features: dict[str, nn.Module] = {"conv1": named(stem)}
        features |= {name: named(found) for name, found in stages(units, (n, n, n), widths[0], grown).items()}
        features["activation"] = named(activation(grown[-1][1]))
        super().__init__(features, classifier(grown[-1][1], num_classes))
        he_normal(self)


IMAGENET: dict[str, Callable[..., Network]] = {
    # Table 5; ResNet-200 has 16 more units on the 28x28 maps than ResNet-152
    "preact_resnet152": partial(PreactivationResNet, (3, 8, 36, 3)),
    "preact_resnet200": partial(PreactivationResNet, (3, 24, 36, 3)),
}
CIFAR: dict[str, Callable[..., Network]] = {
    # Tables 2 to 4
    "preact_resnet110": partial(PreactivationResNetCifar, 18, BASIC, 1),
    "preact_resnet164": partial(PreactivationResNetCifar, 18, BOTTLENECK, 4),
    "preact_resnet1001": partial(PreactivationResNetCifar, 111, BOTTLENECK, 4),
}
VARIANTS = IMAGENET | CIFAR
INPUTS = dict.fromkeys(IMAGENET, (3, 224, 224)) | dict.fromkeys(CIFAR, (3, 32, 32))
FOR_SMALL_PICTURES = dict.fromkeys(IMAGENET, "preact_resnet164")
PAPERS = dict.fromkeys(VARIANTS, Paper("He et al.", 2016, "Identity mappings in deep residual networks", "sum"))


def _cifar(ten: float, hundred: float | None) -> tuple[Reported, ...]:
    measured = (("CIFAR-10 test", ten), ("CIFAR-100 test", hundred))
    return tuple(Reported(error, "top-1", data, "table 4" if hundred else "table 2")
                 for data, error in measured if error is not None)  # fmt: skip


REPORTED = {
    "preact_resnet110": _cifar(6.37, None),
    "preact_resnet164": _cifar(5.46, 24.33),
    "preact_resnet1001": _cifar(4.92, 22.71),
    "preact_resnet152": (Reported(21.1, "top-1, one 320x320 crop", "ImageNet val", "table 5"),
                         Reported(5.5, "top-5, one 320x320 crop", "ImageNet val", "table 5")),
    "preact_resnet200": (Reported(20.7, "top-1, one 320x320 crop", "ImageNet val", "table 5"),
                         Reported(5.3, "top-5, one 320x320 crop", "ImageNet val", "table 5")),
}  # fmt: skip
