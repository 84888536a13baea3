"""A paper's table beside what was measured: rows, what differed, claims with verdicts. Text alone; nothing is trained.

Each table carries its scale, data and every deviation, so that a small run can't pass for the paper's experiment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwise.errors import amount, noun
from layerwise.experiments import measured
from layerwise.experiments.experiment import Experiment, Results, Row
from layerwise.experiments.measured import HASH, Cell
from layerwise.experiments.scales import SECOND_READING, differences, seeds_of
from layerwise.report.paper_values import NOTHING, agreement, as_printed, difference, here, signed, spread

LABELS = {
    "smoke": "SMOKE: two steps on 16 digits show that the rows run; the numbers mean nothing",
    "small": "SMALL SCALE, not the paper's experiment: {data}, {steps} steps",
    "paper": "the paper's scale",
}
STAND_IN = "the paper's schedule on {data}, which are NOT THE PAPER'S DATA"
NO_CAUSE = "not found out yet: scale, data or a defect"
NOT_JUDGED = "a smoke run says nothing of a claim"
PAPERS, HERE, DIFFERENCE = "paper", "here", "difference"


@dataclass(frozen=True)
class Entry:
    """One row of a table: its three lines by column, its state in words, its own deviations, and its evidence."""

    slug: str
    paper: tuple[str, ...]
    here: tuple[str, ...]
    difference: tuple[str, ...]
    status: tuple[str, ...]
    differs: tuple[str, ...]
    evidence: tuple[str, ...]  # the recipe's hash for each seed
    absent: str  # why it was not measured here, "" where it was


@dataclass(frozen=True)
class Judged:
    """A claim of the paper with its verdict."""

    slug: str
    text: str
    word: str
    because: str


@dataclass(frozen=True)
class Table:
    """An experiment at a scale: `label` says the scale, `shared` what differs in every measured row."""

    name: str
    title: str
    scale: str
    label: str
    columns: tuple[str, ...]
    entries: tuple[Entry, ...]
    shared: tuple[str, ...]
    machines: tuple[str, ...]
    claims: tuple[Judged, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return dataclasses.asdict(self)

    @property
    def headers(self) -> tuple[str, ...]:
        """The heads of the columns of `lines`."""
        return ("row", "of", *self.columns, "differs", "evidence")

    def lines(self) -> list[tuple[str, ...]]:
        """Three lines a row: the paper's, ours, the difference with what it means; the letters stand in `notes`."""
        letters = self.letters()
        found = []
        for entry in self.entries:
            shared = ["[all]"] if self.shared and not entry.absent else []
            marks = "".join([*shared, *(f"[{letters[text]}]" for text in (*entry.differs, entry.absent) if text)])
            found.append((entry.slug, PAPERS, *entry.paper, "", ""))
            others = len(entry.evidence) - 1
            more = f" and {others} more {noun(others, 'seeds')}" if others > 0 else ""
            proof = f"{entry.evidence[0]}{more}" if entry.evidence else ""
            ours = entry.here if not entry.absent else ("not measured", *("",) * (len(self.columns) - 1))
            found.append(("", HERE, *ours, marks, proof))
            if any(text not in ("", NOTHING) for text in entry.difference):
                told = (f"{text} ({state})" if state and not state.startswith("off by") else state or text
                        for text, state in zip(entry.difference, entry.status, strict=True))
                found.append(("", DIFFERENCE, *told, "", ""))
        return found

    def letters(self) -> dict[str, str]:
        """The letter of each deviation or reason that not all rows share."""
        texts = dict.fromkeys(text for entry in self.entries for text in (*entry.differs, entry.absent) if text)
        return {text: _letter(place) for place, text in enumerate(texts)}

    def notes(self) -> list[str]:
        """What differs, in words: in every measured row, then by letter; and the machines."""
        found = [f"[all] {text}" for text in self.shared]
        found += [f"[{letter}] {text}" for text, letter in self.letters().items()]
        return [*found, *(f"measured on {text}" for text in self.machines)]


def table(experiment: Experiment, scale: str, root: Path, slugs: Sequence[str] = (), data: str = "") -> Table:
    """The table of an experiment at a scale from what is kept under `root`; `slugs` are the rows shown, all without.

    `data` is what stood in for the paper's data.
    """
    results = measured.results(experiment, scale, root, data)
    shown_rows = slugs or tuple(experiment.rows)
    cells = {slug: measured.cell(experiment, slug, scale, 0, data) for slug in shown_rows}
    told = {slug: deviations(cells[slug], len(results.rows.get(slug, ()))) for slug in shown_rows}
    done = [told[slug] for slug in shown_rows if slug in results.rows]
    shared = tuple(text for text in done[0] if all(text in other for other in done)) if done else ()
    entries = tuple(_entry(experiment, results, cells[slug], tuple(
        text for text in told[slug] if text not in shared)) for slug in shown_rows)
    return Table(experiment.name, experiment.title, results.scale, label(cells.values(), scale, data),
                 experiment.columns, entries, shared, _machines(results, shown_rows), judged(experiment, results))


