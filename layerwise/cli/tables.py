"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from layerwise.console import SETTINGS, colour_wanted, safe

if TYPE_CHECKING:
    from rich.console import Console

GAP = 3  # columns between two columns of a table
WIDE = 240  # columns where the output is no terminal: a table's lines are not folded in a log or a pipe


def rich_console(stream: TextIO, no_colour: bool = False) -> Console:
    """A rich console on `stream`: as wide as the terminal, or `WIDE` where there is none."""
    from rich.console import Console

    coloured = colour_wanted(stream, no_colour)
    width = None if stream.isatty() else WIDE
    return Console(file=stream, no_color=not coloured, force_terminal=coloured or None, width=width, highlight=False)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Prints `rows` under `headers` on standard output; columns of numbers stand to the right.

    On a narrow terminal sentences are folded between words; numbers and names are not: the table is wider then.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    console = rich_console(sys.stdout, SETTINGS.no_colour)
    cells = [[cell(value) for value in row] for row in rows]
    texts = [[header, *(row[index] for row in cells)] for index, header in enumerate(headers)]
    whole = [max(cell_len(line) for text in column for line in text.split("\n")) for column in texts]
    least = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in texts]
    widths = _fitted(whole, least, console.width - GAP * (len(headers) - 1))
    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", show_edge=False, pad_edge=False)
    for index, header in enumerate(headers):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        table.add_column(header, justify="right" if numeric else "left", overflow="fold", width=widths[index])
    for row in cells:
        table.add_row(*map(Text, row))
    console.width = max(console.width, sum(widths) + GAP * (len(headers) - 1))
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n")


def _fitted(whole: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """The widths of columns that are `whole` wide and may be `least`: the widest give way until they fit in `room`."""
    widths = list(whole)
    while sum(widths) > room:
        wide = [index for index, width in enumerate(widths) if width > least[index]]
        if not wide:
            break
        widths[max(wide, key=lambda index: widths[index])] -= 1
    return widths


def cell(value: object) -> str:
    """`value` as the text of a cell: thousands apart for integers, `-` for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "x".join(str(part) for part in value)
    return safe(str(value))


def _is_number(value: object) -> bool:
    text = cell(value).removesuffix("%").strip().replace(",", "").replace("±", "")
    return text == "-" or text.replace(".", "", 1).lstrip("-+").isdigit()


_held: list[dict[str, Any]] = []


def print_json(value: dict[str, Any]) -> None:
    """Holds `value` until the command's end, when `flush_json` prints it: one JSON document a command, always."""
    _held[:] = [value]


def flush_json(error: dict[str, Any] | None = None) -> None:
    """Prints what is held as JSON on standard output, an error beside it; NaN is refused (undefined is null)."""
    value = {**(_held.pop() if _held else {}), **({"error": error} if error else {})}
    if value:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str)
        sys.stdout.write("".join(map(_visible, text)) + "\n")


def _visible(letter: str) -> str:
    """A letter of JSON, as an escape where a terminal would obey it instead of showing it."""
    return letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1]
