"""Wide residual networks.

Zagoruyko, Komodakis, "Wide residual networks", 2016: sections 2 and 3, tables 1, 4, 5 and 8.

Deviations from the paper: `wide_resnet50_2` and `wide_resnet101_2` carry the stride in the 3x3 convolution, as the
weights do that others publish; the paper does not say where. 101 layers are not in the paper.
WRN-n-k has depth n = 6N + 4 and width k: a 3x3 convolution, three groups of N blocks B(3, 3) of 16k, 32k, 64k maps in
the order BN, ReLU, convolution, then BN, ReLU, average pooling. n counts the 1x1 convolutions of the three shortcuts
where the number of maps changes; these take the activated maps, as the paper's own code does. With k = 1 the first
group needs none. `dropout` stands between the two convolutions of a block (section 2.4); 0.3 for CIFAR and 0.4 for SVHN
in table 6, none by default. Left open: weights start after He et al. 2015 ("Delving deep into rectifiers"), eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, named
from layerwise.models.preact_resnet import activation, classifier
from layerwise.models.resnet import Residual, ResNet, branch, convolution


def wide_residual(in_channels: int, out_channels: int, stride: int, dropout: float) -> dict[str, nn.Module]:
    """The residual function after its first activation: conv, bn, relu, dropout, conv (figure 1d)."""
    return {
        "conv1": convolution(in_channels, out_channels, 3, stride),
        **{f"{name}2": module for name, module in activation(out_channels).items()},
        "dropout": nn.Dropout(dropout),
        "conv2": convolution(out_channels, out_channels, 3),
    }


class WideUnit(nn.Module):
    """B(3, 3): y = x + F(x) (eq. 1), with pre-activation."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        before = {f"{name}1": module for name, module in activation(channels).items()}
        self.residual = named({**before, **wide_residual(channels, channels, 1, dropout)})

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = maps + self.residual(maps)
        return output


class WideProjectionUnit(nn.Module):
    """The unit in which the number of maps changes: both paths take the activated maps."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activation = named(activation(in_channels))
        self.residual = named(wide_residual(in_channels, out_channels, stride, dropout))
        self.shortcut = convolution(in_channels, out_channels, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        activated = self.activation(maps)
        output: Tensor = self.shortcut(activated) + self.residual(activated)
        return output


def wide_group(blocks: int, channels: tuple[int, int], stride: int, dropout: float, name: str) -> nn.Module:
    """`blocks` units from channels[0] to channels[1] maps, called name_1, name_2 ...; the first has the stride."""
    in_channels, out_channels = channels
    units: dict[str, nn.Module] = {}
    for number in range(1, blocks + 1):
        if in_channels == out_channels:
            units[f"{name}_{number}"] = WideUnit(out_channels, dropout)
        else:
            units[f"{name}_{number}"] = WideProjectionUnit(in_channels, out_channels, stride, dropout)
        in_channels = out_channels
    return named(units)


class WideResNet(Network):
    """Table 1: WRN-depth-width for 32x32 pictures (N, C, H, W).

    Raises InputError for a depth that is not 6N + 4.
    """

    def __init__(
        self, depth: int = 28, width: int = 10, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0
    ) -> None:
        if depth < 10 or depth % 6 != 4:
            nearest = max(10, 6 * round((depth - 4) / 6) + 4)
            raise InputError(
                f"depth={depth}: a wide residual network has 6N + 4 layers",
                "Three groups of N blocks with two convolutions each, four convolutions besides (table 1).",
                f"Say depth={nearest}; others are 10, 16, 22, 28, 34, 40.",
            )
        blocks = (depth - 4) // 6
        features: dict[str, nn.Module] = {"conv1": convolution(in_channels, 16, 3)}
        channels = 16
        for number, maps in enumerate((16 * width, 32 * width, 64 * width), 2):
            stride = 1 if number == 2 else 2
            features[f"conv{number}"] = wide_group(blocks, (channels, maps), stride, dropout, f"conv{number}")
            channels = maps
        features["activation"] = named(activation(channels))
        super().__init__(features, classifier(channels, num_classes))
        he_normal(self)


class WideBottleneck(Residual):
    """The bottleneck of He et al. 2015 with twice the maps inside (WRN-50-2-bottleneck, section 3.5)."""

    expansion = 4
    layers = 3

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        inner = 2 * width
        return branch((in_channels, inner, 1, 1), (inner, inner, 3, stride), (inner, 4 * width, 1, 1))


IMAGENET: dict[str, Callable[..., Network]] = {
    # Table 8, and 101 layers, which are not in the paper
    "wide_resnet50_2": partial(ResNet, WideBottleneck, (3, 4, 6, 3)),
    "wide_resnet101_2": partial(ResNet, WideBottleneck, (3, 4, 23, 3)),
}
CIFAR: dict[str, Callable[..., Network]] = {
    # Table 1: any depth 6N + 4 and any width
    "wrn": WideResNet,
    # Tables 4 and 5
    "wrn16_8": partial(WideResNet, depth=16, width=8),
    "wrn16_10": partial(WideResNet, depth=16, width=10),
    "wrn28_10": partial(WideResNet, depth=28, width=10),
    "wrn40_1": partial(WideResNet, depth=40, width=1),
    "wrn40_4": partial(WideResNet, depth=40, width=4),
    "wrn40_8": partial(WideResNet, depth=40, width=8),
    # not in the paper: as many parameters as wrn40_1, shallow and wide
    "wrn16_2": partial(WideResNet, depth=16, width=2),
}
VARIANTS = IMAGENET | CIFAR
INPUTS = dict.fromkeys(IMAGENET, (3, 224, 224)) | dict.fromkeys(CIFAR, (3, 32, 32))
FOR_SMALL_PICTURES = dict.fromkeys(IMAGENET, "wrn28_10")
PAPERS = dict.fromkeys(VARIANTS, Paper("Zagoruyko & Komodakis", 2016, "Wide residual networks", "sum"))


def _cifar(ten: float, hundred: float) -> tuple[Reported, ...]:
    return (
        Reported(ten, "top-1", "CIFAR-10 test", "table 5"),
        Reported(hundred, "top-1", "CIFAR-100 test", "table 5"),
    )


REPORTED = {
    "wrn40_4": _cifar(4.53, 21.18),
    "wrn16_8": _cifar(4.27, 20.43),
    "wrn28_10": _cifar(4.00, 19.25),
    "wide_resnet50_2": (
        Reported(21.9, "top-1, single crop", "ImageNet val", "table 8"),
        Reported(6.03, "top-5, single crop", "ImageNet val", "table 8"),
    ),
}
