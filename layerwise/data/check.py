"""The pre-flight of a data set: everything that is wrong with it, found before training, all at once.

What is looked for: files that can't be opened; modes and sizes; classes without pictures, spelt in two ways, or in
other splits only; the same picture twice, in two splits (a leak), or under two labels.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.data.duplicates import MAX_NEAR, Pair, exact_pairs, near_pairs
from layerwise.data.imagenet import EDITIONS
from layerwise.data.layout import ALL, twin_notes
from layerwise.data.opening import NAMES, DataOptions, divided, find_layout, open_data
from layerwise.data.scan import Scanned, perceptual_hash, pixels_digest, scan_files
from layerwise.data.sheet import contact_sheet
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.spreadsheet import safe_cell

IMBALANCE = 10
SMALL = 32  # pixels: below, different pictures of one class (strokes of a digit) look like near duplicates


@dataclass(frozen=True)
class CheckOptions:
    """What is looked for and written.

    `near`: near duplicates too: "auto" (for files, up to 50,000, unless most are under 32 pixels), "yes" or "no";
    `allow_leaks`: pictures in two splits are noted, no error; `pairs_csv`, `sheet_png`: where duplicates go, as a list
    and as pictures.
    """

    near: str = "auto"
    allow_leaks: bool = False
    pairs_csv: Path | None = None
    sheet_png: Path | None = None


@dataclass(frozen=True)
class Problem:
    """`severity` is "error" (don't train on this), "warning" or "note"; `kind` is one word; `items` are all cases.

    `mend` says what mends an error.
    """

    severity: str
    kind: str
    text: str
    items: tuple[str, ...] = ()
    mend: str = ""


@dataclass(frozen=True)
class Duplicate:
    """Two pictures by id, with their splits and class names."""

    kind: str  # "exact" or "near"
    first: str
    second: str
    first_split: str
    second_split: str
    first_class: str
    second_class: str


@dataclass(frozen=True)
class CheckReport:
    """What was found in a data set. `exit_code` is 2 where there is an error, else 0."""

    name: str
    class_names: tuple[str, ...]
    counts: dict[str, int]  # pictures of each split, bad ones included
    class_counts: dict[str, tuple[int, ...]]
    modes: dict[str, int]
    sizes: dict[str, int]  # "28 x 28": pictures, the most frequent first
    unreadable: tuple[str, ...]
    duplicates: tuple[Duplicate, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """2 if there is an error, else 0."""
        return 2 if any(problem.severity == "error" for problem in self.problems) else 0

    def to_json(self) -> str:
        """All fields and the exit code, as JSON."""
        return json.dumps({"format": 1, **asdict(self), "exit_code": self.exit_code}, indent=1)

    def lines(self, shown: int = 5) -> list[str]:
        """The report for people: what there is, then the problems, the first `shown` cases of each."""
        lines = [f"{self.name}: {sum(self.counts.values()):,} pictures in {len(self.class_names)} classes"]
        lines += [
            f"  {split}: {count:,}{_range(self.class_counts.get(split, ()))}" for split, count in self.counts.items()
        ]
        if self.modes:
            lines.append(f"  modes: {', '.join(f'{count:,} {mode}' for mode, count in self.modes.items())}")
        if self.sizes:
            sizes = [f"{count:,} of {size}" for size, count in list(self.sizes.items())[:shown]]
            lines.append(
                f"  sizes: {', '.join(sizes)}{f', {len(self.sizes) - shown} more' * (len(self.sizes) > shown)}"
            )
        lines += [f"  {note}" for note in self.notes]
        for problem in self.problems:
            lines.append(f"{problem.severity}: {problem.text}")
            lines += [f"  - {item}" for item in problem.items[:shown]]
            if len(problem.items) > shown:
                lines.append(f"  - and {len(problem.items) - shown:,} more")
        return lines if self.problems else [*lines, "no problem found"]


def check_data(
    name_or_path: str,
    options: DataOptions,
    check: CheckOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Looks for everything that is wrong with the data set called or found at `name_or_path`.

    Wrong data is no exception here: also a wrong layout is a problem of the report. Raises MachineError where a
    published set can't be had, InputError where `check` makes no sense.
    """
    wanted = check or CheckOptions()
    if wanted.near not in ("auto", "yes", "no"):
        raise InputError(f"near={wanted.near!r} is not a choice", "It is 'auto', 'yes' or 'no'.")
    try:
        splits, notes, files, doubts = _splits(name_or_path, options)
    except InputError as problem:
        mend = "\n".join(line for line in (problem.why, problem.mend) if line)
        wrong = Problem("error", "layout", problem.what, problem.details, mend)
        return CheckReport(name_or_path, (), {}, {}, {}, {}, (), (), (wrong,), ())
    samples = _joined(splits)
    scanned = scan_files(samples.paths or (), options.rules, progress=progress) if files else _scan_arrays(samples)
    report = _report(name_or_path, splits, scanned, notes)
    where = [split for split, part in splits.items() for _ in range(len(part))]
    small = _small(samples, scanned)
    pairs, remark = _pairs(samples, scanned, wanted.near if files or wanted.near != "auto" else "no", small)
    duplicates = tuple(_duplicate(samples, where, pair) for pair in pairs)
    problems = [*report.problems, *_duplicate_problems(duplicates, wanted.allow_leaks, small)]
    if doubts:
        severity = "error" if name_or_path in EDITIONS else "warning"
        mend = "Fetch what is missing; a run on these data carries this note."
        problems.append(Problem(severity, "counts", "the data are not what was published", doubts, mend))
    if wanted.pairs_csv is not None:
        write_pairs(duplicates, wanted.pairs_csv)
    if wanted.sheet_png is not None and pairs:
        contact_sheet([(samples.read(pair.first), samples.read(pair.second)) for pair in pairs[:60]], wanted.sheet_png)
    order = {"error": 0, "warning": 1, "note": 2}
    fields = {**vars(report), "duplicates": duplicates, "notes": (*report.notes, *remark)}
    return CheckReport(**{**fields, "problems": tuple(sorted(problems, key=lambda one: order[one.severity]))})


def refusal(report: CheckReport) -> InputError | None:
    """The error that says why training should not start with this data, or None where it may."""
    errors = [problem for problem in report.problems if problem.severity == "error"]
    if not errors:
        return None
    if errors[0].kind == "layout":  # nothing else was looked at
        return InputError(errors[0].text, mend=errors[0].mend, details=errors[0].items)
    return InputError(f"{report.name}: training should not start with this data",
                      "A number made with it would be wrong.", " ".join(dict.fromkeys(one.mend for one in errors)),
                      [one.text for one in errors])


def write_pairs(duplicates: tuple[Duplicate, ...], file: Path) -> None:
    """The duplicates as CSV; a cell that a spreadsheet would take for a formula gets an apostrophe."""
    names = ("kind", "first", "second", "first_split", "second_split", "first_class", "second_class")
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        for duplicate in duplicates:
            writer.writerow([safe_cell(str(getattr(duplicate, name))) for name in names])


def _splits(
    name_or_path: str, options: DataOptions
) -> tuple[dict[str, Samples], tuple[str, ...], bool, tuple[str, ...]]:
    """(the splits as they lie there, notes, whether they are files, what differs from what was published)."""
    if name_or_path in NAMES:
        data = open_data(name_or_path, options)
        return data.splits, data.notes, False, ()
    layout = find_layout(name_or_path, options.data_dir)
    if options.split:
        data = divided(layout, name_or_path, options)
        return data.splits, data.notes, True, data.doubts
    splits = {split: layout.samples(split, options.rules) for split in layout.rows if layout.rows[split]}
    notes = tuple(note for note in layout.notes if note not in layout.doubts)
    if set(splits) == {ALL}:
        notes = (*notes, "no train, val and test: training needs --split, such as 80/10/10")
    elif set(splits) == {"train"}:
        notes = (*notes, "train only: training needs --split, such as 80/10/10")
    return splits, notes, True, layout.doubts


def _joined(splits: dict[str, Samples]) -> Samples:
    parts = list(splits.values())
    images = [part.images for part in parts if part.images is not None]
    return Samples(
        ALL,
        parts[0].class_names,
        np.concatenate([part.labels for part in parts]),
        tuple(name for part in parts for name in part.ids),
        np.concatenate(images) if images else None,
        None if images else tuple(path for part in parts for path in part.paths or ()),
        parts[0].rules,
    )


def _scan_arrays(samples: Samples) -> list[Scanned]:
    images = samples.images
    assert images is not None
    return [Scanned("", "", None, pixels_digest(image), 0) for image in images]


def _report(name: str, splits: dict[str, Samples], scanned: list[Scanned], notes: tuple[str, ...]) -> CheckReport:
    class_names = next(iter(splits.values())).class_names
    facts = [found.facts for found in scanned if found.facts is not None]
    unreadable = tuple(found.error for found in scanned if found.error)
    modes = Counter(_mode(one.mode, one.conversion) for one in facts)
    sizes = Counter(f"{one.width} x {one.height}" for one in facts)
    images = [part.images for part in splits.values() if part.images is not None]
    for array in images:
        modes["RGB" if array.shape[3] == 3 else "gray"] += len(array)
        sizes[f"{array.shape[2]} x {array.shape[1]}"] += len(array)
    problems = []
    if unreadable:
        problems.append(
            Problem(
                "error",
                "unreadable",
                f"{len(unreadable):,} of {len(scanned):,} pictures can't be opened",
                unreadable,
                "Repair or remove what can't be opened, or train with --set bad_images=skip.",
            )
        )
    spelt = tuple(twin_notes(class_names))
    if spelt:
        problems.append(Problem("warning", "twins", "classes that are probably one, spelt in several ways", spelt))
    misnamed = Counter(f"{one.misnamed} files are {one.format}" for one in facts if one.misnamed)
    if misnamed:
        items = tuple(f"{count:,} {words}" for words, count in misnamed.items())
        problems.append(Problem("note", "misnamed", "extensions of another format; they are read by content", items))
    turned = sum(one.rotated for one in facts)
    if turned:
        problems.append(Problem("note", "rotated", f"{turned:,} pictures carry an EXIF rotation"))
    several = sum(one.several_frames for one in facts)
    if several:
        problems.append(Problem("note", "frames", f"{several:,} files have several frames; the first one is used"))
    train = splits.get("train") or next(iter(splits.values()))
    counts = np.array(train.class_counts)
    if counts.min() and counts.max() > IMBALANCE * counts.min():
        rare, often = class_names[int(counts.argmin())], class_names[int(counts.argmax())]
        problems.append(
            Problem(
                "warning",
                "imbalance",
                f"class {often!r} has {counts.max():,} pictures, {rare!r} {counts.min():,}: see the recipe's balance",
            )
        )
    return CheckReport(
        name,
        class_names,
        {split: len(part) for split, part in splits.items()},
        {split: part.class_counts for split, part in splits.items()},
        dict(modes.most_common()),
        dict(sizes.most_common()),
        unreadable,
        (),
        tuple(problems),
        notes,
    )


def _small(samples: Samples, scanned: list[Scanned]) -> bool:
    """Whether most pictures have a side under 32 pixels."""
    if samples.images is not None:
        return bool(min(samples.images.shape[1:3]) < SMALL)
    sides = [min(found.facts.width, found.facts.height) for found in scanned if found.facts is not None]
    return bool(sides) and float(np.median(sides)) < SMALL


def _pairs(samples: Samples, scanned: list[Scanned], near: str, small: bool) -> tuple[list[Pair], tuple[str, ...]]:
    pairs = exact_pairs([found.pixels_sha256 for found in scanned])
    if near == "no":
        return pairs, ("near duplicates were not looked for",)
    if near == "auto" and small:
        return pairs, (f"near duplicates were not looked for: pictures under {SMALL} pixels are too alike",)
    if len(samples) > MAX_NEAR:
        return pairs, (f"near duplicates were not looked for: {len(samples):,} pictures, the limit is {MAX_NEAR:,}",)
    twice = {pair.second for pair in pairs}
    some = [index for index, found in enumerate(scanned) if found.pixels_sha256 and index not in twice]
    hashes = [scanned[index].perceptual if samples.paths else perceptual_hash(samples.read(index)) for index in some]
    found, all_of_them = near_pairs(np.array(hashes, dtype=np.uint64), lambda index: samples.read(some[index]), set())
    pairs += [Pair(some[pair.first], some[pair.second], pair.kind) for pair in found]
    return pairs, () if all_of_them else ("near duplicates: too many candidates, not all were looked at",)


def _duplicate(samples: Samples, where: list[str], pair: Pair) -> Duplicate:
    first, second = pair.first, pair.second
    names = samples.class_names
    return Duplicate(
        pair.kind,
        samples.ids[first],
        samples.ids[second],
        where[first],
        where[second],
        names[samples.labels[first]],
        names[samples.labels[second]],
    )


def _duplicate_problems(duplicates: tuple[Duplicate, ...], allow_leaks: bool, small: bool) -> list[Problem]:
    problems = []
    for kind in ("exact", "near"):
        same = [one for one in duplicates if one.kind == kind]
        words = "the same picture" if kind == "exact" else "nearly the same picture"
        leaks = tuple(_words(one) for one in same if one.first_split != one.second_split)
        labels = tuple(_words(one) for one in same if one.first_class != one.second_class)
        within = tuple(_words(one) for one in same if one.first_split == one.second_split)
        if leaks:
            severity = "note" if allow_leaks else "warning" if kind == "near" and small else "error"
            text = f"{words} is in two splits, {len(leaks):,} times{' (allowed)' * allow_leaks}: a leak"
            mend = "Take them out of one split, or check with --waive-leaks."
            problems.append(Problem(severity, f"{kind}-leak", text, leaks, mend))
        if labels:
            problems.append(
                Problem("warning", f"{kind}-labels", f"{words} has two labels, {len(labels):,} times", labels)
            )
        if within:
            text = f"{words} is twice in one split, {len(within):,} times"
            problems.append(Problem("warning", f"{kind}-duplicates", text, within))
    return problems


def _words(one: Duplicate) -> str:
    return (
        f"{one.first} ({one.first_split}, {one.first_class}) and {one.second} ({one.second_split}, {one.second_class})"
    )


def _mode(mode: str, conversion: str) -> str:
    names = {"L": "gray", "1": "1-bit", "P": "palette", "I": "16-bit gray", "F": "float"}
    name = "16-bit gray" if mode.startswith("I;16") else names.get(mode, mode.replace(";16", " of 16 bits"))
    return f"{name} (alpha flattened on white)" if "alpha flattened" in conversion else name


def _range(counts: tuple[int, ...]) -> str:
    if not counts:
        return ""
    return (
        f" ({min(counts):,} to {max(counts):,} a class)" if min(counts) != max(counts) else f" ({counts[0]:,} a class)"
    )


def as_plain(report: CheckReport) -> dict[str, Any]:
    """The report as what JSON can hold."""
    return dict(json.loads(report.to_json()))
