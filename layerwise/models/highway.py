"""Highway networks.

Srivastava, Greff, Schmidhuber, "Training very deep networks", 2015 (first as "Highway networks"): section 2, eqs. 2
and 3, and the fully convolutional CIFAR networks of section 4.3, thin and deep like the FitNets they are compared to.

Deviations from the paper: none. What it leaves open: `highway19` is the authors' published definition: three blocks of
5, 6 and 6 convolutions of 32, 80 and 128 maps, the first of each block plain because it changes the number of maps, a
1x1 convolution to 100 maps, average pooling, and a fully connected layer, with a fifth dropped at the input, after the
two poolings and after the average; gates start at a bias of -2. It has 2,256,838 parameters: the paper's 2.3M holds.
Of the network of 32 layers the paper prints depth and 1.25M. `highway32` is made in the same way: three blocks of ten,
and widths of 32, 48 and 64, the only ones in steps of 16 that come to 1.25M with as many blocks of equal depth:
1,252,570, the 1x1 convolution having the last block's 64 maps. Weights start after He et al. 2015, biases but the
gates' at 0. `highway19_plain` and `highway32_plain` are the same without gates and carrying (the paper compares such
networks on MNIST).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from layerwise.layers.initialise import he_normal
from layerwise.models.network import Network, Paper, Reported, named

GATE_BIAS = -2.0  # sigmoid(-2) = 0.12: at first most of a layer's input is carried on


def convolution(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """A convolution that keeps the map's size, then ReLU: H of eq. 2."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return named({"conv": conv, "relu": nn.ReLU()})


class Highway(nn.Module):
    """y = H(x) T(x) + x (1 - T(x)) (eq. 3), H and the gate T 3x3 convolutions. (N, channels, H, W), the same out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.transform = convolution(channels, channels)
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = named({"conv": conv, "sigmoid": nn.Sigmoid()})

    def forward(self, maps: Tensor) -> Tensor:
        gate = self.gate(maps)
        mixed: Tensor = self.transform(maps) * gate + maps * (1 - gate)
        return mixed


def plain(channels: int) -> nn.Module:
    """H alone, for the network without gates."""
    return convolution(channels, channels)


class HighwayNetwork(Network):
    """Three blocks; the first layer of each changes the number of maps, the others are `layer`s.

    `depths` and `widths` are those of the blocks, `last` the maps of the 1x1 convolution before the average. Pictures
    (N, C, H, W), 32x32 in the paper, any from 4x4; logits (N, num_classes).
    """

    def __init__(
        self,
        depths: tuple[int, int, int],
        widths: tuple[int, int, int],
        last: int,
        layer: Callable[[int], nn.Module] = Highway,
        num_classes: int = 10,
        in_channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        features: dict[str, nn.Module] = {}
        channels, place = in_channels, 1
        for block, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
            features[f"dropout{block}"] = nn.Dropout(dropout)
            features[f"conv{place}"] = convolution(channels, width)
            for number in range(place + 1, place + depth):
                features[f"conv{number}"] = layer(width)
            channels, place = width, place + depth
            if block < len(depths):
                features[f"pool{block}"] = nn.MaxPool2d(2)
        features[f"conv{place}"] = convolution(channels, last, 1)
        head: dict[str, nn.Module] = {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(dropout),
            "fc": nn.Linear(last, num_classes),
        }
        super().__init__(features, head)
        he_normal(self)
        for module in self.modules():
            if isinstance(module, Highway):
                gate = module.gate[0]
                assert isinstance(gate, nn.Conv2d)
                assert gate.bias is not None
                nn.init.constant_(gate.bias, GATE_BIAS)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Section 4.3
    "highway19": partial(HighwayNetwork, (5, 6, 6), (32, 80, 128), 100),
    "highway32": partial(HighwayNetwork, (10, 10, 10), (32, 48, 64), 64),
    # Without gates
    "highway19_plain": partial(HighwayNetwork, (5, 6, 6), (32, 80, 128), 100, plain),
    "highway32_plain": partial(HighwayNetwork, (10, 10, 10), (32, 48, 64), 64, plain),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 32, 32))
FOR_SMALL_PICTURES: dict[str, str] = {}
SRIVASTAVA_2015 = partial(Paper, "Srivastava et al.", 2015, "Training very deep networks")
PAPERS = {name: SRIVASTAVA_2015("chain" if name.endswith("plain") else "gates") for name in VARIANTS}
REPORTED = {
    "highway19": (Reported(7.54, "top-1, best of several", "CIFAR-10 test", "as in He et al. 2015, table 6"),),
    "highway32": (Reported(8.80, "top-1", "CIFAR-10 test", "as in He et al. 2015, table 6"),),
}
