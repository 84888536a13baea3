"""Measured results kept in `results/`, and `docs/results.md`, which is generated from them and from nothing else.

    python -m layerwise.report.ledger keep RUN EXPERIMENT/ROW    # a run's recipe, metrics, environment
    python -m layerwise.report.ledger                            # writes docs/{results,papers}.md, docs/figures

A result is `results/<experiment>/<row>/seed<N>/{recipe,metrics,environment}.json`. Benchmarks save their own JSON as
`results/benchmarks/<name>.json`. What `layerwise reproduce` measured is `results/measured` (`experiments/measured.py`).
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from layerwise import rundir
from layerwise.errors import InputError, amount
from layerwise.recipe import Recipe
from layerwise.recipes.presets import PRESETS
from layerwise.recipes.values import show
from layerwise.report.benchmark_section import section
from layerwise.report.papers_learn import PAGE as LEARNERS_PAGE
from layerwise.report.papers_learn import papers_page
from layerwise.report.papers_page import FIGURES, draw_all, sections
from layerwise.report.text import clean

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/results.md"
# Markup that our own notes don't have: HTML, links, rows of tables, and what clean() writes as an escape.
HOSTILE = re.compile(r"[<>|\[\]`\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Set by the command's own arguments, or chosen from the data and the machine and stated in the environment.
STATED = ("network", "data", "seed", "device", "precision", "memory_format", "compile", "micro_batch", "channels",
          "input_size")


def keep(run: Path, row: str, root: Path = ROOT) -> Path:
    """Copies what a finished and tested run measured into `results/<row>/seed<N>`; returns that directory.

    Raises InputError for a run that is not finished, was branched, or has no evaluation of its own test split.
    """
    recipe, record = rundir.read_recipe(run), rundir.read_run(run)
    found = run / "evaluations" / f"test-{recipe.protocol}" / "result.json"
    if record["state"] != "finished" or not found.is_file() or record["branches"]:
        raise InputError(f"{run}: not a finished, unbranched run with an evaluation of its test split",
                         mend=f"layerwise resume {run}")
    into = root / "results" / row / f"seed{recipe.seed}"
    into.mkdir(parents=True, exist_ok=True)
    result = json.loads(found.read_text("utf-8"))
    (into / "recipe.json").write_text(recipe.to_json(), "utf-8")
    curve = [line for line in rundir.read_lines(run / rundir.METRICS) if line["kind"] == "val"]
    kept = ("split", "samples", "unreadable", "protocol", "metrics", "data", "models")
    models = [{key: model[key] for key in ("sha256", "recipe_hash", "seed")} for model in result["models"]]
    rundir.write_json(into / "metrics.json", {key: result[key] for key in kept} | {
        "models": models, "seconds": record["seconds"], "selected": recipe.select,
        "validation": [{"epoch": line["epoch"], "error": line["error"], "loss": line["loss"]} for line in curve]})
    rundir.write_json(into / "environment.json", {key: record[key] for key in ("versions", "hardware", "notes")})
    return into


def command(recipe: Recipe, seeds: int) -> str:
    """The command that trains a recipe again: its preset, the fields that differ from it, the number of seeds."""
    words = [f"layerwise train {_word(recipe.network)} {_word(recipe.data)} --recipe {_word(recipe.name)}"]
    preset = PRESETS[recipe.name]
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if field.name not in STATED and value != getattr(preset, field.name):
            words.append(f"--set {_word(f'{field.name}={show(value)}')}")
    return " ".join([*words, f"--seeds {seeds}"] if seeds > 1 else words)


def _word(text: str) -> str:
    """`text` as one word of a shell's line that stays one line."""
    return shlex.quote(clean(text))


