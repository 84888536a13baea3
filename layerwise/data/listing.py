"""A CSV or TSV list of pictures: a header, then path and label, and if wanted the split.

    path,label,split
    cats/1.jpg,cat,train

Paths are relative to the list's own folder. Labels are class names (whole numbers are names too). Every problem is
reported at once, with its line.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from layerwise.data.layout import ALL, SYNONYMS, Layout, Row, classes_of, layout_notes, require_two
from layerwise.errors import InputError, nearest

COLUMNS = {
    "path": "path", "file": "path", "filename": "path", "file_name": "path", "image": "path", "image_path": "path",
    "filepath": "path", "label": "label", "class": "label", "category": "label", "target": "label",
    "class_name": "label", "split": "split", "set": "split", "subset": "split",
}  # fmt: skip
MULTI_LABEL = "multi-label is not supported"


def read_listing(file: Path) -> Layout:
    """What the list holds; all mistakes in one InputError, with line numbers."""
    lines = _lines(file)
    if not lines:
        raise InputError(f"{str(file)!r} is empty", "Expected is a header path,label and a line for each picture.")
    columns = _columns(file, lines[0][1])
    problems: list[str] = []
    rows: dict[str, list[Row]] = {}
    seen: dict[str, tuple[int, str]] = {}
    for number, cells in lines[1:]:
        problem = _row(file.parent, number, cells, columns, rows, seen)
        if problem:
            problems.append(f"line {number}: {problem}")
    if rows and not {"train", ALL} & rows.keys() and not problems:
        problems.append(f"no line of the split train; found {', '.join(rows)}")
    class_names, strange = classes_of(rows)
    problems += strange
    if problems:
        multi = next((problem for problem in problems if MULTI_LABEL in problem), "")
        raise InputError(
            f"{str(file)!r} has {len(problems)} problem{'s' * (len(problems) > 1)}"
            f"{': ' + MULTI_LABEL if multi else ''}",
            "Training on a part of the list would be training on something else.",
            "Correct these lines.",
            problems,
        )
    if not rows:
        raise InputError(f"{str(file)!r} names no picture", "It has a header and no line below it.")
    require_two(file, class_names, "Add pictures of another class.")
    notes = layout_notes(class_names, rows)
    order = [split for split in ("train", "val", "test", ALL) if split in rows]
    return Layout(file.stem, tuple(class_names), {split: tuple(rows[split]) for split in order}, tuple(notes))


def _lines(file: Path) -> list[tuple[int, list[str]]]:
    """The non-empty lines with their numbers."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            return [
                (reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))
            ]
    except UnicodeDecodeError as problem:
        raise InputError(f"{str(file)!r} is not UTF-8 text: {problem}", mend="Save it as CSV in UTF-8.") from None
    except csv.Error as problem:
        raise InputError(f"{str(file)!r} is not a CSV list: {problem}", mend="Save it as CSV in UTF-8.") from None
    except OSError as problem:
        raise InputError(f"{str(file)!r} can't be read: {problem.strerror or problem}") from None


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    kinds = [COLUMNS.get(cell.lower(), "") for cell in header]
    problems = [
        f"column {cell!r} is unknown{nearest(cell, COLUMNS)}"
        for cell, kind in zip(header, kinds, strict=True)
        if not kind
    ]
    if kinds.count("label") > 1 or ("path" in kinds and len(problems) > 1 and "label" not in kinds):
        raise InputError(
            f"{str(file)!r} line 1: {MULTI_LABEL}",
            f"Found the columns {', '.join(header)}; expected is one label for each picture, in one column.",
            "Write one column path and one column label.",
        )
    problems += [f"there is no column {kind!r}" for kind in ("path", "label") if kind not in kinds]
    problems += [
        f"there are {kinds.count(kind)} columns for {kind}" for kind in ("path", "split") if kinds.count(kind) > 1
    ]
    if problems:
        raise InputError(
            f"{str(file)!r} line 1 is not the header path,label or path,label,split",
            "The columns are told by their names.",
            "Add or correct the header.",
            problems,
        )
    return {kind: index for index, kind in enumerate(kinds)}


def _row(
    folder: Path,
    number: int,
    cells: list[str],
    columns: dict[str, int],
    rows: dict[str, list[Row]],
    seen: dict[str, tuple[int, str]],
) -> str:
    """Adds the line to `rows`, or says what is wrong with it."""
    if len(cells) != len(columns):
        more = f" ({MULTI_LABEL}: one label a picture)" if len(cells) > len(columns) else ""
        return f"{len(cells)} cells, the header has {len(columns)}{more}"
    name, label = cells[columns["path"]], cells[columns["label"]]
    if not name:
        return "the path is blank"
    if problem := _label_problem(label):
        return problem
    path = folder / name
    key = str(path)
    if key in seen:
        line, earlier = seen[key]
        if earlier != label:
            return f"{name!r} is {label!r} here and {earlier!r} in line {line}; {MULTI_LABEL}"
        return f"{name!r} is there already, in line {line}"
    seen[key] = (number, label)
    if not path.is_file():
        return f"{str(path)!r} {'is not a file' if path.exists() else 'does not exist'}"
    split = ALL
    if "split" in columns:
        written = cells[columns["split"]]
        if written.lower() not in SYNONYMS:
            return f"split {written!r} is unknown{nearest(written, SYNONYMS)}"
        split = SYNONYMS[written.lower()]
    rows.setdefault(split, []).append(Row(path, Path(name).as_posix(), label))
    return ""


def _label_problem(label: str) -> str:
    if not label:
        return "the label is blank"
    parts = [part for separator in ";|" for part in [label.split(separator)] if len(part) > 1]
    if parts:
        return f"label {label!r} names several classes; {MULTI_LABEL}"
    try:
        value = float(label)
    except ValueError:
        return ""
    if math.isnan(value):
        return f"label {label!r} is not a number and not a class name"
    if label.isdigit():
        return ""
    kind = "is negative" if value < 0 else "is not a whole number"
    return f"label {label!r} {kind}; labels are class names or whole numbers from 0"