def label(cells: Any, scale: str, data: str) -> str:
    """Which scale and data a table or figure is of, in words that can't be overlooked."""
    used = [recipe for cell in cells for recipe in cell.recipes]
    if not used:
        return "counted, or computed from untrained networks; no data set" if scale != "smoke" else LABELS["smoke"]
    if scale == "paper" and data:
        return STAND_IN.format(data=data)
    sets = ", ".join(dict.fromkeys(recipe.data for recipe in used))
    steps = dict.fromkeys(f"{recipe.duration:,.0f}" for recipe in used)
    return LABELS[scale].format(data=sets, steps=" or ".join(steps))


def deviations(cell: Cell, seeds: int) -> tuple[str, ...]:
    """All that differs from the paper in a cell: fields of the recipe, open points, the number of seeds."""
    found = [text for theirs, ours in zip(cell.row.recipes, cell.recipes, strict=True)
             for text in differences(theirs, ours)]
    found += (*cell.experiment.differs.get(cell.scale, ()), *cell.row.differs)
    found += cell.row.open_points if cell.scale == "paper" else ()
    if seeds and cell.row.recipes and seeds != cell.row.seeds:
        found.append(f"{_seeds(seeds)} instead of {cell.row.seeds}")
    return tuple(dict.fromkeys(found))


def comparable(cell: Cell) -> bool:
    """Whether a number of the cell may be held against the paper's: no field of a recipe differs."""
    return cell.scale != "smoke" and not any(
        differences(theirs, ours) for theirs, ours in zip(cell.row.recipes, cell.recipes, strict=True))


def judged(experiment: Experiment, results: Results) -> tuple[Judged, ...]:
    """The claims with their verdicts over all rows; of one that fails in small trainings, why, or that none knows."""
    found = []
    for slug, claim in experiment.claims.items():
        if results.scale == "smoke":
            found.append(Judged(slug, claim.text, "not measured", NOT_JUDGED))
            continue
        verdict = claim.judge(results)
        asked = experiment.trains and (verdict.word, results.scale) == ("fails", "small")
        told = f". Cause: {claim.cause or NO_CAUSE}" if asked else ""
        found.append(Judged(slug, claim.text, verdict.word, verdict.because + told))
    return tuple(found)


def _entry(experiment: Experiment, results: Results, cell: Cell, differs: tuple[str, ...]) -> Entry:
    slug, row, columns = cell.slug, cell.row, experiment.columns
    papers = experiment.paper.get(slug, {})
    values = [here(experiment, results, slug, column) for column in columns]
    alike = comparable(cell)
    seeds = results.rows.get(slug, ())
    status = tuple(agreement(papers.get(column), value, bool(row.recipes), len(seeds)) if alike else ""
                   for column, value in zip(columns, values, strict=True))
    gaps = {column: difference(papers.get(column), value) for column, value in zip(columns, values, strict=True)}
    failures = [f"seed {one.seed}: {one.failure}" for one in seeds if one.failure]
    again = tuple(SECOND_READING for one in seeds if "test" in one.environment.get("read", ()))[:1]
    return Entry(
        slug, tuple(as_printed(papers[column]) if column in papers else NOTHING for column in columns),
        tuple(spread(experiment, results, slug, column) for column in columns),
        tuple(NOTHING if gap is None else signed(gap, column) for column, gap in gaps.items()), status,
        (*(differs if seeds else ()), *failures, *again),
        tuple(one.recipe_hash[:HASH] for one in seeds if one.recipe_hash), absence(row, results, slug))


def absence(row: Row, results: Results, slug: str) -> str:
    """Why a row has no number here, "" where it has one."""
    if row.unmeasured:
        return row.unmeasured
    return "" if slug in results.rows else f"not run at scale {results.scale}"


def unfinished(experiment: Experiment, scale: str, seeds: Mapping[str, int]) -> str:
    """How many of the rows lack some of their seeds, as words to be added; "" where all have theirs."""
    few = sum(0 < count < seeds_of(scale, experiment.rows[slug]) for slug, count in seeds.items())
    return f", {few} of them not with all seeds" if few else ""


def _machines(results: Results, slugs: Sequence[str]) -> tuple[str, ...]:
    found = []
    for slug in slugs:
        for one in results.rows.get(slug, ()):
            hardware, versions = one.environment.get("hardware", {}), one.environment.get("versions", {})
            device = hardware.get("device")
            name = hardware.get("cpu") if device == "cpu" else device
            found.append(f"{name}, {amount(hardware.get('threads', 0), 'threads')}, {hardware.get('precision')}, "
                         f"torch {versions.get('torch')}")
    return tuple(dict.fromkeys(found))


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _letter(place: int) -> str:
    return (chr(ord("a") + place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)
