"""The "four-layer convolutional network" of AlexNet's Figure 1 and of its remark on CIFAR-10.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012: sections 3.1,
3.3, 3.4, 4.2.

Deviations from the paper: it says nothing of this network but the number of its layers. Assumed is the network of the
first author's published CIFAR-10 layer files of that time: 5x5 convolutions of 32, 32 and 64 kernels, each followed by
a 3x3 window at stride 2 that reaches over the border (the first takes the maximum, the others the average), and a fully
connected layer; weights ~ N(0, s^2) with s = 0.0001 in conv1 and 0.01 behind it, biases 0, made for centred pixels of
0 to 255 (recipe: std=raw). There normalisation follows the first two pooling layers; its constants are the paper's.
Where it stands in those files the nonlinearity of conv1 comes after the pooling; here before, which for a maximum of
increasing functions is the same function.
`four_layer_adjacent` pools windows of 2x2 at stride 2 (section 3.4): the maps keep their sides. `four_layer_hidden` has
a fully connected layer of 512 units with dropout before the last one, for section 4.2; its width is ours, the weights
of both ~ N(0, 0.1^2) as in the one layer file with such a layer (of 64). The networks of the files that reach 13 %
without and 11 % with normalisation, the paper's two numbers, are `four_layer_local` and `four_layer_local_lrn`: two
convolutions of 64 and two layers of 32 kernels that differ from place to place.
Four more stand for ablations of AlexNet: conv2 in two groups, half the kernels, biases 1 in conv2 and conv3, no conv2.
Names that end in _28 take 28x28 pictures, the others 32x32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from layerwise.layers.fill import fill_normal
from layerwise.layers.locally_connected import LocallyConnected2d
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.alexnet import IMAGENET_2012
from layerwise.models.network import Network, Reported

Pool = Callable[[], nn.Module]
Widths = tuple[int, int, int]


def overlapping_maximum() -> nn.Module:
    """3x3 at stride 2, over the border: a side of n becomes n // 2 (section 3.4, s = 2, z = 3)."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def overlapping_average() -> nn.Module:
    """As `overlapping_maximum`, with the mean; what lies beyond the border does not count."""
    return nn.AvgPool2d(3, stride=2, ceil_mode=True)


def adjacent_maximum() -> nn.Module:
    """2x2 at stride 2: a side of n becomes n // 2 (section 3.4, s = z = 2)."""
    return nn.MaxPool2d(2, stride=2)


def adjacent_average() -> nn.Module:
    """As `adjacent_maximum`, with the mean."""
    return nn.AvgPool2d(2, stride=2)


def second(design: Design) -> dict[str, nn.Module]:
    """conv2 and its nonlinearity; of two groups each reads the maps of its own half of conv1."""
    conv2 = nn.Conv2d(design.widths[0], design.widths[1], 5, padding=2, groups=design.groups)
    return {"conv2": conv2, "nonlinearity2": design.nonlinearity()}


def no_second(design: Design) -> dict[str, nn.Module]:
    """conv2 removed; conv1 must be as wide as it was."""
    assert design.widths[0] == design.widths[1], "conv3 would read another number of maps"
    return {}


def small_gaussian(model: nn.Module) -> None:
    """Weights ~ N(0, 0.0001^2) in conv1 and N(0, 0.01^2) in the other layers, biases 0, as in the layer files."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fill_normal(module.weight, 0.0001 if name.endswith("conv1") else 0.01)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def small_gaussian_bias_one(model: nn.Module) -> None:
    """As `small_gaussian`, with biases 1 in conv2 and conv3, as AlexNet's deeper layers have (section 5)."""
    small_gaussian(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.endswith(("conv2", "conv3")):
            assert module.bias is not None
            nn.init.ones_(module.bias)


@dataclass(frozen=True)
class Design:
    """What differs: the nonlinearity, pooling after conv1 and after the others, normalisation, units of a hidden fc
    layer (0: none), kernels of conv1 to conv3, the towers that `second` keeps apart, and the start."""

    nonlinearity: Callable[[], nn.Module] = nn.ReLU
    first_pool: Pool = overlapping_maximum
    pool: Pool = overlapping_average
    response_norm: Callable[[], nn.Module] = nn.Identity
    hidden: int = 0
    widths: Widths = (32, 32, 64)
    groups: int = 1
    second: Callable[[Design], dict[str, nn.Module]] = second
    start: Callable[[nn.Module], None] = small_gaussian


class FourLayer(Network):
    """Three convolutions, then one fully connected layer or two. (N, C, H, W) to logits (N, num_classes).

    `map_side` is the side of the last map: 4 for pictures of 32x32, 3 for 28x28. `dropout` follows the hidden layer.
    """

    def __init__(
        self, design: Design, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.5, map_side: int = 4
    ) -> None:
        one, two, three = design.widths
        features: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, one, 5, padding=2),
            "nonlinearity1": design.nonlinearity(),
            "pool1": design.first_pool(),
            "norm1": design.response_norm(),
            **design.second(design),
            "pool2": design.pool(),
            "norm2": design.response_norm(),
            "conv3": nn.Conv2d(two, three, 5, padding=2),
            "nonlinearity3": design.nonlinearity(),
            "pool3": design.pool(),
        }
        head: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        if design.hidden:
            head |= {
                "fc4": nn.Linear(three * map_side**2, design.hidden),
                "nonlinearity4": design.nonlinearity(),
                "dropout4": nn.Dropout(dropout),
            }
        head["fc"] = nn.Linear(design.hidden or three * map_side**2, num_classes)
        super().__init__(features, head)
        design.start(self)
        if design.hidden:
            for layer in self.head.children():
                if isinstance(layer, nn.Linear):
                    fill_normal(layer.weight, 0.1)


