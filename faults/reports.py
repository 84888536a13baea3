"""Hostile names in all that is shown (C5): the report page and its drawings, CSV, Markdown, JSON, a terminal.

The payloads are pieces of known attacks in every order, as class names, paths, metrics, notes and whatever else a run's
files hold. What comes out is parsed: no script, handler, address, formula or escape code.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from unittest import mock

import jinja2
import numpy as np

from faults.goal import Control, Goal, Outcome
from layerwise import console
from layerwise.cli.tables import flush_json, print_json, print_table
from layerwise.data import check
from layerwise.data.check import Duplicate
from layerwise.report import figures, ledger, page, text
from layerwise.report.page import report
from layerwise.spreadsheet import FORMULA, plain_cell, safe_cell
from tests import test_hostile_output, test_report_hostile
from tests.page_parser import Page
from tests.test_hostile_output import obeyed
from tests.test_report_hostile import hostile_run

AT_ONCE = 25  # classes of a drawing
SEEDS = tuple(dict.fromkeys((*test_report_hostile.HOSTILE, *test_hostile_output.HOSTILE)))
MARKS = "<>|[]`"


def payloads(count: int) -> tuple[str, ...]:
    """The known ones, then pieces of them in random orders."""
    random = np.random.default_rng(0)
    pieces = [piece for seed in SEEDS for piece in (seed[:40], seed[:12], '"', ">", "'", "]]>", "=", "\x1b[")]
    mixed = [f"{prefix}{number}{''.join(random.choice(pieces, 4))}" for number, prefix in
             zip(range(count), ("", "=", "+", "-", "@", "\t", "\r", "'", "\x1b]8;;") * count, strict=False)]
    return (*[seed for seed in SEEDS if seed.strip()], *mixed)[:count]


def pages(names: tuple[str, ...], folder: Path) -> list[str]:
    """What is wrong with the page of a run that has these names everywhere, and with drawings of them."""
    source = report(hostile_run(folder / "run", names)).read_text("utf-8")
    found = Page(source)
    problems = [f"page: {problem}" for problem in found.problems]
    if "default-src 'none'" not in source.split("</head>")[0]:
        problems.append("page: no policy")
    problems += [f"page: {name!r} is not shown" for name in names if text.clean(name) not in found.texts["classes"]]
    for start in range(0, len(names), AT_ONCE):
        few = names[start : start + AT_ONCE]
        drawing = figures.confusion_matrix(np.eye(len(few), dtype=np.int64), few, "Confusion")
        problems += [f"drawing from {start}: {problem}" for problem in Page(drawing).problems]
    return problems


def cells(names: tuple[str, ...], folder: Path) -> list[str]:
    """What is wrong with a list of duplicates of these names, and with single cells."""
    file = folder / "pairs.csv"
    names = tuple(name for name in names if "\ud800" not in name)  # which can't come from a path or a list
    check.write_pairs(tuple(Duplicate("exact", name, name, "train", "test", name, name) for name in names), file)
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    problems = [f"CSV: {len(rows)} rows for {len(names)} names"] * (len(rows) != len(names))
    problems += [f"CSV: the formula {cell[:40]!r}" for row in rows for cell in row if cell.startswith(FORMULA)]
    return problems + [f"cell: {name[:40]!r}" for name in names
                       if safe_cell(name).startswith(FORMULA) or plain_cell(safe_cell(name)) != name]


def lines(names: tuple[str, ...]) -> list[str]:
    """What is wrong with Markdown, JSON and what a terminal is shown."""
    problems = []
    for name in names:
        line = ledger.inline(f"pictures of {name}")
        if "\n" in line or obeyed(line) or any(mark in line.replace(f"\\{mark}", "") for mark in MARKS):
            problems.append(f"Markdown: {line[:60]!r}")
        shown, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(told):
            print_json({"name": name, name: [name]})
            flush_json()
            document = shown.getvalue()
            print_table(("class", "error"), [(name, 1)])
            console.out(name)
            console.note(name)
        if json.loads(document) != {"name": name, name: [name]} or obeyed(document):
            problems.append(f"JSON: {name[:60]!r}")
        if obeyed((shown.getvalue() + told.getvalue()).replace("\t", "")):
            problems.append(f"terminal: {name[:60]!r}")
    return problems


def stay_text(trials: int, folder: Path) -> Outcome:
    """C5."""
    names = payloads(trials)
    problems = [*pages(names, folder), *cells(names, folder), *lines(names)]
    return Outcome(len(names), tuple(problems), "each in the page (some twenty places), a drawing, CSV, Markdown, JSON "
                   "and on a terminal; found with parsers, not with a browser")


def unescaped(folder: Path) -> Outcome:
    """The control: the template without its escaping."""
    unsafe = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)
    unsafe.filters.update(page.environment().filters)
    with mock.patch.object(page, "environment", return_value=unsafe):
        names = SEEDS[:12]
        return Outcome(len(names), tuple(Page(report(hostile_run(folder / "run", names)).read_text("utf-8")).problems))


def formulas(folder: Path) -> Outcome:
    """The control: cells and lines as they are."""
    names = payloads(80)
    return Outcome(len(names), tuple(name for name in names if name.startswith(FORMULA) or obeyed(name)))


GOALS = (
    Goal("C5", "hostile names in pages, drawings, CSV, Markdown, JSON, terminal",
         "0 scripts, handlers, addresses, formulas, escape codes; a policy of default-src 'none'", 500, 60, stay_text,
         (Control("template unescaped", unescaped), Control("names as they are", formulas))),
)
