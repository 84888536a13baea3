"""AlexNet.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012: section 3 and
figure 2. `alexnet_one_tower`: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

Deviations from the paper: the input is 227x227, not 224x224, with which an 11x11 kernel at stride 4 gives the paper's
55x55 maps without padding; conv2 to conv5 are padded by half their kernel, which the paper's sizes imply. Response
normalisation runs over all maps of a layer, also across the two groups, which the paper leaves open.
`alexnet_six_conv` has the extra sixth convolution "over the last pooling layer" of section 6.1 and table 2, pre-trained
there on the 22,000 classes of the Fall 2011 release; its size is left open: it is taken like conv5's, 256 kernels of
3x3 in two groups, padded, with ReLU and a bias of 1.
`alexnet_one_tower` is the network that most libraries call alexnet: 256 kernels in conv4 where the 2014 paper names
384, no response normalisation, 224x224 with padding 2 in conv1.

What the paper says of its network, and whether it holds here (tests/test_alexnet.py):
- 150,528 inputs (224x224x3): fails, 154,587; in 224 pixels an 11x11 kernel at stride 4 takes 54 steps, not 55.
- 253,440 units in conv1: fails, 290,400 = 55x55x96; 253,440 / 96 = 2,640 = 55x48 is not even a square.
- 186,624, 64,896, 64,896, 43,264, 4096, 4096 and 1000 units in the other layers: holds.
- 650,000 neurons: the printed layers add up to 622,312, ours to 659,272; our convolutions alone to 650,080.
- 60 million parameters: 60,965,224, cut off, not rounded.
- Each convolution has no more than 1 % of the parameters: fails for conv3 (1.45 %) and conv4 (1.09 %).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from layerwise.layers.fill import fill_normal
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.network import Network, Paper, Reported

Widths = tuple[int, int, int, int, int]


def no_sixth(channels: int) -> dict[str, nn.Module]:
    """Nothing after the last pooling layer (figure 2)."""
    return {}


def sixth_convolution(channels: int) -> dict[str, nn.Module]:
    """A convolution over the last pooling layer, as conv5 (section 6.1)."""
    return {"conv6": nn.Conv2d(channels, channels, 3, padding=1, groups=2), "relu_conv6": nn.ReLU()}


@dataclass(frozen=True)
class Design:
    """What differs: kernels of conv1 to conv5, and the towers that conv2, conv4 and conv5 keep apart (section 3.2).

    `response_norm` makes the layer after conv1 and conv2 (section 3.3), `sixth` what follows pool5; `padding` is
    conv1's.
    """

    widths: Widths
    groups: int = 1
    response_norm: Callable[[], nn.Module] = ResponseNorm
    padding: int = 0
    sixth: Callable[[int], dict[str, nn.Module]] = no_sixth


class AlexNet(Network):
    """Five convolutions and three fully connected layers (section 3.5). (N, C, H, W) to logits (N, num_classes).

    `dropout` follows fc6 and fc7 (section 4.2). For other pictures than the paper's: `map_side` is the side of the last
    map, 6 for 227 pixels and 1 for 67; `hidden_features` are fc6's and fc7's.
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
        one, two, three, four, five = design.widths
        features: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, one, 11, stride=4, padding=design.padding),
            "relu1": nn.ReLU(),
            "norm1": design.response_norm(),
            "pool1": nn.MaxPool2d(3, stride=2),
            "conv2": nn.Conv2d(one, two, 5, padding=2, groups=design.groups),
            "relu2": nn.ReLU(),
            "norm2": design.response_norm(),
            "pool2": nn.MaxPool2d(3, stride=2),
            "conv3": nn.Conv2d(two, three, 3, padding=1),
            "relu3": nn.ReLU(),
            "conv4": nn.Conv2d(three, four, 3, padding=1, groups=design.groups),
            "relu4": nn.ReLU(),
            "conv5": nn.Conv2d(four, five, 3, padding=1, groups=design.groups),
            "relu5": nn.ReLU(),
            "pool5": nn.MaxPool2d(3, stride=2),
            **design.sixth(five),
        }
        head: dict[str, nn.Module] = {
            "flatten": nn.Flatten(),
            "fc6": nn.Linear(five * map_side * map_side, hidden_features),
            "relu6": nn.ReLU(),
            "dropout6": nn.Dropout(dropout),
            "fc7": nn.Linear(hidden_features, hidden_features),
            "relu7": nn.ReLU(),
            "dropout7": nn.Dropout(dropout),
            "fc8": nn.Linear(hidden_features, num_classes),
        }
        super().__init__(features, head)
        gaussian(self)


def gaussian(model: nn.Module) -> None:
    """Weights ~ N(0, 0.01^2); biases 1 in conv2, conv4 to conv6 and the hidden fc layers, 0 elsewhere (section 5)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fill_normal(module.weight, 0.01)
            assert module.bias is not None
            ones = name.rsplit(".", 1)[-1] in ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")
            nn.init.constant_(module.bias, 1.0 if ones else 0.0)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 2
    "alexnet": partial(AlexNet, Design((96, 256, 384, 384, 256), groups=2)),
    # Section 3.2: "half as many kernels in each convolutional layer trained on one GPU"
    "alexnet_one_gpu": partial(AlexNet, Design((48, 128, 192, 192, 128))),
    # Table 2, the networks with an asterisk
    "alexnet_six_conv": partial(AlexNet, Design((96, 256, 384, 384, 256), groups=2, sixth=sixth_convolution)),
    # Krizhevsky 2014
    "alexnet_one_tower": partial(AlexNet, Design((64, 192, 384, 256, 256), response_norm=nn.Identity, padding=2)),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 227, 227)) | {"alexnet_one_tower": (3, 224, 224)}
FOR_SMALL_PICTURES: dict[str, str] = {}
IMAGENET_2012 = Paper(
    "Krizhevsky et al.", 2012, "ImageNet classification with deep convolutional neural networks", "chain"
)
PAPERS = dict.fromkeys(VARIANTS, IMAGENET_2012) | {
    "alexnet_one_tower": Paper(
        "Krizhevsky", 2014, "One weird trick for parallelizing convolutional neural networks", "chain"
    ),
}
REPORTED = {
    "alexnet": (
        Reported(40.7, "top-1, 10 crops", "ImageNet val", "table 2"),
        Reported(18.2, "top-5, 10 crops", "ImageNet val", "table 2"),
    ),
    "alexnet_six_conv": (
        Reported(39.0, "top-1, 10 crops", "ImageNet val", "table 2, pre-trained on Fall 2011"),
        Reported(16.6, "top-5, 10 crops", "ImageNet val", "table 2, pre-trained on Fall 2011"),
    ),
}
