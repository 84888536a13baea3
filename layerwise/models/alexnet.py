"""AlexNet.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012: section 3 and
figure 2. `alexnet_one_tower`: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

Deviations from the paper: the input is 227x227, not 224x224, with which an 11x11 kernel at stride 4 gives the paper's
55x55 maps without padding; conv2 to conv5 are padded by half their kernel, which the paper's sizes imply. Response
normalisation runs over all maps of a layer, also across the two groups, which the paper leaves open.
`alexnet_one_tower` is the network that most libraries call alexnet: 256 kernels in conv4 where the 2014 paper names
384, no response normalisation, 224x224 with padding 2 in conv1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.network import Network, Paper, Reported

Widths = tuple[int, int, int, int, int]


class AlexNet(Network):
    """Five convolutions and three fully connected layers (section 3.5). (N, C, H, W) to logits (N, num_classes).

    `groups` are the towers that conv2, conv4 and conv5 keep apart (the two GPUs of section 3.2); `response_norm` makes
    the layer after conv1 and conv2 (section 3.3); `padding` is conv1's. `dropout` follows fc6 and fc7 (section 4.2).
    """

    def __init__(
        self,
        widths: Widths,
        groups: int,
        response_norm: Callable[[], nn.Module],
        padding: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        one, two, three, four, five = widths
        features: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(in_channels, one, 11, stride=4, padding=padding),
            "relu1": nn.ReLU(),
            "norm1": response_norm(),
            "pool1": nn.MaxPool2d(3, stride=2),
            "conv2": nn.Conv2d(one, two, 5, padding=2, groups=groups),
            "relu2": nn.ReLU(),
            "norm2": response_norm(),
            "pool2": nn.MaxPool2d(3, stride=2),
            "conv3": nn.Conv2d(two, three, 3, padding=1),
            "relu3": nn.ReLU(),
            "conv4": nn.Conv2d(three, four, 3, padding=1, groups=groups),
            "relu4": nn.ReLU(),
            "conv5": nn.Conv2d(four, five, 3, padding=1, groups=groups),
            "relu5": nn.ReLU(),
            "pool5": nn.MaxPool2d(3, stride=2),
        }
        head: dict[str, nn.Module] = {
            "flatten": nn.Flatten(),
            "fc6": nn.Linear(five * 6 * 6, 4096),
            "relu6": nn.ReLU(),
            "dropout6": nn.Dropout(dropout),
            "fc7": nn.Linear(4096, 4096),
            "relu7": nn.ReLU(),
            "dropout7": nn.Dropout(dropout),
            "fc8": nn.Linear(4096, num_classes),
        }
        super().__init__(features, head)
        gaussian(self)


def gaussian(model: nn.Module) -> None:
    """Weights ~ N(0, 0.01^2); biases 1 in conv2, conv4, conv5 and the hidden fc layers, 0 elsewhere (section 5)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            assert module.bias is not None
            ones = name.rsplit(".", 1)[-1] in ("conv2", "conv4", "conv5", "fc6", "fc7")
            nn.init.constant_(module.bias, 1.0 if ones else 0.0)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Figure 2
    "alexnet": partial(AlexNet, (96, 256, 384, 384, 256), 2, ResponseNorm, 0),
    # Section 3.2: "half as many kernels in each convolutional layer trained on one GPU"
    "alexnet_one_gpu": partial(AlexNet, (48, 128, 192, 192, 128), 1, ResponseNorm, 0),
    # Krizhevsky 2014
    "alexnet_one_tower": partial(AlexNet, (64, 192, 384, 256, 256), 1, nn.Identity, 2),
}
INPUTS = {"alexnet": (3, 227, 227), "alexnet_one_gpu": (3, 227, 227), "alexnet_one_tower": (3, 224, 224)}
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
}
