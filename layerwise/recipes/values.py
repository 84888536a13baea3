"""Values of a recipe's fields: from JSON, from the text of `--set`, and against their ranges.

Everything here knows types and metadata only, never a particular recipe. The types of a recipe are `str`, `int`,
`float`, `bool`, `tuple[str, ...]`, `tuple[float, ...]` and `tuple[int, int]`.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class WrongValueError(ValueError):
    """A value that its field can't hold; the text says what was expected."""


def type_name(kind: Any) -> str:
    """How a field's type is called in messages and in `layerwise recipe`."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if parts[-1] is ...:
            return f"list of {type_name(parts[0])}s"
        return f"{len(parts)} {type_name(parts[0])}s"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[kind]


def convert(kind: Any, value: object) -> Any:
    """`value` as the type `kind`, or WrongValueError: a whole number is a number; nothing else is converted."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise WrongValueError(f"expected a {type_name(kind)}, got {value!r}")
        parts = get_args(kind)
        if parts[-1] is not ... and len(value) != len(parts):
            raise WrongValueError(f"expected {type_name(kind)}, got {len(value)}")
        return tuple(convert(parts[0], item) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise WrongValueError("the number is too large") from None
    if type(value) is not kind:
        raise WrongValueError(f"expected {type_name(kind)}, got {value!r}")
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise WrongValueError(f"expected a finite number, got {value!r}")
        return value + 0.0  # type: ignore[operator]  # -0.0 becomes 0.0: equal recipes have equal hashes
    return value


def parse(kind: Any, text: str) -> Any:
    """The value that `text` (the right side of `--set field=value`) names; tuples are separated by commas."""
    text = text.strip()
    if get_origin(kind) is tuple:
        items = [item.strip() for item in text.split(",")] if text else []
        return convert(kind, [parse(get_args(kind)[0], item) for item in items])
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in WORDS:
            raise WrongValueError(f"expected true or false, got {text!r}")
        return WORDS[text.lower()]
    try:
        return convert(kind, kind(text.replace("_", "")))
    except WrongValueError:
        raise
    except ValueError:
        raise WrongValueError(f"expected {type_name(kind)}, got {text!r}") from None


def show(value: object) -> str:
    """The text that `parse` reads back to `value`."""
    if isinstance(value, tuple):
        return ",".join(show(item) for item in value)
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def limits(metadata: Mapping[str, Any]) -> str:
    """A field's range in words, "" where it has none."""
    if metadata.get("choices"):
        return " | ".join(show(choice) for choice in metadata["choices"])
    signs = (("above", "above {}"), ("least", "at least {}"), ("below", "below {}"), ("most", "at most {}"))
    return " and ".join(text.format(metadata[sign]) for sign, text in signs if metadata.get(sign) is not None)


def outside(value: object, metadata: Mapping[str, Any]) -> bool:
    """Whether `value` (each item of a tuple) lies outside its field's choices or range."""
    items: Sequence[Any] = value if isinstance(value, tuple) else (value,)
    if metadata.get("choices"):
        return any(item not in metadata["choices"] for item in items)
    for item in items:
        for sign, holds in _SIGNS.items():
            limit = metadata.get(sign)
            if limit is not None and not holds(item, limit):
                return True
    return False


# What an item must do to each limit.
_SIGNS = {"above": operator.gt, "least": operator.ge, "below": operator.lt, "most": operator.le}


def read_object(text: str) -> tuple[dict[str, Any], list[str]]:
    """The JSON object in `text` and the names that occur twice in it; WrongValueError where there is no such object."""
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(items)

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise WrongValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise WrongValueError(f"expected a JSON object, got a {type(value).__name__}")
    return value, twice
