"""The command that tries a training's safety on this machine: drill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Json, Set, data_dir
from layerwise.cli.tables import print_json
from layerwise.console import SETTINGS, note, out
from layerwise.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("drill")(drill)


def drill(
    target: Annotated[str, typer.Argument(metavar="RUN|NETWORK", help="A run, whose recipe and data are taken; or a "
                                          "network, with DATA.", show_default=False)],
    data: Annotated[str, typer.Argument(metavar="[DATA]", help="A folder or list of pictures, or a named data set.",
                                        show_default=False)] = "",
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="A preset or a recipe's file, with NETWORK DATA; "
                                        "none: the one that fits.", show_default=False)] = "",
    settings: Set = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of the shortened training.")] = 12,
    kills: Annotated[int, typer.Option(metavar="N", help="How often it is killed.")] = 3,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the instants at which it is killed.")] = 0,
    out_dir: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the receipt drill.json is kept; "
                                                 "none: in RUN, or runs/drill-NETWORK.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Kills and starves a short training on this machine, resumes it, and says whether it ends bit-identical."""
    from layerwise.jobs import drill as job
    from layerwise.jobs.recipe_choice import for_training

    if not data and (recipe or settings):
        raise InputError(f"drill {target}: --recipe and --set need NETWORK DATA", "A run has its recipe.",
                         "Name a network and data, or leave them out.")
    chosen = for_training(target, data, recipe, settings or []) if data else job.plan_of(Path(target))
    place = out_dir or (Path("runs") / f"drill-{target}" if data else Path(target))
    note(f"drill: {steps} steps, killed {kills} times; the training starts about {kills + 10} times, which takes a "
         "while")
    found = job.drill(job.Plan(chosen, steps, kills, seed, data_dir(), SETTINGS.offline), place)
    if as_json:
        return print_json(found.contents)
    for line in found.lines():
        out(line)
    out(f"receipt: {place / job.RECEIPT}")
    return None
