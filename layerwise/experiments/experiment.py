"""What an experiment is: rows to be measured, the numbers that the paper prints, and what it claims of them.

A file of `experiments/<paper>/` states TITLE, ROWS, PAPER and CLAIMS, and for a figure `draw`. It trains nothing and
reads no file: `jobs/reproduce.py` does, and hands over what was measured as `Results`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from layerwise import modelfile, rundir
from layerwise.data.source import Samples
from layerwise.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = ("smoke", "small", "paper")
Value = float | str | list[float] | list[list[float]]
Numbers = Mapping[str, Value]  # name: value, in the paper's unit (errors in percent)
Curve = Sequence[Mapping[str, float]]  # step, and of training_error, validation_error (percent), learning_rate


@dataclass(frozen=True)
class Subject:
    """What a measurement is given: finished runs (one a recipe of the row, in their order), the scale, and the seed.

    `load` opens a split ("train", "val", "test") of a run's data.
    """

    runs: tuple[Path, ...]
    scale: str
    seed: int
    load: Callable[[Path, str], Samples]

    @cached_property
    def models(self) -> tuple[modelfile.ModelFile, ...]:
        """The trained networks on the CPU, in evaluation mode, with their preprocessing and class names."""
        return tuple(modelfile.read(run) for run in self.runs)

    def recipe(self, run: int = 0) -> Recipe:
        """The recipe that a run was trained with."""
        return rundir.read_recipe(self.runs[run])

    def samples(self, split: str, run: int = 0) -> Samples:
        """A split of a run's data."""
        return self.load(self.runs[run], split)


Measure = Callable[[Subject], Numbers]


@dataclass(frozen=True)
class Row:
    """One line of a table or one curve of a figure.

    `recipes` are trained first, at the paper's scale as they stand; none where nothing is trained. `measure` then
    gives the numbers; None means the test under the recipe's protocol: error, top5_error, training_error (percent).
    `unmeasured` says why a row is laid out only. `seeds` is how many the paper has; `differs` is what the recipe cannot
    say, such as how a point that the paper leaves open was closed; `open_points` is the same of the paper's own recipe
    alone, which a smaller one has no part in. `counted` gives numbers that follow from the network without a training.
    """

    recipes: tuple[Recipe, ...] = ()
    measure: Measure | None = None
    unmeasured: str = ""
    seeds: int = 1
    differs: tuple[str, ...] = ()
    open_points: tuple[str, ...] = ()
    counted: Callable[[], Numbers] | None = None


@dataclass(frozen=True)
class Measured:
    """What one seed of a row gave: its numbers, its curve, and where the evidence lies (hash of the recipe).

    `failure` says why a training ended early, as with a number that was not finite: then there are no numbers.
    """

    seed: int
    numbers: Numbers
    curve: Curve = ()
    recipe_hash: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Results:
    """All that was measured of an experiment at one scale. A row that was not measured is absent."""

    scale: str
    rows: Mapping[str, tuple[Measured, ...]]  # the seeds in their order

    @property
    def schedule(self) -> str:
        """The scale of `SCALES` that was run: "paper" of "paper on fashion-mnist" too."""
        return self.scale.partition(" ")[0]

    def numbers(self, row: str, name: str = "error") -> tuple[float, ...]:
        """The value `name` of each seed of `row`; empty where it was not measured."""
        found = (one.numbers.get(name) for one in self.rows.get(row, ()))
        return tuple(float(value) for value in found if isinstance(value, int | float))

    def mean(self, row: str, name: str = "error") -> float | None:
        """The mean over seeds, None where the row was not measured."""
        values = self.numbers(row, name)
        return statistics.fmean(values) if values else None

    def curves(self, row: str) -> tuple[Curve, ...]:
        """The curve of each seed."""
        return tuple(one.curve for one in self.rows.get(row, ()) if one.curve)


@dataclass(frozen=True)
class Verdict:
    """What may be said of a claim: holds, fails, inside the noise, or not measured; and why."""

    word: str
    because: str

    def __post_init__(self) -> None:
        assert self.word in VERDICTS, self.word


VERDICTS = ("holds", "holds only if", "fails", "inside the noise", "not measured")


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, in our words with its section, and the function that judges it.

    `cause` says of one that fails at small scale whether scale, data or a defect is why, and what showed it.
    """

    text: str
    judge: Callable[[Results], Verdict]
    cause: str = ""


def less(smaller: str, larger: str, name: str = "error", by: float = 0.0) -> Callable[[Results], Verdict]:
    """Judges whether row `smaller` has a lower `name` than `larger` (by at least `by`), over the seeds of both.

    The mean difference must lie beyond two standard errors (Welch); with one seed each it is judged as it stands, and
    the reason says so.
    """
    def judge(results: Results) -> Verdict:
        a, b = results.numbers(smaller, name), results.numbers(larger, name)
        absent = [row for row, values in ((smaller, a), (larger, b)) if not values]
        if absent:
            return Verdict("not measured", f"no result of {' and '.join(absent)}")
        difference = statistics.fmean(b) - statistics.fmean(a)
        told = f"{smaller} {statistics.fmean(a):.2f}, {larger} {statistics.fmean(b):.2f}, difference {difference:+.2f}"
        if len(a) < 2 or len(b) < 2:
            told += f"; {len(a)} and {len(b)} seeds, so no deviation"
            return Verdict("holds" if difference > by else "fails", told)
        error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
        told += f" +- {2 * error:.2f} (two standard errors, {len(a)} and {len(b)} seeds)"
        if abs(difference - by) <= 2 * error:
            return Verdict("inside the noise", told)
        return Verdict("holds" if difference > by else "fails", told)

    return judge


def every(*judges: Callable[[Results], Verdict]) -> Callable[[Results], Verdict]:
    """Judges several at once: the worst verdict (fails, not measured, inside the noise, holds) with all reasons."""
    order = ("fails", "not measured", "inside the noise", "holds only if", "holds")

    def judge(results: Results) -> Verdict:
        found = [one(results) for one in judges]
        reasons = dict.fromkeys(one.because for one in found)
        return Verdict(min((one.word for one in found), key=order.index), "; ".join(reasons))

    return judge


@dataclass(frozen=True)
class Experiment:
    """A file of `experiments/<paper>/` as a whole: what it must state, and empty where it may be left out."""

    name: str
    title: str
    text: str
    rows: Mapping[str, Row]
    paper: Mapping[str, Mapping[str, float | str]]
    claims: Mapping[str, Claim]
    columns: tuple[str, ...]
    draw: Callable[[Results, Figure], None] | None
    small: Callable[[Recipe], Recipe] | None
    differs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by scale, of what recipes cannot say

    @property
    def trains(self) -> bool:
        """Whether any row is trained; where none is, a scale changes nothing."""
        return any(row.recipes for row in self.rows.values())

    @staticmethod
    def of(name: str, module: ModuleType) -> Experiment:
        """The experiment that a file states. Columns are its own, else those of the paper's numbers, else the error."""
        paper: Mapping[str, Mapping[str, float | str]] = module.PAPER
        printed = tuple(dict.fromkeys(key for numbers in paper.values() for key in numbers))
        return Experiment(name, module.TITLE, module.__doc__ or "", module.ROWS, paper, module.CLAIMS,
                          getattr(module, "COLUMNS", printed or ("error",)), getattr(module, "draw", None),
                          getattr(module, "small", None), getattr(module, "DIFFERS", {}))
