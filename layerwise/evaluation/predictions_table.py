"""Every prediction of an evaluation as CSV, safe to open in a spreadsheet, and exact when it is read back.

Columns: id, true, predicted, correct, probability (of the true class), rank, brier, top1, top1_probability, ... top5,
then `p:<class>` for each class where there are at most 100, then error. A sample without an answer has only id, true
and error. Numbers are written with all their digits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import InputError
from layerwise.evaluation.metrics import LARGEST_K, Floats, Scores
from layerwise.spreadsheet import plain_cell, safe_cell

MOST_COLUMNS = 100
CORNER = "true \\ predicted"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the numbers were computed from: one row a sample that was answered, and those that were not.

    `ids` (N), `columns` (N each), `probabilities` (N, C); `unanswered` are (id, true class, reason); `pictures` are the
    worst mistakes, uint8 (h, w, C), in the order of `Result.worst`.
    """

    ids: tuple[str, ...]
    columns: Scores
    probabilities: Floats
    unanswered: tuple[tuple[str, str, str], ...] = ()
    pictures: tuple[NDArray[np.uint8], ...] = ()


def predictions_csv(evidence: Evidence, names: Sequence[str]) -> str:
    """The table described above, answered samples first, each in the order of the split."""
    columns, probabilities = evidence.columns, evidence.probabilities
    cells = [safe_cell(name) for name in names]
    tops = min(LARGEST_K, len(names))
    all_of_them = len(names) <= MOST_COLUMNS
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :tops]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    header = _header(names)
    rows.writerow(header)
    for i, identity in enumerate(evidence.ids):
        row = [safe_cell(identity), cells[columns.labels[i]], cells[columns.predicted[i]],
               int(columns.labels[i] == columns.predicted[i]), repr(float(columns.probability[i])),
               int(columns.rank[i]), repr(float(columns.brier[i]))]
        for k in order[i]:
            row += [cells[k], repr(float(probabilities[i, k]))]
        row += [repr(value) for value in probabilities[i].tolist()] if all_of_them else []
        rows.writerow([*row, ""])
    for identity, true, reason in evidence.unanswered:
        rows.writerow([safe_cell(identity), safe_cell(true), *[""] * (len(header) - 3), safe_cell(reason)])
    return text.getvalue()


def confusion_csv(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """The confusion matrix with the classes' names: a row a true class, a column a predicted one."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow([CORNER, *map(safe_cell, names)])
    rows.writerows([safe_cell(name), *counts] for name, counts in zip(names, confusion, strict=True))
    return text.getvalue()


def read_classes(path: Path) -> tuple[str, ...]:
    """The classes' names, in order, from confusion.csv."""
    with open(path, newline="", encoding="utf-8") as file:
        return tuple(plain_cell(cell) for cell in next(csv.reader(file))[1:])


def read_predictions(path: Path, names: Sequence[str]) -> tuple[Scores, Floats | None]:
    """The columns of the answered samples, and (N, C) probabilities where the table has them all.

    Raises InputError where the header is not that of a table with these classes.
    """
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if header != _header(names):
        raise InputError(f"{path}: not the predictions of these {len(names)} classes", mend="Evaluate the model again.")
    place = {name: index for index, name in enumerate(header)}
    number = {name: index for index, name in enumerate(names)}
    answered = [row for row in rows if row[place["predicted"]]]

    def floats(column: str) -> Floats:
        return np.array([float(row[place[column]]) for row in answered], np.float64)

    def classes(column: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([number[plain_cell(row[place[column]])] for row in answered], np.int64)

    rank = np.array([int(row[place["rank"]]) for row in answered], np.int64)
    columns = Scores(classes("true"), classes("predicted"), floats("top1_probability"), floats("probability"), rank,
                     floats("brier"))
    if len(names) > MOST_COLUMNS:
        return columns, None
    first = len(header) - 1 - len(names)
    table = np.array([[float(cell) for cell in row[first:-1]] for row in answered], np.float64)
    return columns, table.reshape(len(answered), len(names))


def _header(names: Sequence[str]) -> list[str]:
    header = ["id", "true", "predicted", "correct", "probability", "rank", "brier"]
    for k in range(1, min(LARGEST_K, len(names)) + 1):
        header += [f"top{k}", f"top{k}_probability"]
    header += [f"p:{name}" for name in names] if len(names) <= MOST_COLUMNS else []
    return [*header, "error"]
