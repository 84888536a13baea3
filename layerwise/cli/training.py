"""The commands that train: train, resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Json, Set, data_dir, global_words
from layerwise.cli.tables import print_json
from layerwise.console import SETTINGS, note, out
from layerwise.errors import InputError

Processes = Annotated[int, typer.Option(min=1, help="Train in this many processes of this machine, which are started "
                                        "again from the last checkpoint where one dies or freezes.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (train, resume):
        app.command(command.__name__)(command)


def train(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A network (`layerwise models` lists them).")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, list or shards of pictures, the "
                                    "address of shards, or a named data set.")],
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
    processes: Processes = 1,
    as_json: Json = False,
) -> int | None:
    """Trains a network on pictures, tests it under a named protocol, writes a model file and a report."""
    if processes > 1:
        if seeds > 1:
            raise InputError(f"--processes {processes} --seeds {seeds}: one run at a time",
                             "A run that is started again would leave the other seeds out.",
                             "Start a command for each seed with --set seed=N.")
        return _launched(processes, as_json, [
            "train", network, data, *(["--exact"] if SETTINGS.exact else []), *_valued("--recipe", recipe),
            *_settings(settings), *_valued("--from", start_from), *_valued("--out", out_dir),
            *_valued("--split", split)])
    from layerwise.jobs.main_job import closing_lines, spread_lines, train_seeds
    from layerwise.jobs.recipe_choice import for_training
    from layerwise.recipe import check
    from layerwise.recipes.exact import made_exact
    from layerwise.training.preparation import RunOptions

    given = [*(settings or []), *([f"start_from={start_from}"] if start_from else []),
             *([f"split={split}"] if split else [])]  # fmt: skip
    options = RunOptions(out=out_dir, data_dir=data_dir(),
                         offline=SETTINGS.offline, confirmed=SETTINGS.confirmed)
    chosen = for_training(network, data, recipe, given)
    if SETTINGS.exact:
        chosen = made_exact(chosen)
        check(chosen)
    if not recipe and os.environ.get("RANK", "0") == "0":  # under torchrun the first process says it
        note(f"recipe {chosen.name}, which fits {network} and these pictures; --recipe chooses another")
    found = train_seeds(chosen, options, seeds)
    if as_json:
        print_json(found if seeds > 1 else found["runs"][0])
        return None
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
    processes: Processes = 1,
    as_json: Json = False,
) -> int | None:
    """Goes on with a run from its last sound checkpoint; the end is that of an uninterrupted run."""
    if processes > 1:
        return _launched(processes, as_json, [
            "resume", str(run), *_settings(settings), *_valued("--extend", extend or ""),
            *(["--accept-data-change"] if accept_data_change else [])])
    from layerwise.jobs import main_job
    from layerwise.report import summary
    from layerwise.training.preparation import RunOptions

    given = [*(settings or []), *([main_job.extended(run, extend)] if extend else [])]
    options = RunOptions(data_dir=data_dir(), offline=SETTINGS.offline,
                         accept_data_change=accept_data_change, settings=tuple(given))
    done = main_job.resume(run, options)
    if as_json:
        print_json(summary(done))
        return None
    for line in main_job.closing_lines(done):
        out(line)
    return None


def _launched(processes: int, as_json: bool, words: list[str]) -> int:
    """Runs the command `words` in several processes; returns its exit status."""
    from layerwise.jobs.launch import launch

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(f"--processes {processes} under torchrun: only one of them starts processes",
                         mend="Leave --processes out, or torchrun.")
    behind = [*(["--json"] if as_json else []), *global_words()]
    return launch(processes, [*words, *behind], lambda run: ["resume", str(run), *behind])


def _valued(option: str, value: object) -> list[str]:
    return [option, str(value)] if value else []


def _settings(settings: list[str] | None) -> list[str]:
    return [word for setting in settings or [] for word in ("--set", setting)]
