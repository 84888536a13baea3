"""A number of a paper beside the one that was measured here: how both are written, and whether they agree."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from layerwise.experiments.experiment import Experiment, Results

OVER_SEEDS = ("best", "deviation")  # columns of one number over all seeds, made of their errors
FIVE = 5  # seeds from which on the paper writes "best (mean +- deviation)"
PRINTED = re.compile(r"\s*([<>]?)\s*(\d[\d,]*(?:\.\d+)?)\s*([kMG]?)\s*%?\s*")
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
FINEST = 0.05  # a float has lost its zeros: 90.0 is printed with a decimal at least, where a training is measured
NOTHING = "-"


@dataclass(frozen=True)
class Printed:
    """A number as a paper prints it: its value, half a unit of its last digit, and "<" or ">" where it is a bound."""

    value: float
    half: float
    bound: str = ""


def printed(value: object) -> Printed | None:
    """What a paper prints (8.75, "0.27M", "> 60") as a number; None for other text and for nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value if isinstance(value, str) else _plainly(float(value))
    found = PRINTED.fullmatch(text)
    if found is None:
        return None
    bound, digits, unit = found.groups()
    decimals = len(digits.partition(".")[2])
    if isinstance(value, float) and not decimals and value >= 1e4:  # 1.8e9 has two digits, not ten
        exponent = len(digits.replace(",", "").rstrip("0"))
        half = 0.5 * 10 ** (len(digits.replace(",", "")) - exponent)
    else:
        half = 0.5 * 10**-decimals
    return Printed(float(digits.replace(",", "")) * UNITS[unit], half * UNITS[unit], bound)


def _plainly(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".") if math.isfinite(value) and value >= 0 else str(value)


def as_printed(value: object) -> str:
    """A paper's number with the digits that it has."""
    return _plainly(float(value)) if isinstance(value, int | float) and value < 1e4 else shown(value)


def shown(value: object) -> str:
    """A value of a table: whole numbers with separators, others with two decimals or four digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{len(value)} values" if isinstance(value, Sequence) else str(value)
    if float(value).is_integer() and (isinstance(value, int) or abs(value) >= 1e4):
        return f"{value:,.0f}"
    return f"{value:.2f}" if 0.1 <= abs(value) < 1e4 else f"{value:.3g}"


def here(experiment: Experiment, results: Results, row: str, column: str) -> tuple[float, ...]:
    """What was measured of a column: a number a seed; `best` and `deviation` are of the errors over all seeds."""
    values = results.numbers(row, column)
    if not values and column in OVER_SEEDS and len(errors := results.numbers(row)) > 1:
        return (min(errors) if column == "best" else statistics.stdev(errors),)
    return values


def spread(experiment: Experiment, results: Results, row: str, column: str) -> str:
    """Mean and deviation over seeds; with "best" first, as the paper has it, where the paper has five seeds."""
    values = here(experiment, results, row, column)
    if not values:
        found = [one.numbers[column] for one in results.rows.get(row, ()) if column in one.numbers]
        return shown(found[0]) if found else NOTHING
    mean = statistics.fmean(values)
    if not experiment.rows[row].recipes and len(set(values)) == 1:
        return f"{values[0]:,.10g}" if values[0].is_integer() else f"{values[0]:.4g}"
    if len(set(values)) == 1:
        return shown(_whole(values[0], column))
    deviation = statistics.stdev(values)
    told = f"{shown(mean)} +- {f'{deviation:.2f}' if 0.1 <= abs(mean) < 1e4 else shown(deviation)}"
    if experiment.rows[row].seeds >= FIVE and column == "error":
        return f"{shown(min(values))} ({told})"
    return told


def _whole(value: float, column: str) -> float:
    """A count as an int, which is written without decimals; an error stays a float."""
    return value if column.endswith("error") or column in OVER_SEEDS or not value.is_integer() else int(value)


def difference(paper: object, values: Sequence[float]) -> float | None:
    """Measured less printed; None where either is no number, or the paper gives a bound."""
    number = printed(paper)
    if number is None or number.bound or not values:
        return None
    return statistics.fmean(values) - number.value


def agreement(paper: object, values: Sequence[float], chance: bool, seeds: int = 1) -> str:
    """What may be said of a measured number of the paper's own experiment.

    A count agrees where it rounds to what is printed. A number that depends on chance agrees where the printed one lies
    within two standard errors of the mean over seeds; one seed has no deviation, and that is said. `seeds` is of how
    many a single value was made, as the best of five.
    """
    number = printed(paper)
    if number is None or not values:
        return ""
    mean = statistics.fmean(values)
    if number.bound:
        beyond = mean > number.value if number.bound == ">" else mean < number.value
        return "reproduced" if beyond else "not reproduced"
    off = mean - number.value
    half = min(number.half, FINEST) if chance and isinstance(paper, float) else number.half
    if abs(off) <= half * (1 + 1e-9):
        return "reproduced"
    if not chance:
        return f"off by {signed(off)}"
    if len(values) < 2:
        return f"off by {signed(off)}, {'one seed' if seeds < 2 else f'of {seeds} seeds together'}"
    interval = 2 * statistics.stdev(values) / math.sqrt(len(values))
    word = "reproduced" if abs(off) <= interval + half else "off by " + signed(off)
    return f"{word} within +-{shown(interval)}" if word == "reproduced" else f"{word}, interval +-{shown(interval)}"


def signed(value: float, column: str = "error") -> str:
    """A difference with its sign; a whole number where the column's numbers are counts."""
    size = abs(_whole(value, column))
    return f"{'-' if value < 0 else '+'}{f'{size:.2g}' if size < 0.1 else shown(size)}"
