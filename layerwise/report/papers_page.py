"""The papers' tables and figures in Markdown, from `results/measured`: a summary, a section for each that was run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from layerwise.experiments import EXPERIMENTS, find, measured
from layerwise.experiments.experiment import Experiment
from layerwise.experiments.operations import operations_text, quick_operations
from layerwise.experiments.scales import seeds_of
from layerwise.recipe import Recipe
from layerwise.report.paper_figures import save, stem
from layerwise.report.papers import Table, table, unfinished

FIGURES = "figures"  # beside the page
KEPT = "measured"  # under results/
Variant = tuple[str, str, str]  # experiment, scale, data that stands in ("" for none)


def sections(results: Path, inline: Callable[[str], str]) -> list[str]:
    """The lines of the page's part on the papers; `inline` makes a text safe as Markdown."""
    root = results / KEPT
    tables = [(variant, table(find(variant[0]), variant[1], root, data=variant[2])) for variant in variants(root)]
    lines = ["## Tables and figures of the papers", "",
             "Each is a command. A row is measured once for all tables that share it. `layerwise reproduce --list` "
             "shows every cell.", "", *_summary(root, [found for _, found in tables])]
    for variant, found in tables:
        lines += _section(variant, found, inline)
    return lines


def variants(root: Path) -> Iterator[Variant]:
    """Each experiment with the scales, and the data that stood in, of which something is kept."""
    stand_ins = sorted({Recipe.from_json(path.read_text("utf-8"), str(path)).data
                        for path in root.glob("*/recipe.json")})
    for name in EXPERIMENTS:
        experiment = find(name)
        own = {recipe.data for row in experiment.rows.values() for recipe in row.recipes}
        scales = (("small", ""), ("paper", ""), *(("paper", data) for data in stand_ins if data not in own))
        for scale, data in scales if experiment.trains else (("paper", ""),):
            if measured.results(experiment, scale, root, data).rows:
                yield name, scale, data


def draw_all(results: Path, folder: Path) -> list[Path]:
    """Draws every figure of which something is kept into `folder`; takes away those that nothing stands behind."""
    root = results / KEPT
    drawn = []
    for name, scale, data in variants(root):
        experiment = find(name)
        found = table(experiment, scale, root, data=data)
        drawn += save(experiment, measured.results(experiment, scale, root, data), found, folder)
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        if old not in drawn and any(old.name.startswith(name.replace("/", "-")) for name in EXPERIMENTS):
            old.unlink()
    return drawn


def _summary(root: Path, tables: Sequence[Table]) -> list[str]:
    """A line for each experiment: what was measured, how its claims stand, and what it costs."""
    lines = ["| table or figure | rows measured | claims | cost, small | cost, paper |", "|---|---|---|---|---|"]
    by_name = {(found.name, found.scale): found for found in tables}
    for name in EXPERIMENTS:
        experiment = find(name)
        told = [text for scale in ("small", "paper") if (found := by_name.get((name, scale)))
                for text in (_progress(experiment, found),)]
        rows = "; ".join(rows for rows, _ in told) or "none yet"
        claims = "; ".join(claims for _, claims in told if claims) or "-"
        costs = " | ".join(_cost(experiment, scale) for scale in ("small", "paper"))
        lines.append(f"| {name} | {rows} | {claims} | {costs} |")
    return [*lines, ""]


def _progress(experiment: Experiment, found: Table) -> tuple[str, str]:
    can = [slug for slug, row in experiment.rows.items() if not row.unmeasured]
    have = sum(not entry.absent for entry in found.entries)
    words = Counter(claim.word for claim in found.claims)
    claims = ", ".join(f"{count} {word}" for word, count in words.items())
    few = unfinished(experiment, found.scale, {entry.slug: len(entry.evidence) for entry in found.entries})
    scale = f" ({found.scale})" if experiment.trains else ""
    return f"{have} of {len(can)}{scale}{few}", f"{claims}{scale}" if claims else ""


def _cost(experiment: Experiment, scale: str) -> str:
    total = sum(quick_operations(recipe) * seeds_of(scale, row) for slug, row in experiment.rows.items()
                if not row.unmeasured for recipe in measured.cell(experiment, slug, scale, 0).recipes)
    return operations_text(total) if total else "none"


def _section(variant: Variant, found: Table, inline: Callable[[str], str]) -> list[str]:
    name, scale, data = variant
    scaled = f" --scale {scale}" + (f" --data {data}" if data else "") if find(name).trains else ""
    lines = [f"## {inline(found.title)}", "", f"**{inline(found.label)}**", "", "```sh",
             f"layerwise reproduce {name}{scaled}", "```", ""]
    lines += ["| " + " | ".join(cell_text(head) for head in found.headers) + " |", "|---" * len(found.headers) + "|"]
    lines += ["| " + " | ".join(cell_text(text) for text in line) + " |" for line in found.lines()]
    lines += ["", *(f"- {cell_text(text)}" for text in found.notes()), ""]
    for claim in found.claims:
        lines.append(f"- **{claim.word}**: {inline(claim.text)} {cell_text(claim.because)}")
    if find(name).draw is not None:
        lines += ["", f"![{cell_text(found.title)}; {cell_text(found.label)}]({FIGURES}/{stem(found)}.svg)"]
    return [*lines, ""]


def cell_text(text: str) -> str:
    """`text` in a cell of a Markdown table, on one line, without markup of its own."""
    return re.sub(r"[\\`*_|<>]", r"\\\g<0>", " ".join(text.split()))
