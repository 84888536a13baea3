"""What stands on one side of a comparison: an evaluation, a run, several runs, a folder of seeds, or kept results.

A side is one path or several joined by commas. A path is an evaluation's directory, a run (of several evaluations that
of its own test split under its recipe's protocol is meant), a folder with `seed0`, `seed1`, ... of these, or a
directory with a kept result (`metrics.json`, as in `results/`). What is no path may be the row of an experiment, as
resnet/table-6/resnet20: its kept results at the small scale, or at another that follows an @.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.data.layout import ALL
from layerwise.errors import InputError, nearest
from layerwise.evaluation import result
from layerwise.evaluation.difference import Answers
from layerwise.evaluation.metrics import LARGEST_K
from layerwise.evaluation.protocols import PROTOCOLS
from layerwise.experiments import measured
from layerwise.experiments.experiment import Experiment
from layerwise.recipe import Recipe
from layerwise.spreadsheet import plain_cell

NUMBERS = ("error", "macro_f1", "weighted_f1", "loss", "brier", "calibration_error")
KEPT, RECIPE = "metrics.json", "recipe.json"
KEPT_RESULTS = "results/measured"
SPLITS = ("test", "val", "train", ALL)  # the first that was evaluated stands for a run


@dataclass(frozen=True)
class Seed:
    """One run of a side: its numbers (errors as fractions), the fingerprint of its pictures, and where it lies.

    `predictions` is the table of its answers, None where only numbers were kept.
    """

    name: str
    numbers: dict[str, float]
    protocol: str
    fingerprint: str
    recipe: Recipe | None = None
    classes: tuple[str, ...] = ()
    predictions: Path | None = None

    @property
    def seed(self) -> int | None:
        """The recipe's seed, None where there is no recipe."""
        return None if self.recipe is None else self.recipe.seed


@dataclass(frozen=True)
class Side:
    """One side: its name as it was given, and its runs."""

    name: str
    seeds: tuple[Seed, ...]
    notes: tuple[str, ...] = field(default=())

    def values(self, name: str) -> list[float]:
        """The number `name` of each run."""
        return [seed.numbers[name] for seed in self.seeds]

    @property
    def drawn(self) -> bool:
        """Whether each seed drew its own test pictures."""
        return len({seed.fingerprint for seed in self.seeds}) > 1

    @property
    def common(self) -> list[str]:
        """The numbers that every run has."""
        return [name for name in self.seeds[0].numbers if all(name in seed.numbers for seed in self.seeds)]


def read_side(given: str | Path, prefer: Sequence[str] = ()) -> Side:
    """The side that `given` names. Raises InputError where there is nothing, or the same run twice.

    Of a run with several evaluations the first of the protocols `prefer` that it has is meant, else its recipe's; a
    note says which.
    """
    text = str(given)
    parts = [text] if Path(text).exists() or "," not in text else [part for part in text.split(",") if part]
    seeds = [_read(place) for part in parts for place in (_row(part) or _places(Path(part), prefer))]
    numbers = [seed.seed for seed in seeds if seed.seed is not None]
    twice = sorted({seed for seed in numbers if numbers.count(seed) > 1})
    if len(seeds) > 1 and twice:
        raise InputError(f"{text}: seed {twice[0]} is there twice", "Each run of a side counts once.",
                         "Name runs of different seeds.", [seed.name for seed in seeds if seed.seed in twice])
    notes = []
    taken = {Path(seed.name) for seed in seeds if seed.predictions is not None} - {Path(part) for part in parts}
    chosen = sorted({place.name for place in taken if len(_evaluations(place.parents[1])) > 1})
    if chosen:
        notes.append(f"{text}: of several evaluations {' and '.join(chosen)} is meant; name another one's directory to "
                     "compare that")
    alike = {dataclasses.replace(seed.recipe, seed=0) for seed in seeds if seed.recipe is not None}
    if len(alike) > 1:
        notes.append(f"the runs of {text} were not made by one recipe: their deviation is not of seeds alone")
    if len({seed.protocol for seed in seeds}) > 1:
        notes.append(f"the runs of {text} were tested under different protocols: "
                     f"{', '.join(sorted({seed.protocol for seed in seeds}))}")
    return Side(text, tuple(seeds), tuple(notes))