def page(root: Path = ROOT) -> str:
    """The text of docs/results.md: the papers' tables and figures, networks trained here, and the benchmarks."""
    lines = ["# Results", "",
             "Measured by the commands below; generated from `results/` by `python -m layerwise.report.ledger`. A test",
             "fails when the two differ. Errors are in percent; the test split was read once, after the training,",
             "unless a row says that its measurement read it again.", "",
             *sections(root / "results", inline)]
    for directory in sorted((root / "results").glob("*/*/")):
        if any(directory.glob("seed*/metrics.json")):
            lines += _row(directory, str(directory.relative_to(root / "results")))
    for file in sorted((root / "results" / "benchmarks").glob("*.json")):
        lines += [f"## benchmarks/{file.stem}.py", "", *section(file.stem, json.loads(file.read_text("utf-8"))), ""]
    return "\n".join(lines).rstrip() + "\n"


def inline(text: str) -> str:
    """`text` on one line of Markdown, so that a name from the data is neither markup, HTML, nor a new line."""
    return re.sub(r"[\\`*_\[\]<>|#]", r"\\\g<0>", clean(text)) if HOSTILE.search(text) else text


def _row(directory: Path, name: str) -> list[str]:
    seeds = sorted(directory.glob("seed*"), key=lambda seed: int(seed.name.removeprefix("seed")))
    metrics: list[dict[str, Any]] = [json.loads((seed / "metrics.json").read_text("utf-8")) for seed in seeds]
    environments: list[dict[str, Any]] = [json.loads((seed / "environment.json").read_text("utf-8")) for seed in seeds]
    recipe = Recipe.from_json((seeds[0] / "recipe.json").read_text("utf-8"), str(seeds[0] / "recipe.json"))
    errors = [100 * one["metrics"]["error"] for one in metrics]
    spread = f"{statistics.mean(errors):.2f}"
    if len(errors) > 1:
        spread += (f" +- {statistics.stdev(errors):.2f} (mean and standard deviation of {len(errors)} seeds), median "
                   f"{statistics.median(errors):.2f}, {min(errors):.2f} to {max(errors):.2f}")
    protocol, hardware = metrics[0]["protocol"], environments[0]["hardware"]
    which = "weights of the last epoch" if recipe.select == "last" else "weights of the best validation epoch"
    lines = [
        f"## {name}", "", "```sh", command(recipe, len(seeds)), "```", "",
        f"- test error {spread}; {metrics[0]['samples']} pictures; {which}",
        f"- protocol {inline(protocol['name'])}: {inline(protocol['description'])}",
        f"- {amount(recipe.duration, recipe.unit)}; validation on pictures held out of the training split",
        f"- {hardware['cpu']}, {amount(hardware['threads'], 'threads')}, {hardware['precision']}, "
        f"{hardware['system']}; torch {environments[0]['versions']['torch']}",
        "", "| seed | test error | 95 % interval | validation error at the end | minutes | weights |",
        "|---|---|---|---|---|---|"]
    for seed, one in zip(seeds, metrics, strict=True):
        low, high = one["metrics"]["error_interval"]
        last = f"{100 * one['validation'][-1]['error']:.2f}" if one["validation"] else "none held out"
        lines.append(f"| {seed.name.removeprefix('seed')} | {100 * one['metrics']['error']:.2f} | {100 * low:.2f} to "
                     f"{100 * high:.2f} | {last} | {one['seconds'] / 60:.1f} | `{one['models'][0]['sha256'][:12]}` |")
    remarks = sorted({note for environment in environments for note in environment["notes"]})
    return [*lines, "", *(f"- {inline(note)}" for note in remarks), *([""] if remarks else [])]


def main(arguments: list[str]) -> int:
    """Keeps a run's result, or writes the page. Returns the exit status."""
    if arguments[:1] == ["keep"] and len(arguments) == 3:
        print(keep(Path(arguments[1]), arguments[2]))
    elif arguments:
        print(__doc__, file=sys.stderr)
        return 2
    for drawn in draw_all(ROOT / "results", (ROOT / PAGE).parent / FIGURES):
        print(drawn)
    for name, text in ((PAGE, page()), (LEARNERS_PAGE, papers_page(ROOT))):
        (ROOT / name).write_text(text, "utf-8")
        print(ROOT / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
