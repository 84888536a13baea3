"""Figures 1, 4 and 6 of the ResNet paper as it draws them: panels, axes, kinds of lines, legends, marks."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from layerwise.experiments import find
from layerwise.experiments.experiment import Measured, Results
from layerwise.experiments.resnet.panels import COLOURS, KINDS, depth, labelled
from tests.test_experiments_resnet import curve, results


def drawn(name: str, found: Results) -> Figure:
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    experiment = find(f"resnet/{name}")
    assert experiment.draw is not None
    experiment.draw(found, figure)
    figure.canvas.draw()
    return figure


@pytest.mark.parametrize(("name", "panels"), [("figure-1", 2), ("figure-4", 2), ("figure-6", 3)])
def test_figures_have_the_papers_panels(name: str, panels: int) -> None:
    for found in (results(name), results(name, seeds=1), Results("paper", {})):
        assert len(drawn(name, found).axes) == panels
    empty = drawn(name, Results("small", {}))
    assert all("not measured" in axes.texts[0].get_text() for axes in empty.axes)


def test_figure_1_as_printed() -> None:
    left, right = drawn("figure-1", results("figure-1")).axes
    assert [axes.get_ylim() for axes in (left, right)] == [(0, 20)] * 2
    assert (left.get_ylabel(), right.get_ylabel()) == ("training error (%)", "validation error (%)")
    assert list(left.get_xticks()) == [0, 1, 2, 3, 4, 5, 6]
    assert left.get_xlabel() == "iter. (1e4)"
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["20-layer", "56-layer"]


def kinds(axes: Axes) -> dict[str, tuple[str, float]]:
    """What the legend says of the kinds of lines: style and width."""
    legend = axes.get_legend()
    assert legend is not None
    return {text.get_text(): (line.get_linestyle(), line.get_linewidth())
            for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
            if text.get_text() in KINDS.values()}


def test_one_kind_of_line_needs_no_word() -> None:
    """The negative control: figure 1 has a panel for each kind, and nothing is told of a figure without curves."""
    assert kinds(drawn("figure-1", results("figure-1")).axes[0]) == {}
    assert drawn("figure-6", Results("small", {})).axes[0].get_legend() is None


def test_figure_4_as_printed() -> None:
    left, right = drawn("figure-4", results("figure-4")).axes
    assert left.get_ylim() == right.get_ylim() == (20, 60)
    assert left.get_xlim() == (0, 50)
    assert kinds(left) == {"training error": ("-", 0.9), "validation error": ("-", 2.2)}
    for axes, kind in ((left, "plain"), (right, "ResNet")):
        assert [text.get_text() for text in axes.get_legend().get_texts()][:2] == [f"{kind}-18", f"{kind}-34"]
        widths = {line.get_linewidth() for line in axes.lines if len(line.get_xdata()) > 10}
        assert len(widths) == 2
        assert max(widths) > 2 * min(widths), "thin training, bold validation"


def test_figure_6_as_printed() -> None:
    left, middle, right = drawn("figure-6", results("figure-6")).axes
    assert [list(axes.get_yticks()) for axes in (left, middle, right)] == [[0, 5, 10, 20]] * 2 + [[0, 1, 5, 10, 20]]
    assert right.get_xlim()[0] == 4
    assert left.get_xlim()[0] == 0
    assert "plain-110 above 20 %, not displayed" in left.texts[0].get_text()
    assert not middle.texts
    names = [text.get_text() for text in middle.get_legend().get_texts()]
    assert names[:5] == ["ResNet-20", "ResNet-32", "ResNet-44", "ResNet-56", "ResNet-110"]
    assert [text.get_text() for text in right.get_legend().get_texts()][:2] == ["residual-110", "residual-1202"]
    lines = [line for line in middle.lines if len(line.get_xdata()) > 10]
    dashed = {line.get_linestyle() for line in lines if line.get_linewidth() < 2}
    bold = {line.get_linestyle() for line in lines if line.get_linewidth() > 2}
    assert (dashed, bold) == ({"--"}, {"-"}), "dashed training, bold test"
    assert kinds(middle) == kinds(right) == {"training error": ("--", 1.2), "validation error": ("-", 2.2)}
    triangles = [line.get_ydata() for line in middle.lines if line.get_marker() == "<"]
    assert [float(height[0]) for height in triangles if len(height)] == [8.75, 7.51, 7.17, 6.97, 6.61]


def test_a_small_run_has_its_own_unit_on_the_same_axis() -> None:
    rows = {row: (Measured(0, {"error": 9.0}, tuple({**line, "step": max(1, int(line["step"]) // 100)}
                                                    for line in curve(7, 9))),)
            for row in ("plain20", "plain56")}  # fmt: skip
    left = drawn("figure-1", Results("small", rows)).axes[0]
    assert left.get_xlabel() == "iter. (1e2)"
    assert list(left.get_xticks()) == [0, 1, 2, 3, 4, 5, 6]


def test_names_and_colours() -> None:
    names = ("plain20", "resnet1202", "resnet34_a")
    assert [labelled(name) for name in names] == ["plain-20", "ResNet-1202", "ResNet-34"]
    rows = [row for name in ("figure-1", "figure-4", "figure-6") for row in find(f"resnet/{name}").rows]
    assert {depth(row) for row in rows} <= COLOURS.keys()


def test_figure_7_tells_its_axis_where_a_deviation_lies_far_outside() -> None:
    above = drawn("figure-7", Results("small", {"plain56": (Measured(0, {"deviations": [18.0, 4.0, 0.0]}),)})).axes[0]
    assert above.get_yscale() == "log"
    assert list(above.get_yticks()) == [1, 2, 3, 5, 10]
    assert above.get_ylabel() == "std, logarithmic"
    assert above.get_ylim() == pytest.approx((0.1, 18.9))
