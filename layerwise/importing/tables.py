"""How a source's name of a layer becomes ours: rows of (pattern, replacement), each applied to what the last one left.

The name is that of an entry without its last part and with a dot at its end (`layer1.0.conv2.` of
`layer1.0.conv2.weight`), so that a row can name whole parts. In a replacement `{1}` is the pattern's first group and
`{1+1}` that number plus one. Whether the result is an entry of our network is not known here: `matching` looks.
"""

from __future__ import annotations

import re
from functools import cache

Row = tuple[str, str]
Table = tuple[Row, ...]

_FIELD = re.compile(r"\{(\d)([+-]\d+)?\}")


@cache
def _compiled(table: Table) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in table)


def translated(name: str, table: Table) -> str:
    """Our name of the source's entry `name`; the same name where no row changes it."""
    layer, _, last = name.rpartition(".")
    layer += "."
    for pattern, replacement in _compiled(table):
        layer = pattern.sub(lambda found, replacement=replacement: _filled(replacement, found), layer)  # type: ignore[misc]
    return layer + last


def _filled(replacement: str, found: re.Match[str]) -> str:
    return _FIELD.sub(lambda field: _value(found, field), replacement)


def _value(found: re.Match[str], field: re.Match[str]) -> str:
    text = found[int(field[1])]
    return str(int(text) + int(field[2])) if field[2] else text


def numbered(before: str, layers: dict[int, str]) -> Table:
    """Rows for layers that the source only numbers: `before`, the number and a dot become the layer's name."""
    return tuple((rf"^{re.escape(before)}{number}\.", f"{name}.") for number, name in layers.items())
