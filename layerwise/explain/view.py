"""What a view says, as data: words, tables, charts and pictures, kept as one JSON file and shown by a page.

A view knows no HTML. Its pictures are data URIs within the JSON file, so that a view is whole on disk or not there.
Reading checks every field: the file may come from someone else.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerwise.checkpoint import replace_durably

FORMAT = 1
URI = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=]*")
MOST_BYTES = 64 * 2**20
Cell = str | int | float | None


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of names and numbers under `columns`; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Series:
    """One curve: numbers `y` at `x`."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes; `log`: a logarithmic axis of y."""

    caption: str
    x: str
    y: str
    series: tuple[Series, ...]
    log: bool = False


@dataclass(frozen=True)
class Bar:
    """A probability (0..1) with its name; `true`: of the picture's own label."""

    name: str
    value: float
    true: bool = False


@dataclass(frozen=True)
class Tile:
    """A picture with what is said below it. `mark`: right, wrong or "" colours its title."""

    uri: str
    title: str = ""
    lines: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures one after the other. `size`: small, medium or large."""

    caption: str
    tiles: tuple[Tile, ...]
    size: str = "medium"


@dataclass(frozen=True)
class Strips:
    """Pictures in rows under headings; each heading stands over `spans` pictures."""

    caption: str
    headings: tuple[str, ...]
    spans: tuple[int, ...]
    rows: tuple[tuple[Tile, ...], ...]


@dataclass(frozen=True)
class Point:
    """A picture at (x, y), both 0..1, with what it is."""

    x: float
    y: float
    uri: str
    title: str
    group: int


@dataclass(frozen=True)
class Scatter:
    """Pictures in the plane, each with a frame in the colour of its group; zoomable on the page."""

    caption: str
    groups: tuple[str, ...]
    points: tuple[Point, ...]


Part = Words | Table | Chart | Gallery | Strips | Scatter


@dataclass(frozen=True)
class View:
    """A view of a network: what it says, what it doesn't, from which paper, and its parts in order.

    `bounds` say how the work was bounded ("1,000 of 10,000 pictures, drawn at random").
    """

    name: str
    title: str
    says: str
    not_said: str
    source: str
    parts: tuple[Part, ...]
    bounds: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON; a number that is not finite is null."""
        parts = [{"kind": type(part).__name__.lower(), **asdict(part)} for part in self.parts]
        found: dict[str, Any] = _finite({**asdict(self), "parts": parts})
        return found


def write(file: Path, view: View, key: str) -> None:
    """Keeps a view with the `key` of what it was made of, whole or not at all."""
    record = {"format": FORMAT, "key": key, "view": view.to_json()}
    replace_durably(file, (json.dumps(record, allow_nan=False) + "\n").encode())


def read(file: Path, key: str | None) -> View | None:
    """The view that was kept under `key` (any key for None); None where there is none, another, or a damaged one.

    Its name must be the file's: the page uses it where no text may be, in links and styles.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        record = json.loads(file.read_text("utf-8"))
        if record["format"] != FORMAT or (key is not None and record["key"] != key):
            return None
        view = from_json(record["view"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return view if view.name == file.stem else None


def from_json(record: Any) -> View:
    """The view that `to_json` made.

    Raises ValueError, KeyError, TypeError or OverflowError where a field is not as it must be.
    """
    words = [_text(record[key]) for key in ("name", "title", "says", "not_said", "source")]
    parts = tuple(_part(part) for part in _list(record["parts"]))
    return View(words[0], words[1], words[2], words[3], words[4], parts, _texts(record["bounds"]))


def _part(record: Any) -> Part:
    kind = record["kind"]
    if kind == "words":
        return Words(_text(record["text"]))
    caption = _text(record["caption"])
    if kind == "table":
        columns = _texts(record["columns"])
        rows = tuple(tuple(_cell(cell) for cell in _list(row)) for row in _list(record["rows"]))
        if any(len(row) != len(columns) for row in rows):
            raise ValueError("a row of another length")
        return Table(caption, columns, rows)
    if kind == "chart":
        series = tuple(Series(_text(one["name"]), _numbers(one["x"]), _numbers(one["y"]))
                       for one in _list(record["series"]))
        if any(len(one.x) != len(one.y) for one in series):
            raise ValueError("a curve of two lengths")
        return Chart(caption, _text(record["x"]), _text(record["y"]), series, record["log"] is True)
    if kind == "gallery":
        return Gallery(caption, _tiles(record["tiles"]), _text(record["size"]))
    if kind == "strips":
        spans = tuple(int(span) for span in _list(record["spans"]))
        headings = _texts(record["headings"])
        if len(headings) != len(spans):
            raise ValueError("a heading without a span")
        return Strips(caption, headings, spans, tuple(_tiles(row) for row in _list(record["rows"])))
    if kind == "scatter":
        return Scatter(caption, _texts(record["groups"]), tuple(
            Point(_number(one["x"]), _number(one["y"]), _uri(one["uri"]), _text(one["title"]), int(one["group"]))
            for one in _list(record["points"])))
    raise ValueError(f"no kind of part: {kind}")


def _tiles(found: Any) -> tuple[Tile, ...]:
    return tuple(Tile(
        _uri(one["uri"]), _text(one["title"]), _texts(one["lines"]),
        tuple(Bar(_text(bar["name"]), _number(bar["value"]), bar["true"] is True) for bar in _list(one["bars"])),
        _text(one["mark"])) for one in _list(found))  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(one) for one in _list(value))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(_number(one) for one in _list(value))


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError("not a cell")


def _uri(value: Any) -> str:
    if not isinstance(value, str) or not URI.fullmatch(value):
        raise ValueError("not a picture")
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
