"""NASNet-A: cells found by search on CIFAR-10, stacked.

Zoph, Vasudevan, Shlens, Le, "Learning transferable architectures for scalable image recognition", 2017: sections 3 and
4, figures 2 and 4, appendix A. "N @ F": N normal cells between the reductions, F maps before the classifier.

Deviations from the paper: ScheduledDropPath (appendix A) is left out: it changes the training, not the network.
`nasnet_large` lets the cell after a reduction see the cell *before* the reduced one, where figure 2 has the reduced
one itself, as the published weights do; the counts are the same. `nasnet_mobile` computes one row and column more in
its reductions and crops them, as the public version does whose 568 million multiply-adds are usually stated; the
function is the same, and without them it has the 564 million of table 3.
What the paper leaves open, closed as in the weights that are public: the stride is in the first of two separable
convolutions; strided windows give ceil(side / 2) outputs (TensorFlow's "SAME"), where average pooling counts the
zeros of the border; the ImageNet stem's 3x3 convolution has 32 (mobile) or 96
maps, no padding and no ReLU; the first reduction cell sees the stem unsqueezed as `previous`; epsilon is 1e-3. The
CIFAR stem has 96 maps too, but both inputs of its first cell are squeezed, as everywhere else; there epsilon is 1e-5,
as in the authors' code. Dropout of 0.5 before the last layer belongs to ImageNet (appendix A.7); for CIFAR A.6 names
none, and their code has none. Weights start after He et al. 2015, eq. 10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.layers.initialise import he_normal
from layerwise.layers.repeatable import adaptive_average
from layerwise.layers.same_padding import SamePadding
from layerwise.layers.separable import SeparableConv2d
from layerwise.models.network import Network, Paper, Reported, SupervisedNetwork, another, named


def squeeze(in_channels: int, out_channels: int) -> nn.Module:
    """ReLU, 1x1 convolution, batch normalisation: brings a cell's input to the cell's width (appendix A)."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return named({"relu": nn.ReLU(), "conv": conv, "bn": nn.BatchNorm2d(out_channels)})


def unchanged(in_channels: int, out_channels: int) -> nn.Module:
    """The map as it is."""
    return nn.Identity()


