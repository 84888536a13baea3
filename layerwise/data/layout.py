"""What a folder or a list was found to hold, before a picture is opened; class names, their order and twins."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerwise.data.images import ImageRules
from layerwise.data.pieces import Source
from layerwise.data.source import Samples
from layerwise.errors import InputError, nearest

SYNONYMS = {
    "train": "train", "training": "train", "trainset": "train", "train_set": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "validate": "val", "val_set": "val",
    "test": "test", "testing": "test", "tests": "test", "eval": "test", "evaluation": "test", "test_set": "test",
}  # fmt: skip
ALL = "all"  # the one split of a source that has none


@dataclass(frozen=True)
class Row:
    """One picture: its file (or piece of one), its stable id, the name of its class."""

    path: Source
    id: str
    class_name: str


@dataclass(frozen=True)
class Layout:
    """The rows of each split ("train", "val", "test", or only "all"), the classes in their order, what was noted."""

    name: str
    class_names: tuple[str, ...]
    rows: dict[str, tuple[Row, ...]]
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()  # those of the notes that make a number wrong

    def samples(self, split: str, rules: ImageRules) -> Samples:
        """The split as samples whose pictures are files."""
        rows = self.rows[split]
        index = {name: label for label, name in enumerate(self.class_names)}
        labels = np.array([index[row.class_name] for row in rows], dtype=np.int64)
        return Samples(
            split, self.class_names, labels, tuple(row.id for row in rows), None, tuple(row.path for row in rows), rules
        )


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A key that sorts "2" before "10", "img9" before "img10", regardless of case, and equal names by spelling."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), name


def folded(name: str) -> str:
    """The name without case, Unicode form, and the kind of spaces: what two spellings of one class have in common."""
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def twins(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ only in case, Unicode form or spaces: probably one class spelt in several ways."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def twin_notes(names: Sequence[str]) -> list[str]:
    """A sentence for each group of twins."""
    return [
        f"classes {' and '.join(map(repr, group))} are probably one class: they differ only in case, Unicode form "
        "or spaces"
        for group in twins(names)
    ]


def order_note(names: Sequence[str]) -> list[str]:
    """Says the order of the classes where plain sorting would give another."""
    if list(names) == sorted(names):
        return []
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return [f"classes in natural order: {shown}"]


def unknown_class(name: str, names: Sequence[str], where: str) -> str:
    """The problem of a class that the training split does not have, with what it may have been meant to be."""
    alike = [other for other in names if folded(other) == folded(name)]
    if alike:
        return f"{where}: class {name!r} is not in train, which has {alike[0]!r} (another spelling of it?)"
    return f"{where}: class {name!r} is not in train{nearest(name, names)}"


def classes_of(rows: dict[str, list[Row]]) -> tuple[list[str], list[str]]:
    """The classes of the training split (or of the only one) in their order, and the problems of other splits'."""
    first = "train" if "train" in rows else ALL
    names = sorted({row.class_name for row in rows.get(first, [])}, key=natural)
    problems = [unknown_class(name, names, split) for split, found in rows.items() if first in rows
                for name in sorted({row.class_name for row in found} - set(names), key=natural)]
    return names, problems


def require_two(where: Path, names: Sequence[str], mend: str) -> None:
    """Raises InputError where there are not two classes."""
    if len(names) < 2:
        raise InputError(f"{str(where)!r} has one class only: {names[0] if names else ''!r}",
                         "A classifier needs at least two to tell apart.", mend)


def layout_notes(class_names: Sequence[str], rows: dict[str, list[Row]]) -> list[str]:
    """What is said of every layout: how much was found, the classes' order, twins and gaps."""
    return [*(f"found {len(found):,} pictures in {split}" for split, found in rows.items()),
            *order_note(class_names), *twin_notes(class_names), *absent_notes(class_names, rows)]


def absent_notes(class_names: Sequence[str], rows: dict[str, list[Row]]) -> list[str]:
    """A sentence for each split in which classes of the training split have no picture."""
    notes = []
    for split in ("val", "test"):
        if split in rows:
            present = {row.class_name for row in rows[split]}
            missing = [name for name in class_names if name not in present]
            if missing:
                shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
                notes.append(f"0 images in {split} for {len(missing)} of {len(class_names)} classes: {shown}")
    return notes
