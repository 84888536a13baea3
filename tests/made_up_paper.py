"""A made-up paper with one table, for the tests of what compares with it."""

from __future__ import annotations

from layerwise.experiments.experiment import Experiment, Row


def registry(**rows: Row) -> dict[str, Experiment]:
    """A table of a made-up paper."""
    printed = {"lenet1990": {"error": 1.7, "deviation": 0.2}, "lenet5": {"error": 0.95}, "cited": {"error": 3.0}}
    return {"paper/table-1": Experiment("paper/table-1", "A table", "", rows, printed, {}, ("error",), None, None)}
