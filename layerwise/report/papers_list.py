"""Every cell of every table and every claim with its state (reproduced, off by, holds, not run), cost and evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwise.experiments import measured
from layerwise.experiments.experiment import Experiment, Results
from layerwise.experiments.measured import HASH
from layerwise.experiments.operations import operations_text, quick_operations
from layerwise.experiments.scales import seeds_of
from layerwise.report.paper_values import NOTHING, agreement, as_printed, here, spread
from layerwise.report.papers import Judged, comparable, judged

HEADERS = ("cell", "printed", "small scale", "paper's scale", "cost small", "cost paper", "evidence")
NOT_RUN = "not run"


@dataclass(frozen=True)
class State:
    """A cell of a table (row: number) or a claim: what is printed, its state at two scales, costs, evidence."""

    experiment: str
    cell: str
    printed: str
    small: str
    paper: str
    cost_small: str
    cost_paper: str
    evidence: str

    @property
    def line(self) -> tuple[str, ...]:
        """The row of a listing under `HEADERS`."""
        return dataclasses.astuple(self)[1:]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return dataclasses.asdict(self)


def states(experiments: Iterable[Experiment], root: Path) -> Iterator[State]:
    """The state of each cell and claim from what is kept under `root`; nothing is run."""
    for experiment in experiments:
        found = {scale: measured.results(experiment, scale, root) for scale in ("small", "paper")}
        for slug in experiment.rows:
            yield from _row(experiment, slug, found)
        verdicts = {scale: judged(experiment, results) for scale, results in found.items()}
        for small, paper in zip(verdicts["small"], verdicts["paper"], strict=True):
            yield State(experiment.name, f"claim {small.slug}", NOTHING, _word(small), _word(paper), NOTHING, NOTHING,
                        NOTHING)


def _word(claim: Judged) -> str:
    return NOT_RUN if claim.word == "not measured" else claim.word


def _row(experiment: Experiment, slug: str, found: dict[str, Results]) -> Iterator[State]:
    printed = experiment.paper.get(slug, {})
    costs = _cost(experiment, slug, "small"), _cost(experiment, slug, "paper")
    proof = [one.recipe_hash[:HASH] for scale in ("paper", "small") for one in found[scale].rows.get(slug, ())
             if one.recipe_hash]
    evidence = NOTHING if not proof else proof[0] if len(proof) == 1 else f"{proof[0]} and {len(proof) - 1} more"
    columns = [name for name in experiment.columns if name in printed or any(
        name in one.numbers for results in found.values() for one in results.rows.get(slug, ()))]
    for column in columns or experiment.columns[:1]:
        small, paper = (_state(experiment, slug, column, found[scale]) for scale in ("small", "paper"))
        told = as_printed(printed[column]) if column in printed else NOTHING
        yield State(experiment.name, f"{slug}: {column.replace('_', ' ')}", told, small, paper, *costs, evidence)


def _state(experiment: Experiment, slug: str, column: str, results: Results) -> str:
    row = experiment.rows[slug]
    if row.unmeasured:
        return "not measured here"
    seeds = results.rows.get(slug, ())
    if not seeds:
        return NOT_RUN
    failures = [one.failure for one in seeds if one.failure]
    if len(failures) == len(seeds):
        return f"failed: {failures[0]}"
    told = spread(experiment, results, slug, column)
    asked = seeds_of(results.scale, row)
    if len(seeds) < asked:
        told += f" ({len(seeds)} of {asked} seeds)"
    if failures:
        told += f" ({len(failures)} of {len(seeds)} seeds failed)"
    if not comparable(measured.cell(experiment, slug, results.scale, 0)):
        return told
    values = here(experiment, results, slug, column)
    said = agreement(experiment.paper.get(slug, {}).get(column), values, bool(row.recipes), len(seeds))
    return f"{told}: {said}" if said and told != NOTHING else told


def _cost(experiment: Experiment, slug: str, scale: str) -> str:
    row = experiment.rows[slug]
    if row.unmeasured:
        return NOTHING
    if not row.recipes:
        return "none"
    recipes = measured.cell(experiment, slug, scale, 0).recipes
    seeds = seeds_of(scale, row)
    one = operations_text(sum(quick_operations(recipe) for recipe in recipes))
    return f"{seeds} x {one}" if seeds > 1 else one
