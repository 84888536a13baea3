"""Panels of error against iterations, as figures 1, 4 and 6 of the paper draw them.

The iterations stand in units of a power of ten; at a smaller scale the power is smaller and the axis is the same. Of
several seeds the mean is drawn, with a band from the lowest to the highest. A curve that never enters the panel is
named in it, as the paper says of plain-110; at a smaller scale the panel is as high as the curves' ends instead.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from layerwise.experiments.experiment import Results
from layerwise.experiments.judges import HELD_OUT, TRAINING, points

COLOURS = {20: "#b8a800", 18: "#00a0c8", 32: "#00a0c8", 34: "#c8102e", 44: "#1f8a3b", 56: "#c8102e", 110: "black",
           1202: "#b000b0"}  # by depth, in every figure  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One kind of curve in a panel: which error, how heavy and with which dashes."""

    name: str
    width: float
    style: str = "-"


THIN, BOLD = Line(TRAINING, 0.9), Line(HELD_OUT, 2.2)  # figure 4
DASHED, FULL = Line(TRAINING, 1.2, "--"), Line(HELD_OUT, 2.2)  # figure 6
KINDS = {TRAINING: "training error", HELD_OUT: "validation error"}  # what the paper's caption says, in the legend


@dataclass(frozen=True)
class Frame:
    """The axes of a panel: the range of the error in percent with its ticks, and of the iterations at paper scale.

    `duration` is the length of the training at paper scale, to which a shorter one is stretched.
    """

    low: float
    high: float
    ticks: Sequence[float]
    start: int
    end: int
    duration: int
    unit: int = 10_000
    every: int = 1  # units between two ticks


def labelled(network: str) -> str:
    """plain56 is "plain-56", resnet110 "ResNet-110", resnet34_a "ResNet-34"."""
    kind, depth = ("plain", network[5:]) if network.startswith("plain") else ("ResNet", network[6:])
    return f"{kind}-{depth.split('_')[0]}"


def depth(network: str) -> int:
    """The number in a network's name: 56 of plain56."""
    return int(labelled(network).split("-")[1])


def draw_panel(axes: Axes, results: Results, labels: Mapping[str, str], lines: Sequence[Line], frame: Frame) -> None:
    """Draws the curves of the rows `labels` (row: its label), each as all of `lines`, into a panel like the paper's."""
    length = frame.duration
    if results.schedule != "paper":
        length, frame = _length(results, labels), _taller(frame, results, labels, lines)
    unit = frame.unit * (length or frame.duration) / frame.duration
    outside, drawn = [], False
    for row, label in labels.items():
        shown, measured = False, False
        for line in lines:
            curves = [points(curve, line.name) for curve in results.curves(row)]
            steps = sorted(set.intersection(*map(set, curves))) if curves else []
            if not steps:
                continue
            measured = True
            middle = [statistics.fmean(curve[step] for curve in curves) for step in steps]
            low, high = ([pick(curve[step] for curve in curves) for step in steps] for pick in (min, max))
            across, colour = [step / unit for step in steps], COLOURS[depth(row)]
            axes.plot(across, middle, color=colour, linewidth=line.width, linestyle=line.style)
            if len(curves) > 1:
                axes.fill_between(across, low, high, color=colour, alpha=0.15, linewidth=0)
            shown |= any(value <= frame.high for value in middle)
        if shown:
            heaviest = max(lines, key=lambda line: line.width)
            axes.plot([], [], color=COLOURS[depth(row)], linewidth=heaviest.width, label=label)
            drawn = True
        elif measured:
            outside.append(f"{label} above {frame.high:g} %, not displayed")
        else:
            outside.append(f"{label} not measured")
    for line in lines if drawn and len(lines) > 1 else ():
        axes.plot([], [], color="#777777", linewidth=line.width, linestyle=line.style, label=KINDS[line.name])
    axes.set_ylim(frame.low, frame.high)
    axes.set_xlim(frame.start / frame.unit, frame.end / frame.unit)
    axes.set_yticks(list(frame.ticks))
    axes.set_xticks(range(math.ceil(frame.start / frame.unit), int(frame.end / frame.unit) + 1, frame.every))
    for tick in frame.ticks[1:-1]:
        axes.axhline(tick, color="#bbbbbb", linewidth=0.7, linestyle=(0, (4, 4)), zorder=0)
    axes.set_xlabel(f"iter. ({_unit(unit)})")
    if outside:
        axes.text(0.98, 0.98, "\n".join(outside), transform=axes.transAxes, ha="right", va="top", fontsize=7,
                  color="#555555", bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1})  # fmt: skip


def mark(axes: Axes, results: Results, rows: Iterable[str], printed: Mapping[str, float], frame: Frame) -> None:
    """Marks at the edge: triangles beside it are the errors that the paper prints, diamonds at the end of the training
    the means of our own tests. Grey ones in the legend say so; what lies outside the panel is left out.
    """
    low, high = axes.get_ylim()
    found = {row: error for row in rows if (error := results.mean(row)) is not None}
    known = {row: printed[row] for row in rows if row in printed}
    end = min(frame.duration, frame.end) / frame.unit
    beside = axes.get_yaxis_transform()
    for marker, size, errors, text in (("<", 6.5, known, "printed error"), ("D", 4.5, found, "test at the end")):
        style = {"marker": marker, "markersize": size, "linestyle": "none", "markeredgecolor": "white"}
        inside = {row: error for row, error in errors.items() if low <= error <= high}
        for row, error in inside.items():
            across, where = (1.015, beside) if marker == "<" else (end, axes.transData)
            axes.plot([across], [error], color=COLOURS[depth(row)], clip_on=False, markeredgewidth=0.5, zorder=5,
                      transform=where, **style)  # type: ignore[arg-type]  # fmt: skip
        if inside:
            axes.plot([], [], color="#777777", label=text, **style)  # type: ignore[arg-type]


def legend(axes: Axes, size: float) -> None:
    """The legend at the lower left, none where nothing is drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", fontsize=size)


def _length(results: Results, rows: Mapping[str, str]) -> int:
    """The last step that any of the rows has."""
    return max((step for row in rows for curve in results.curves(row) for name in (TRAINING, HELD_OUT)
                for step in points(curve, name)), default=0)  # fmt: skip


def _taller(frame: Frame, results: Results, rows: Iterable[str], lines: Sequence[Line]) -> Frame:
    """The frame with a range that holds the end of every curve, and a tick more every 10 %."""
    ends = (points(curve, line.name) for row in rows for curve in results.curves(row) for line in lines)
    highest = max((curve[max(curve)] for curve in ends if curve), default=0.0)
    if highest <= frame.high:
        return frame
    more = range(int(frame.high) + 10, math.ceil(1.1 * highest / 10) * 10 + 1, 10)
    return dataclasses.replace(frame, high=float(more[-1]), ticks=(*frame.ticks, *more))


def _unit(unit: float) -> str:
    power = round(math.log10(unit)) if unit > 0 else 0
    return f"1e{power}" if math.isclose(unit, 10.0**power, rel_tol=1e-6) else f"x {unit:.3g}"
