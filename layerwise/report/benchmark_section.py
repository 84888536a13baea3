"""A benchmark's saved file (results/benchmarks/NAME.json) as a section of docs/results.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from layerwise.errors import amount
from layerwise.report.papers_page import cell_text

MOST_VALUES = 12  # of one name, each told by itself; more are told by their range
MACHINE = ("benchmark", "hardware", "versions", "cpu", "machine", "threads")


def section(name: str, found: Mapping[str, Any]) -> list[str]:
    """The lines on a benchmark: how it is run, on what it was measured, and every figure of its file.

    Values stand in one table, rows of values in a table each; what lies deeper is left to the file.
    """
    lines = ["```sh", f"python benchmarks/{name}.py", "```", "", _measured_on(found), ""]
    told = {key: value for key, value in found.items() if key not in MACHINE}
    single = {key: text for key, value in told.items() if (text := value_text(value))}
    if single:
        lines += ["| figure | value |", "|---|---|", *(_line([_words(key), text]) for key, text in single.items()), ""]
    for key, value in told.items():
        if key not in single:
            lines += _rows_table(_words(key), value)
    return [*lines, f"The file: results/benchmarks/{name}.json"]


def _measured_on(found: Mapping[str, Any]) -> str:
    hardware, versions = found.get("hardware", {}), found.get("versions", {})
    cpu = hardware.get("cpu") or found.get("cpu") or found.get("machine") or "a machine that its file does not name"
    threads = hardware.get("threads") or found.get("threads")
    parts = [str(cpu), amount(threads, "threads") if threads else "", str(hardware.get("cpu_capability", "")),
             f"torch {versions['torch']}" if versions.get("torch") else ""]
    return cell_text(f"Measured on {', '.join(part for part in parts if part)}.")


def _rows_table(title: str, value: Any) -> list[str]:
    """A table of rows: a list of objects, or an object of objects; nothing where no cell of it can be told."""
    rows: list[Mapping[str, Any]]
    if isinstance(value, Mapping):
        rows = [{title: key, **row} for key, row in value.items() if isinstance(row, Mapping)]
    else:
        rows = [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []
    heads = list(dict.fromkeys(key for row in rows for key, cell in row.items() if value_text(cell)))
    if len(heads) < 2:
        return []
    return [_line([_words(head) for head in heads]), "|---" * len(heads) + "|",
            *(_line([value_text(row.get(head, "")) for head in heads]) for row in rows), ""]


def value_text(value: Any) -> str:
    """A value in words: numbers to four digits, three numbers as a median with its range; "" for what lies deeper."""
    if isinstance(value, str | bool):
        return str(value)
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, Mapping) and value and all(isinstance(one, int | float) for one in value.values()):
        if len(value) > MOST_VALUES:
            numbers = list(value.values())
            return (f"{len(numbers)}: {value_text(min(numbers))} to {value_text(max(numbers))}, "
                    f"median {value_text(statistics.median(numbers))}")
        return ", ".join(f"{_words(key)} {value_text(one)}" for key, one in value.items())
    if isinstance(value, Sequence) and len(value) == 3 and all(isinstance(one, int | float) for one in value):
        return f"{value_text(value[0])} ({value_text(value[1])} to {value_text(value[2])})"
    if isinstance(value, Sequence) and value and not any(isinstance(one, Mapping | list) for one in value):
        return ", ".join(value_text(one) for one in value)
    return ""


def _words(key: str) -> str:
    return key.replace("_", " ")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell_text(cell) for cell in cells) + " |"
