"""Text that is safe to show: names from the data without control characters, numbers as people read them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping

JOINERS = "\u200c\u200d"  # needed inside words of several scripts and inside emoji; invisible beside ASCII
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
UNDEFINED = "–"
LONGEST = 300  # characters of one shown value
DEEPEST = 3  # levels of a nested record that get a row each


def clean(text: str, limit: int = LONGEST) -> str:
    """`text` on one line, with control, bidirectional and other invisible characters written as escapes.

    A joiner stays where it follows a non-ASCII character. Text longer than `limit` characters ends in "…".
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    parts: list[str] = []
    for position, character in enumerate(shown):
        joins = character in JOINERS and position > 0 and ord(shown[position - 1]) > 127
        if unicodedata.category(character) in HIDDEN and not joins:
            code = ord(character)
            parts.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")
        else:
            parts.append(character)
    return "".join(parts)


def short(text: str, limit: int) -> str:
    """`clean(text)`, cut in the middle to at most `limit` characters, for labels of figures."""
    shown = clean(text)
    if len(shown) <= limit:
        return shown
    front = (limit - 1) * 2 // 3
    return f"{shown[:front]}…{shown[len(shown) - (limit - 1 - front):]}"


def number(value: object) -> float | None:
    """`value` as a finite float, or None for anything else (null, text, booleans, NaN, infinities)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if converted - converted == 0 else None


def percent(value: object, digits: int = 2) -> str:
    """A fraction 0..1 as a percentage, or "–" where it is undefined."""
    fraction = number(value)
    return UNDEFINED if fraction is None else f"{100 * fraction:.{digits}f}\u202f%"


def decimal(value: object, digits: int = 3) -> str:
    """A number with `digits` decimals, or "–" where it is undefined."""
    found = number(value)
    return UNDEFINED if found is None else f"{found:,.{digits}f}"


def count(value: object) -> str:
    """A whole number with separators between thousands, or "–" where it is undefined."""
    found = number(value)
    return UNDEFINED if found is None else f"{found:,.0f}"


def duration(seconds: object) -> str:
    """A number of seconds as "1 h 02 min", "3 min 05 s" or "4.2 s"; "–" where it is undefined."""
    found = number(seconds)
    if found is None or found < 0:
        return UNDEFINED
    if found < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def exact(value: object) -> str:
    """A value of a recipe or protocol exactly as JSON writes it."""
    return json.dumps(value, ensure_ascii=False)


def plain(value: object) -> str:
    """A value in words: yes and no, "–" for null, lists joined by commas."""
    if value is None:
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return value if isinstance(value, str) else exact(value)


def rows(record: Mapping[str, object], depth: int = 0) -> list[tuple[str, str]]:
    """The leaves of a nested record as (dotted key, value in words), in the record's order."""
    found: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, dict) and depth < DEEPEST:
            found.extend((f"{key}.{inner}", text) for inner, text in rows(value, depth + 1))
        else:
            found.append((str(key), plain(value)))
    return found
