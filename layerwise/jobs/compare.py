"""`layerwise compare A B [...]`: evaluations on the same images, or runs over seeds; what is noise is said to be noise.

One evaluation a side: the exact McNemar test (McNemar 1947): of the images that exactly one of the two has right, half
would fall to each if they were equally good. The interval of the difference is the paired Wald interval with Agresti
and Min's correction (2005); every other number has the interval of a paired bootstrap. It speaks of these weights.

Several runs a side: Student's tests over the runs; they speak of the recipe. Welch's, since a seed is a new draw; the
paired one where each seed drew its own test pictures too, so that equal seeds share them. More than two sides: every
pair, with Holm's correction (1979).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerwise.errors import InputError, nearest
from layerwise.evaluation.difference import REPLICATES, Difference, bootstrap, corrected, holm, over_seeds
from layerwise.evaluation.metrics import mcnemar
from layerwise.jobs.sides import Seed, Side, answers, read_side, read_table, same_images

LEVEL = 0.05
OVER = ("auto", "images", "seeds")
PAIRING = ("auto", "welch", "paired")


@dataclass(frozen=True)
class Comparison:
    """Errors of `a` and `b` (fractions), their difference b - a with its 95 % interval, and the test's p.

    Over images `images` is their number and `only_a_right` and `only_b_right` are counts; over seeds they are 0.
    `adjusted` is p after Holm's correction for the number of pairs. `numbers` are all numbers, the error among them.
    """

    a: str
    b: str
    images: int
    error_a: float
    error_b: float
    only_a_right: int
    only_b_right: int
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    protocols: tuple[str, str]
    notes: tuple[str, ...]
    test: str = "McNemar's exact test"
    seeds: tuple[int, int] = (1, 1)
    adjusted: float | None = None
    numbers: tuple[Difference, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return asdict(self) | {"verdict": self.verdict, "better": self.better}

    @property
    def better(self) -> str:
        """The side with the lower error, "" where the difference is inside the noise."""
        p = self.p if self.adjusted is None else self.adjusted
        if p is None or p >= LEVEL or self.difference == 0:
            return ""
        return self.b if self.difference < 0 else self.a

    @property
    def verdict(self) -> str:
        """What may be said, in one line."""
        what = f"{self.images} images" if self.images else f"{self.seeds[0]} and {self.seeds[1]} runs"
        if self.p is None:
            return f"no test over {what}: {next((one.note for one in self.numbers if one.name == 'error'), '')}"
        told = f"p = {self.p:.3g}"
        if self.adjusted is not None:
            told += f", {self.adjusted:.3g} after Holm's correction"
        if not self.better:
            return f"no difference beyond the noise of {what} ({told})"
        worse = self.a if self.better == self.b else self.b
        return f"{self.better} is better than {worse} {'on these images' if self.images else f'over {what}'} ({told})"


@dataclass(frozen=True)
class Comparisons:
    """All sides with their mean errors, every pair of them, and what was compared over: "images" or "seeds"."""

    sides: tuple[Side, ...]
    over: str
    why: str
    pairs: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON; one object a side and a pair."""
        sides = [{"name": side.name, "runs": [seed.name for seed in side.seeds],
                  "seeds": [seed.seed for seed in side.seeds], "protocol": side.seeds[0].protocol,
                  "numbers": {name: {"mean": statistics.fmean(values := side.values(name)),
                                     "sd": statistics.stdev(values) if len(values) > 1 else None}
                              for name in side.common}} for side in self.sides]
        return {"sides": sides, "over": self.over, "why": self.why, "notes": list(self.notes),
                "pairs": [pair.to_json() for pair in self.pairs]}


def compare(a: Path, b: Path, seed: int = 0, replicates: int = REPLICATES) -> Comparison:
    """Compares two evaluations (their directories, or those that stand for their runs) over their images.

    `seed` and `replicates` are the bootstrap's. Raises InputError where they were not made on the same images with the
    same labels, or a side has several runs.
    """
    return compare_all([a, b], "images", seed=seed, replicates=replicates).pairs[0]


def compare_all(given: Sequence[str | Path], over: str = "auto", pairing: str = "auto", seed: int = 0,
                replicates: int = REPLICATES) -> Comparisons:
    """Compares every pair of the sides `given` (see `sides.read_side`).

    `over` is images (one evaluation a side), seeds, or auto: images where each side has one evaluation with its
    predictions. `pairing` is welch, paired, or auto, for the tests over seeds. Raises InputError with what does not
    fit together.
    """
    for word, name, allowed in ((over, "--over", OVER), (pairing, "--pairing", PAIRING)):
        if word not in allowed:
            raise InputError(f"{name} {word}: no such choice{nearest(word, allowed)}", mend=f"It is one of: "
                             f"{', '.join(allowed)}.")
    if len(given) < 2:
        raise InputError("compare: one side given", "A comparison needs two or more.",
                         "Name another evaluation, run, or folder of seeds.")
    sides = [read_side(one) for one in given]
    single = all(len(side.seeds) == 1 and side.seeds[0].predictions is not None for side in sides)
    over = ("images" if single else "seeds") if over == "auto" else over
    if over == "images":
        pairs, why = _over_images(sides, seed, replicates), ("one evaluation a side: the same images answered by both; "
                                                              "it speaks of these weights, not of the recipe")
    else:
        pairs, why = _over_seeds(sides, pairing)
    if len(pairs) > 1:
        pairs = _corrected(pairs)
    notes = dict.fromkeys(note for side in sides for note in side.notes)
    notes |= dict.fromkeys(note for pair in pairs for note in pair.notes)
    return Comparisons(tuple(sides), over, why, tuple(pairs), tuple(notes))


