"""Reading a run's saved files, tolerantly: what is missing or unreadable is listed, never made up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from layerwise import modelfile, rundir
from layerwise.errors import InputError, LayerwiseError
from layerwise.evaluation import result
from layerwise.evaluation.metrics import Bin
from layerwise.evaluation.result import Result
from layerwise.recipe import Recipe
from layerwise.report.text import clean, number

Record = dict[str, Any]
FORMAT = 1
MOST_BYTES = 256 * 2**20  # of one JSON file; a larger one was not written by a run
MOST_BINS = 1000
SPLIT_ORDER = {"test": 0, "val": 1, "train": 2}


@dataclass(frozen=True)
class Evaluation:
    """One saved evaluation: its folder, its result, and the confusion matrix (true, predicted) as an array."""

    folder: Path
    result: Result
    confusion: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def own(self) -> bool:
        """Whether it is of the run's own data; `evaluate --data` puts the name of other data before the folder's."""
        return self.name == f"{self.result.split}-{self.result.protocol.name}"

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The ends of the error's 95 % interval, (None, None) where the result has none."""
        ends = [number(end) for end in listing(self.result.metrics, "error_interval")]
        return (ends[0], ends[1]) if len(ends) == 2 else (None, None)


@dataclass(frozen=True)
class RunFiles:
    """What a run's directory holds. Absent files leave empty fields and a line in `missing`."""

    path: Path
    recipe: Record
    recipe_hash: str
    info: Record  # run.json
    metrics: tuple[Record, ...]  # metrics.jsonl, one line for each (kind, step), in the order of steps
    speed: tuple[Record, ...]
    evaluations: tuple[Evaluation, ...]  # own data before other; test before val before train; the recipe's protocol
    missing: tuple[str, ...]
    calibration: Record  # calibration/result.json
    class_counts: dict[str, dict[str, int]]  # split: class: pictures, from data/<split>.csv
    weights: str  # SHA-256 of the tensors that model.safetensors holds now, "" where it does not say

    @property
    def state(self) -> str:
        return str(self.info.get("state", "unknown"))

    def outdated(self, models: list[Record]) -> bool:
        """Whether none of `models` (of a saved result) has the weights that the run's model file holds now."""
        return bool(self.weights) and all(model.get("sha256") != self.weights for model in models)

    @property
    def headline(self) -> Evaluation | None:
        """The evaluation that stands for the run: on the test split under the recipe's protocol, if it is there."""
        return self.evaluations[0] if self.evaluations else None


def section(record: Mapping[str, Any], key: str) -> Record:
    """The part of `record` called `key` where it is a JSON object, else an empty one."""
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def listing(record: Mapping[str, Any], key: str) -> list[Any]:
    """The part of `record` called `key` where it is a JSON array, else an empty one."""
    found = record.get(key)
    return found if isinstance(found, list) else []


