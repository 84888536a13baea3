"""What is counted for the accounts of the ResNet paper, from the networks of this library, on the meta device."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from layerwise.experiments.accounts import Counts
from layerwise.layers.identity import deepen, plain_identity
from layerwise.models import build, shapes
from layerwise.models.network import Network, own_parameters
from layerwise.models.resnet import (
    BasicBlock,
    Bottleneck,
    Residual,
    ZeroPaddedIdentity,
    convolution,
    shortcut_a,
    shortcut_c,
)

GIGA, MEGA = 1e9, 1e6
DEPTHS = (20, 32, 44, 56, 110)
PAIRS = {"plain18": "resnet18_a", "plain34": "resnet34_a", **{f"plain{depth}": f"resnet{depth}" for depth in DEPTHS}}


@cache
def cost(name: str) -> shapes.Cost:
    """Parameters and operations of a network of the paper."""
    return shapes.cost(name)


def giga(name: str) -> float:
    """Billions of multiply-adds."""
    return cost(name).multiply_adds / GIGA


def of_convolutions(name: str) -> float:
    """Billions of multiply-adds of the convolutions alone."""
    return sum(row.multiply_adds for row in cost(name).rows if row.kind != "Linear") / GIGA


@cache
def on_meta(name: str) -> Network:
    """A network without memory."""
    with torch.device("meta"):
        return build(name)


def million_parameters(name: str) -> float:
    """Millions of parameters."""
    return own_parameters(on_meta(name)) / MEGA


def weight_layers(name: str) -> tuple[int, int]:
    """Layers with weights on the way from picture to logits, and projections beside it."""
    weighted = [path for path, module in on_meta(name).named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    beside = sum(".shortcut" in path for path in weighted)
    return len(weighted) - beside, beside


def convolution_weights(block: nn.Module) -> int:
    """The weights of a block's convolutions."""
    return sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Conv2d))


def residual_blocks(name: str) -> int:
    """The shortcuts of a network that are added."""
    return sum(isinstance(module, Residual) for module in on_meta(name).modules())


def eighteen_percent() -> Counts:
    """The operations of plain34 in percent of those of vgg19; the same of the two printed numbers."""
    return {"share": 100 * cost("plain34").multiply_adds / cost("vgg19").multiply_adds,
            "share_of_printed": 100 * 3.6 / 19.6}


def vgg_operations() -> dict[str, float]:
    """Billions of multiply-adds, with and without the fully connected layers."""
    return {"vgg16": giga("vgg16"), "vgg19": giga("vgg19"), "vgg16_convolutions": of_convolutions("vgg16"),
            "vgg19_convolutions": of_convolutions("vgg19")}


def filters() -> Counts:
    """Kernels of plain34 and vgg19, together and a layer."""
    counts: dict[str, float] = {}
    for name in ("plain34", "vgg19"):
        layers = [layer for layer in on_meta(name).modules() if isinstance(layer, nn.Conv2d)]
        counts[name] = sum(layer.out_channels for layer in layers)
        counts[f"{name}_per_layer"] = counts[name] / len(layers)
    return counts


def depths() -> Counts:
    """Layers with weights, and how many times deeper resnet152 is."""
    layers = {name: float(weight_layers(name)[0]) for name in ("resnet152", "vgg16", "vgg19")}
    over = {f"over_{name}": layers["resnet152"] / layers[name] for name in ("vgg19", "vgg16")}
    return layers | over


def bottleneck() -> Counts:
    """Weights of the two blocks of figure 5, and of the right one with a projection for its shortcut."""
    basic, thin = BasicBlock(64, 64, 1, shortcut_a), Bottleneck(256, 64, 1, shortcut_a)
    projected = Bottleneck(256, 64, 1, shortcut_c)
    counts = {"basic": convolution_weights(basic), "bottleneck": convolution_weights(thin),
              "with_projection": convolution_weights(projected)}
    return counts | {"bottleneck_over_basic": counts["bottleneck"] / counts["basic"],
                     "projection_over_identity": counts["with_projection"] / counts["bottleneck"]}


def projections() -> Counts:
    """Projections of the 34 layers with options A, B and C, and what C adds."""
    found = {option: float(weight_layers(name)[1]) for option, name in
             (("option_a", "resnet34_a"), ("option_b", "resnet34"), ("option_c", "resnet34_c"))}
    more = million_parameters("resnet34_c") - million_parameters("resnet34")
    return found | {"more_in_c": found["option_c"] - found["option_b"], "million_parameters_more": more}


