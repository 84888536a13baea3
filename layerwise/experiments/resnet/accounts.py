"""What the ResNet paper says that can be counted: operations, parameters, layers, ratios, differences of its tables.

    layerwise reproduce resnet/accounts      # seconds, on any machine and at any scale: nothing is trained

Operations are multiply-adds of convolutions and fully connected layers for one picture, counted from the networks of
this library (counts.py; `layerwise models resnet50` shows them layer by layer). Where a sentence is vague, the bound
that it is held to stands with it. One account, two 3x3 against one 5x5, is the history's (on VGG).
"""

from __future__ import annotations

from collections.abc import Callable

from layerwise.experiments import accounts
from layerwise.experiments.accounts import Account, Counts, below, both, exactly, only_if, provided, rounds_to, within
from layerwise.experiments.resnet import counts

TITLE = "ResNet: the checkable sentences, counted"
TABLE_6 = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}  # million parameters
NEGLIGIBLE = 1.0  # percent
SIMILAR = 0.1  # of the larger
ROUNDING = 1e-12  # in float64, relative


def given(numbers: Counts) -> Callable[[], Counts]:
    """Numbers that the paper prints, to be compared with one another."""
    return lambda: numbers


def difference(larger: float, smaller: float) -> Callable[[], dict[str, float]]:
    """The difference of two printed numbers."""
    return lambda: {"larger": larger, "smaller": smaller, "difference": round(larger - smaller, 6)}


def parameters(depth: int) -> Callable[[], Counts]:
    """Millions of parameters of a network of table 6."""
    return lambda: {"million_parameters": counts.million_parameters(f"resnet{depth}")}


