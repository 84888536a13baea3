"""What `layerwise evaluate` does: which pictures are meant, the test of the models on them, where it is saved.

Unlike in training, pictures that can't be opened stay in the split: the result counts them in a column of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwise import distributed, hardware, modelfile, rundir
from layerwise.console import interval, note, number, percent
from layerwise.data import DataOptions, open_data
from layerwise.data.layout import ALL
from layerwise.data.opening import NAMES, find_layout
from layerwise.data.place import placed
from layerwise.data.source import Samples
from layerwise.data.splits import divide, hold_out
from layerwise.errors import InputError, nearest
from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.evaluation.result import Result
from layerwise.modelfile import ModelFile
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset

SPLITS = ("test", "val", "train")
READ_BEFORE = "these test pictures were read before, at the end of the training: nothing may be chosen by this number"


@dataclass(frozen=True)
class Question:
    """What is evaluated: `data` ("" for the run's own), its split `on` ("" for test), `protocol` ("" for the recipe's).

    `report` is where the evaluation is saved, None for the run's own directory.
    """

    data: str = ""
    on: str = ""
    protocol: str = ""
    ignore_unknown: bool = False
    bad_images: str = "stop"
    report: Path | None = None
    data_dir: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class Assessment:
    """A result and the directory where it is saved, None where it is not."""

    result: Result
    saved: Path | None

    def to_json(self) -> dict[str, Any]:
        """The result as it is saved, and where."""
        return self.result.to_json() | {"saved": None if self.saved is None else str(self.saved)}

    def lines(self) -> list[str]:
        """The result for people."""
        return [*result_lines(self.result), f"saved: {self.saved}" if self.saved is not None else
                "not saved: name a directory with --report"]  # fmt: skip


def assess(paths: Sequence[Path | str], question: Question = Question()) -> Assessment:
    """Tests the models at `paths` (runs or model files; several are averaged) as `question` asks, and saves it.

    Raises InputError for a split that is not there, and what `layerwise.evaluate.evaluate` raises.
    """
    distributed.first_speaks()
    with distributed.joined():
        return _assess(paths, question)


def _assess(paths: Sequence[Path | str], question: Question) -> Assessment:
    world = distributed.world()
    with world.together():
        if question.on and question.on not in SPLITS:
            raise InputError(f"--on {question.on}: no such split{nearest(question.on, SPLITS)}",
                             mend="It is test, val or train.")
        device = world.device(hardware.resolve(preset("fast")).device)
        members = [modelfile.read(path, str(device)) for path in paths]
        recipe = members[0].recipe
        samples = asked_samples(question, members[0])
    if world.first and not question.on and samples.name not in ("test", ALL):
        note(f"no test split: evaluated on {samples.name}")
    protocol = question.protocol or (recipe.protocol if recipe else "single")
    result = evaluate(members, samples, EvaluateOptions(
        protocol, bad_images=question.bad_images, ignore_unknown=question.ignore_unknown,
        data=question.data or (recipe.data if recipe else "")))  # fmt: skip
    if not question.data or any(_trained_on(member, question.data) for member in members):
        result = dataclasses.replace(result, notes=[*result.notes, *seen_notes(members, result)])
    directory = question.report or _home(paths, question, result)
    if directory is not None:
        world.from_first(lambda: result.save(directory))
    return Assessment(result, directory)


def labelled(data: str, options: DataOptions) -> dict[str, Samples]:
    """The splits of `data` by name, with the pictures that can't be opened; one called "all" where it has no splits."""
    if data in NAMES:
        return open_data(data, options).splits
    layout = find_layout(data, options.data_dir)
    splits = {name: layout.samples(name, options.rules) for name in layout.rows}
    if len(splits) == 1 and options.split:
        parts = divide(next(iter(splits.values())), options.split, options.seed)
        return {name: part for name, part in parts.items() if part is not None}
    return splits


