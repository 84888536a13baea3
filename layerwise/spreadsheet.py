"""Cells of CSV files that no spreadsheet takes for a formula, and their texts again."""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """`text` as a cell that no spreadsheet takes for a formula: an apostrophe before = + - @ tab, CR (and before ').

    `plain_cell` takes it off again.
    """
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def plain_cell(text: str) -> str:
    """The text that `safe_cell` was given."""
    return text.removeprefix("'")
