"""LeCun's networks for handwritten digits.

`lenet1989`: LeCun et al., "Backpropagation applied to handwritten zip code recognition", 1989.
`lenet1990`: LeCun et al., "Handwritten digit recognition with a back-propagation network", 1990.
`lenet5_1998`: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998,
section II-B and table I. `lenet5` is the same with what later users made of it.

Deviations from the papers: `forward` returns logits, so 1989 and 1990 end before the last squashing function.
1989 does not describe which 8 of 12 maps a map of H2 sees ("a scheme that will not be described here"): the twelve are
three banks of four and each bank of H2 leaves one out. H2's virtual border is taken as -1 like the input's. 1990 does
not say how its weights start, nor which squashing function follows its averaging layers: both as in 1998.
`lenet5`: plain average pooling, a linear output layer, weights after "Efficient BackProp". `lenet5_1998`: the outputs
are minus the squared distances, so that the largest is the answer; the bitmaps are drawn after figure 3, not copied.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.layers.initialise import normal_by_inputs, uniform_by_inputs
from layerwise.layers.partial import PartialConv2d
from layerwise.layers.squash import ScaledTanh
from layerwise.layers.subsampling import Subsampling
from layerwise.models.network import Network, Paper, Reported, named

TABLE_1989 = ((0, 1, 2, 3, 4, 5, 6, 7),) * 4 + ((4, 5, 6, 7, 8, 9, 10, 11),) * 4 + ((0, 1, 2, 3, 8, 9, 10, 11),) * 4
TABLE_1990 = ((0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1), (2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3))
TABLE_1998 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
# Ten digits of 7x12 pixels side by side, for the outputs of lenet5_1998.
BITMAPS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .####.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ..####. ##..##. ######. ######. ....##. .#####. .######
##...## ...##.. ...##.. .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. ..##... .....## ....##. .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##....# ##...## ....##. ##...## ##...## ..##... ##...## ....##.
..###.. .###### ####### .#####. ...#### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""
MEND_1989 = "Resize the pictures: --set resize=short-side --set resize_to=16 --set input_size=16."


class PositionBias(nn.Module):
    """A bias of its own for every unit of a map: 1989 shares weights, not biases. (N, C, H, W) of one fixed size."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, size, size))

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[1:] != self.bias.shape:
            has, fits = ("x".join(str(side) for side in shape) for shape in (maps.shape[1:], self.bias.shape))
            raise InputError(f"a map of {has} reaches a layer with a bias for each unit of {fits}", mend=MEND_1989)
        return maps + self.bias

    def extra_repr(self) -> str:
        return f"{tuple(self.bias.shape)}"


class RadialBasis(nn.Module):
    """Minus the squared distance to each class's fixed code of +1 and -1 (1998, eq. 7). (N, 84) to (N, num_classes).

    The first ten codes are the digits' bitmaps, further ones are drawn at random once and for all, as the paper
    suggests where classes have no pictures.
    """

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        drawn = torch.Generator("cpu").manual_seed(1998)
        bits = torch.randint(0, 2, (max(num_classes, 10), 84), generator=drawn, device="cpu")
        rows = [line.split() for line in BITMAPS.split("\n") if line]
        for digit in range(10):
            bits[digit] = torch.tensor([pixel == "#" for row in rows for pixel in row[digit]], device="cpu").long()
        codes = (2.0 * bits[:num_classes] - 1.0).to(torch.get_default_device(), torch.get_default_dtype())
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return -(values[:, None, :] - self.codes).square().sum(2)


def _group(**layers: nn.Module) -> nn.Sequential:
    return named(layers)


def lenet1989(num_classes: int = 10, in_channels: int = 1) -> Network:
    """16x16 pictures; 9,760 parameters, 64,660 connections. The border beyond the picture is -1, the background."""
    first = nn.Conv2d(in_channels, 12, 5, stride=2, bias=False)
    second = PartialConv2d(12, TABLE_1989, 5, stride=2, bias=False)
    features = {
        "H1": _group(pad=nn.ConstantPad2d(2, -1.0), conv=first, bias=PositionBias(12, 8), tanh=ScaledTanh()),
        "H2": _group(pad=nn.ConstantPad2d(2, -1.0), conv=second, bias=PositionBias(12, 4), tanh=ScaledTanh()),
    }
    hidden, output = nn.Linear(192, 30), nn.Linear(30, num_classes)
    head = {"flatten": nn.Flatten(), "H3": hidden, "tanh": ScaledTanh(), "output": output}
    network = Network(features, head)
    uniform_by_inputs(network)
    return network


