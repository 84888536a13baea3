"""FitNets: students that are thinner and deeper than their maxout teacher.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: hints for thin deep nets", 2014: the CIFAR-10 students,
sections 3.1 and 4 and the appendix: 3x3 maxout convolutions of two pieces in three blocks, pooling by 2, by 2 and over
the last 8x8 map, a fully connected maxout layer, softmax. `fitnet19` is the student of 17 convolutions (FitNet 4),
`fitnet11_250k` and `fitnet11_862k` are those of nine (FitNet 1 and 2).

Deviations from the paper: none in the layers; hints from the teacher belong to the training, not to the network. What
the paper leaves open: the fully connected layer has 500 units, as in the teacher, of two pieces. With two, and no
biases counted, FitNet 1, 2 and 4 have 249,576, 861,928 and 2,544,712 weights, which are the paper's 250K, 862K and
2.5M; the authors' published configuration of FitNet 4 has five (2,742,102 with biases), which is none of its figures.
Weights start at N(0, 1 / inputs), biases at 0, as in `maxout`, where the configuration has U(-0.005, 0.005). There is
no dropout, as there. The last pooling takes the maximum of whatever map there is: other sizes than 32x32 go through.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from layerwise.layers.initialise import normal_by_inputs
from layerwise.layers.maxout import Maxout
from layerwise.layers.repeatable import AdaptiveMaxPool2d
from layerwise.models.maxout import maxout_convolution
from layerwise.models.network import Network, Paper, Reported, named

Widths = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class FitNet(Network):
    """Three blocks of maxout convolutions of the given widths. Pictures (N, C, 32, 32) to logits (N, num_classes)."""

    def __init__(self, widths: Widths, num_classes: int = 10, in_channels: int = 3) -> None:
        features: dict[str, nn.Module] = {}
        channels, place = in_channels, 1
        pools: tuple[nn.Module, ...] = (nn.MaxPool2d(2), nn.MaxPool2d(2), AdaptiveMaxPool2d(1))
        for number, (block, pool) in enumerate(zip(widths, pools, strict=True), 1):
            for width in block:
                features[f"conv{place}"] = named(maxout_convolution(channels, width, 3, 1))
                channels, place = width, place + 1
            features[f"pool{number}"] = pool
        head: dict[str, nn.Module] = {
            "flatten": nn.Flatten(),
            "fc": nn.Linear(channels, 500 * 2),
            "maxout": Maxout(2),
            "softmax": nn.Linear(500, num_classes),
        }
        super().__init__(features, head)
        normal_by_inputs(self)


VARIANTS: dict[str, Callable[..., Network]] = {
    # Table 1 and the table of students: FitNet 4, 1 and 2
    "fitnet19": partial(FitNet, ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6)),
    "fitnet11_250k": partial(FitNet, ((16, 16, 16), (32, 32, 32), (48, 48, 64))),
    "fitnet11_862k": partial(FitNet, ((16, 32, 32), (48, 64, 80), (96, 96, 128))),
}
INPUTS = dict.fromkeys(VARIANTS, (3, 32, 32))
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = dict.fromkeys(VARIANTS, Paper("Romero et al.", 2014, "FitNets: hints for thin deep nets", "chain"))
REPORTED = {
    "fitnet19": (Reported(8.39, "top-1, trained with hints", "CIFAR-10 test", "as in He et al. 2015, table 6"),),
    "fitnet11_250k": (Reported(10.99, "top-1, trained with hints", "CIFAR-10 test", "table of students"),),
    "fitnet11_862k": (Reported(8.94, "top-1, trained with hints", "CIFAR-10 test", "table of students"),),
}
