"""The command that runs the papers' tables and figures: reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwise.cli.app import Json, data_dir
from layerwise.cli.tables import print_json, print_table
from layerwise.console import SETTINGS, out
from layerwise.errors import InputError

if TYPE_CHECKING:
    from layerwise.report.papers import Table

RUNS, RESULTS = Path("runs/reproduce"), Path("results/measured")


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("reproduce")(reproduce)


def reproduce(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A table or figure, as resnet/table-6; with --list the "
                                        "beginning of names.", show_default=False)] = "",
    scale: Annotated[str, typer.Option(metavar="SCALE", help="smoke: two steps a row; small: a shortened training on "
                                       "Fashion-MNIST; paper: the full protocol.")] = "small",
    rows: Annotated[str, typer.Option(metavar="A,B", help="Only these rows.", show_default=False)] = "",
    seeds: Annotated[int, typer.Option(min=0, max=10, help="How many seeds; none: three, or as many as the paper.",
                                       show_default=False)] = 0,
    data: Annotated[str, typer.Option(metavar="DATA", help="With --scale paper: data instead of the paper's; the table "
                                      "says so.", show_default=False)] = "",
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the runs are kept.")] = RUNS,
    listing: Annotated[bool, typer.Option("--list", help="Show the state of every cell and claim; run nothing.")]
    = False,
    as_json: Json = False,
) -> None:
    """Runs a table or figure of a paper and sets what was measured beside what is printed; says the cost first."""
    if listing:
        if scale != "small" or rows or seeds or data or out_dir != RUNS:
            raise InputError("--scale, --rows, --seeds, --data and --out are for a table or figure that is run",
                             "--list shows every row, at the small scale and at the paper's.",
                             "Leave out --list, or leave out these.")
        return _list(name, as_json)
    from layerwise.jobs.reproduce import Ask, Places
    from layerwise.jobs.reproduce import reproduce as run

    if not name:
        raise InputError("layerwise reproduce: no table or figure given",
                         mend="`layerwise reproduce --list` names them.")
    smoke = out_dir / "smoke"  # what a smoke run measures is no result
    places = Places(smoke if scale == "smoke" else out_dir, smoke / "measured" if scale == "smoke" else RESULTS,
                    data_dir(), SETTINGS.offline, as_json)
    wanted = tuple(dict.fromkeys(row.strip() for row in rows.split(",") if row.strip()))
    done = run(name, Ask(scale, wanted, seeds, data, SETTINGS.confirmed), places)
    if as_json:
        return print_json(done.to_json())
    show(done.table)
    for line in done.busy:
        out(f"another process is at it: {line}; run the same command again when it is done")
    for path in done.figures:
        out(f"figure: {path}")
    return None


def show(table: Table) -> None:
    """Prints a table with its scale, what differed, and the claims."""
    out(table.title)
    out(table.label)
    out()
    print_table(table.headers, [[text or " " for text in line] for line in table.lines()])
    out()
    out("differs from the paper, or was not measured:")
    for line in table.notes():
        out(f"  {line}")
    for claim in table.claims:
        out(f"claim {claim.slug}: {claim.text}")
        out(f"  {claim.word.upper()}: {claim.because}")


def _list(name: str, as_json: bool) -> None:
    from layerwise.experiments import EXPERIMENTS, find
    from layerwise.report.papers_list import HEADERS, states

    names = [one for one in EXPERIMENTS if one.startswith(name)] or [find(name).name]
    found = list(states((find(one) for one in names), RESULTS))
    if as_json:
        return print_json({"cells": [state.to_json() for state in found]})
    for one in names:
        out(f"{one}: {find(one).title}")
        print_table(HEADERS, [state.line for state in found if state.experiment == one])
        out()
    return None
