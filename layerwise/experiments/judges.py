"""Judges of the claims that `less` and `every` cannot judge: of whole curves, of likeness, of bounds.

Each goes over the seeds. A difference counts where it lies beyond two standard errors (Welch); with one seed there is
no deviation, it is judged as it stands, and the reason says so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise

from layerwise.experiments.experiment import Curve, Results, Verdict, every, less

Judge = Callable[[Results], Verdict]
Values = Sequence[float]
Start = Callable[[Curve], int | None]
TRAINING, HELD_OUT = "training_error", "validation_error"
PRINTED = "a printed number is compared at the paper's scale alone: elsewhere network, data and errors are others"


def points(curve: Curve, name: str) -> dict[int, float]:
    """The finite values of `name` by step."""
    found = ((int(point["step"]), point.get(name)) for point in curve)
    return {step: float(value) for step, value in found if value is not None and math.isfinite(value)}


def first_drop(curve: Curve) -> int | None:
    """The first step that is logged with less than half of the highest learning rate before it; None without one."""
    highest = 0.0
    for step, rate in sorted(points(curve, "learning_rate").items()):
        if rate < highest / 2:
            return step
        highest = max(highest, rate)
    return None


def beginning(curve: Curve) -> int | None:
    """The first step that is logged; None of an empty curve."""
    return min((int(point["step"]) for point in curve), default=None)


def two_errors(a: Values, b: Values) -> float | None:
    """Two standard errors of the difference of the means (Welch); None where a side has fewer than two values."""
    if len(a) < 2 or len(b) < 2:
        return None
    return 2 * math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))


def above_at_every_point(higher: str, lower: str, name: str = TRAINING, since: Start = first_drop) -> Judge:
    """Judges whether the curve of `higher` lies above that of `lower` at every logged step `since` the first drop.

    It fails where a point lies below by more than the noise, or the mean over those steps does not lie above. With
    points that are below inside the noise, or with a mean inside it, it is inside the noise.
    """
    def judge(results: Results) -> Verdict:
        mine, others = results.curves(higher), results.curves(lower)
        if not mine or not others:
            return _absent([row for row, curves in ((higher, mine), (lower, others)) if not curves], "curve")
        starts = [since(curve) for curve in (*mine, *others)]
        known = [start for start in starts if start is not None]
        if len(known) < len(starts):
            return Verdict("not measured", f"a curve of {higher} or {lower} has no drop of the learning rate")
        up, down = ([points(curve, name) for curve in curves] for curves in (mine, others))
        steps = sorted(step for step in set.intersection(*map(set, (*up, *down))) if step >= max(known))
        if not steps:
            return Verdict("not measured", f"no step has the {name} of {higher} and of {lower}")
        gaps = [_gap([curve[step] for curve in up], [curve[step] for curve in down]) for step in steps]
        below = sum(gap <= 0 for gap, _ in gaps)
        clearly = sum(gap + (noise or 0.0) <= 0 for gap, noise in gaps)
        total, noise = _gap(*([statistics.fmean(curve[step] for step in steps) for curve in side]
                              for side in (up, down)))  # fmt: skip
        told = (f"{higher} above {lower} at {len(steps) - below} of {len(steps)} steps from {steps[0]:,} on, "
                f"{total:+.2f} on average{_noise(noise, up, down)}")
        if clearly or total + (noise or 0.0) <= 0:
            return Verdict("fails", told)
        return Verdict("inside the noise" if below or total <= (noise or 0.0) else "holds", told)

    return judge


def higher(larger: str, smaller: str, name: str) -> Judge:
    """Judges whether `larger` has the higher `name`, as of a precision."""
    def of(gap: float, noise: float | None, seeds: str) -> Verdict:
        return Verdict(_word(gap, noise), f"{name}: {larger} - {smaller} = {gap:+.2f}{seeds}")

    return _difference(larger, smaller, name, of)


def faster(fast: str, slow: str, name: str = TRAINING) -> Judge:
    """Judges whether `fast` converges faster: a lower mean of its curve up to the first drop of either."""
    def judge(results: Results) -> Verdict:
        sides = []
        ends = [drop for row in (fast, slow) for curve in results.curves(row) if (drop := first_drop(curve))]
        for row in (fast, slow):
            early = [[value for step, value in points(curve, name).items() if step < min(ends, default=step + 1)]
                     for curve in results.curves(row)]
            sides.append([statistics.fmean(values) for values in early if values])
        if not all(sides):
            return _absent([row for row, side in zip((fast, slow), sides, strict=True) if not side], "curve")
        gap, noise = _gap(sides[1], sides[0])
        told = f"{name} before the first drop: {fast} lower than {slow} by {gap:.2f}{_noise(noise, *sides)}"
        return Verdict(_word(gap, noise), told)

    return judge


def similar(one: str, other: str, within: float, name: str = "error") -> Judge:
    """Judges whether two rows have about the same `name`: the interval of the difference lies in +-`within`."""
    def of(gap: float, noise: float | None, seeds: str) -> Verdict:
        told = f"{one} - {other} = {gap:+.2f}{seeds}; similar is within {within:g} here"
        if abs(gap) - (noise or 0.0) > within:
            return Verdict("fails", told)
        return Verdict("holds" if abs(gap) + (noise or 0.0) <= within else "inside the noise", told)

    return _difference(one, other, name, of)


def lower_by(smaller: str, larger: str, printed: float, name: str = "error") -> Judge:
    """Judges whether `smaller` is lower by about the `printed` points: by half of them to twice as many."""
    low, high = printed / 2, 2 * printed

    def of(gap: float, noise: float | None, seeds: str) -> Verdict:
        told = f"{larger} - {smaller} = {gap:+.2f}{seeds}; {printed:g} is read as {low:g} to {high:g}"
        if noise is not None and min(abs(gap - low), abs(gap - high)) <= noise:
            return Verdict("inside the noise", told)
        return Verdict("holds" if low <= gap <= high else "fails", told)

    return _difference(larger, smaller, name, of)


def by_points(better: str, worse: str, points: float, seen: float, name: str = "error") -> Judge:
    """Judges whether `better` is lower in `name` by the printed number of points, as near as `seen`; see PRINTED."""
    def of(gap: float, noise: float | None, seeds: str) -> Verdict:
        told = f"{worse} - {better} = {gap:+.2f} points of {name}, printed {points:g}, held to +-{seen:g}"
        return Verdict("holds" if abs(gap - points) <= seen else "fails", told)

    return at_paper_scale(_difference(worse, better, name, of), PRINTED)


def at_least_points(better: str, worse: str, points: float, seen: float, name: str = "error") -> Judge:
    """As `by_points`, for a difference that is printed as "over"."""
    def of(gap: float, noise: float | None, seeds: str) -> Verdict:
        told = f"{worse} - {better} = {gap:+.2f} points of {name}, printed: over {points:g}, seen to +-{seen:g}"
        if abs(gap - points) <= seen:
            return Verdict("inside the noise", told)
        return Verdict("holds" if gap > points else "fails", told)

    return at_paper_scale(_difference(worse, better, name, of), PRINTED)


def near(row: str, printed: float, within: float, name: str = "error") -> Judge:
    """Judges whether a row has a printed number, as near as `within`; see PRINTED."""
    def judge(results: Results) -> Verdict:
        found = results.mean(row, name)
        if found is None:
            return _absent([row])
        told = f"{row}: {name} {found:.2f}, printed {printed:g}, held to +-{within:g}"
        return Verdict("holds" if abs(found - printed) <= within else "fails", told)

    return at_paper_scale(judge, PRINTED)


def reaches_later(late: str, early: str, bound: float, name: str = TRAINING) -> Judge:
    """Judges whether `late` comes below `bound` at a later logged step than `early`; never counts as the last step."""
    def judge(results: Results) -> Verdict:
        sides = [[reached(curve, bound, name) for curve in results.curves(row)] for row in (late, early)]
        if not all(sides):
            return _absent([row for row, side in zip((late, early), sides, strict=True) if not side], "curve")
        gap, noise = _gap(*sides)
        means = [statistics.fmean(side) for side in sides]
        told = f"below {bound:g} %: {late} at step {means[0]:,.0f}, {early} at {means[1]:,.0f}{_noise(noise, *sides)}"
        return Verdict(_word(gap, noise), told)

    return judge


def reached(curve: Curve, bound: float, name: str = TRAINING) -> int:
    """The first logged step with `name` below `bound`; the last step where there is none."""
    found = points(curve, name)
    return min((step for step, value in found.items() if value < bound), default=max(found, default=0))


def no_better(row: str, than: str, name: str = "error") -> Judge:
    """Judges whether `row` shows no advantage over `than`: its `name` is not lower by more than the noise."""
    def of(gap: float, noise: float | None, seeds: str) -> Verdict:
        return Verdict("fails" if gap > (noise or 0.0) else "holds", f"{than} - {row} = {gap:+.2f}{seeds}")

    return _difference(than, row, name, of)


def below(row: str, bound: float, name: str = "error") -> Judge:
    """Judges whether the mean of `name` lies below `bound`."""
    return _beyond(row, bound, name, -1)


def above(row: str, bound: float, name: str = "error") -> Judge:
    """Judges whether the mean of `name` lies above `bound`."""
    return _beyond(row, bound, name, 1)


def _beyond(row: str, bound: float, name: str, sign: int) -> Judge:
    def judge(results: Results) -> Verdict:
        values = results.numbers(row, name)
        if not values:
            return _absent([row])
        mean = statistics.fmean(values)
        noise = 2 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        side = "above" if sign > 0 else "below"
        told = f"{row}: {name} {mean:.2f}{_noise(noise, values)}, asked {side} {bound:g}"
        return Verdict(_word(sign * (mean - bound), noise), told)

    return judge


def ordered(*rows: str, name: str = "error") -> Judge:
    """Judges whether `name` rises from row to row; of the measured rows where some are not."""
    def judge(results: Results) -> Verdict:
        missing = [row for row in rows if not results.numbers(row, name)]
        there = [row for row in rows if row not in missing]
        if len(there) < 2:
            return _absent(missing)
        return _partly(every(*(less(low, high, name) for low, high in pairwise(there)))(results), missing)

    return judge


def each(*judges: Judge) -> Judge:
    """As `every`, but of those judges that have results where some have none."""
    def judge(results: Results) -> Verdict:
        found = [one(results) for one in judges]
        known = [one for one in found if one.word != "not measured"]
        missing = [one.because for one in found if one.word == "not measured"]
        if not known:
            return Verdict("not measured", "; ".join(dict.fromkeys(missing)))
        return _partly(every(*(lambda results, one=one: one for one in known))(results), list(dict.fromkeys(missing)))

    return judge


def _partly(found: Verdict, missing: Sequence[str]) -> Verdict:
    """What may be said where some of the rows are missing: a claim that holds of the others holds only if."""
    if not missing:
        return found
    word, only = ("holds only if", "only if the same is true of ") if found.word == "holds" else (found.word, "")
    return Verdict(word, f"{found.because}; {only}what was not measured: {', '.join(missing)}")


def at_paper_scale(judge: Judge, why: str) -> Judge:
    """`judge`, but not measured at a smaller scale, because of `why`: a printed number is compared."""
    def judged(results: Results) -> Verdict:
        return judge(results) if results.scale == "paper" else Verdict("not measured", why)

    return judged


def _difference(a: str, b: str, name: str, of: Callable[[float, float | None, str], Verdict]) -> Judge:
    """A judge of how far `name` of row `a` lies above that of `b`: `of` is given the gap, its noise and the seeds."""
    def judge(results: Results) -> Verdict:
        mine, others = results.numbers(a, name), results.numbers(b, name)
        if not mine or not others:
            return _absent([row for row, values in ((a, mine), (b, others)) if not values])
        gap, noise = _gap(mine, others)
        return of(gap, noise, _noise(noise, mine, others))

    return judge


def _gap(a: Values, b: Values) -> tuple[float, float | None]:
    return statistics.fmean(a) - statistics.fmean(b), two_errors(a, b)


def _word(gap: float, noise: float | None) -> str:
    if noise is not None and abs(gap) <= noise:
        return "inside the noise"
    return "holds" if gap > 0 else "fails"


def _noise(noise: float | None, *sides: Sequence[object]) -> str:
    counts = " and ".join(str(len(side)) for side in sides)
    if noise is None:
        return f" ({counts} seeds, so no deviation)"
    return f" +- {noise:.2f} (two standard errors, {counts} seeds)"


def _absent(rows: Sequence[str], what: str = "result") -> Verdict:
    return Verdict("not measured", f"no {what} of {' and '.join(rows)}")
