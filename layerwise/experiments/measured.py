"""What was measured of the experiments, on disk, keyed by the hash of the recipe that was asked for.

    <root>/<network>-<hash12>/recipe.json                 the recipe as asked: a changed one is another directory
    <root>/<network>-<hash12>/metrics.json                numbers, curve, split, protocol, weights
    <root>/<network>-<hash12>/environment.json            versions, hardware, what the machine chose, notes
    <root>/<network>-<hash12>/<experiment>--<row>.json    what a row's own measurement gave
    <root>/counted/<experiment>--<row>-seed<N>.json   the same of a row without a recipe: no scale changes it

The recipe as asked leaves `auto` to the machine, so that its hash is the same on each; what was chosen is in the
environment. One directory is one seed, since the seed is a field of the recipe.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerwise import rundir
from layerwise.errors import InputError
from layerwise.experiments.experiment import Curve, Experiment, Measured, Numbers, Results, Row
from layerwise.experiments.scales import at_scale, seeds_of
from layerwise.recipe import Recipe

RECIPE, METRICS, ENVIRONMENT, COUNTED = "recipe.json", "metrics.json", "environment.json", "counted"
HASH = 12
MOST_SEEDS = 10
ENDING = 0.1  # the last part of a training over which its training error is averaged
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One seed of one row at a scale: what has to be trained, and where it is kept."""

    experiment: Experiment
    slug: str
    scale: str
    seed: int
    recipes: tuple[Recipe, ...]

    @property
    def row(self) -> Row:
        return self.experiment.rows[self.slug]

    @property
    def measurement(self) -> Path:
        """Where the row's own measurement is kept, under the root."""
        name = f"{self.experiment.name.replace('/', '-')}--{self.slug}"
        if self.recipes:
            return Path(key(self.recipes[0])) / f"{name}.json"
        return Path(COUNTED) / f"{name}-seed{self.seed}.json"


def key(recipe: Recipe) -> str:
    """The directory of a recipe's results, and of its run."""
    return f"{recipe.network}-{recipe.hash[:HASH]}"


def cell(experiment: Experiment, slug: str, scale: str, seed: int, data: str = "") -> Cell:
    """One seed of a row at a scale; `data` stands in for the paper's where it is given."""
    recipes = (at_scale(recipe, scale, seed, experiment.small) for recipe in experiment.rows[slug].recipes)
    return Cell(experiment, slug, scale, seed,
                tuple(dataclasses.replace(recipe, data=data or recipe.data) for recipe in recipes))


def trained(recipe: Recipe, root: Path) -> Record | None:
    """The kept metrics of a trained recipe with its environment, None where it was not run.

    Raises InputError where the directory holds another recipe's, or can't be read.
    """
    where = root / key(recipe)
    if not (where / METRICS).is_file():
        return None
    kept = Recipe.from_json((where / RECIPE).read_text("utf-8"), str(where / RECIPE))
    if kept.hash != recipe.hash:
        raise InputError(f"{where / RECIPE}: the hash is {kept.hash[:HASH]}, not that of the directory's name",
                         "A result belongs to the recipe that it was measured with.", f"Remove {where}.")
    return read(where / METRICS) | {"environment": read(where / ENVIRONMENT)}


def measured(one: Cell, root: Path) -> Measured | None:
    """What is kept of a cell, None where something of it is missing.

    A row's own measurement counts only for the recipes that it was made with.
    """
    if one.row.unmeasured:
        return None
    runs = [trained(recipe, root) for recipe in one.recipes]
    found = [run for run in runs if run is not None]
    if len(found) < len(one.recipes):
        return None
    hashes = [recipe.hash for recipe in one.recipes]
    failure = next((str(run["failure"]) for run in found if run.get("failure")), "")
    numbers: dict[str, Any] = dict(found[0]["numbers"]) if len(found) == 1 else {}
    environment = found[0]["environment"] if found else {}
    if one.row.measure is not None and not failure:
        if not (root / one.measurement).is_file():
            return None
        own = read(root / one.measurement)
        if own["recipes"] != hashes:
            return None
        numbers |= own["numbers"]
        environment = own["environment"] | environment
    if one.row.counted is not None and not failure:
        numbers |= one.row.counted()
    curve: Curve = found[0]["curve"] if found else ()
    return Measured(one.seed, numbers, curve, hashes[0] if hashes else "", environment, failure)