class PathReduction(nn.Module):
    """Halves the maps of the cell two before: two grids of every second pixel, one shifted by one, 1x1 convolutions.

    Input (N, in_channels, H, W), output (N, out_channels, ceil(H/2), ceil(W/2)).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.relu = nn.ReLU()
        first, second = (nn.Conv2d(in_channels, maps, 1, bias=False) for maps in (half, out_channels - half))
        self.path1 = named({"pool": nn.AvgPool2d(1, 2), "conv": first})
        self.path2 = named({"shift": nn.ZeroPad2d((-1, 1, -1, 1)), "pool": nn.AvgPool2d(1, 2), "conv": second})
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        active = self.relu(maps)
        output: Tensor = self.bn(torch.cat([self.path1(active), self.path2(active)], 1))
        return output


def separable(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
    """ReLU, separable convolution, batch normalisation, and all three again (appendix A); the first has the stride."""
    if stride == 1:
        first = {"separable1": SeparableConv2d(in_channels, out_channels, kernel_size, 1, kernel_size // 2)}
        return _twice(first, out_channels, kernel_size)
    strided = SeparableConv2d(in_channels, out_channels, kernel_size, stride)
    return _twice({"pad1": SamePadding(kernel_size, stride), "separable1": strided}, out_channels, kernel_size)


def bordered_separable(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
    """The same function as `separable`, with a row and a column more above and to the left, cropped again."""
    first = {
        "border1": nn.ZeroPad2d((stride, 0, stride, 0)),
        "pad1": SamePadding(kernel_size, stride),
        "separable1": SeparableConv2d(in_channels, out_channels, kernel_size, stride),
        "crop1": nn.ZeroPad2d((-1, 0, -1, 0)),
    }
    return _twice(first, out_channels, kernel_size)


def _twice(first: Mapping[str, nn.Module], channels: int, kernel_size: int) -> nn.Module:
    second = SeparableConv2d(channels, channels, kernel_size, 1, kernel_size // 2)
    after = {"bn1": nn.BatchNorm2d(channels), "relu2": nn.ReLU(), "separable2": second, "bn2": nn.BatchNorm2d(channels)}
    return named({"relu1": nn.ReLU(), **first, **after})


def average_pool() -> nn.Module:
    """The mean of the pixels that are there, in 3x3 windows."""
    return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


def strided_average_pool() -> nn.Module:
    """3x3 windows, stride 2."""
    return named({"pad": SamePadding(3, 2), "pool": nn.AvgPool2d(3, 2)})


def strided_max_pool() -> nn.Module:
    """3x3 windows, stride 2."""
    return named({"pad": SamePadding(3, 2, -torch.inf), "pool": nn.MaxPool2d(3, 2)})


class Cell(nn.Module):
    """Five blocks of two operations each, whose results are added; what no block has taken is concatenated.

    A cell sees the maps of the cell before it (`current`) and of the one before that (`previous`), both brought to
    `width` maps. Input (N, in_channels, H, W) each, output (N, outputs * width, H', W').
    """

    outputs = 0
    stride = 1

    def __init__(self, in_channels: int, width: int, previous: nn.Module, previous_width: int) -> None:
        super().__init__()
        self.previous = previous
        self.current = squeeze(in_channels, width)

    def remembered(self, current: Tensor, previous: Tensor) -> Tensor:
        """What the next cell sees as `previous`."""
        return current


class NormalCell(Cell):
    """Figure 4, left: keeps the size."""

    outputs = 6

    def __init__(self, in_channels: int, width: int, previous: nn.Module, previous_width: int) -> None:
        super().__init__(in_channels, width, previous, previous_width)
        self.block0_left = separable(width, width, 5)
        self.block0_right = separable(previous_width, width, 3)
        self.block1_left = separable(previous_width, width, 5)
        self.block1_right = separable(previous_width, width, 3)
        self.block2_left = average_pool()
        self.block3_left = average_pool()
        self.block3_right = average_pool()
        self.block4_left = separable(width, width, 3)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        previous, current = self.previous(previous), self.current(current)
        blocks = [
            self.block0_left(current) + self.block0_right(previous),
            self.block1_left(previous) + self.block1_right(previous),
            self.block2_left(current) + previous,
            self.block3_left(previous) + self.block3_right(previous),
            self.block4_left(current) + current,
        ]
        return torch.cat([previous, *blocks], 1)


class ReductionCell(Cell):
    """Figure 4, right: halves the size."""

    outputs = 4
    stride = 2
    separable = staticmethod(separable)

    def __init__(self, in_channels: int, width: int, previous: nn.Module, previous_width: int) -> None:
        super().__init__(in_channels, width, previous, previous_width)
        self.block0_left = self.separable(width, width, 5, 2)
        self.block0_right = self.separable(previous_width, width, 7, 2)
        self.block1_left = strided_max_pool()
        self.block1_right = self.separable(previous_width, width, 7, 2)
        self.block2_left = strided_average_pool()
        self.block2_right = self.separable(previous_width, width, 5, 2)
        self.block3_right = average_pool()
        self.block4_left = self.separable(width, width, 3)
        self.block4_right = strided_max_pool()

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        previous, current = self.previous(previous), self.current(current)
        block0 = self.block0_left(current) + self.block0_right(previous)
        block1 = self.block1_left(current) + self.block1_right(previous)
        block2 = self.block2_left(current) + self.block2_right(previous)
        block3 = self.block3_right(block0) + block1
        block4 = self.block4_left(block0) + self.block4_right(current)
        return torch.cat([block1, block2, block3, block4], 1)


class SkippedReductionCell(ReductionCell):
    """A reduction whose successor sees, as `previous`, what the reduction itself saw there (`nasnet_large`)."""

    def remembered(self, current: Tensor, previous: Tensor) -> Tensor:
        return previous


class BorderedReductionCell(ReductionCell):
    """The same function, computed with a border that is thrown away (`nasnet_mobile`)."""

    separable = staticmethod(bordered_separable)


class Cells(nn.Sequential):
    """A stem, then cells, each of which sees the two before it; the first sees the stem's maps twice."""

    def outputs(self, images: Tensor, wanted: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """The last maps, and those after each of the `wanted` cells."""
        (_, stem), *cells = self.named_children()
        current = previous = stem(images)
        kept: dict[str, Tensor] = {}
        for name, cell in cells:
            assert isinstance(cell, Cell)
            current, previous = cell(current, previous), cell.remembered(current, previous)
            if name in wanted:
                kept[name] = current
        return current, kept

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images)[0]


