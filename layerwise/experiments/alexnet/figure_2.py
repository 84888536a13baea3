"""Figure 2: the architecture, and the number of neurons in each layer.

    layerwise reproduce alexnet/figure-2      # a second on any machine and at any scale: nothing is trained

The paper prints the units of the input and of each layer with weights, and 650,000 neurons in all (abstract).
Left open: the padding, and how 224 pixels give maps of 55x55. Here 227 pixels without padding in conv1
(models/alexnet.py). What is drawn is what was counted: one row of layers for each of the two towers.
"""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict
from layerwise.models import published_input, shapes

TITLE = "AlexNet, Figure 2: the architecture and its neurons"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
PRINTED = (253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000)
ARROW = {"arrowstyle": "->", "linewidth": 0.7, "color": "#555555"}
PRINTED_INPUT, PRINTED_NEURONS = 150_528, 650_000
BORDERED = 227  # pixels a side with which conv1 has 55x55 maps


def measure(subject: Subject) -> Numbers:
    """The outputs of the input and of each layer with weights, their sum without the input, and each map's shape."""
    rows = {row.name.rsplit(".", 1)[1]: row.output for row in shapes.cost("alexnet").rows}
    counts: dict[str, Value] = {layer: math.prod(rows[layer]) for layer in LAYERS}
    total = sum(math.prod(rows[layer]) for layer in LAYERS)
    maps = [[float(side) for side in rows[layer]] for layer in LAYERS]
    return {"input": math.prod(published_input("alexnet")), **counts, "neurons": total, "maps": maps}


ROWS = {"alexnet": Row(measure=measure)}
PAPER: dict[str, dict[str, Value]] = {
    "alexnet": {"input": PRINTED_INPUT, **dict(zip(LAYERS, PRINTED, strict=True)), "neurons": PRINTED_NEURONS}
}
COLUMNS = ("input", *LAYERS, "neurons")


def _counted(results: Results, *names: str) -> list[int] | None:
    found = [results.mean("alexnet", name) for name in names]
    return None if None in found else [round(value) for value in found if value is not None]


def input_units(results: Results) -> Verdict:
    """150,528 is 224 x 224 x 3, from which conv1's maps of 55x55 can't come."""
    if (found := _counted(results, "input")) is None:
        return Verdict("not measured", "not counted")
    side = math.isqrt(found[0] // 3)
    told = f"counted {found[0]:,} = {side} x {side} x 3, printed {PRINTED_INPUT:,} = 224 x 224 x 3"
    if found[0] == PRINTED_INPUT:
        return Verdict("holds", told)
    if found[0] != 3 * BORDERED**2:
        return Verdict("fails", told)
    return Verdict("holds only if", f"{told}: only if a border of 3 pixels in all is left out, without which an 11x11 "
                                    "kernel takes 54 places at stride 4 and not 55")


def layer_units(results: Results) -> Verdict:
    """The eight layers."""
    if (found := _counted(results, *LAYERS)) is None:
        return Verdict("not measured", "not counted")
    wrong = [f"{layer} {ours:,}, printed {theirs:,}" for layer, ours, theirs in zip(LAYERS, found, PRINTED, strict=True)
             if ours != theirs]
    if not wrong:
        return Verdict("holds", "all eight as printed")
    if found[1:] == list(PRINTED[1:]) and found[0] == 96 * 55 * 55:
        return Verdict("holds only if", f"conv1 is left out: {wrong[0]}, which is 96 x 55 x 48 and so no square map; "
                                        "the other seven are as printed")
    return Verdict("fails", "; ".join(wrong))


def all_neurons(results: Results) -> Verdict:
    """650,000 in all, to two digits."""
    if (found := _counted(results, "neurons", *LAYERS[:5])) is None:
        return Verdict("not measured", "not counted")
    total, convolutions = found[0], sum(found[1:])
    told = (f"counted {total:,}; the printed layers add up to {sum(PRINTED):,}; our convolutions alone to "
            f"{convolutions:,}")
    if round(total, -4) == PRINTED_NEURONS:
        return Verdict("holds", told)
    return Verdict("holds only if" if round(convolutions, -4) == PRINTED_NEURONS else "fails",
                   f"{told}: to two digits of the convolutions alone")


CLAIMS = {
    "input": Claim("The input has 150,528 units (figure 2).", input_units),
    "layers": Claim("The layers have 253,440, 186,624, 64,896, 64,896, 43,264, 4,096, 4,096 and 1,000 (figure 2).",
                    layer_units),
    "neurons": Claim("650,000 neurons (abstract).", all_neurons),
}  # fmt: skip


def _arrows(axes: Axes, place: int, crossing: bool) -> None:
    """From the layer before: within each tower, and across where a layer reads both."""
    targets = (0.0,) if place == len(LAYERS) - 1 else (1.0, -1.0)
    if place == 0:
        for end in targets:
            axes.annotate("", (-0.25, end), (-1.0, 0.0), arrowprops=ARROW)
        return
    for start in (1.0, -1.0):
        for end in targets:
            if crossing or start == end:
                axes.annotate("", (1.2 * place - 0.36, end), (1.2 * place - 0.84, start), arrowprops=ARROW)


def draw(results: Results, figure: Figure) -> None:
    """The layers from left to right, each tower in a row of its own, the classes in one; areas are not to scale."""
    axes = figure.subplots()
    axes.set_axis_off()
    if not results.rows.get("alexnet"):
        axes.text(0.5, 0.5, "not counted", ha="center")
        return
    numbers = results.rows["alexnet"][0].numbers
    maps = numbers["maps"]
    assert isinstance(maps, list)
    for place, (layer, shape) in enumerate(zip(LAYERS, maps, strict=True)):
        assert isinstance(shape, list)
        channels, side = int(shape[0]), int(shape[1]) if len(shape) == 3 else 1
        height = 0.25 + 0.6 * math.sqrt(side / 55) if side > 1 else 0.85
        width = 0.2 + 0.5 * channels / 400 if side > 1 else 0.18
        towers = (0.0,) if layer == "fc8" else (1.0, -1.0)
        for middle in towers:
            corner = (1.2 * place - width / 2, middle - height / 2)
            axes.add_patch(Rectangle(corner, width, height, facecolor="#dfe7f2", edgecolor="black", linewidth=0.8))
            part = channels // len(towers)
            told = f"{side}x{side}x{part}" if side > 1 else str(part)
            axes.text(1.2 * place, middle + height / 2 + 0.04, told, ha="center", va="bottom", fontsize=7)
        axes.text(1.2 * place, -1.85, f"{layer}\n{numbers[layer]:,}", ha="center", va="top", fontsize=7)
        printed = PRINTED[place]
        axes.text(1.2 * place, -2.45, f"paper\n{printed:,}", ha="center", va="top", fontsize=7,
                  color="black" if numbers[layer] == printed else "#c8102e")  # fmt: skip
        _arrows(axes, place, crossing=layer in ("conv3", "fc6", "fc7", "fc8"))
    units = numbers["input"]
    axes.add_patch(Rectangle((-1.35, -0.5), 0.3, 1.0, facecolor="white", edgecolor="black", linewidth=0.8))
    axes.text(-1.2, -1.85, f"input\n{units:,}", ha="center", va="top", fontsize=7)
    axes.text(-1.2, -2.45, f"paper\n{PRINTED_INPUT:,}", ha="center", va="top", fontsize=7,
              color="black" if units == PRINTED_INPUT else "#c8102e")  # fmt: skip
    axes.set_xlim(-1.8, 1.2 * len(LAYERS))
    axes.set_ylim(-3.1, 1.7)