def read_run(run: Path) -> RunFiles:
    """Read every saved file of the run in the directory `run`.

    Raises InputError where `run` is not a directory of a run (no recipe.json, run.json or metrics.jsonl in it).
    """
    path = Path(run)
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise InputError(f"{str(path)!r} {what}", "A report is made from a run's directory.", "Give the directory that "
                         "`layerwise train` printed.")
    if not any((path / name).is_file() for name in ("recipe.json", "run.json", "metrics.jsonl")):
        raise InputError(f"{str(path)!r} is not a run's directory",
                         "It holds no recipe.json, run.json or metrics.jsonl.",
                         "Give the directory that `layerwise train` printed.")
    missing: list[str] = []
    recipe = _object(path / "recipe.json", "the recipe is not shown", missing)
    info = _object(path / "run.json", "data, hardware and state of the run are not shown", missing)
    lines = _lines(path / "metrics.jsonl", "the curves are not shown", missing)
    keyed = {(str(line.get("kind")), number(line.get("step"))): line for line in lines}
    metrics = sorted((line for (_, step), line in keyed.items() if step is not None), key=lambda line: line["step"])
    evaluations = sorted(_evaluations(path / "evaluations", missing), key=lambda found: (
        not found.own, SPLIT_ORDER.get(found.result.split, 3),
        found.result.protocol.name != recipe.get("protocol"), found.name))
    if not evaluations:
        missing.append(f"No evaluation: this run has not been tested. `layerwise evaluate {path.name}` does it.")
    if not (path / "model.safetensors").is_file():
        missing.append("model.safetensors: not there, so the first-layer kernels are not shown.")
    speed = _lines(path / "speed.jsonl", "", missing) if (path / "speed.jsonl").is_file() else []
    fitted = path / "calibration" / "result.json"
    calibration = _object(fitted, "the calibration is not shown", missing) if fitted.is_file() else {}
    counts = {split: found for split in ("train", "val", "test")
              if (found := _counted(path / "data" / f"{split}.csv", missing))}
    return RunFiles(path, recipe, _recipe_hash(path / "recipe.json"), info, tuple(metrics), tuple(speed),
                    tuple(evaluations), tuple(missing), calibration, counts, _weights(path / "model.safetensors"))