def _row(text: str) -> list[Path]:
    """The kept results of the experiment's row that `text` names, one a seed; [] where it names none."""
    from layerwise.experiments import EXPERIMENTS, find  # imports every experiment, and with them torch

    named, _, scale = text.partition("@")
    name, _, row = named.rpartition("/")
    if Path(text).exists() or name not in EXPERIMENTS:
        return []
    experiment, scale = find(name), scale or "small"
    slug = row_named(experiment, row)
    root = Path(KEPT_RESULTS)
    cells = [measured.cell(experiment, slug, scale, seed) for seed in range(measured.MOST_SEEDS)]
    places = [root / measured.key(cell.recipes[0]) for cell in cells if len(cell.recipes) == 1]
    found = [place for place in places if (place / KEPT).is_file()]
    if not found:
        raise InputError(f"{text}: not measured at the scale {scale}", f"Nothing of it is kept in {root}.",
                         f"layerwise reproduce {name} --scale {scale} --rows {slug}")
    return found


def row_named(experiment: Experiment, row: str) -> str:
    """The slug of the row called `row`: hyphens for underscores, and ResNet's option B for the bare name that it has
    here (resnet34-b is resnet34). Raises InputError with the nearest.
    """
    names = {slug.replace("-", "_"): slug for slug in experiment.rows}
    wanted = row.replace("-", "_")
    found = names.get(wanted) or names.get(wanted.removesuffix("_b"))
    if found is None:
        raise InputError(f"{experiment.name}/{row}: {experiment.name} has no row {row}{nearest(row, experiment.rows)}",
                         mend=f"Its rows are: {', '.join(experiment.rows)}.")
    return found


def _evaluations(run: Path) -> list[Path]:
    """The directories of the evaluations that may stand for a run: of one split of its own data, where it has any."""
    found = sorted(entry.parent for entry in run.glob(f"evaluations/*/{result.RESULT}"))
    # `evaluate --data` puts the name of the other data before these.
    own = ([entry for entry in found if entry.name in {f"{split}-{protocol}" for protocol in PROTOCOLS}]
           for split in SPLITS)
    return next(filter(None, own), found)


def _places(path: Path, prefer: Sequence[str]) -> list[Path]:
    """The directories of evaluations and kept results that `path` stands for."""
    if (path / result.RESULT).is_file() or (path / KEPT).is_file():
        return [path]
    found, recipe = _evaluations(path), _recipe(path)
    protocols = [*prefer, *([] if recipe is None else [recipe.protocol])]
    wanted = [entry for protocol in protocols for entry in found if entry.name.partition("-")[2] == protocol]
    if len(found) == 1 or wanted:
        return (wanted or found)[:1]
    if found:
        raise InputError(f"{path}: has {len(found)} evaluations", "Each is another number.",
                         f"Name one of them, as {found[0]}.", [str(entry) for entry in found])
    seeds = [entry for entry in path.glob("seed*")
             if entry.is_dir() and entry.name.removeprefix("seed").isdecimal()]
    if seeds:
        return [place for entry in sorted(seeds, key=lambda entry: int(entry.name.removeprefix("seed")))
                for place in _places(entry, prefer)]
    raise InputError(f"{path}: no evaluation (no {result.RESULT}) here",
                     mend="Make one with: layerwise evaluate RUN, or name the directory of one.")


