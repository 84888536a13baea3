"""What a goal of the fault suite is: how often it is tried, what counts as a violation, and which guards it must miss.

A goal's file ends with `GOALS`, and `faults/all.py` lists the files. The same attempt serves two counts: the whole one
of `make faults`, and the slice of `make test`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What came of a number of trials: each violation in words, and a note for the table (rates, exclusions)."""

    trials: int
    violations: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True)
class Control:
    """A guard taken out: `attempt(folder)` must have at least one violation, or the goal's test proves nothing."""

    name: str
    attempt: Callable[[Path], Outcome]


@dataclass(frozen=True)
class Goal:
    """One goal: `attempt(trials, folder)` tries it so often, with `folder` (empty, existing) for its files.

    `bar` says in words what is promised; `allowed` is the number of violations in `trials` that still meets it.
    `needs` says why it can't be tried on this machine, or is empty.
    """

    id: str
    title: str
    bar: str
    trials: int
    slice: int
    attempt: Callable[[int, Path], Outcome]
    controls: tuple[Control, ...] = ()
    allowed: int = 0
    needs: Callable[[], str] = lambda: ""
