"""`layerwise models --chart`: parameters, operations and reported error of the networks, as one SVG file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from layerwise import models
from layerwise.errors import MachineError
from layerwise.models.network import FLOWS

COLOURS = dict(zip(FLOWS, ("#4c6ef5", "#f08c00", "#e03131", "#7048e8", "#2b8a3e", "#0b7285"), strict=True))
# (data, measure): errors under one measure on one data set share a panel; others can't be compared.
PANELS = (("ImageNet val", "top-5"), ("CIFAR-10 test", "top-1"))
Row = dict[str, Any]
Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels of the figure
LABEL = 5.5  # points
PIXELS = 100 / 72  # a point, at the figure's resolution
PLACES = [(distance, math.radians(angle)) for distance in range(6, 240, 9) for angle in range(-80, 271, 20)
          if angle % 180 != 90]  # around a point, near ones first


def draw(rows: Sequence[Row], path: Path) -> None:
    """Writes the chart of the networks in `rows` (of jobs.layer_table.network_list) to `path`.

    Above, parameters against multiply-adds of all; below, the error that the papers report against multiply-adds, a
    panel a data set. The protocols of the papers differ (crops, scales), which the figure says. Raises MachineError
    where the file can't be written.
    """
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "layerwise", "font.size": 8, "axes.grid": True,
                         "grid.color": "#e9ecef", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(16, 20), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.add_gridspec(2, len(PANELS), height_ratios=(1.3, 1))
        whole = figure.add_subplot(grid[0, :])
        _points(whole, [(row, row["parameters"]) for row in rows], "learnable parameters")
        whole.set_yscale("log")
        whole.set_title(f"{len(rows)} networks: parameters and multiply-adds for one picture of the paper's size")
        for column, (data, measure) in enumerate(PANELS):
            errors = [(row, one.error) for row in rows for one in models.reported(row["name"])
                      if one.data == data and one.measure.split(",")[0] == measure]
            axes = figure.add_subplot(grid[1, column])
            _points(axes, errors, "error in %, as the paper reports it")
            axes.set_title(f"{data}, {measure}: {len(errors)} reported errors (each under its paper's own protocol)")
        whole.legend(loc="lower right", title="flow of the maps")
        figure.draw_without_rendering()  # places the panels, so that labels can be placed in them
        for axes in figure.axes:
            _label(axes)
        try:
            figure.savefig(path, format="svg", metadata={"Date": None, "Title": "Networks of the papers"})
        except OSError as error:
            raise MachineError(f"{path}: can't be written ({error.strerror})", mend="Name another place.") from None


def _points(axes: Axes, points: Sequence[tuple[Row, float]], label: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("multiply-adds")
    axes.set_ylabel(label)
    for flow, colour in COLOURS.items():
        own = [(row["multiply_adds"], value) for row, value in points if row["flow"] == flow]
        if own:
            axes.scatter([x for x, _ in own], [y for _, y in own], s=18, color=colour, label=f"{flow}: {FLOWS[flow]}")
    for row, value in points:
        axes.text(row["multiply_adds"], value, row["name"], fontsize=LABEL, color=COLOURS[row["flow"]])


def _label(axes: Axes) -> None:
    """Moves each name to the nearest free place around its point, with a line to it where that is not beside it."""
    taken = [_around(tuple(axes.transData.transform(text.get_position())), 4, 4) for text in axes.texts]
    for text in list(axes.texts):
        x, y = axes.transData.transform(text.get_position())
        width, height = 0.62 * LABEL * len(text.get_text()) * PIXELS, 1.25 * LABEL * PIXELS
        for distance, angle in PLACES:
            right, up = distance * math.cos(angle), distance * math.sin(angle)
            box = _around((x + right + math.copysign(width / 2, right), y + up), width, height)
            if not any(_meet(box, other) for other in taken):
                break
        taken.append(box)
        line = {"arrowstyle": "-", "lw": 0.3, "color": text.get_color()} if distance > 12 else None
        axes.annotate(text.get_text(), text.get_position(), (box[0] - x, box[1] - y), textcoords="offset pixels",
                      fontsize=LABEL, color=text.get_color(), arrowprops=line, va="bottom", ha="left")
        text.remove()


def _around(centre: Sequence[float], width: float, height: float) -> Box:
    return centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
