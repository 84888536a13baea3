"""The command that uses a model: predict."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("predict")(predict)


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run or a model file.", show_default=False)],
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURES", help="Pictures or folders; - reads one picture from standard input.",
                                                  show_default=False)],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many classes a picture.")] = 1,
    layout: Annotated[str, typer.Option("--format", metavar="table|json|csv", help="How rows are printed.")] = "table",
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 2 where a picture can't be read.")] = False,
) -> None:
    """Names what is on pictures; a row with an error for each that can't be read."""
    raise NotImplementedError
