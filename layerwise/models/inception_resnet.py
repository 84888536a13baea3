"""Inception-ResNet v1 and v2.

Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the impact of residual connections on learning",
2016: sections 3.2 and 3.3, figures 7 and 10 to 20, table 1.

Deviations from the paper: `inception_resnet_v1` none. The figures of Inception-ResNet-v2 contradict each other, and its
authors gave out a network that is not in them, which all know under the name:

- `inception_resnet_v2` is the given-out network: the stem of Inception v3 and a module `mixed_5b`; 10, 20 and 10 blocks
  on 320, 1088 and 2080 maps, of which the last has neither scale nor ReLU; a last 1x1 convolution with 1536 maps.
- `inception_resnet_v2_figures` is figures 3, 7 and 15 to 19: the stem of Inception v4; 5, 10 and 5 blocks. The maps
  that figures 17 and 19 print, 1154 and 2048, cannot be added to the 1152 and 2144 that figures 7 and 18 leave; the
  sums have 1152 and 2144 here.

What the paper leaves open: the scale of the residuals ("between 0.1 and 0.3", section 3.3) is 0.17, 0.10 and 0.20 in
the three stages, and epsilon of batch normalisation 1e-3, both as in the given-out network; the 1x1 convolution before
a sum is linear, has a bias and no normalisation ("only on top of the traditional layers", section 3.2). Average pooling
inside a module leaves the zeros around the map out. Weights start after He et al. 2015, eq. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from layerwise.layers.branches import Branches
from layerwise.layers.convolution import conv_bn_relu, convolutions
from layerwise.layers.initialise import he_normal
from layerwise.models.inception_v4 import TITLE, average_pool, classifier, reduction_a, stem
from layerwise.models.network import Network, Paper, Reported, named

Scales = tuple[float, float, float]
Activation = Callable[[], nn.Module]


class ScaledResidual(nn.Module):
    """y = relu(x + scale * F(x)): `branches`, then `linear`, a 1x1 convolution to x's channels (section 3.3, fig. 20).

    Input and output (N, channels, H, W); `branch_channels` are those of the branches together.
    """

    def __init__(
        self, branches: Branches, branch_channels: int, channels: int, scale: float, activation: Activation = nn.ReLU
    ) -> None:
        super().__init__()
        self.branches = branches
        self.linear = nn.Conv2d(branch_channels, channels, 1)
        self.relu = activation()
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.relu(maps + self.scale * self.linear(self.branches(maps)))
        return output

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


def stem_v1(in_channels: int) -> nn.Sequential:
    """Figure 14: 299x299 pictures to 35x35x256."""
    return named(stem_v3(in_channels) | {"conv6": conv_bn_relu(192, 256, 3, 2, 0)})


def stem_v2(in_channels: int) -> nn.Sequential:
    """The stem of Inception v3, then a module like its first: 35x35x320. Not in the paper."""
    mixed = Branches(
        convolutions(192, (96, 1)),
        convolutions(192, (48, 1), (64, 5)),
        convolutions(192, (64, 1), (96, 3), (96, 3)),
        convolutions(192, (64, 1), first=average_pool()),
    )
    return named(stem_v3(in_channels) | {"pool2": nn.MaxPool2d(3, stride=2), "mixed_5b": mixed})


def stem_v3(in_channels: int) -> dict[str, nn.Module]:
    """Five convolutions and a pooling: 299x299 pictures to 71x71x192."""
    return {
        "conv1": conv_bn_relu(in_channels, 32, 3, 2, 0),
        "conv2": conv_bn_relu(32, 32, 3, 1, 0),
        "conv3": conv_bn_relu(32, 64, 3),
        "pool1": nn.MaxPool2d(3, stride=2),
        "conv4": conv_bn_relu(64, 80, 1),
        "conv5": conv_bn_relu(80, 192, 3, 1, 0),
    }


@dataclass(frozen=True)
class Plan:
    """What tells the networks apart.

    `stem` and its output channels; `depths` of the three stages; the widths inside a block of A, B and C (see
    `block_a` and `block_with`) and of the two reductions; the maps of a 1x1 convolution after the last block (None:
    there is none); scale and activation of the last block (None: those of its stage).
    """

    stem: Callable[[int], nn.Sequential]
    stem_channels: int
    depths: tuple[int, int, int]
    a: tuple[int, int, int]
    b: tuple[int, int, int, int]
    c: tuple[int, int, int, int]
    reduction_a: tuple[int, int, int, int]
    reduction_b: tuple[int, int, int]
    last_width: int | None = None
    last_block: tuple[float, Activation] | None = None


def block_a(channels: int, widths: tuple[int, int, int], scale: float) -> ScaledResidual:
    """35x35 maps (figures 10 and 16): 1x1; 3x3; two 3x3 of the widths."""
    one, two, three = widths
    branches = Branches(
        convolutions(channels, (32, 1)),
        convolutions(channels, (32, 1), (32, 3)),
        convolutions(channels, (one, 1), (two, 3), (three, 3)),
    )
    return ScaledResidual(branches, 64 + three, channels, scale)


def block_with(
    length: int, channels: int, widths: tuple[int, int, int, int], scale: float, activation: Activation = nn.ReLU
) -> ScaledResidual:
    """1x1; 1x1, 1 x length, length x 1 (figures 11 and 17 with 7, 13 and 19 with 3)."""
    alone, one, two, three = widths
    branches = Branches(
        convolutions(channels, (alone, 1)),
        convolutions(channels, (one, 1), (two, (1, length)), (three, (length, 1))),
    )
    return ScaledResidual(branches, alone + three, channels, scale, activation)


def reduction_b(in_channels: int, one: int, two: int, three: int) -> Branches:
    """17x17 to 8x8 maps (figures 12 and 18). in_channels + 384 + one + three maps."""
    return Branches(
        convolutions(in_channels, (256, 1), (384, 3, 2, 0)),
        convolutions(in_channels, (256, 1), (one, 3, 2, 0)),
        convolutions(in_channels, (256, 1), (two, 3), (three, 3, 2, 0)),
        nn.MaxPool2d(3, stride=2),
    )


class InceptionResNet(Network):
    """Figure 15 for 299x299 pictures (N, C, H, W).

    `scales` multiply the residuals of the three stages; `dropout` stands before the last layer.
    """

    def __init__(
        self,
        plan: Plan,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        scales: Scales = (0.17, 0.10, 0.20),
    ) -> None:
        a, b, c = plan.depths
        at_35 = plan.stem_channels
        at_17 = at_35 + plan.reduction_a[2] + plan.reduction_a[3]
        at_8 = at_17 + 384 + plan.reduction_b[0] + plan.reduction_b[2]
        ends: list[tuple[float, Activation]] = [(scales[2], nn.ReLU)] * c
        if plan.last_block is not None:
            ends[-1] = plan.last_block
        features: dict[str, nn.Module] = {
            "stem": plan.stem(in_channels),
            "inception_resnet_a": named({f"a{i}": block_a(at_35, plan.a, scales[0]) for i in range(1, a + 1)}),
            "reduction_a": reduction_a(at_35, *plan.reduction_a),
            "inception_resnet_b": named({f"b{i}": block_with(7, at_17, plan.b, scales[1]) for i in range(1, b + 1)}),
            "reduction_b": reduction_b(at_17, *plan.reduction_b),
            "inception_resnet_c": named({f"c{i}": block_with(3, at_8, plan.c, *end) for i, end in enumerate(ends, 1)}),
        }
        if plan.last_width is not None:
            features["conv_7b"] = conv_bn_relu(at_8, plan.last_width, 1)
        super().__init__(features, classifier(plan.last_width or at_8, num_classes, dropout))
        he_normal(self)


V1 = Plan(
    stem=stem_v1,
    stem_channels=256,
    depths=(5, 10, 5),
    a=(32, 32, 32),
    b=(128, 128, 128, 128),
    c=(192, 192, 192, 192),
    reduction_a=(192, 192, 256, 384),
    reduction_b=(256, 256, 256),
)
V2_FIGURES = Plan(
    stem=stem,
    stem_channels=384,
    depths=(5, 10, 5),
    a=(32, 48, 64),
    b=(192, 128, 160, 192),
    c=(192, 192, 224, 256),
    reduction_a=(256, 256, 384, 384),
    reduction_b=(288, 288, 320),
)
V2 = replace(
    V2_FIGURES, stem=stem_v2, stem_channels=320, depths=(10, 20, 10), last_width=1536, last_block=(1.0, nn.Identity)
)

VARIANTS: dict[str, Callable[..., Network]] = {
    # Figures 7 and 10 to 15
    "inception_resnet_v1": partial(InceptionResNet, V1),
    # The network that the authors gave out
    "inception_resnet_v2": partial(InceptionResNet, V2),
    # Figures 3, 7 and 15 to 19
    "inception_resnet_v2_figures": partial(InceptionResNet, V2_FIGURES),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 299, 299))
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = dict.fromkeys(VARIANTS, Paper("Szegedy et al.", 2016, TITLE, "sum"))


def _table_2(top1: float, top5: float) -> tuple[Reported, ...]:
    return (
        Reported(top1, "top-1, 1 crop", "ImageNet val", "table 2"),
        Reported(top5, "top-5, 1 crop", "ImageNet val", "table 2"),
    )


REPORTED = {"inception_resnet_v1": _table_2(21.3, 5.5), "inception_resnet_v2": _table_2(19.9, 4.9)}
