"""A result: the numbers of one evaluation with the protocol, data, models and versions that they belong to.

`Result.save` writes them with every prediction, from which `recompute` gets each number again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerwise.errors import InputError, nearest
from layerwise.evaluation import predictions_table
from layerwise.evaluation.metrics import Scores, confusion_matrix, per_class, scores, summarise
from layerwise.evaluation.predictions_table import Evidence
from layerwise.evaluation.protocols import Protocol

FORMAT = 1
RESULT, PREDICTIONS, CONFUSION, WORST = "result.json", "predictions.csv", "confusion.csv", "worst"
WORST_SIDE = 160
WORST_COUNT = 24
KINDS: dict[str, type] = {
    "format": int, "split": str, "samples": int, "unreadable": int, "ignored": int, "protocol": dict, "metrics": dict,
    "classes": list, "confusion": list, "worst": list, "data": dict, "models": list, "versions": dict,
    "hardware": dict, "notes": list,
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One evaluation.

    `metrics` are those of `metrics.summarise`; `confusion` is (true, predicted), in the classes' order.
    `unreadable` pictures and `ignored` ones (of classes unknown to the model) are not among the `samples`.
    """

    split: str
    samples: int
    unreadable: int
    ignored: int
    protocol: Protocol
    metrics: dict[str, Any]
    classes: list[dict[str, Any]]
    confusion: list[list[int]]
    worst: list[dict[str, Any]]
    data: dict[str, Any]
    models: list[dict[str, Any]]
    versions: dict[str, Any]
    hardware: dict[str, Any]
    notes: list[str]
    evidence: Evidence | None = field(default=None, compare=False, repr=False)

    @property
    def error(self) -> float | None:
        """The error rate, a fraction; None without samples."""
        found = self.metrics["error"]
        return None if found is None else float(found)

    def to_json(self) -> dict[str, Any]:
        """Everything but the evidence, fit for JSON."""
        record = {name: getattr(self, name) for name in KINDS if name not in ("format", "protocol")}
        record |= {"format": FORMAT, "protocol": self.protocol.to_json()}
        return {name: record[name] for name in KINDS}

    @staticmethod
    def from_json(record: object, source: str = "result") -> Result:
        """Reads what `to_json` wrote, strictly. Raises InputError; without its protocol no number is loaded."""
        if not isinstance(record, Mapping):
            raise InputError(f"{source}: not a JSON object", mend="Evaluate the model again.")
        protocol = Protocol.from_json(record.get("protocol"), source)
        if record.get("format") != FORMAT:
            raise InputError(f"{source}: format {record.get('format')!r}, expected {FORMAT}",
                             mend="Read it with the version that wrote it, or evaluate the model again.")
        problems = [f"{name}: missing" for name in KINDS if name not in record]
        problems += [f"{name}: not a field of a result{nearest(str(name), KINDS)}" for name in record
                     if name not in KINDS]
        problems += [f"{name}: not a {kind.__name__}" for name, kind in KINDS.items()
                     if name in record and type(record[name]) is not kind]
        if not problems:
            problems += _inner_problems(record)
        if problems:
            raise InputError(f"{source}: not a saved result", mend="Evaluate the model again.", details=problems)
        return Result(**{name: record[name] for name in KINDS if name not in ("format", "protocol")}, protocol=protocol)

    def save(self, directory: Path) -> None:
        """Writes result.json (last), predictions.csv, confusion.csv and worst/*.png into `directory`.

        An earlier evaluation there is replaced; raises InputError where the directory holds anything else.
        """
        names = [one["name"] for one in self.classes]
        _claim(directory)
        if self.evidence is not None:
            for mistake, picture in zip(self.worst, self.evidence.pictures, strict=True):
                _thumbnail(picture).save(directory / mistake["picture"], format="PNG")
            _replace(directory / PREDICTIONS, predictions_table.predictions_csv(self.evidence, names))
        _replace(directory / CONFUSION, predictions_table.confusion_csv(self.confusion, names))
        _replace(directory / RESULT, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")


def read(directory: Path) -> Result:
    """The saved result of an evaluation's directory, or of a result.json. Raises InputError."""
    path = directory / RESULT if directory.is_dir() else directory
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file", mend="Make one with: layerwise evaluate RUN") from None
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error})", mend="Evaluate the model again.") from None
    return Result.from_json(record, str(path))


