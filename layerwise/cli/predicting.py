"""The command that uses a model: predict."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from layerwise.cli.app import Json, importing
from layerwise.console import note, safe
from layerwise.errors import InputError, nearest

if TYPE_CHECKING:
    from layerwise.serve.predictor import Row

FORMATS = ("table", "json", "csv")


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("predict")(predict)


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run or a model file.", show_default=False)],
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURES", help="Pictures, folders or shards; - reads one "
                                                  "picture from standard input.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many classes a picture.")] = 1,
    layout: Annotated[str, typer.Option("--format", metavar="table|json|csv", help="How rows are printed.")] = "table",
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 2 where a picture can't be read.")] = False,
    calibrated: Annotated[bool, typer.Option("--calibrated", help="Probabilities with the temperature of `layerwise "
                                             "calibrate`.")] = False,
    as_json: Json = False,
) -> None:
    """Names what is on pictures; a row with an error for each that can't be read, and the rest goes on."""
    if layout not in FORMATS:
        raise InputError(f"--format {layout}: no such format{nearest(layout, FORMATS)}",
                         mend="It is table, json or csv.")
    if as_json and layout == "csv":
        raise InputError("--json and --format csv: rows are printed in one way", mend="Leave one of them out.")
    layout = "json" if as_json else layout
    with importing():
        from layerwise.jobs.answers import answers

    classes, rows = answers(run, pictures, top, calibrated, sys.stdin.buffer)
    write, end = {"table": _table, "json": _json, "csv": _csv}[layout](min(top, classes))
    bad = count = 0
    for row in rows:
        count += 1
        bad += bool(row.error)
        write(row)
        sys.stdout.flush()  # what is known is out, whatever happens to the next picture
    sys.stdout.write(end)
    if bad and strict:
        raise InputError(f"{bad} of {count} pictures can't be read", mend="Their rows say why.")
    if bad:
        note(f"{bad} of {count} pictures can't be read; their rows say why")


Writer = tuple[Callable[["Row"], None], str]


def _table(top: int) -> Writer:
    def write(row: Row) -> None:
        if row.prediction is None:
            sys.stdout.write(f"{safe(row.path)}  error: {safe(row.error)}\n")
            return
        pairs = zip(row.prediction.class_names, row.prediction.probabilities, strict=True)
        sys.stdout.write(f"{safe(row.path)}  " + "  ".join(f"{safe(name)} {100 * p:.1f} %" for name, p in pairs) + "\n")

    return write, ""


def _json(top: int) -> Writer:
    before = "[\n"

    def write(row: Row) -> None:
        nonlocal before
        sys.stdout.write(before + json.dumps(row.to_json(), ensure_ascii=True, allow_nan=False))
        before = ",\n"

    return write, "\n]\n"


def _csv(top: int) -> Writer:
    from layerwise.spreadsheet import safe_cell

    # On a terminal a name could move the cursor; a file gets every name as it is.
    shown = safe if sys.stdout.isatty() else str
    pairs = [name for k in range(1, top + 1) for name in (f"top{k}", f"top{k}_probability")]

    def print_row(cells: Sequence[str]) -> None:
        # The writer quotes a carriage return only where its own line ends hold one.
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(cells)
        sys.stdout.write(line.getvalue().removesuffix("\r\n") + "\n")

    print_row(["path", *pairs, "error"])

    def write(row: Row) -> None:
        cells: list[str] = [""] * len(pairs)
        if row.prediction is not None:
            found = zip(row.prediction.class_names, row.prediction.probabilities, strict=True)
            cells = [cell for name, p in found for cell in (safe_cell(name), repr(p))]
        print_row([shown(cell) for cell in (safe_cell(row.path), *cells, safe_cell(row.error))])

    return write, ""
