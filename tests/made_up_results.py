"""Made-up results of experiments, for judging claims both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerwise.experiments import find
from layerwise.experiments.experiment import Measured, Results, Verdict

HOLDS, FAILS, NOISE, ONLY_IF, UNMEASURED = "holds", "fails", "inside the noise", "holds only if", "not measured"


def results(rows: Mapping[str, Mapping[str, Sequence[float]]], scale: str = "paper") -> Results:
    """Made-up results: row: name: the value of each seed."""
    found = {}
    for row, values in rows.items():
        seeds = range(len(next(iter(values.values()))))
        found[row] = tuple(Measured(seed, {name: float(value[seed]) for name, value in values.items()})
                           for seed in seeds)  # fmt: skip
    return Results(scale, found)


def judged(name: str, claim: str, found: Results) -> Verdict:
    return find(f"alexnet/{name}").claims[claim].judge(found)


def curves(rows: Mapping[str, Sequence[Sequence[tuple[int, float]]]], name: str, scale: str = "small") -> Results:
    """Made-up curves: row: the points of each seed."""
    return Results(scale, {row: tuple(Measured(seed, {}, [{"step": step, name: error} for step, error in points])
                                      for seed, points in enumerate(seeds)) for row, seeds in rows.items()})