def class_table(columns: Scores, names: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """The rows of `Result.classes`, and `Result.confusion`."""
    confusion = confusion_matrix(columns.labels, columns.predicted, len(names))
    rows = [{"name": name, "support": one.support, "precision": one.precision, "recall": one.recall, "f1": one.f1,
             "reason": one.reason} for name, one in zip(names, per_class(confusion), strict=True)]
    return rows, confusion.tolist()


def most_confident_mistakes(columns: Scores) -> NDArray[np.int64]:
    """The rows of the wrong answers given with the highest probability, at most 24; of equal ones the earlier."""
    wrong = np.flatnonzero(columns.predicted != columns.labels)
    return wrong[np.argsort(-columns.confidence[wrong], kind="stable")][:WORST_COUNT]


def recompute(directory: Path) -> dict[str, Any]:
    """`metrics`, `classes` and `confusion` computed again from predictions.csv alone (class order from confusion.csv).

    With at most 100 classes everything comes from the columns of probabilities.
    """
    names = predictions_table.read_classes(directory / CONFUSION)
    columns, probabilities = predictions_table.read_predictions(directory / PREDICTIONS, names)
    if probabilities is not None:
        columns = scores(probabilities, columns.labels)
    rows, confusion = class_table(columns, names)
    return {"metrics": summarise(columns, len(names)), "classes": rows, "confusion": confusion}


def _inner_problems(record: Mapping[str, Any]) -> list[str]:
    size = len(record["classes"])
    rows = [set(row) if isinstance(row, dict) else set() for row in record["classes"]]
    problems = [f"classes[{i}]: has not name, support, precision, recall, f1, reason" for i, row in enumerate(rows)
                if row != {"name", "support", "precision", "recall", "f1", "reason"}]
    table = record["confusion"]
    square = len(table) == size and all(isinstance(row, list) and len(row) == size for row in table)
    if not square or not all(type(cell) is int and cell >= 0 for row in table for cell in row):
        problems.append(f"confusion: not {size} rows of {size} counts")
    elif sum(map(sum, table)) != record["samples"]:
        problems.append(f"confusion: its counts add up to {sum(map(sum, table))}, samples is {record['samples']}")
    problems += [f"metrics.{name}: missing" for name in ("error", "error_interval", "loss") if name not in
                 record["metrics"]]
    problems += [f"metrics.{name}: not a number" for name in ("error", "loss") if name in record["metrics"]
                 and not isinstance(record["metrics"][name], int | float | None)]
    return problems


def _claim(directory: Path) -> None:
    """Makes the directory, or empties it of an earlier evaluation's files and of nothing else."""
    own = {RESULT, PREDICTIONS, CONFUSION, WORST}
    if directory.exists():
        if not directory.is_dir():
            raise InputError(f"{directory}: is a file, not a directory", mend="Choose another directory.")
        strange = sorted(entry.name for entry in directory.iterdir() if entry.name not in own
                         and not entry.name.endswith(".writing"))
        if strange:
            raise InputError(f"{directory}: exists and holds other files than an evaluation's",
                             "Nothing is ever written over.", "Choose another directory.", strange)
    (directory / WORST).mkdir(parents=True, exist_ok=True)
    (directory / RESULT).unlink(missing_ok=True)  # until all is written there is no result
    for index in range(WORST_COUNT):
        (directory / WORST / f"{index:03d}.png").unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.writing")
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)
    os.replace(temporary, path)


def _thumbnail(picture: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture[..., 0] if picture.shape[2] == 1 else picture))
    image.thumbnail((WORST_SIDE, WORST_SIDE), Image.Resampling.BILINEAR)
    return image
