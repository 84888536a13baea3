"""Footnote 4: deeper networks without bottlenecks gain too but cost more; plain networks of bottlenecks degrade too.

    layerwise reproduce resnet/footnote-4 --rows plain20_bottleneck,plain56_bottleneck
    layerwise reproduce resnet/footnote-4 --scale paper

Costs at paper scale 3.2 EFLOP (plain-50) and 6.6 EFLOP (plain-101); on CIFAR-10 1.2 PFLOP (20 layers of bottlenecks)
and 3.9 PFLOP (56), and figure 6's for those without bottlenecks.

Left open in the paper: which plain networks of bottlenecks were trained, and where. Closed here: those of 50 and 101
layers of table 1 without shortcuts, on ImageNet. Added, not the paper's: bottlenecks on CIFAR-10 in networks of 6n+2
layers, where they can be run anywhere, with the ResNets of the same blocks beside them.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.experiment import Claim, Results, Verdict, every, less
from layerwise.experiments.judges import ordered
from layerwise.experiments.resnet.protocols import OPEN_CIFAR, cifar_row, imagenet_row
from layerwise.models.resnet import BasicBlock, Bottleneck, shortcut_a

TITLE = "ResNet, footnote 4: with and without bottlenecks"
CIFAR = ("resnet20_bottleneck", "resnet56_bottleneck", "plain20_bottleneck", "plain56_bottleneck")
ADDED = "not the paper's, which has bottlenecks on ImageNet only"
ROWS = {
    **{network: imagenet_row(network) for network in ("plain50", "plain101")},
    **{network: cifar_row(network) for network in ("resnet20", "resnet56", "resnet110")},
    **{network: replace(cifar_row(network), differs=(ADDED, *OPEN_CIFAR)) for network in CIFAR},
}
PAPER: dict[str, dict[str, float | str]] = {
    "resnet20": {"error": 8.75},
    "resnet56": {"error": 6.97},
    "resnet110": {"error": 6.61},
}
COLUMNS = ("error", "training_error")


def weights_per_layer(results: Results) -> Verdict:
    """Whether a layer of a bottleneck on 256 maps has fewer weights than one of a block on 64; counted."""
    basic, bottleneck = BasicBlock(64, 64, 1, shortcut_a), Bottleneck(256, 64, 1, shortcut_a)
    counts = [sum(p.numel() for p in block.parameters() if p.dim() == 4) for block in (basic, bottleneck)]
    each = [count / block.layers for count, block in zip(counts, (basic, bottleneck), strict=True)]
    told = (f"{counts[0]:,} weights in {basic.layers} layers on 64 maps, {counts[1]:,} in {bottleneck.layers} on 256: "
            f"{each[0]:,.0f} and {each[1]:,.0f} a layer")  # fmt: skip
    return Verdict("holds" if each[1] < each[0] else "fails", told)


CLAIMS = {
    "depth-without-bottlenecks": Claim(
        "Deeper ResNets without bottlenecks gain accuracy, as shown on CIFAR-10 (footnote 4).",
        ordered("resnet110", "resnet56", "resnet20"),
    ),
    "economical": Claim("Bottlenecks are more economical: fewer weights a layer (footnote 4).", weights_per_layer),
    "plain-bottlenecks-degrade": Claim(
        "Plain networks of bottlenecks degrade too: the deeper has the higher training error (footnote 4).",
        less("plain50", "plain101", "training_error"),
    ),
    "small-pictures": Claim(
        "The same on small pictures, and the ResNets of the same bottlenecks do not degrade; our own question.",
        every(less("plain20_bottleneck", "plain56_bottleneck", "training_error"),
              less("resnet56_bottleneck", "resnet20_bottleneck", "training_error")),
    ),
}  # fmt: skip