def _read(path: Path) -> Seed:
    if (path / result.RESULT).is_file():
        found = result.read(path)
        names = tuple(one["name"] for one in found.classes)
        return Seed(str(path), _numbers(found.metrics), found.protocol.name, str(found.data.get("fingerprint", "")),
                    _recipe(path, path.parent.parent), names, path / result.PREDICTIONS)
    file = path / KEPT
    try:
        kept = json.loads(file.read_text("utf-8"))
        numbers = _numbers(kept["metrics"]) if "metrics" in kept else _percentages(kept["numbers"])
        protocol = str(kept["protocol"]["name"])
        data = str(kept["data"]["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a kept result ({type(error).__name__}: {error})",
                         mend="Keep the run's result again.") from None
    return Seed(str(path), numbers, protocol, data, _recipe(path))


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    found = {name: float(metrics[name]) for name in NUMBERS if metrics.get(name) is not None}
    top = metrics.get("top_k_error") or {}
    if str(LARGEST_K) in top:
        found[f"top_{LARGEST_K}_error"] = float(top[str(LARGEST_K)])
    return found


def _percentages(numbers: dict[str, Any]) -> dict[str, float]:
    """The errors of a reproduced row, which are in percent there, as fractions."""
    names = {"error": "error", "top5_error": f"top_{LARGEST_K}_error", "training_error": "training_error"}
    return {names[name]: float(value) / 100 for name, value in numbers.items() if name in names}


def _recipe(*places: Path) -> Recipe | None:
    file = next((place / RECIPE for place in places if (place / RECIPE).is_file()), None)
    return None if file is None else Recipe.from_json(file.read_text("utf-8"), str(file))


@dataclass(frozen=True)
class Table:
    """The answered pictures of one evaluation: labels and answers by id, and further columns where they were kept."""

    labels: dict[str, str]
    predicted: dict[str, str]
    columns: dict[str, dict[str, float]]


def read_table(seed: Seed) -> Table:
    """The table of a run's answers. Raises InputError where it is missing, damaged or empty."""
    file = seed.predictions
    assert file is not None
    wanted = {"probability": "probability", "rank": "rank", "brier": "brier", "top1_probability": "confidence"}
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["predicted"]]
        labels = {plain_cell(row["id"]): plain_cell(row["true"]) for row in rows}
        predicted = {plain_cell(row["id"]): plain_cell(row["predicted"]) for row in rows}
        columns = {name: {plain_cell(row["id"]): float(row[column]) for row in rows}
                   for column, name in wanted.items() if rows and rows[0].get(column) not in (None, "")}
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file", mend="Evaluate the model again.") from None
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{file}: not a table of predictions ({type(error).__name__}: {error})",
                         mend="Evaluate the model again.") from None
    if not labels:
        raise InputError(f"{seed.name}: no image was predicted", mend="Evaluate the model on other data.")
    return Table(labels, predicted, columns)


def same_images(names: tuple[str, str], first: Table, second: Table) -> None:
    """Raises InputError where two tables are not of the same images with the same labels."""
    a, b = names
    problems = [f"{key}: only in {a}" for key in first.labels.keys() - second.labels.keys()]
    problems += [f"{key}: only in {b}" for key in second.labels.keys() - first.labels.keys()]
    problems += [f"{key}: {label!r} in {a}, {second.labels[key]!r} in {b}"
                 for key, label in first.labels.items() if second.labels.get(key, label) != label]
    if problems:
        raise InputError(f"{a}, {b}: not the same images with the same labels",
                         "A paired test compares answers to the same questions.",
                         "Evaluate both models on the same data and split.", sorted(problems))


def answers(table: Table, order: Sequence[str], classes: Sequence[str]) -> Answers:
    """A table's answers in the order of the ids `order`, classes numbered as in `classes`."""
    number = {name: place for place, name in enumerate(classes)}

    def floats(name: str) -> Any:
        column = table.columns.get(name)
        return None if column is None else np.array([column[key] for key in order], np.float64)

    rank = floats("rank")
    return Answers(
        len(number), np.array([number[table.labels[key]] for key in order], np.int64),
        np.array([number[table.predicted[key]] for key in order], np.int64),
        floats("probability"), None if rank is None else rank.astype(np.int64), floats("brier"), floats("confidence"))
