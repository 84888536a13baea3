"""The command that runs the papers' tables and figures: reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import data_dir
from layerwise.console import SETTINGS, note, out


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("reproduce")(reproduce)


def reproduce(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A table or figure, as resnet/table-6.",
                                        show_default=False)],
    scale: Annotated[str, typer.Option(metavar="SCALE", help="smoke (two steps a row), small (640 steps on "
                                       "Fashion-MNIST), or paper.")] = "small",
    rows: Annotated[str, typer.Option(metavar="A,B", help="Only these rows.", show_default=False)] = "",
    seeds: Annotated[int, typer.Option(min=0, help="How many seeds; 0: three, or the paper's.",
                                       show_default=False)] = 0,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the runs are kept.")] = Path(
        "runs/reproduce"),
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking.")] = False,
) -> None:
    """Runs a table or figure of a paper and sets what was measured beside what is printed."""
    from layerwise.experiments import find
    from layerwise.jobs.reproduce import Places, cells, fill

    experiment = find(name)
    slugs = [slug.strip() for slug in rows.split(",") if slug.strip()] or list(experiment.rows)
    results = (out_dir if scale == "smoke" else Path("results")) / "measured"
    places = Places(out_dir, results, data_dir(), SETTINGS.offline)
    for line in fill(cells(experiment, scale, slugs, seeds), places):
        note(line)
    out(f"results: {results}")
