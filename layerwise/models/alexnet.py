"""AlexNet.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012: section 3 and
figure 2. `alexnet_one_tower`: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

Deviations from the paper: the input is 227x227, not 224x224, with which an 11x11 kernel at stride 4 gives the paper's
55x55 maps without padding; conv2 to conv5 are padded by half their kernel, which the paper's sizes imply. Response
normalisation runs over all maps of a layer, also across the two groups, which the paper leaves open. In
`alexnet_two_gpus` it stays within a group, as it must where the towers meet in conv3 and the fully connected layers
alone: that network can be computed by two processes (training/two_towers.py).
`alexnet_six_conv` has the extra sixth convolution "over the last pooling layer" of section 6.1 and table 2, pre-trained
there on the 22,000 classes of the Fall 2011 release; its size is left open: it is taken like conv5's, 256 kernels of
3x3 in two groups, padded, with ReLU and a bias of 1.
The networks of the text's ablations: `alexnet_without_lrn` (3.3), `alexnet_adjacent` with pooling windows of 2x2 (3.4),
`alexnet_without_dropout` (4.2), `alexnet_biases_zero` (5), and section 7's, a middle convolution removed. Which these
are and how the others join is left open: `alexnet_without_conv3`, where conv4 reads conv2's maps of its own tower, so
that the towers meet in fc6 first; `alexnet_without_conv4`, where conv5 reads conv3's.
`alexnet_one_gpu` has half the kernels in every convolution, as the reference that this library is held to counts it:
40,702,632 parameters. The paper's control is not halved in the last one ("we did not halve the size of the final
convolutional layer", footnote 2), so that both networks have about as many parameters: it is
`alexnet_one_gpu_conv5_256`, with 59,798,312.
`alexnet_one_tower` is the network that most libraries call alexnet: 256 kernels in conv4 where the 2014 paper names
384, no response normalisation, 224x224 with padding 2 in conv1. Dropout follows fc6 and fc7, as in its author's layer
file (cuda-convnet2, layers-223-1gpu, which has the 256 too), and the weights start as in the 2012 paper. Torchvision's,
whose trained weights it takes, drops the pooled map before fc6 and what fc6 gives, and starts as torch fills its
layers: the two answer alike and train differently.

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
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from layerwise.layers.fill import fill_normal
from layerwise.layers.initialise import normal
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.network import Network, Paper, Reported

Widths = tuple[int, int, int, int, int]


def no_sixth(channels: int) -> dict[str, nn.Module]:
    """Nothing after the last pooling layer (figure 2)."""
    return {}


def sixth_convolution(channels: int) -> dict[str, nn.Module]:
    """A convolution over the last pooling layer, as conv5 (section 6.1)."""
    return {"conv6": nn.Conv2d(channels, channels, 3, padding=1, groups=2), "relu_conv6": nn.ReLU()}


def overlapping_pool() -> nn.Module:
    """Windows of 3x3 at stride 2 (section 3.4)."""
    return nn.MaxPool2d(3, stride=2)


def adjacent_pool() -> nn.Module:
    """Windows of 2x2 at stride 2, with which sides of 55, 27 and 13 become the same 27, 13 and 6 (section 3.4)."""
    return nn.MaxPool2d(2, stride=2)


def middle(widths: Widths, groups: int) -> dict[str, nn.Module]:
    """conv3, which reads both towers, and conv4 (section 3.5)."""
    return {
        "conv3": nn.Conv2d(widths[1], widths[2], 3, padding=1),
        "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(widths[2], widths[3], 3, padding=1, groups=groups),
        "relu4": nn.ReLU(),
    }


def middle_without_conv3(widths: Widths, groups: int) -> dict[str, nn.Module]:
    """conv4 reads conv2's maps of its own tower (section 7: a middle layer removed)."""
    return {"conv4": nn.Conv2d(widths[1], widths[3], 3, padding=1, groups=groups), "relu4": nn.ReLU()}


