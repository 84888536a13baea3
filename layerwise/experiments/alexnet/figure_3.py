"""Figure 3: kernels of the first convolution; those of one tower are agnostic of colour, those of the other are not.

    layerwise reproduce alexnet/figure-3                  # small: a four-layer network's 32 kernels, of grey pictures
    layerwise reproduce alexnet/figure-3 --scale paper    # AlexNet of alexnet/table-1: ILSVRC-2010, 90 epochs

Costs nothing beyond alexnet/table-1, whose network it is; at small scale that of alexnet/lrn without normalisation.

Left open in the paper: how specific to colours a kernel is, which it tells by eye; `explain/kernels.py` says how it is
measured here. A tower is the kernels that one tower of conv2 reads: the first 48 or the
last 48; which of the two becomes the one of colours is chance.
Deviations at small scale: Fashion-MNIST is grey, so the claim can't be judged there, and the four-layer network has no
towers; what is drawn shows its kernels.
"""

from __future__ import annotations

import statistics

import torch
from matplotlib.figure import Figure
from torch import nn

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict
from layerwise.explain.kernels import colour_shares, levels
from layerwise.recipe import Recipe

TITLE = "AlexNet, Figure 3: kernels of the first convolution"
TWICE = 2.0  # "largely colour-agnostic" and "largely colour-specific" is held to twice the share of colour
SHOWN = 64  # kernels that are kept for the drawing at smaller scales
ACROSS = 16  # kernels in a row


def measure(subject: Subject) -> Numbers:
    """The mean share of colour of both halves of conv1's kernels, their channels, and the kernels as 0 to 255."""
    layer = subject.models[0].model.get_submodule("features.conv1")
    assert isinstance(layer, nn.Conv2d)
    kernels = layer.weight.detach().float().cpu()
    shares, half = colour_shares(kernels), len(kernels) // 2
    kept = kernels[: {"paper": len(kernels), "smoke": 0}.get(subject.scale, SHOWN)]
    return {
        "colour_1": round(float(shares[:half].mean()), 4), "colour_2": round(float(shares[half:].mean()), 4),
        "kernels": len(kernels), "side": layer.kernel_size[0], "channels": kernels.shape[1],
        "levels": [one.flatten().tolist() for one in levels(kept)],
    }  # fmt: skip


def specialised(results: Results) -> Verdict:
    """Whether in every run one tower has at least twice the share of colour of the other."""
    if not (one := results.numbers("alexnet", "colour_1")):
        return Verdict("not measured", "no result of alexnet")
    if results.mean("alexnet", "channels") != 3 or results.scale != "paper":
        return Verdict("not measured", "grey pictures have no colours")
    pairs = [sorted(pair) for pair in zip(one, results.numbers("alexnet", "colour_2"), strict=True)]
    factors = [high / max(low, 1e-9) for low, high in pairs]
    told = (f"shares of colour {', '.join(f'{low:.2f} and {high:.2f}' for low, high in pairs)}: "
            f"{statistics.fmean(factors):.1f} times, asked {TWICE:g} in each of {len(pairs)} runs")
    return Verdict("holds" if min(factors) >= TWICE else "fails", told)


ROWS = {"alexnet": Row((protocols.imagenet("alexnet"),), measure, open_points=protocols.OPEN_IMAGENET)}
PAPER: dict[str, dict[str, Value]] = {"alexnet": {"kernels": 96, "side": 11, "channels": 3}}
COLUMNS = ("kernels", "side", "channels", "colour_1", "colour_2")
CLAIMS = {
    "specialised": Claim("The kernels of one tower are largely agnostic of colour, those of the other largely specific "
                         "to it, on every run (section 6.1).", specialised),
}


def small(recipe: Recipe) -> Recipe:
    """The four-layer network without normalisation."""
    return protocols.small(recipe, "four_layer_28")


def draw(results: Results, figure: Figure) -> None:
    """The kernels of the first run, 16 a row, each from its lowest to its highest value; a line between the towers."""
    axes = figure.subplots()
    axes.set_axis_off()
    measured = next((one.numbers for one in results.rows.get("alexnet", ()) if one.numbers.get("levels")), None)
    if measured is None:
        axes.text(0.5, 0.5, "not measured", ha="center")
        return
    side, channels, levels = int(_number(measured, "side")), int(_number(measured, "channels")), measured["levels"]
    kernels = torch.tensor(levels).view(-1, side, side, channels) / 255
    rows = -(-len(kernels) // ACROSS)
    page = torch.ones(rows * (side + 1) + 1, ACROSS * (side + 1) + 1, 3)
    for number, kernel in enumerate(kernels):
        top, left = (1 + place * (side + 1) for place in divmod(number, ACROSS))
        page[top : top + side, left : left + side] = kernel.expand(side, side, 3)
    axes.imshow(page.numpy(), interpolation="nearest")
    if channels == 3:
        axes.axhline(page.shape[0] / 2 - 0.5, color="black", linewidth=1.0)
    axes.set_title(f"{len(kernels)} kernels of {side}x{side}x{channels}", fontsize=9)


def _number(numbers: Numbers, name: str) -> float:
    value = numbers[name]
    assert isinstance(value, int | float)
    return float(value)