def equal_pairs() -> Counts:
    """The largest differences between plain and residual networks, over all depths of the paper."""
    pairs = [(cost(plain), cost(residual)) for plain, residual in PAIRS.items()]
    layers = [(weight_layers(plain), weight_layers(residual)) for plain, residual in PAIRS.items()]
    return {"pairs": float(len(pairs)),
            "parameters": float(max(abs(a.parameters - b.parameters) for a, b in pairs)),
            "multiply_adds": float(max(abs(a.multiply_adds - b.multiply_adds) for a, b in pairs)),
            "layers": float(max(abs(a[0] - b[0]) for a, b in layers))}


def additions() -> Counts:
    """Numbers added by shortcuts, in percent of the multiply-adds."""
    found = {}
    for name in ("resnet34_a", "resnet152", "resnet110"):
        network = on_meta(name)
        blocks = {path for path, module in network.named_modules() if isinstance(module, Residual)}
        outputs = {row.name.rpartition(".")[0]: row.output for row in cost(name).rows if row.name.endswith(".relu")}
        added = sum(channels * height * width for path, (channels, height, width) in outputs.items() if path in blocks)
        found[name] = 100 * added / cost(name).multiply_adds
    shortcuts = sum(parameter.numel() for module in on_meta("resnet34_a").modules()
                    if isinstance(module, ZeroPaddedIdentity | nn.Identity) for parameter in module.parameters())
    return found | {"parameters_of_identities": float(shortcuts), "most": max(found.values())}


def layers_by_name() -> Counts:
    """Layers with weights on the way of the networks of table 1."""
    found = {name: weight_layers(name) for name in ("resnet18_a", "resnet34_a", "resnet50", "resnet101", "resnet152")}
    return {name: float(one[0]) for name, one in found.items()} | {"projections_of_152": float(found["resnet152"][1])}


def cifar_layers() -> Counts:
    """Layers less 6n + 2, and shortcuts less 3n, over n = 3, 5, 7, 9, 18, 200."""
    layers, shortcuts = [], []
    for n in (3, 5, 7, 9, 18, 200):
        name = f"resnet{6 * n + 2}"
        layers.append(abs(weight_layers(name)[0] - (6 * n + 2)))
        shortcuts.append(abs(residual_blocks(name) - 3 * n))
    return {"layers": float(max(layers)), "shortcuts": float(max(shortcuts))}


def per_layer() -> Counts:
    """Millions of multiply-adds of the 3x3 layers of plain34: least and most of those that keep the map; the others."""
    modules = dict(on_meta("plain34").named_modules())
    kept: list[float] = []
    halving: list[float] = []
    for row in cost("plain34").rows:
        layer = modules[row.name]
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            (kept if layer.stride == (1, 1) else halving).append(row.multiply_adds / MEGA)
    return {"least": min(kept), "most": max(kept), "halving": max(halving)}


def fifty_from_thirty_four() -> Counts:
    """Blocks of the 34 and 50 layers, and the layers that the former give with three in each."""
    blocks = {name: residual_blocks(name) for name in ("resnet34", "resnet50")}
    return {"blocks_of_34": float(blocks["resnet34"]), "blocks_of_50": float(blocks["resnet50"]),
            "layers": 3.0 * blocks["resnet34"] + 2}


def subspace() -> Counts:
    """How far logits of plain18 and of the plain34 that contains it differ, relative, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small, large = build("plain18", 10).double().eval(), build("plain34", 10).double().eval()
        picture = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    added = deepen(small, large, plain_identity)
    with torch.no_grad():
        expected, found = small(picture), large(picture)
    difference = float((expected - found).abs().max() / expected.abs().max())
    return {"difference": difference, "blocks_added": float(len(added))}


def two_3x3() -> Counts:
    """Weights and receptive fields of two 3x3 and of one 5x5 convolution, one map each."""
    two, one = nn.Sequential(convolution(1, 1, 3), convolution(1, 1, 3)), nn.Sequential(convolution(1, 1, 5))
    fields = [shapes.traced(model, (1, 16, 16))[-1].field for model in (two, one)]
    return {"two_3x3": float(convolution_weights(two)), "one_5x5": float(convolution_weights(one)),
            "field_of_two": float(fields[0][0]) if fields[0] else 0.0,
            "field_of_one": float(fields[1][0]) if fields[1] else 0.0}  # fmt: skip
