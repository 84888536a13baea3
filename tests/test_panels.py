"""Panels of error against iterations: the paper's range at its scale, and the curves' at a smaller one."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from layerwise.experiments.experiment import Measured, Results
from layerwise.experiments.resnet.panels import FULL, Frame, draw_panel, mark
from tests.test_experiments_resnet import curve

FRAME = Frame(0, 20, (0, 10, 20), 0, 65_000, 64_000)
LABELS = {"plain20": "plain-20", "plain56": "plain-56"}


def world(scale: str, highest: float) -> Results:
    """plain20 ends below 20 % and plain56 at `highest` percent, held out."""
    ends = {"plain20": 16.0, "plain56": highest}
    return Results(scale, {row: (Measured(0, {"error": end}, curve(end, end)),) for row, end in ends.items()})


@pytest.mark.parametrize(("scale", "highest", "top", "ticks"), [
    ("small", 39.0, 50, [0, 10, 20, 30, 40, 50]), ("small", 44.0, 50, [0, 10, 20, 30, 40, 50]),
    ("small", 19.0, 20, [0, 10, 20]),
])
def test_a_small_scales_panel_holds_the_ends_of_all_curves(
    scale: str, highest: float, top: int, ticks: list[int]
) -> None:
    axes = Figure().subplots()
    draw_panel(axes, world(scale, highest), LABELS, (FULL,), FRAME)
    assert (axes.get_ylim(), list(axes.get_yticks())) == ((0, top), ticks)
    assert not axes.texts
    mark(axes, world(scale, highest), LABELS, {}, FRAME)
    ends = [float(line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert ends == [16.0, highest]


def test_at_the_papers_scale_the_panel_is_the_papers() -> None:
    axes = Figure().subplots()
    draw_panel(axes, world("paper", 39.0), LABELS, (FULL,), FRAME)
    assert (axes.get_ylim(), list(axes.get_yticks())) == ((0, 20), [0, 10, 20])
    assert "plain-56 above 20 %, not displayed" in axes.texts[0].get_text()
    mark(axes, world("paper", 39.0), LABELS, {}, FRAME)
    ends = [float(line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert ends == [16.0]