def _over_images(sides: Sequence[Side], seed: int, replicates: int) -> list[Comparison]:
    for side in sides:
        if len(side.seeds) > 1 or side.seeds[0].predictions is None:
            raise InputError(f"{side.name}: {len(side.seeds)} runs, without one table of predictions",
                             "Over images each side is one evaluation with its predictions.",
                             "Use --over seeds, or name one evaluation.")
    tables = [read_table(side.seeds[0]) for side in sides]
    found = []
    for first, second in itertools.combinations(range(len(sides)), 2):
        a, b = sides[first].seeds[0], sides[second].seeds[0]
        same_images((a.name, b.name), tables[first], tables[second])
        order = sorted(tables[first].labels)
        classes = list(dict.fromkeys([*a.classes, *b.classes]))
        one, other = (answers(tables[place], order, classes) for place in (first, second))
        right, also = one.labels == one.predicted, other.labels == other.predicted
        only_a, only_b, n = int((right & ~also).sum()), int((also & ~right).sum()), len(order)
        p = mcnemar(only_a, only_b)
        interval = paired_interval(only_a, only_b, n)
        numbers = tuple(dataclasses.replace(each, interval=interval, p=p) if each.name == "error" else each
                        for each in bootstrap(one, other, seed, replicates))
        found.append(Comparison(
            a.name, b.name, n, 1 - int(right.sum()) / n, 1 - int(also.sum()) / n, only_a, only_b, (only_a - only_b) / n,
            interval, p, (a.protocol, b.protocol), _protocol_note(a, b), numbers=numbers))  # fmt: skip
    return found


def _over_seeds(sides: Sequence[Side], pairing: str) -> tuple[list[Comparison], str]:
    _each_run_once(sides)
    drawn = any(side.drawn for side in sides)
    fits = all([seed.seed for seed in side.seeds] == [seed.seed for seed in sides[0].seeds] and
               None not in [seed.seed for seed in side.seeds] for side in sides)
    if pairing == "paired" and not fits:
        raise InputError("--pairing paired: the sides don't have the same seeds",
                         "Run i of one side must belong to run i of the other.", "Use --pairing welch.",
                         [f"{side.name}: seeds {', '.join(str(seed.seed) for seed in side.seeds)}" for side in sides])
    paired = pairing == "paired" or (pairing == "auto" and drawn and fits)
    if paired:
        why = ("each seed drew its own test pictures, so runs of one seed are compared with each other" if drawn else
               "runs of one seed are compared with each other, as asked")
    else:
        why = "a seed is a new draw, so the runs of two sides are independent"
    _same_pictures(sides, paired)
    found = []
    for a, b in itertools.combinations(sides, 2):
        names = [name for name in a.common if name in b.common]
        if "error" not in names:
            raise InputError(f"{a.name}, {b.name}: no error that both have", mend="Evaluate the runs again.")
        numbers = tuple(over_seeds(name, a.values(name), b.values(name), paired) for name in names)
        error = next(one for one in numbers if one.name == "error")
        several = min(len(a.seeds), len(b.seeds)) > 1
        test = "paired t" if paired else "Welch's t" if several else "Student's t, one run against several"
        notes = list(_protocol_note(a.seeds[0], b.seeds[0]))
        if not several and error.p is not None:
            notes.append(f"{(a if len(a.seeds) == 1 else b).name} is one run: its deviation is taken to be the other's")
        found.append(Comparison(
            a.name, b.name, 0, error.a, error.b, 0, 0, error.value, error.interval, error.p,
            (a.seeds[0].protocol, b.seeds[0].protocol), tuple(notes), test, (len(a.seeds), len(b.seeds)),
            numbers=numbers))  # fmt: skip
    return found, why


def _each_run_once(sides: Sequence[Side]) -> None:
    places = [(str(Path(seed.name).resolve()), side.name) for side in sides for seed in side.seeds]
    again = sorted({place for place, _ in places if [other for other, _ in places].count(place) > 1})
    if again:
        raise InputError(f"{len(again)} runs stand on two sides", "A run differs from itself in nothing.",
                         "Name each run on one side.", again)


def _same_pictures(sides: Sequence[Side], paired: bool) -> None:
    """Raises InputError where sides were tested on other pictures, which no deviation over seeds accounts for."""
    first, problems = sides[0], []
    for side in sides[1:]:
        if paired:
            problems += [f"seed {one.seed}: {first.name} and {side.name} differ" for one, other in
                         zip(first.seeds, side.seeds, strict=True) if one.fingerprint != other.fingerprint]
        elif not first.drawn and not side.drawn and first.seeds[0].fingerprint != side.seeds[0].fingerprint:
            problems.append(f"{first.name} and {side.name} differ")
    if problems:
        raise InputError("the sides were tested on different pictures",
                         "Then the difference is of the pictures too, and no number of seeds shows it.",
                         "Evaluate all of them on the same data and split.", problems)


def _protocol_note(a: Seed, b: Seed) -> tuple[str, ...]:
    if a.protocol == b.protocol:
        return ()
    return (f"the protocols differ: {a.protocol} and {b.protocol}; the difference is of both, network and protocol",)


def _corrected(pairs: Sequence[Comparison]) -> list[Comparison]:
    adjusted = holm([pair.p for pair in pairs])
    numbers = corrected([pair.numbers for pair in pairs])
    return [dataclasses.replace(pair, adjusted=p, numbers=each)
            for pair, p, each in zip(pairs, adjusted, numbers, strict=True)]


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two paired proportions (Agresti and Min 2005: half a case a cell)."""
    c, b, total = only_a + 0.5, only_b + 0.5, n + 2
    middle = (c - b) / total
    half = 1.959963984540054 * math.sqrt(c + b - (c - b) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)
