"""The commands that train: train, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Json, Set, data_dir
from layerwise.cli.tables import print_json
from layerwise.console import SETTINGS, note, out


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (train, resume):
        app.command(command.__name__)(command)


def train(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A network (`layerwise models` lists them).")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder or list of pictures, or a named data set.")],
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="A preset or a recipe's file; none: the one that "
                                        "fits network and data.", show_default=False)] = "",
    settings: Set = None,
    start_from: Annotated[str, typer.Option("--from", metavar="MODEL", help="Start from a model file or a run.",
                                            show_default=False)] = "",
    out_dir: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run's new directory; none: "
                                                 "runs/DATA-NETWORK-seedN.", show_default=False)] = None,
    split: Annotated[str, typer.Option(metavar="A/B/C", help="Parts for train/val/test in percent, where the data has "
                                       "no splits.", show_default=False)] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Train with this many seeds and give the spread.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Train even where the network does not suit the input.")] = False,
    as_json: Json = False,
) -> None:
    """Trains a network on pictures, tests it under a named protocol, writes a model file and a report."""
    from layerwise.jobs.main_job import closing_lines, spread_lines, train_seeds
    from layerwise.jobs.recipe_choice import for_training
    from layerwise.training.preparation import RunOptions

    given = [*(settings or []), *([f"start_from={start_from}"] if start_from else []),
             *([f"split={split}"] if split else [])]  # fmt: skip
    options = RunOptions(out=out_dir, data_dir=data_dir(),
                         offline=SETTINGS.offline, confirmed=yes)
    chosen = for_training(network, data, recipe, given)
    if not recipe:
        note(f"recipe {chosen.name}, which fits {network} and these pictures; --recipe chooses another")
    found = train_seeds(chosen, options, seeds)
    if as_json:
        return print_json(found if seeds > 1 else found["runs"][0])
    for line in spread_lines(found) if seeds > 1 else closing_lines(Path(found["runs"][0]["run"])):
        out(line)
    return None


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.", show_default=False)],
    settings: Set = None,
    extend: Annotated[float, typer.Option(metavar="N", help="Train on for N more epochs (or iterations, as the recipe "
                                          "counts).", show_default=False)] = 0,
    accept_data_change: Annotated[bool, typer.Option("--accept-data-change", help="Go on with data that changed; it "
                                                     "is recorded.")] = False,
    as_json: Json = False,
) -> None:
    """Goes on with a run from its last sound checkpoint; the end is that of an uninterrupted run."""
    from layerwise.jobs import main_job
    from layerwise.report import summary
    from layerwise.training.preparation import RunOptions

    given = [*(settings or []), *([main_job.extended(run, extend)] if extend else [])]
    options = RunOptions(data_dir=data_dir(), offline=SETTINGS.offline,
                         accept_data_change=accept_data_change, settings=tuple(given))
    done = main_job.resume(run, options)
    if as_json:
        return print_json(summary(done))
    for line in main_job.closing_lines(done):
        out(line)
    return None