def results(experiment: Experiment, scale: str, root: Path, data: str = "") -> Results:
    """All that is kept of an experiment at a scale; where other data stands in, the scale's name says so."""
    rows = {}
    kept = {path.name.rpartition("-")[0] for path in root.glob("*-*")}  # networks of which anything is kept
    for slug, row in experiment.rows.items():
        if not {recipe.network for recipe in cell(experiment, slug, scale, 0, data).recipes} <= kept:
            continue
        most = max(MOST_SEEDS, row.seeds) if row.recipes else seeds_of(scale, row)
        found = (measured(cell(experiment, slug, scale, seed, data), root) for seed in range(most))
        if seeds := tuple(one for one in found if one is not None):
            rows[slug] = seeds
    return Results(f"{scale} on {data}" if data else scale, rows)


def keep_run(recipe: Recipe, run: Path, root: Path, evaluation: Record) -> None:
    """Keeps what the run of `recipe` measured; `evaluation` is its saved test (result.json)."""
    where, record = root / key(recipe), rundir.read_run(run)
    used = rundir.read_recipe(run)
    lines = rundir.read_lines(run / rundir.METRICS)
    metrics = evaluation["metrics"]
    top5 = metrics.get("top_k_error", {}).get("5")
    numbers = {"error": _percent(metrics["error"]), "top5_error": _percent(top5),
               "training_error": training_error(lines), "parameters": record["model"]["parameters"]}
    _write(where, recipe, {
        "numbers": {name: value for name, value in numbers.items() if value is not None}, "curve": curve(lines),
        "error_interval": metrics.get("error_interval"), "split": evaluation["split"],
        "samples": evaluation["samples"], "protocol": evaluation["protocol"], "data": evaluation["data"],
        "weights": [model["sha256"] for model in evaluation["models"]], "run_recipe_hash": used.hash,
        "seconds": record["seconds"], "multiply_adds": record["model"]["multiply_adds"],
    }, record, used)


def keep_failure(recipe: Recipe, run: Path, root: Path, failure: str) -> None:
    """Keeps that the training of `recipe` ended early, as with a number that is not finite, and its curve so far."""
    record, used = rundir.read_run(run), rundir.read_recipe(run)
    lines = rundir.read_lines(run / rundir.METRICS)
    _write(root / key(recipe), recipe, {"numbers": {}, "curve": curve(lines), "failure": failure,
                                        "seconds": record["seconds"]}, record, used)


def _write(where: Path, recipe: Recipe, metrics: Record, record: Record, used: Recipe) -> None:
    """The three files; the metrics last, since they say that the result is whole."""
    where.mkdir(parents=True, exist_ok=True)
    (where / RECIPE).write_text(recipe.to_json(), "utf-8")
    chosen = {field.name: getattr(used, field.name) for field in dataclasses.fields(Recipe)
              if getattr(used, field.name) != getattr(recipe, field.name)}
    rundir.write_json(where / ENVIRONMENT, {"versions": record["versions"], "hardware": record["hardware"],
                                            "chosen": chosen, "notes": record["notes"]})
    rundir.write_json(where / METRICS, metrics)


def keep_measurement(one: Cell, root: Path, numbers: Numbers, environment: Mapping[str, Any]) -> None:
    """Keeps what a row's own measurement gave, with the recipes it belongs to; the environment says what it read."""
    path = root / one.measurement
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_json(path, {
        "experiment": one.experiment.name, "row": one.slug, "scale": one.scale, "seed": one.seed,
        "recipes": [recipe.hash for recipe in one.recipes], "numbers": dict(numbers),
        "environment": dict(environment)})


def curve(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The errors (percent) and the learning rate by steps, from the lines of a run's metrics."""
    names = {"train": "training_error", "val": "validation_error"}
    return [{"step": line["step"], names[line["kind"]]: _percent(line["error"]),
             "learning_rate": line["learning_rate"]} for line in lines
            if line["kind"] in names and line["error"] is not None]


def training_error(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Percent of the (augmented) training pictures answered wrongly over the last tenth of the steps, None without."""
    told = [line for line in lines if line["kind"] == "train" and line["error"] is not None]
    if not told:
        return None
    late: list[float] = [line["error"] for line in told if line["step"] > (1 - ENDING) * told[-1]["step"]]
    return round(100 * sum(late) / len(late), 4)


def _percent(part: float | None) -> Any:
    return None if part is None else round(100 * part, 4)


def read(path: Path) -> Record:
    """A kept JSON object. Raises InputError where it is missing or not one."""
    mend = f"Remove {path.parent} and measure it again."
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: can't be read ({error})", mend=mend) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object", mend=mend)
    return found