class AuxiliaryPool(nn.Module):
    """Averages 5x5 windows in steps of 3 (as published); an equal grid for pictures of other sizes.

    Input (N, C, H, W), output (N, C, side, side) with the `side` that the paper's pictures give.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        expected = 3 * self.side + 2
        if all(expected <= pixels < expected + 3 for pixels in maps.shape[-2:]):
            return F.avg_pool2d(maps, 5, 3)
        return adaptive_average(maps, self.side)


def auxiliary_head(in_channels: int, side: int, num_classes: int) -> nn.Module:
    """The classifier two thirds up the network: 128 maps, then 768 over the whole grid of side x side."""
    return named({
        "relu": nn.ReLU(), "pool": AuxiliaryPool(side),
        "conv1": nn.Conv2d(in_channels, 128, 1, bias=False), "bn1": nn.BatchNorm2d(128), "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(128, 768, side, bias=False), "bn2": nn.BatchNorm2d(768), "relu2": nn.ReLU(),
        "flatten": nn.Flatten(), "fc": nn.Linear(768, num_classes),
    })  # fmt: skip


class Stem(NamedTuple):
    """What comes before the first cell: a 3x3 convolution, and what the first cell does to its second input."""

    channels: int
    stride: int
    padding: int
    first: Callable[[int, int], nn.Module]


Step = tuple[str, type[Cell], int]  # a cell's name, its kind, its width in maps


def stack(stem: Stem, steps: Sequence[Step], in_channels: int) -> tuple[dict[str, nn.Module], int]:
    """The stem and the cells by name, and the number of maps that the last cell gives."""
    conv = nn.Conv2d(in_channels, stem.channels, 3, stem.stride, stem.padding, bias=False)
    layers: dict[str, nn.Module] = {"conv0": named({"conv": conv, "bn": nn.BatchNorm2d(stem.channels)})}
    current = previous = stem.channels
    adjust = stem.first
    made: dict[tuple[object, ...], nn.Module] = {}
    for name, kind, width in steps:
        previous_width = previous if adjust is unchanged else width
        of = (kind, current, width, adjust, previous)
        if of in made:
            layers[name] = another(made[of])
        else:
            layers[name] = made[of] = kind(current, width, adjust(previous, width), previous_width)
        if kind is not SkippedReductionCell:
            previous = current
        current = kind.outputs * width
        adjust = PathReduction if kind.stride == 2 else squeeze
    return layers, current


def three_stages(repeats: int, first_width: int, reduction: type[ReductionCell]) -> list[Step]:
    """Figure 2: `repeats` normal cells, a reduction, and again with twice the width, and again; numbered from 0."""
    steps: list[Step] = []
    for stage in range(3):
        width = first_width * 2**stage
        if stage > 0:
            steps.append((f"reduction_{stage - 1}", reduction, width))
        steps += [(f"normal_{stage * repeats + i}", NormalCell, width) for i in range(repeats)]
    return steps


class Plan(NamedTuple):
    """N and F of "N @ F", the stem, the reduction cells of the stem and of the stack, the auxiliary head's grid.

    `epsilon` is batch normalisation's, in the auxiliary head too.
    """

    repeats: int
    filters: int
    stem: Stem
    stem_cells: tuple[type[ReductionCell], ...]
    reduction: type[ReductionCell]
    auxiliary_side: int
    epsilon: float = 1e-3


class NASNet(SupervisedNetwork):
    """Figure 2: a stem, normal and reduction cells, ReLU, global average pooling, one fully connected layer.

    The stem's reduction cells (two for ImageNet, none for CIFAR) have each half the width of the next. The auxiliary
    head follows the last normal cell before the last reduction. (N, C, H, W) to logits (N, num_classes).
    """

    features: Cells

    def __init__(self, plan: Plan, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> None:
        width, halvings = plan.filters // (4 * NormalCell.outputs), len(plan.stem_cells)
        steps: list[Step] = [
            (f"stem_{i}", cell, width // 2 ** (halvings - i)) for i, cell in enumerate(plan.stem_cells)
        ]
        steps += three_stages(plan.repeats, width, plan.reduction)
        layers, channels = stack(plan.stem, steps, in_channels)
        auxiliary = auxiliary_head(NormalCell.outputs * 2 * width, plan.auxiliary_side, num_classes)
        head: dict[str, nn.Module] = {
            "relu": nn.ReLU(),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(dropout),
            "fc": nn.Linear(channels, num_classes),
        }
        super().__init__(layers, head, {f"normal_{2 * plan.repeats - 1}": auxiliary})
        self.features = Cells(OrderedDict(layers))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = plan.epsilon
        he_normal(self)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and those of the auxiliary head by the cell it follows: all (N, num_classes)."""
        maps, kept = self.features.outputs(images, tuple(self.auxiliary))
        return self.head(maps), {name: self.auxiliary[name](kept[name]) for name in kept}


