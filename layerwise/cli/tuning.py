"""The command that finds what is fastest on this machine: tune."""

from __future__ import annotations

from typing import Annotated

import typer

from layerwise.cli.app import Json, Set
from layerwise.cli.tables import print_json, print_table
from layerwise.console import note, out
from layerwise.errors import amount


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("tune")(tune)


def tune(
    name: Annotated[str, typer.Argument(metavar="RECIPE|NETWORK", help="A network, a preset, a recipe's file or a "
                                        "run.", show_default=False)],
    seconds: Annotated[float, typer.Option(metavar="N", help="About how long to measure.")] = 60.0,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Measures precision, memory format, compiler, micro-batch, where not set; says what is fastest here and fits."""
    from layerwise.jobs.tune import tune as measure

    report = measure(name, tuple(settings or ()), seconds)
    if as_json:
        return print_json(report.to_json())
    print_table(("precision", "memory format", "compile", "micro-batch", "allocator", "images/s", "a step needs"),
                [(row.settings["precision"], row.settings["memory_format"], row.settings["compile"],
                  row.settings["micro_batch"], row.allocator,
                  row.problem if row.images_per_second is None else f"{row.images_per_second:,.1f}",
                  size(row.need_bytes)) for row in report.rows])
    machine = report.hardware
    out(f"\n{report.network}, {'x'.join(map(str, report.input))}, recipe {report.recipe}, batch {report.batch_size}: "
        f"fastest {report.best.images_per_second:,.1f} images/s; validation "
        f"{report.validation_images_per_second:,.1f} images/s")
    out(" ".join(report.settings()))
    for line in report.notes:
        note(line)
    note(f"{machine['device']} ({machine['cpu']}), {amount(machine['threads'], 'threads')}; memory free "
         f"{size(report.free_bytes)}; measured in {report.seconds:.0f} s")
    return None


def size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "unknown"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