class FourLayerLocal(Network):
    """Two convolutions, two locally connected layers and the classes. (N, C, H, W) to logits (N, num_classes).

    `map_side` is the side of the locally connected maps: 6 for 24x24 pictures (random parts of 32x32), as in the files.
    """

    def __init__(
        self,
        response_norm: Callable[[], nn.Module] = nn.Identity,
        num_classes: int = 10,
        in_channels: int = 3,
        map_side: int = 6,
    ) -> None:
        features: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, 64, 5, padding=2),
            "relu1": nn.ReLU(),
            "norm1": response_norm(),
            "pool1": overlapping_maximum(),
            "conv2": nn.Conv2d(64, 64, 5, padding=2),
            "relu2": nn.ReLU(),
            "norm2": response_norm(),
            "pool2": overlapping_maximum(),
            "local3": LocallyConnected2d(64, 32, (map_side, map_side), 3, padding=1),
            "relu3": nn.ReLU(),
            "local4": LocallyConnected2d(32, 32, (map_side, map_side), 3, padding=1),
            "relu4": nn.ReLU(),
        }
        super().__init__(features, {"flatten": nn.Flatten(), "fc": nn.Linear(32 * map_side**2, num_classes)})
        small_gaussian(self)
        for layer in (self.features.local3, self.features.local4):
            assert isinstance(layer, LocallyConnected2d)
            fill_normal(layer.weight, 0.04)


PLAIN = Design()
TANH = Design(nonlinearity=nn.Tanh)
LRN = Design(response_norm=ResponseNorm)
ADJACENT = Design(first_pool=adjacent_maximum, pool=adjacent_average)
HIDDEN = Design(hidden=512)
GROUPS = Design(groups=2)
HALF = Design(widths=(16, 16, 32))
BIAS_ONE = Design(start=small_gaussian_bias_one)
WITHOUT_CONV2 = Design(second=no_second)
VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 1
    "four_layer": partial(FourLayer, PLAIN),
    "four_layer_tanh": partial(FourLayer, TANH),
    # Section 3.3
    "four_layer_lrn": partial(FourLayer, LRN),
    "four_layer_local": FourLayerLocal,
    "four_layer_local_lrn": partial(FourLayerLocal, ResponseNorm),
    # Section 3.4
    "four_layer_adjacent": partial(FourLayer, ADJACENT),
    # Section 4.2
    "four_layer_hidden": partial(FourLayer, HIDDEN),
    "four_layer_hidden_without_dropout": partial(FourLayer, HIDDEN, dropout=0.0),
    # The same for 28x28
    "four_layer_28": partial(FourLayer, PLAIN, map_side=3),
    "four_layer_tanh_28": partial(FourLayer, TANH, map_side=3),
    "four_layer_lrn_28": partial(FourLayer, LRN, map_side=3),
    "four_layer_adjacent_28": partial(FourLayer, ADJACENT, map_side=3),
    "four_layer_hidden_28": partial(FourLayer, HIDDEN, map_side=3),
    "four_layer_hidden_without_dropout_28": partial(FourLayer, HIDDEN, dropout=0.0, map_side=3),
    # What stands for AlexNet's other ablations on small pictures: sections 3.2, 5 and 7
    "four_layer_groups_28": partial(FourLayer, GROUPS, map_side=3),
    "four_layer_half_28": partial(FourLayer, HALF, map_side=3),
    "four_layer_bias_one_28": partial(FourLayer, BIAS_ONE, map_side=3),
    "four_layer_without_conv2_28": partial(FourLayer, WITHOUT_CONV2, map_side=3),
}
INPUTS = {name: (3, 28, 28) if name.endswith("_28") else (3, 24, 24) if "local" in name else (3, 32, 32)
          for name in VARIANTS}  # fmt: skip
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = dict.fromkeys(VARIANTS, IMAGENET_2012)
REPORTED = {
    "four_layer_local": (Reported(13.0, "top-1", "CIFAR-10 test", "section 3.3"),),
    "four_layer_local_lrn": (Reported(11.0, "top-1", "CIFAR-10 test", "section 3.3"),),
}