def own_split(recipe: Recipe, on: str, data_dir: Path | None, offline: bool) -> Samples:
    """The split `on` of the data that a run with `recipe` has; with "" its test, else validation, else training split.

    Validation pictures that the training held out are held out in the same way.
    """
    options = DataOptions(data_dir, recipe.split, recipe.seed, offline, recipe.exif, recipe.max_pixels,
                          recipe.bad_images)
    splits = labelled(recipe.data, options)
    wanted = on in ("val", "train") or (on == "" and "test" not in splits)
    if wanted and "val" not in splits and recipe.validation > 0:
        # As in training, where pictures that can't be opened were left out before.
        splits["train"], splits["val"] = hold_out(open_data(recipe.data, options).train, recipe.validation, recipe.seed)
    return _chosen(splits, on, recipe.data)


def asked_samples(question: Question, model: ModelFile) -> Samples:
    """The pictures that `question` means: of its data, or of the data that `model` was trained on."""
    if question.data:
        splits = labelled(question.data, DataOptions(question.data_dir, offline=question.offline))
        return _chosen(splits, question.on, question.data)
    if model.recipe is None:
        raise InputError(f"{model.path}: does not say which data it was trained on", mend="Name data with --data.")
    record = model.path.parent / rundir.RUN
    recipe = placed(model.recipe, rundir.read_run(model.path.parent)) if record.is_file() else model.recipe
    return own_split(recipe, question.on, question.data_dir, question.offline)


def _chosen(splits: dict[str, Samples], on: str, where: str) -> Samples:
    if on and on not in splits:
        raise InputError(f"{where}: has no split {on}", f"It has: {', '.join(splits)}.",
                         "Choose one of them with --on, or leave --on out.")
    return splits[on or next(name for name in ("test", ALL, "val", "train") if name in splits)]


def _home(paths: Sequence[Path | str], question: Question, result: Result) -> Path | None:
    run = Path(paths[0])
    if len(paths) > 1 or not run.is_dir():
        return None
    prefix = f"{Path(question.data).resolve().name}-" if question.data else ""
    return run / "evaluations" / f"{prefix}{result.split}-{result.protocol.name}"


def _trained_on(member: ModelFile, data: str) -> bool:
    """Whether `data` is what `member` was trained on, by its name or the place it leads to."""
    own = member.recipe.data if member.recipe else ""
    return bool(own) and (data == own or (data not in NAMES and Path(data).resolve() == Path(own).resolve()))


def seen_notes(members: Sequence[ModelFile], result: Result) -> list[str]:
    """What has to be said of a number from pictures that the training saw, or of another one from its test pictures.

    The same test again, under the same protocol, is the same number.
    """
    if result.split == "train":
        return ["these are the training pictures: the error says nothing of new ones"]
    if result.split == ALL:
        return ["the training pictures are among these: the error says little of new ones"]
    best = any(member.recipe is not None and member.recipe.select == "best" for member in members)
    if result.split == "val" and best:
        return ["the weights were chosen on these validation pictures: the error is too good"]
    tested = [one for member in members for one in member.results
              if one["split"] == result.split == "test" and one["data"] == result.data]
    again = len(members) > 1 or any(one["protocol"] != result.protocol.to_json() for one in tested)
    return [READ_BEFORE] if tested and again else []


def result_lines(result: Result) -> list[str]:
    """The numbers of a result with their protocol, for people."""
    metrics = result.metrics
    lines = [f"{result.split} error {percent(metrics['error'])} (95 % interval {interval(metrics['error_interval'])}), "
             f"{result.samples:,} pictures, protocol {result.protocol.name}"]  # fmt: skip
    lines += [f"top-{k} error {percent(error)}" for k, error in metrics.get("top_k_error", {}).items()]
    named = (("loss", "loss"), ("calibration error", "calibration_error"), ("macro F1", "macro_f1"))
    lines.append(", ".join(f"{words} {number(metrics.get(key))}" for words, key in named))
    if len(result.models) > 1:
        lines.append(f"probabilities averaged over {len(result.models)} models")
    if result.unreadable:
        lines.append(f"unreadable: {result.unreadable:,} pictures, not counted in the error")
    return [*lines, *(f"note: {text}" for text in result.notes)]