ACCOUNTS: dict[str, Account] = {
    "eighteen-percent": Account(
        "The 34-layer baseline has 18 % of the operations of VGG-19 (section 3.3).", counts.eighteen_percent,
        rounds_to("share", 18, 0, "the printed 3.6 and 19.6 are divided: 18.4"), "share", 18),
    "plain34-operations": Account(
        "The 34-layer networks have 3.6 billion multiply-adds (section 3.3, figure 3).",
        lambda: {"plain34": counts.giga("plain34"), "resnet34_a": counts.giga("resnet34_a")},
        both(rounds_to("plain34", 3.6, 1), rounds_to("resnet34_a", 3.6, 1)), "plain34", 3.6),
    "resnet50-operations": Account(
        "ResNet-50 has 3.8 billion multiply-adds (section 4.1).", lambda: {"resnet50": counts.giga("resnet50")},
        rounds_to("resnet50", 3.8, 1), "resnet50", 3.8),
    "vgg16-operations": Account(
        "VGG-16 has 15.3 billion multiply-adds (section 4.1).", counts.vgg_operations,
        only_if(rounds_to("vgg16", 15.3, 1), rounds_to("vgg16_convolutions", 15.3, 1),
                "its fully connected layers are left out, while VGG-19's are counted"), "vgg16", 15.3),
    "vgg19-operations": Account(
        "VGG-19 has 19.6 billion multiply-adds (sections 3.3 and 4.1).", counts.vgg_operations,
        rounds_to("vgg19", 19.6, 1), "vgg19", 19.6),
    "152-below-vgg": Account(
        "The 152-layer ResNet has fewer operations than VGG-16 and VGG-19 (abstract, section 4.1).",
        lambda: counts.vgg_operations() | {"resnet152": counts.giga("resnet152")},
        both(below("resnet152", "vgg16_convolutions"), below("resnet152", "vgg19_convolutions")),
        "resnet152", 11.3),
    "fewer-filters": Account(
        "The 34-layer baseline has fewer filters than VGG-19 (section 3.3).", counts.filters,
        only_if(below("plain34", "vgg19"), below("plain34_per_layer", "vgg19_per_layer"), "a layer is meant")),
    "eight-times-deeper": Account(
        "Up to 152 layers, 8 times deeper than VGG (abstract, section 1).", counts.depths,
        provided(rounds_to("over_vgg19", 8), "VGG-19 is meant: 9.5 times for VGG-16"), "over_vgg19", 8),
    "layers-by-name": Account(
        "18, 34, 50, 101 and 152 are the networks' layers with weights (table 1).", counts.layers_by_name,
        provided(exactly({"resnet18_a": 18, "resnet34_a": 34, "resnet50": 50, "resnet101": 101, "resnet152": 152}),
                "the projections of option B do not count"), "resnet34_a", 34),
    "same-cost-a-layer": Account(
        "Where the map is halved the filters double, which keeps the cost of a layer (section 3.3).", counts.per_layer,
        only_if(both(within("least", 115.6, 115.7), within("halving", 115.6, 115.7)),
                both(within("least", 115.6, 115.7), within("most", 115.6, 115.7)),
                "the layers that halve the map, with half the cost, are left out")),
    "fifty-from-thirty-four": Account(
        "With bottlenecks for its two-layer blocks the 34-layer network becomes the 50-layer one (section 4.1).",
        counts.fifty_from_thirty_four, exactly({"blocks_of_34": 16, "blocks_of_50": 16, "layers": 50}), "layers", 50),
    "bottleneck-similar": Account(
        "The two blocks of figure 5 have similar cost (section 4.1; here: within 10 %).", counts.bottleneck,
        within("bottleneck_over_basic", 1 - SIMILAR, 1 + SIMILAR), "bottleneck_over_basic"),
    "projection-doubles": Account(
        "A projection for its shortcut doubles a bottleneck's cost and size (section 4.1; here: within 10 %).",
        counts.bottleneck,
        within("projection_over_identity", 2 - 2 * SIMILAR, 2 + 2 * SIMILAR), "projection_over_identity", 2),
    "thirteen-projections": Account(
        "Option C has thirteen projections more than option B (section 4.1).", counts.projections,
        exactly({"option_a": 0, "more_in_c": 13}), "more_in_c", 13),
    "equal-pairs": Account(
        "With option A, plain and residual networks have the same depth, parameters and cost (sections 3.2 and 4.2).",
        counts.equal_pairs, exactly({"parameters": 0, "multiply_adds": 0, "layers": 0}), "parameters"),
    "additions-negligible": Account(
        "Identity shortcuts add no parameters, and additions that are negligible (section 3.2; here: below 1 %).",
        counts.additions, both(exactly({"parameters_of_identities": 0}), within("most", 0, NEGLIGIBLE)), "most"),
    "subspace": Account(
        "The functions of the 18-layer plain network are among those of the 34-layer one (section 4.1).",
        counts.subspace, both(within("difference", 0, ROUNDING), exactly({"blocks_added": 8}))),
    "6n-plus-2": Account(
        "The CIFAR networks have 6n + 2 layers with weights, and 3n shortcuts (section 4.2).", counts.cifar_layers,
        exactly({"layers": 0, "shortcuts": 0})),
    **{f"parameters-{depth}": Account(
        f"ResNet-{depth} has {printed:g} million parameters (table 6).", parameters(depth),
        rounds_to("million_parameters", printed, 1 if printed > 1 else 2), "million_parameters", printed)
        for depth, printed in TABLE_6.items()},
    "fewer-parameters": Account(
        "ResNet-110 has fewer parameters than FitNet and Highway (section 4.2; millions, table 6).",
        given({"resnet110": 1.7, "fitnet_19": 2.5, "highway_19": 2.3, "highway_32": 1.25}),
        only_if(both(*(below("resnet110", other) for other in ("fitnet_19", "highway_19", "highway_32"))),
                both(*(below("resnet110", other) for other in ("fitnet_19", "highway_19"))),
                "those of 19 layers are meant")),
    "2.8-points": Account(
        "The 34-layer ResNet is better than the 18-layer one by 2.8 points (section 4.1, table 2).",
        difference(27.88, 25.03), rounds_to("difference", 2.8, 1), "difference", 2.8),
    "3.5-points": Account(
        "It is better than its plain counterpart by 3.5 points (section 4.1, table 2).",
        difference(28.54, 25.03), rounds_to("difference", 3.5, 1), "difference", 3.5),
    "single-beats-ensembles": Account(
        "The 152-layer ResNet alone, 4.49 % top-5, beats all earlier ensembles (section 4.1, tables 4 and 5).",
        given({"resnet152": 4.49, "best_ensemble": 4.82}),
        provided(below("resnet152", "best_ensemble"), "errors on validation and on the test server may be compared")),
    "coco-6-points": Account(
        "On COCO, ResNet-101 brings 6.0 points more than VGG-16 (section 4.3, table 8).", difference(27.2, 21.2),
        rounds_to("difference", 6.0, 1), "difference", 6.0),
    "coco-28-percent": Account(
        "They are 28 % relative (abstract, section 4.3).", given({"relative": 100 * (27.2 - 21.2) / 21.2}),
        rounds_to("relative", 28), "relative", 28),
    "two-3x3": Account(
        "Two 3x3 convolutions see what a 5x5 sees with 18 weights instead of 25 (the history, on VGG).", counts.two_3x3,
        exactly({"two_3x3": 18, "one_5x5": 25, "field_of_two": 5, "field_of_one": 5}),
        "two_3x3", 18),
}  # fmt: skip
ROWS = accounts.rows(ACCOUNTS)
PAPER = accounts.paper(ACCOUNTS)
COLUMNS = (accounts.COUNTED,)
CLAIMS = accounts.claims(ACCOUNTS)
