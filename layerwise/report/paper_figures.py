"""Figures of the papers drawn from what was measured: SVG and PNG, with scale, data and deviations written below.

The same results give the same bytes: no date, no random names, glyphs as paths.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from pathlib import Path
from typing import Any

from layerwise.experiments.experiment import Experiment, Results
from layerwise.report.papers import Table

WIDTH, HEIGHT = 9.0, 4.5  # inches
LINE, CHARACTERS = 0.16, 150  # of the words below: height of a line in inches, letters in it
SIZE = 7.0  # points
DPI = 110
NAMES = {"/": "-", " ": "-"}


def stem(table: Table) -> str:
    """The name of a table's figure, with its scale."""
    return "".join(NAMES.get(letter, letter) for letter in f"{table.name}-{table.scale}")


def save(experiment: Experiment, results: Results, table: Table, folder: Path) -> list[Path]:
    """Draws the figure of an experiment, where it has one and something was measured; returns its files."""
    if experiment.draw is None or not results.rows:
        return []
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "layerwise", "svg.fonttype": "path", "font.size": 9.0}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        experiment.draw(results, figure)
        _label(figure, table)
        folder.mkdir(parents=True, exist_ok=True)
        svg, png = folder / f"{stem(table)}.svg", folder / f"{stem(table)}.png"
        about = {"Title": table.title, "Description": digest(results, table)}
        figure.savefig(svg, metadata={"Date": None, "Creator": None, **about})
        figure.savefig(png, dpi=DPI, metadata={"Software": None, **about})
    return [svg, png]


def digest(results: Results, table: Table) -> str:
    """SHA-256 of the numbers and curves that a figure shows and of the words below it."""
    shown = {slug: [[one.seed, one.numbers, one.curve] for one in rows] for slug, rows in results.rows.items()}
    text = json.dumps([shown, caption(table)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def caption(table: Table) -> list[str]:
    """The words below a figure: title, scale and data, and every deviation."""
    rows: dict[str, list[str]] = {}
    for entry in table.entries:
        for text in entry.differs:
            rows.setdefault(text, []).append(entry.slug)
    own = [f"{', '.join(slugs)}: {text}" for text, slugs in rows.items()]
    lines = [f"{table.title}. {table.label[0].upper()}{table.label[1:]}."]
    lines += [f"Differs from the paper: {'; '.join(table.shared)}."] if table.shared else []
    lines += [f"Of some rows alone: {'; '.join(own)}."] if own else []
    return [*lines, *([f"Measured on {'; '.join(table.machines)}."] if table.machines else [])]


def _label(figure: Any, table: Table) -> None:
    """Writes the caption into room that is added below the figure."""
    lines = [line for text in caption(table) for line in textwrap.wrap(text, CHARACTERS)]
    width, height = figure.get_size_inches()
    room = LINE * (len(lines) + 1)
    part = room / (height + room)
    figure.set_size_inches(width, height + room)
    engine = figure.get_layout_engine()
    if engine is not None and hasattr(engine, "set"):
        engine.set(rect=(0, part, 1, 1 - part))
    else:
        for axes in figure.axes:
            x0, y0, w, h = axes.get_position().bounds
            axes.set_position((x0, part + y0 * (1 - part), w, h * (1 - part)))
    for place, line in enumerate(lines):
        figure.text(0.01, part - (place + 1) * LINE / (height + room), line, fontsize=SIZE, va="top",
                    weight="bold" if place == 0 else "normal")