def middle_without_conv4(widths: Widths, groups: int) -> dict[str, nn.Module]:
    """conv5 follows conv3, which must be as wide as conv4 was (section 7)."""
    assert widths[2] == widths[3], "conv5 would read another number of maps"
    return {"conv3": nn.Conv2d(widths[1], widths[2], 3, padding=1), "relu3": nn.ReLU()}


def gaussian(model: nn.Module) -> None:
    """Weights ~ N(0, 0.01^2); biases 1 in conv2, conv4 to conv6 and the hidden fc layers, 0 elsewhere (section 5)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fill_normal(module.weight, 0.01)
            assert module.bias is not None
            ones = name.rsplit(".", 1)[-1] in ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")
            nn.init.constant_(module.bias, 1.0 if ones else 0.0)


def gaussian_biases_zero(model: nn.Module) -> None:
    """Weights ~ N(0, 0.01^2), all biases 0."""
    normal(model, 0.01)


@dataclass(frozen=True)
class Design:
    """What differs: kernels of conv1 to conv5, and the towers that conv2, conv4 and conv5 keep apart (section 3.2).

    `response_norm` makes the layer after conv1 and conv2 (section 3.3), `pool` each pooling layer (3.4), `middle` what
    lies between pool2 and conv5, `sixth` what follows pool5, `start` fills weights and biases; `padding` is conv1's.
    """

    widths: Widths
    groups: int = 1
    response_norm: Callable[[], nn.Module] = ResponseNorm
    padding: int = 0
    sixth: Callable[[int], dict[str, nn.Module]] = no_sixth
    pool: Callable[[], nn.Module] = overlapping_pool
    middle: Callable[[Widths, int], dict[str, nn.Module]] = middle
    start: Callable[[nn.Module], None] = gaussian


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
        one, two, _, four, five = design.widths
        features: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, one, 11, stride=4, padding=design.padding),
            "relu1": nn.ReLU(),
            "norm1": design.response_norm(),
            "pool1": design.pool(),
            "conv2": nn.Conv2d(one, two, 5, padding=2, groups=design.groups),
            "relu2": nn.ReLU(),
            "norm2": design.response_norm(),
            "pool2": design.pool(),
            **design.middle(design.widths, design.groups),
            "conv5": nn.Conv2d(four, five, 3, padding=1, groups=design.groups),
            "relu5": nn.ReLU(),
            "pool5": design.pool(),
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
        design.start(self)


PAPER_DESIGN = Design((96, 256, 384, 384, 256), groups=2)
VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 2
    "alexnet": partial(AlexNet, PAPER_DESIGN),
    # Section 3.2: nothing but what the two GPUs exchange joins the towers
    "alexnet_two_gpus": partial(AlexNet, replace(PAPER_DESIGN, response_norm=partial(ResponseNorm, groups=2))),
    # Section 3.2: "half as many kernels in each convolutional layer trained on one GPU"
    "alexnet_one_gpu": partial(AlexNet, Design((48, 128, 192, 192, 128))),
    # Footnote 2: "we did not halve the size of the final convolutional layer"
    "alexnet_one_gpu_conv5_256": partial(AlexNet, Design((48, 128, 192, 192, 256))),
    # Table 2, the networks with an asterisk
    "alexnet_six_conv": partial(AlexNet, replace(PAPER_DESIGN, sixth=sixth_convolution)),
    # Sections 3.3, 3.4, 4.2, 5 and 7: one thing taken away
    "alexnet_without_lrn": partial(AlexNet, replace(PAPER_DESIGN, response_norm=nn.Identity)),
    "alexnet_adjacent": partial(AlexNet, replace(PAPER_DESIGN, pool=adjacent_pool)),
    "alexnet_without_dropout": partial(AlexNet, PAPER_DESIGN, dropout=0.0),
    "alexnet_biases_zero": partial(AlexNet, replace(PAPER_DESIGN, start=gaussian_biases_zero)),
    "alexnet_without_conv3": partial(AlexNet, replace(PAPER_DESIGN, middle=middle_without_conv3)),
    "alexnet_without_conv4": partial(AlexNet, replace(PAPER_DESIGN, middle=middle_without_conv4)),
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
