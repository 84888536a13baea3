"""DenseNet and DenseNet-BC.

Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", 2016 (CVPR 2017): section 3,
tables 1 to 3. densenet161 (k = 48) stands in the first version of the paper.

Deviations from the paper: none in the networks of its tables. A convolution is the sequence BN, ReLU, convolution
(section 3, "Composite function"), without a bias, which the next normalisation would take away. Before the first
dense block stands a convolution of 16 maps, or of 2k in DenseNet-BC (section 3, "Implementation details"); for
ImageNet it has 2k maps and BN and ReLU follow it, before the pooling of table 1. BN and ReLU follow the last dense
block. These give the parameters that table 2 prints: 1.0, 7.0, 27.2 million and for BC 0.8, 15.3, 25.6.
The number in a name counts convolutions and the fully connected layer; densenet264 has 265, by table 1's own depths.
`densenet_c40_k12` and `densenet_c100_k12` are NOT rows of the paper: compression of 0.5 without bottlenecks and a
first convolution of 2k maps, 599,050 and 4,068,490 parameters, published by others under the names densenet40_k12 and
densenet100_k12. The paper's rows have no compression, else they could not have 1.0 and 7.0 million.
Left open: weights start after He et al. 2015 with fan-in (section 4.2 names the paper only); batch normalisation keeps
torch's epsilon and momentum. `dropout` follows every convolution but the first (section 4.2: 0.2 where the data are not
augmented); the default is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from layerwise.layers.initialise import he_normal
from layerwise.layers.recompute import RecomputedAlone
from layerwise.models.network import Network, Paper, Reported, named
from layerwise.models.resnet import convolution

DenseLayer = Callable[[int, int, float], nn.Module]


def composite(in_channels: int, out_channels: int, kernel_size: int, dropout: float) -> dict[str, nn.Module]:
    """H of section 3: batch normalisation, ReLU, convolution; then dropout."""
    return {
        "bn": nn.BatchNorm2d(in_channels),
        "relu": nn.ReLU(),
        "conv": convolution(in_channels, out_channels, kernel_size),
        "dropout": nn.Dropout(dropout),
    }


class Concatenated(RecomputedAlone, nn.Sequential):
    """Its layers, on the concatenation of all maps before it (eq. 2): tensors (N, C_i, H, W) to (N, C', H, W).

    The concatenation and its normalisation grow with the square of the depth: computed again they cost no memory.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        output: Tensor = super().forward(torch.cat(tuple(maps), 1))  # type: ignore[no-untyped-call]
        return output


def dense_layer(in_channels: int, growth_rate: int, dropout: float) -> nn.Module:
    """BN-ReLU-conv(3x3) to `growth_rate` new maps (eq. 2)."""
    return Concatenated(composite(in_channels, growth_rate, 3, dropout))


def bottleneck_layer(in_channels: int, growth_rate: int, dropout: float) -> nn.Module:
    """DenseNet-B: BN-ReLU-conv(1x1) to 4k maps, then BN-ReLU-conv(3x3) to k new ones (section 3)."""
    bottleneck = Concatenated(composite(in_channels, 4 * growth_rate, 1, dropout))
    return named({"bottleneck": bottleneck, "composite": named(composite(4 * growth_rate, growth_rate, 3, dropout))})


class DenseBlock(nn.Module):
    """Every layer takes the maps of all layers before it: (N, C, H, W) to (N, C + depth * growth_rate, H, W)."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, maps: Tensor) -> Tensor:
        collected = [maps]
        for layer in self.children():
            collected.append(layer(tuple(collected)))  # a tuple: what is computed again must not grow meanwhile
        return torch.cat(collected, 1)


def transition(in_channels: int, out_channels: int, dropout: float) -> nn.Module:
    """Between two dense blocks: BN-ReLU-conv(1x1) to the compressed number of maps, then 2x2 average pooling."""
    return named({**composite(in_channels, out_channels, 1, dropout), "pool": nn.AvgPool2d(2)})


@dataclass(frozen=True)
class Plan:
    """What tells densely connected networks apart: k, the kind of layer, maps of the first convolution, theta."""

    growth_rate: int
    layer: DenseLayer
    first: int
    compression: float


def dense_features(plan: Plan, depths: Sequence[int], dropout: float) -> tuple[dict[str, nn.Module], int]:
    """The dense blocks with transitions between them and the last BN and ReLU; and the number of maps they end in."""
    features: dict[str, nn.Module] = {}
    channels = plan.first
    for number, depth in enumerate(depths, 1):
        layers: dict[str, nn.Module] = {}
        for index in range(1, depth + 1):
            layers[f"layer_{index}"] = plan.layer(channels, plan.growth_rate, dropout)
            channels += plan.growth_rate
        features[f"dense_block_{number}"] = DenseBlock(layers)
        if number < len(depths):
            compressed = int(plan.compression * channels)
            features[f"transition_{number}"] = transition(channels, compressed, dropout)
            channels = compressed
    features["activation"] = named({"bn": nn.BatchNorm2d(channels), "relu": nn.ReLU()})
    return features, channels


def classifier(channels: int, num_classes: int) -> dict[str, nn.Module]:
    """Global average pooling and one fully connected layer (section 3)."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(channels, num_classes)}


class DenseNet(Network):
    """Table 1: four dense blocks for 224x224 pictures (N, C, H, W)."""

    def __init__(
        self,
        plan: Plan,
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        stem = {"conv": convolution(in_channels, plan.first, 7, 2), "bn": nn.BatchNorm2d(plan.first), "relu": nn.ReLU()}
        features: dict[str, nn.Module] = {"convolution": named(stem), "pooling": nn.MaxPool2d(3, 2, padding=1)}
        dense, channels = dense_features(plan, depths, dropout)
        super().__init__(features | dense, classifier(channels, num_classes))
        he_normal(self)


class DenseNetCifar(Network):
    """Section 3, "Implementation details": three dense blocks of `layers` each for 32x32 pictures (N, C, H, W)."""

    def __init__(
        self, plan: Plan, layers: int, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0
    ) -> None:
        features: dict[str, nn.Module] = {"convolution": convolution(in_channels, plan.first, 3)}
        dense, channels = dense_features(plan, (layers, layers, layers), dropout)
        super().__init__(features | dense, classifier(channels, num_classes))
        he_normal(self)


def _bc(growth_rate: int) -> Plan:
    """DenseNet-BC: bottlenecks, theta = 0.5, a first convolution of 2k maps."""
    return Plan(growth_rate, bottleneck_layer, 2 * growth_rate, 0.5)


def _plain(growth_rate: int) -> Plan:
    return Plan(growth_rate, dense_layer, 16, 1.0)


def _compressed(growth_rate: int) -> Plan:
    return Plan(growth_rate, dense_layer, 2 * growth_rate, 0.5)


IMAGENET: dict[str, Callable[..., Network]] = {
    # Table 1
    "densenet121": partial(DenseNet, _bc(32), (6, 12, 24, 16)),
    "densenet169": partial(DenseNet, _bc(32), (6, 12, 32, 32)),
    "densenet201": partial(DenseNet, _bc(32), (6, 12, 48, 32)),
    "densenet264": partial(DenseNet, _bc(32), (6, 12, 64, 48)),
    # Table 1 of the first version
    "densenet161": partial(DenseNet, _bc(48), (6, 12, 36, 24)),
}
CIFAR: dict[str, Callable[..., Network]] = {
    # Table 2: L = 3n + 4 layers, with bottlenecks 6n + 4
    "densenet40_k12": partial(DenseNetCifar, _plain(12), 12),
    "densenet100_k12": partial(DenseNetCifar, _plain(12), 32),
    "densenet100_k24": partial(DenseNetCifar, _plain(24), 32),
    "densenet_bc100_k12": partial(DenseNetCifar, _bc(12), 16),
    "densenet_bc250_k24": partial(DenseNetCifar, _bc(24), 41),
    "densenet_bc190_k40": partial(DenseNetCifar, _bc(40), 31),
    # DenseNet-BC as in table 2 and figure 4, shallower
    "densenet_bc40_k12": partial(DenseNetCifar, _bc(12), 6),
    # not in the paper: see above
    "densenet_c40_k12": partial(DenseNetCifar, _compressed(12), 12),
    "densenet_c100_k12": partial(DenseNetCifar, _compressed(12), 32),
}
VARIANTS = IMAGENET | CIFAR
INPUTS = dict.fromkeys(IMAGENET, (3, 224, 224)) | dict.fromkeys(CIFAR, (3, 32, 32))
FOR_SMALL_PICTURES = dict.fromkeys(IMAGENET, "densenet_bc100_k12")
PAPERS = dict.fromkeys(
    VARIANTS, Paper("Huang et al.", 2016, "Densely connected convolutional networks", "concatenation")
)


def _imagenet(single: tuple[float, float], ten: tuple[float, float]) -> tuple[Reported, ...]:
    return tuple(
        Reported(error, f"{measure}, {crops}", "ImageNet val", "table 3")
        for crops, errors in (("single crop", single), ("10 crops", ten))
        for measure, error in zip(("top-1", "top-5"), errors, strict=True)
    )


def _cifar(ten: float, hundred: float) -> tuple[Reported, ...]:
    return (
        Reported(ten, "top-1", "CIFAR-10 test", "table 2, C10+"),
        Reported(hundred, "top-1", "CIFAR-100 test", "table 2, C100+"),
    )


REPORTED = {
    "densenet121": _imagenet((25.02, 7.71), (23.61, 6.66)),
    "densenet169": _imagenet((23.80, 6.85), (22.08, 5.92)),
    "densenet201": _imagenet((22.58, 6.34), (21.46, 5.54)),
    "densenet264": _imagenet((22.15, 6.12), (20.80, 5.29)),
    "densenet40_k12": _cifar(5.24, 24.42),
    "densenet100_k12": _cifar(4.10, 20.20),
    "densenet100_k24": _cifar(3.74, 19.25),
    "densenet_bc100_k12": _cifar(4.51, 22.27),
    "densenet_bc250_k24": _cifar(3.62, 17.60),
    "densenet_bc190_k40": _cifar(3.46, 17.18),
}
