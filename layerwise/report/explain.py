"""The page of what a network learned: the run's report as its first tab, then a tab a view. Self-contained, one file.

Tabs need no script. The one script of the page zooms the feature map; the page's policy names its SHA-256, so that no
other can run. Everything that is shown is cleaned and escaped as in the report.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from layerwise.explain.view import Cell, Chart, Part, Scatter, Table, View
from layerwise.report import figures, text
from layerwise.report.page import body, environment, template_file
from layerwise.report.run import RunFiles, section

MOST_BYTES = 16 * 2**20  # of the whole page; views that don't fit are left out, the largest first
MAP = 1000  # units a side of the feature map


@dataclass(frozen=True)
class Missing:
    """A view that can't be shown, and why."""

    name: str
    title: str
    why: str


@dataclass(frozen=True)
class Heading:
    """What stands at the top of the page: the network, its data, and the name of the run or file."""

    network: str
    data: str
    name: str


def heading_of(files: RunFiles) -> Heading:
    """The heading of a run."""
    model, data = section(files.info, "model"), section(files.info, "data")
    return Heading(str(model.get("name", files.recipe.get("network", "unknown network"))),
                   str(data.get("name", files.recipe.get("data", "unknown data"))), files.path.resolve().name)


def explain_page(files: RunFiles | None, heading: Heading, views: Sequence[View], missing: Sequence[Missing] = (),
                 most: int = MOST_BYTES) -> str:
    """The page as text, of at most `most` bytes (its report may be more); views in their order.

    A view that makes it larger is left out, the largest first, and its tab says so.
    """
    shown = {view.name: section_of(view) for view in views}
    report = Markup("") if files is None else body(files)
    left = list(missing)
    while not fits(page := _page(report, heading, views, shown, left), most) and shown:
        largest = max(shown, key=lambda name: len(shown[name]))
        title = next(view.title for view in views if view.name == largest)
        left.append(Missing(largest, title, f"With it the page would be larger than {most / 2**20:.3g} MB. Ask for "
                            "this view alone: it is computed already."))
        del shown[largest]
    return page


def fits(page: str, most: int) -> bool:
    """Whether a page has at most `most` bytes."""
    return len(page.encode()) <= most


def _page(report: Markup, heading: Heading, views: Sequence[View], shown: dict[str, Markup],
          left: Sequence[Missing]) -> str:
    """The page with these views; `left` are the ones that it has to say something of instead."""
    script = template_file("explain.js") if any("<svg class=\"map\"" in each for each in shown.values()) else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    tabs = [("report", "Report")] if report else []
    tabs += [(view.name, view.title) for view in views if view.name in shown] + [(one.name, one.title) for one in left]
    return environment().from_string(template_file("explain.html")).render(
        style=Markup(template_file("style.css") + template_file("explain.css")), heading=heading, report=report,
        tabs=tabs, shown=shown.items(), missing=left, script=Markup(script),
        policy=f"; script-src 'sha256-{digest}'" if script else "")  # fmt: skip


def section_of(view: View) -> Markup:
    """What a view shows: the inside of its tab."""
    parts = [(type(part).__name__.lower(), part, _drawn(view, part, place)) for place, part in enumerate(view.parts)]
    return Markup(environment().from_string(template_file("explain_view.html")).render(view=view, parts=parts))


def _drawn(view: View, part: Part, place: int) -> Any:
    """What a part needs beside itself: a chart its drawings, a table its cells as text, a map its marks."""
    if isinstance(part, Chart):
        curves = [(one.name, one.x, one.y) for one in part.series]
        wide, narrow = (Markup(figures.curves(curves, (part.x, part.y), part.log, size,
                                              f"{letter}{_letters(place)} {view.name} {part.caption}"))
                        for letter, size in (("w", (640, 330)), ("n", (330, 280))))  # fmt: skip
        return wide, narrow
    if isinstance(part, Scatter):
        groups = max(1, len(part.groups))
        colours = [f"hsl({round(360 * number / groups)} 75% 52%)" for number in range(groups)]
        side = MAP / max(10.0, 1.1 * len(part.points) ** 0.5)
        room = MAP - side
        marks = [(round(one.x * room, 1), round((1 - one.y) * room, 1), one.uri, one.title,
                  colours[one.group % groups]) for one in part.points]
        used = sorted({one.group % groups for one in part.points})
        return marks, round(side, 1), [(part.groups[group], colours[group]) for group in used if part.groups]
    if isinstance(part, Table):
        return [[(_cell(cell), isinstance(cell, int | float)) for cell in row] for row in part.rows]
    return None


def _letters(number: int) -> str:
    """A number in letters, for the ids within a drawing."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def _cell(value: Cell) -> str:
    if value is None:
        return text.UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value or 0.0:,.4g}" if text.number(value) is not None else text.UNDEFINED
    return f"{value:,}" if isinstance(value, int) else value