def lenet1990(num_classes: int = 10, in_channels: int = 1) -> Network:
    """28x28 pictures; 2,578 parameters, 98,442 connections; H3 is two almost independent modules (table 1)."""
    features = {
        "H1": _group(conv=nn.Conv2d(in_channels, 4, 5), tanh=ScaledTanh()),
        "H2": _group(average=Subsampling(4), tanh=ScaledTanh()),
        "H3": _group(conv=PartialConv2d(4, TABLE_1990, 5), tanh=ScaledTanh()),
        "H4": _group(average=Subsampling(12), tanh=ScaledTanh()),
    }
    network = Network(features, {"flatten": nn.Flatten(), "output": nn.Linear(192, num_classes)})
    uniform_by_inputs(network)
    return network


def lenet5_1998(num_classes: int = 10, in_channels: int = 1) -> Network:
    """32x32 pictures; 60,000 parameters, 340,908 connections; squared distances to bitmaps as outputs."""
    features = {
        "C1": _group(conv=nn.Conv2d(in_channels, 6, 5), tanh=ScaledTanh()),
        "S2": _group(average=Subsampling(6), tanh=ScaledTanh()),
        "C3": _group(conv=PartialConv2d(6, TABLE_1998, 5), tanh=ScaledTanh()),
        "S4": _group(average=Subsampling(16), tanh=ScaledTanh()),
        "C5": _group(conv=nn.Conv2d(16, 120, 5), tanh=ScaledTanh()),
    }
    head = {"flatten": nn.Flatten(), "F6": nn.Linear(120, 84), "tanh": ScaledTanh(), "output": RadialBasis(num_classes)}
    network = Network(features, head)
    uniform_by_inputs(network)
    return network


def lenet5(num_classes: int = 10, in_channels: int = 1) -> Network:
    """32x32 pictures; 60,806 parameters: table I's connections, plain average pooling, a linear output."""
    features = {
        "C1": _group(conv=nn.Conv2d(in_channels, 6, 5), tanh=ScaledTanh()),
        "S2": nn.AvgPool2d(2),
        "C3": _group(conv=PartialConv2d(6, TABLE_1998, 5), tanh=ScaledTanh()),
        "S4": nn.AvgPool2d(2),
        "C5": _group(conv=nn.Conv2d(16, 120, 5), tanh=ScaledTanh()),
    }
    hidden, output = nn.Linear(120, 84), nn.Linear(84, num_classes)
    head = {"flatten": nn.Flatten(), "F6": hidden, "tanh": ScaledTanh(), "output": output}
    network = Network(features, head)
    normal_by_inputs(network)
    return network


VARIANTS: dict[str, Callable[..., Network]] = {
    "lenet1989": lenet1989,
    "lenet1990": lenet1990,
    "lenet5": lenet5,
    "lenet5_1998": lenet5_1998,
}
INPUTS = {"lenet1989": (1, 16, 16), "lenet1990": (1, 28, 28), "lenet5": (1, 32, 32), "lenet5_1998": (1, 32, 32)}
FOR_SMALL_PICTURES: dict[str, str] = {}
LECUN_1998 = Paper("LeCun et al.", 1998, "Gradient-based learning applied to document recognition", "chain")
PAPERS = {
    "lenet1989": Paper(
        "LeCun et al.", 1989, "Backpropagation applied to handwritten zip code recognition", "chain"
    ),
    "lenet1990": Paper(
        "LeCun et al.", 1990, "Handwritten digit recognition with a back-propagation network", "chain"
    ),
    "lenet5": LECUN_1998,
    "lenet5_1998": LECUN_1998,
}
REPORTED = {
    "lenet1989": (Reported(5.0, "top-1", "US zip codes, test", "section 5"),),
    "lenet1990": (Reported(1.0, "top-1 of those kept, 9 % rejected", "US zip codes, test", "abstract"),),
    "lenet5_1998": (Reported(0.95, "top-1", "MNIST test", "section III-C"),),
}