MOBILE = Plan(4, 1056, Stem(32, 2, 0, unchanged), (ReductionCell, BorderedReductionCell), BorderedReductionCell, 4)
LARGE = Plan(6, 4032, Stem(96, 2, 0, unchanged), (ReductionCell, ReductionCell), SkippedReductionCell, 6)
CIFAR = Plan(6, 768, Stem(96, 1, 1, squeeze), (), ReductionCell, 4, epsilon=1e-5)


def cifar(num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0) -> NASNet:
    """The network for CIFAR-10, without the dropout that those for ImageNet have."""
    return NASNet(CIFAR, num_classes, in_channels, dropout)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Table 3, "NASNet-A (4 @ 1056)"
    "nasnet_mobile": partial(NASNet, MOBILE),
    # Table 2, "NASNet-A (6 @ 4032)"
    "nasnet_large": partial(NASNet, LARGE),
    # Table 1, "NASNet-A (6 @ 768)"
    "nasnet_cifar": cifar,
}
INPUTS = {"nasnet_mobile": (3, 224, 224), "nasnet_large": (3, 331, 331), "nasnet_cifar": (3, 32, 32)}
FOR_SMALL_PICTURES = {"nasnet_mobile": "nasnet_cifar", "nasnet_large": "nasnet_cifar"}
ZOPH_2017 = Paper("Zoph et al.", 2017, "Learning transferable architectures for scalable image recognition", "cells")
PAPERS = dict.fromkeys(VARIANTS, ZOPH_2017)
TOP1, TOP5 = (partial(Reported, measure=measure, data="ImageNet val") for measure in ("top-1", "top-5"))
REPORTED = {
    "nasnet_mobile": (TOP1(26.0, where="table 3"), TOP5(8.4, where="table 3")),
    "nasnet_large": (TOP1(17.3, where="table 2"), TOP5(3.8, where="table 2")),
    "nasnet_cifar": (Reported(3.41, "top-1", "CIFAR-10 test", "table 1"),),
}
