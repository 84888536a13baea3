"""`layerwise compare A B`: two evaluations on the same images, by tests for paired answers.

The exact McNemar test (McNemar 1947): of the images that exactly one of the two has right, half would fall to each if
they were equally good. The interval of the difference is the paired Wald interval with Agresti and Min's correction
(2005). A difference inside the noise is said to be none.
"""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerwise.errors import InputError
from layerwise.evaluation import result
from layerwise.evaluation.metrics import mcnemar
from layerwise.spreadsheet import plain_cell

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """Errors of `a` and `b` (fractions), their difference b - a with its 95 % interval, and the test's p."""

    a: str
    b: str
    images: int
    error_a: float
    error_b: float
    only_a_right: int
    only_b_right: int
    difference: float
    interval: tuple[float, float]
    p: float
    protocols: tuple[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return asdict(self) | {"verdict": self.verdict}

    @property
    def verdict(self) -> str:
        """What may be said, in one line."""
        if self.p >= LEVEL:
            return f"no difference beyond the noise of {self.images} images (p = {self.p:.3g})"
        better, worse = (self.b, self.a) if self.difference < 0 else (self.a, self.b)
        return f"{better} is better than {worse} on these images (p = {self.p:.3g})"


def compare(a: Path, b: Path) -> Comparison:
    """Compares two evaluations (their directories, or runs with one evaluation on the test split).

    Raises InputError where they were not made on the same images with the same labels.
    """
    first, second = _read(a), _read(b)
    _same_images(first, second)
    n = len(first.right)
    only_a = sum(first.right[key] and not second.right[key] for key in first.right)
    only_b = sum(second.right[key] and not first.right[key] for key in first.right)
    error_a, error_b = (1 - sum(side.right.values()) / n for side in (first, second))
    notes = []
    if first.protocol != second.protocol:
        notes.append(f"the protocols differ: {first.protocol} and {second.protocol}; the difference is of both, "
                     "network and protocol")
    return Comparison(
        first.name, second.name, n, error_a, error_b, only_a, only_b, (only_a - only_b) / n,
        paired_interval(only_a, only_b, n), mcnemar(only_a, only_b), (first.protocol, second.protocol), tuple(notes),
    )  # fmt: skip


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two paired proportions (Agresti and Min 2005: half a case a cell)."""
    c, b, total = only_a + 0.5, only_b + 0.5, n + 2
    middle = (c - b) / total
    half = 1.959963984540054 * math.sqrt(c + b - (c - b) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class _Side:
    name: str
    protocol: str
    right: dict[str, bool]
    labels: dict[str, str]


def _directory(path: Path) -> Path:
    if (path / "result.json").is_file():
        return path
    found = sorted(entry.parent for entry in path.glob("evaluations/*/result.json"))
    tests = [entry for entry in found if entry.name.startswith("test-")] or found
    if len(tests) == 1:
        return tests[0]
    if tests:
        raise InputError(f"{path}: has {len(tests)} evaluations", "Each is another number.",
                         f"Name one of them, as {tests[0]}.", [str(entry) for entry in tests])
    raise InputError(f"{path}: no evaluation (no result.json) here",
                     mend="Make one with: layerwise evaluate RUN, or name the directory of one.")


def _read(path: Path) -> _Side:
    path = _directory(Path(path))
    found = result.read(path)
    file = path / result.PREDICTIONS
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["predicted"]]
        right = {plain_cell(row["id"]): row["true"] == row["predicted"] for row in rows}
        labels = {plain_cell(row["id"]): plain_cell(row["true"]) for row in rows}
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file", mend="Evaluate the model again.") from None
    except (ValueError, KeyError, csv.Error) as error:
        raise InputError(f"{file}: not a table of predictions ({type(error).__name__}: {error})",
                         mend="Evaluate the model again.") from None
    if not right:
        raise InputError(f"{path}: no image was predicted", mend="Evaluate the model on other data.")
    return _Side(str(path), found.protocol.name, right, labels)


def _same_images(first: _Side, second: _Side) -> None:
    problems = [f"{key}: only in {first.name}" for key in first.right.keys() - second.right.keys()]
    problems += [f"{key}: only in {second.name}" for key in second.right.keys() - first.right.keys()]
    problems += [f"{key}: {label!r} in {first.name}, {second.labels[key]!r} in {second.name}"
                 for key, label in first.labels.items() if second.labels.get(key, label) != label]
    if problems:
        raise InputError(f"{first.name}, {second.name}: not the same images with the same labels",
                         "A paired test compares answers to the same questions.",
                         "Evaluate both models on the same data and split.", sorted(problems))
