"""Sentences of a paper that can be checked by counting: what an account is, and the judges that accounts share.

A judge says holds, fails, or holds only if, with the condition; it is given the numbers that were counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict

COUNTED = "counted"
Counts = Mapping[str, float]
Judge = Callable[[Counts], Verdict]


@dataclass(frozen=True)
class Account:
    """A sentence in our words with its section, the numbers that are counted for it, and what they say of it.

    `printed` is the paper's own number and `main` the name of the counted one that stands beside it; where there is
    none, the first counted number stands in the table.
    """

    text: str
    count: Callable[[], Counts]
    judge: Judge
    main: str = ""
    printed: float | None = None

    def measure(self, subject: Subject) -> Numbers:
        """The counted numbers, which need no training and no data, and the main one as `counted`."""
        found = dict(self.count())
        return {COUNTED: found[self.main or next(iter(found))]} | found


def rows(accounts: Mapping[str, Account]) -> dict[str, Row]:
    """The rows of an experiment, one an account."""
    return {slug: Row(measure=account.measure) for slug, account in accounts.items()}


def paper(accounts: Mapping[str, Account]) -> dict[str, dict[str, Value]]:
    """The printed numbers of those accounts that have some."""
    return {slug: {COUNTED: account.printed} for slug, account in accounts.items() if account.printed is not None}


def claims(accounts: Mapping[str, Account]) -> dict[str, Claim]:
    """The claims of an experiment, one an account."""
    return {slug: Claim(account.text, partial(_judged, slug, account.judge)) for slug, account in accounts.items()}


def _judged(slug: str, judge: Judge, results: Results) -> Verdict:
    found = results.rows.get(slug)
    if not found:
        return Verdict("not measured", f"no result of {slug}")
    return judge({name: float(value) for name, value in found[0].numbers.items() if isinstance(value, int | float)})


def rounds_to(name: str, printed: float, digits: int = 0, cut: str = "") -> Judge:
    """Holds where the number rounds to the printed one; holds only if digits may be cut off where that gives it.

    `digits` behind the point are printed. `cut` says the condition under which it would hold.
    """
    def judge(counts: Counts) -> Verdict:
        value, scale = counts[name], 10.0**digits
        told = f"{_shown(value)} counted, {printed:g} printed"
        if round(value, digits) == printed:
            return Verdict("holds", told)
        if math.floor(value * scale + 1e-9) / scale == printed:
            return Verdict("holds only if", f"{told}: only if digits may be cut off{f', or {cut}' if cut else ''}")
        return Verdict("fails", told)

    return judge


def within(name: str, low: float, high: float) -> Judge:
    """Holds where the number lies between two bounds."""
    def judge(counts: Counts) -> Verdict:
        told = f"{_shown(counts[name])} counted, asked {_shown(low)} to {_shown(high)}"
        return Verdict("holds" if low <= counts[name] <= high else "fails", told)

    return judge


def below(smaller: str, larger: str) -> Judge:
    """Holds where one number is smaller than another."""
    def judge(counts: Counts) -> Verdict:
        told = f"{smaller} {_shown(counts[smaller])}, {larger} {_shown(counts[larger])}"
        return Verdict("holds" if counts[smaller] < counts[larger] else "fails", told)

    return judge


def exactly(expected: Counts, note: str = "") -> Judge:
    """Holds where every number is the expected one; else names those that are not, with what may explain it."""
    def judge(counts: Counts) -> Verdict:
        wrong = [f"{name} {_shown(counts[name])}, not {_shown(value)}" for name, value in expected.items()
                 if counts[name] != value]
        right = ", ".join(f"{name} {_shown(value)}" for name, value in expected.items())
        return Verdict("fails", "; ".join([*wrong, note] if note else wrong)) if wrong else Verdict("holds", right)

    return judge


def only_if(judge: Judge, other: Judge, condition: str) -> Judge:
    """`judge`; where it fails and `other` holds, the sentence holds only if `condition`."""
    def judged(counts: Counts) -> Verdict:
        first, second = judge(counts), other(counts)
        if first.word == "holds" or second.word != "holds":
            return first
        return Verdict("holds only if", f"{first.because}; only if {condition}: {second.because}")

    return judged


def provided(judge: Judge, condition: str) -> Judge:
    """What `judge` finds to hold, holds only if `condition`: one that counting cannot settle."""
    def judged(counts: Counts) -> Verdict:
        found = judge(counts)
        if found.word != "holds":
            return found
        return Verdict("holds only if", f"{found.because}; only if {condition}")

    return judged


def both(*judges: Judge) -> Judge:
    """The worst of several verdicts, with all reasons."""
    order = ("fails", "holds only if", "holds")

    def judged(counts: Counts) -> Verdict:
        found = [judge(counts) for judge in judges]
        return Verdict(min((one.word for one in found), key=order.index), "; ".join(one.because for one in found))

    return judged


def _shown(value: float) -> str:
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
