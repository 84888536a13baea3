"""How a source's name of a layer becomes ours: rows of (pattern, replacement), read from the top.

A name without its last part (`layer1.0.conv2` of `layer1.0.conv2.weight`) must match the whole pattern of exactly one
row. In a replacement `{1}` is the pattern's first group and `{1+1}` that number plus one. A replacement of `UNUSED`
takes a layer that our network has no place for, with the reason.
"""

from __future__ import annotations

import re
from functools import cache

Row = tuple[str, str]
Table = tuple[Row, ...]
UNUSED = "unused: "

_FIELD = re.compile(r"\{(\d)([+-]\d+)?\}")


@cache
def _compiled(table: Table) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in table)


def translated(name: str, table: Table) -> str | None:
    """Our name of the source's entry `name`, a text that starts with UNUSED, or None where no row knows it."""
    layer, _, last = name.rpartition(".")
    for pattern, replacement in _compiled(table):
        if found := pattern.fullmatch(layer):
            filled = _FIELD.sub(lambda field, found=found: _value(found, field), replacement)  # type: ignore[misc]
            return filled if filled.startswith(UNUSED) else f"{filled}.{last}"
    return None


def _value(found: re.Match[str], field: re.Match[str]) -> str:
    text = found[int(field[1])]
    return str(int(text) + int(field[2])) if field[2] else text


def numbered(pattern: str, layers: dict[int, str]) -> Table:
    """Rows for layers that the source only numbers: the number stands for `#` in the pattern."""
    return tuple((pattern.replace("#", str(number)), name) for number, name in layers.items())