def curve(run: RunFiles, kind: str, field: str, most: int = 300) -> NDArray[np.float64]:
    """`field` of the metrics lines of `kind` ("train" or "val") against iterations: (points, 2), step and value.

    More than `most` lines are averaged in groups of equally many consecutive lines, each at its group's last step.
    """
    pairs = [(number(line.get("step")), number(line.get(field))) for line in run.metrics if line.get("kind") == kind]
    points = np.array([(step, value) for step, value in pairs if step is not None and value is not None], np.float64)
    if len(points) <= most:
        return points.reshape(-1, 2)
    size = -(-len(points) // most)
    groups = (points[start:start + size] for start in range(0, len(points), size))
    return np.array([(group[-1, 0], group[:, 1].mean()) for group in groups])


def last_step(run: RunFiles) -> int:
    """The last iteration that the metrics know of; 0 where there are none."""
    return int(run.metrics[-1]["step"]) if run.metrics else 0


def summary(run: Path) -> Record:
    """The run in one JSON-able record: what was trained, how far it came, and each evaluation with its protocol.

    Errors are fractions 0..1. Raises InputError where `run` is not a run's directory.
    """
    files = read_run(run)
    model, data = section(files.info, "model"), section(files.info, "data")
    validation = curve(files, "val", "error", most=10**9)
    best = validation[validation[:, 1].argmin()] if len(validation) else None
    return {
        "format": FORMAT,
        "run": str(files.path),
        "state": files.state,
        "network": model.get("name", files.recipe.get("network")),
        "parameters": model.get("parameters"),
        "data": data.get("name", files.recipe.get("data")),
        "data_fingerprint": data.get("fingerprint"),
        "recipe": files.recipe.get("name"),
        "recipe_hash": files.recipe_hash or None,
        "seed": files.recipe.get("seed"),
        "select": files.recipe.get("select"),
        "steps": last_step(files),
        "seconds": number(files.info.get("seconds")),
        "data_wait": _data_wait(files),
        "last_validation_error": float(validation[-1, 1]) if len(validation) else None,
        "best_validation_error": None if best is None else {"step": int(best[0]), "error": float(best[1])},
        "evaluations": [{"folder": f"evaluations/{found.name}", "split": found.result.split,
                         "data": found.result.data.get("name"), "own": found.own,
                         "protocol": found.result.protocol.to_json(), "samples": found.result.samples,
                         "unreadable": found.result.unreadable, "models": len(found.result.models),
                         "metrics": found.result.metrics} for found in files.evaluations],
        "notes": [note for note in listing(files.info, "notes") if isinstance(note, str)],
        "missing": list(files.missing),
    }


def _data_wait(files: RunFiles) -> float | None:
    """The share of the training's time that was waited for data, 0..1; None where no speed was written."""
    pairs = [(number(line.get("seconds")), number(line.get("data_wait"))) for line in files.speed]
    known = [(seconds, share) for seconds, share in pairs if seconds is not None and share is not None]
    total = sum(seconds for seconds, _ in known)
    return sum(seconds * share for seconds, share in known) / total if total > 0 else None


def _object(file: Path, lost: str, missing: list[str]) -> Record:
    """The JSON object in `file`; where there is none, {} and a line in `missing`."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError("too large for a file that a run writes")
        found = json.loads(file.read_text("utf-8"), parse_constant=lambda _: None)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        missing.append(f"{file.name}: not there, so {lost}.")
    except (OSError, ValueError, RecursionError) as error:
        missing.append(f"{file.name}: can't be read ({clean(str(error), 120)}), so {lost}.")
    else:
        return found
    return {}


def _lines(file: Path, lost: str, missing: list[str]) -> list[Record]:
    """The JSON objects in the lines of `file`; unreadable lines are counted in `missing`."""
    found: list[Record] = []
    bad = 0
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                try:
                    record = json.loads(line, parse_constant=lambda _: None)
                except (ValueError, RecursionError):
                    record = None
                if isinstance(record, dict):
                    found.append(record)
                else:
                    bad += bool(line.strip())
    except FileNotFoundError:
        missing.append(f"{file.name}: not there, so {lost}.")
    except OSError as error:
        missing.append(f"{file.name}: can't be read ({clean(str(error), 120)}), so {lost}.")
    if bad:
        missing.append(f"{file.name}: lines that can't be read and are left out: {bad}.")
    return found


def _evaluations(folder: Path, missing: list[str]) -> Iterator[Evaluation]:
    """Each readable evaluation below `folder`; a number without its protocol is refused, and that is said."""
    for file in sorted(folder.glob("*/result.json")):
        try:
            found = result.read(file)
            yield Evaluation(file.parent, found, np.array(found.confusion, np.int64))
        except InputError as error:
            reasons = [error.what.removeprefix(f"{file}: "), *error.details[:3], error.why]
            missing.append(f"evaluations/{file.parent.name}: not shown: {'; '.join(filter(None, reasons))}")
        except (RecursionError, OverflowError, TypeError):
            missing.append(f"evaluations/{file.parent.name}: not shown: its result.json is not one that a run writes")


def bins(record: Record) -> list[Bin] | None:
    """The bins of a saved reliability; None where they are not what `calibrate` writes."""
    found = []
    for one in listing(record, "bins")[:MOST_BINS]:
        parts = [number(one.get(key)) for key in ("lower", "upper", "count")] if isinstance(one, dict) else [None]
        if any(part is None or part < 0 for part in parts):
            return None
        lower, upper, count = (float(part or 0) for part in parts)
        found.append(Bin(lower, upper, int(count), number(one.get("confidence")), number(one.get("accuracy"))))
    return found or None


def _counted(file: Path, missing: list[str]) -> dict[str, int]:
    """The pictures of each class in a split's CSV of id,label; {} where there is none, or none that can be read."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError("too large for a file that a run writes")
        return dict(Counter(label for _, label, _ in rundir.read_split(file)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        missing.append(f"data/{file.name}: can't be read ({clean(str(error), 120)}), so its classes are not counted.")
        return {}


def _weights(file: Path) -> str:
    """The digest of its tensors that a model file states; "" where it states none."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            header = json.loads((tensors.metadata() or {}).get(modelfile.HEADER, "{}"))
    except (OSError, ValueError, RecursionError, SafetensorError):
        return ""
    return str(header.get("sha256", "")) if isinstance(header, dict) else ""


def _recipe_hash(file: Path) -> str:
    """The recipe's hash, "" where the file is not a recipe that this version can read."""
    try:
        return Recipe.from_json(file.read_text("utf-8"), str(file)).hash
    except (OSError, ValueError, LayerwiseError):
        return ""
