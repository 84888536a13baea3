"""Figure 7: standard deviations of layer responses on the test set: plain-20, plain-56, ResNet-20, -56 and -110.

    layerwise reproduce resnet/figure-7                  # small: the networks of figure 6, looked at for minutes
    layerwise reproduce resnet/figure-7 --scale paper

Nothing is trained beyond figure 6's runs. At paper scale it costs one pass of the 10,000 test pictures a network.

A response is the output of a 3x3 layer after batch normalisation, before ReLU or addition; in a residual network the
last of a block is what the residual function adds. Left open in the paper: over what the deviation is taken. Here it is
over all pictures, positions and maps of a layer together; `mean_within` leaves out how the maps' means differ.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, every, less
from layerwise.experiments.looking import batches, drawn, mean_over_seeds, network
from layerwise.experiments.resnet.panels import COLOURS, depth, labelled
from layerwise.experiments.resnet.protocols import cifar_row
from layerwise.explain.responses import responses

TITLE = "ResNet, Figure 7: standard deviations of layer responses"
NETWORKS = ("plain20", "plain56", "resnet20", "resnet56", "resnet110")
PICTURES = {"smoke": 8}  # else all of the test set
LINEAR, LEAST, FURTHER = 6.0, 0.1, (5, 10, 20, 50, 100)  # beyond LINEAR the axis is logarithmic, from LEAST on
COLUMNS = ("mean_deviation", "median_deviation", "mean_within", "layers")


def measure(subject: Subject) -> Numbers:
    """The deviation of each 3x3 layer in its order, and their mean and median."""
    samples = drawn(subject.samples("test"), PICTURES.get(subject.scale, 0))
    found = responses(network(subject), batches(subject, samples))
    deviations = [round(one.deviation, 5) for one in found]
    return {"mean_deviation": round(statistics.fmean(deviations), 5),
            "median_deviation": round(statistics.median(deviations), 5),
            "mean_within": round(statistics.fmean(one.within for one in found), 5),
            "layers": float(len(found)), "pictures": float(len(samples)), "deviations": deviations,
            "within": [round(one.within, 5) for one in found]}


def _row(name: str) -> Row:
    return replace(cifar_row(name), measure=measure)


ROWS = {name: _row(name) for name in NETWORKS}
PAPER: dict[str, dict[str, Value]] = {}
MEAN = "mean_deviation"
CLAIMS = {
    "residual-smaller": Claim(
        "ResNets have generally smaller responses than plain networks of the same depth (section 4.2).",
        every(less("resnet20", "plain20", MEAN), less("resnet56", "plain56", MEAN)),
    ),
    "deeper-smaller": Claim(
        "Deeper ResNets have smaller responses: with more layers, a single one modifies the signal less (section 4.2).",
        every(less("resnet56", "resnet20", MEAN), less("resnet110", "resnet56", MEAN)),
    ),
}


def draw(results: Results, figure: Figure) -> None:
    """Two panels as in the paper: layers in their order above, by falling deviation below; the deviation from 1 to 3.

    Plain networks are dashed. The axis is stretched where a deviation lies outside, and logarithmic where one lies far
    outside. Of several seeds the mean is drawn.
    """
    above, below = figure.subplots(2, 1)
    found = {row: mean_over_seeds(results, row, "deviations") for row in NETWORKS}
    _panel(above, found, "layer index (original)")
    _panel(below, {row: sorted(values, reverse=True) for row, values in found.items()},
           "layer index (sorted by magnitude)")


def _panel(axes: Axes, found: dict[str, list[float]], label: str) -> None:
    for row, values in found.items():
        style = "--" if row.startswith("plain") else "-"
        name = labelled(row) if values else f"{labelled(row)}, not measured"
        axes.plot(range(1, len(values) + 1), values, color=COLOURS[depth(row)], linestyle=style, linewidth=1.6,
                  label=name, alpha=1.0 if values else 0.3)
    low, high = limits([value for values in found.values() for value in values])
    if high > LINEAR:
        axes.set_yscale("log")
        low = max(low, LEAST)
    axes.set_ylim(low, high)
    axes.set_xlim(0, 110)
    axes.set_xticks(range(0, 101, 20))
    ticks = [1, 2, 3, *(tick for tick in FURTHER if tick < high)]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    for tick in ticks:
        axes.axhline(tick, color="#bbbbbb", linewidth=0.7, linestyle=(0, (4, 4)), zorder=0)
    axes.set_xlabel(label)
    axes.set_ylabel("std" if high <= LINEAR else "std, logarithmic")
    axes.legend(loc="upper right", fontsize=7, ncols=2)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of the axis: a little more than 1 to 3, or as far as the values reach."""
    low, high = min(values, default=1.0), max(values, default=3.0)
    return min(0.6, 0.95 * low), max(3.2, 1.05 * high)
