"""An image folder: train/val/test (or their synonyms) with a folder for each class, or one folder of class folders.

    photos/train/cat/1.jpg   photos/val/cat/2.jpg   photos/test/cat/3.jpg      or      photos/cat/1.jpg

Classes are those of the training split, sorted naturally ("2" before "10"). A file counts as a picture if its extension
says so or its content does. Hidden files, rubbish of operating systems, and `runs` and `checkpoints` in the root are
left out and noted. Folders inside a class folder belong to the class; links are followed once.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from layerwise.data.container import EXTENSIONS, SNIFFED, SUPPORTED, identify
from layerwise.data.layout import ALL, SYNONYMS, Layout, Row, classes_of, layout_notes, natural, require_two
from layerwise.errors import InputError

JUNK = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "__pycache__",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "icon\r",
}
JUNK_IN_ROOT = {"runs", "checkpoints"}
UNSUPPORTED = {
    ".heic",
    ".heif",
    ".avif",
    ".svg",
    ".psd",
    ".jp2",
    ".j2k",
    ".jxl",
    ".tga",
    ".ico",
    ".pgm",
    ".ppm",
    ".pbm",
    ".pnm",
    ".exr",
    ".hdr",
    ".raw",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".dng",
    ".orf",
    ".rw2",
    ".npy",
    ".npz",
    ".dcm",
    ".nii",
    ".fits",
    ".eps",
    ".pdf",
}
ACCEPTED = "Accepted are " + ", ".join(SUPPORTED) + f" ({' '.join(EXTENSIONS)}), told by their content."


@dataclass
class _Walk:
    """The pictures below one folder with their depth, and what was passed over."""

    pictures: list[tuple[Path, int]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    unsupported: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass
class _Findings:
    """What the whole reading of a root collects."""

    ignored: Counter[str] = field(default_factory=Counter)
    unsupported: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, walk: _Walk) -> None:
        self.ignored += walk.ignored
        self.unsupported += walk.unsupported
        self.problems += walk.problems


def read_folder(root: Path) -> Layout:
    """What the folder holds; all mistakes in one InputError: no pictures, one class, classes only in val, and so on."""
    findings = _Findings()
    children = _folders(root, root, findings)
    named = [child for child in children if child.name.lower() in SYNONYMS]
    is_split = any(_folders(child, root, _Findings()) for child in named)
    rows: dict[str, list[Row]] = {}
    if is_split:
        rest = [child.name for child in children if child not in named]
        if rest:
            findings.notes.append(f"left out, beside the splits: {', '.join(rest[:10])}")
        for child in named:
            split = SYNONYMS[child.name.lower()]
            if split in rows:
                findings.problems.append(f"{child.name}: there is another folder for {split}; keep one of them")
                continue
            rows[split] = _classes(root, child, findings)
            if child.name != split:
                findings.notes.append(f"folder {child.name!r} is used as {split}")
        if "train" not in rows:
            found = ", ".join(child.name for child in named)
            raise InputError(
                f"{str(root)!r} has no train folder", f"Found {found}.", "Rename the training folder to train."
            )
        rows = {split: rows[split] for split in ("train", "val", "test") if split in rows}
    else:
        rows[ALL] = _classes(root, root, findings)
    return _assembled(root, rows, findings)


def _assembled(root: Path, rows: dict[str, list[Row]], findings: _Findings) -> Layout:
    class_names, strange = classes_of(rows)
    if not any(rows.values()) and not findings.problems:
        _nothing(root, findings)
    findings.problems += strange
    findings.problems += [f"{split}: no picture in any class folder" for split in rows
                          if class_names and not rows[split]]
    if findings.problems:
        raise InputError(
            f"{str(root)!r} is not laid out as expected",
            "Expected are train/CLASS/picture.jpg (and val, test), or CLASS/picture.jpg.",
            "Correct the folder.",
            findings.problems,
        )
    if len(class_names) < 2:  # only then it is worth a look for what else is there
        require_two(root, class_names, _guess(root) or "Add a folder for each further class.")
    notes = layout_notes(class_names, rows) + findings.notes
    if findings.unsupported:
        notes.append(f"left out, formats that are not supported: {_counts(findings.unsupported)}")
    if findings.ignored:
        notes.append(f"ignored: {_counts(findings.ignored)}")
    return Layout(
        root.resolve().name, tuple(class_names), {name: tuple(found) for name, found in rows.items()}, tuple(notes)
    )


def _classes(root: Path, folder: Path, findings: _Findings) -> list[Row]:
    """The rows of a folder of class folders."""
    where = "" if folder == root else f"{folder.name}/"
    rows: list[Row] = []
    empty, nested = [], 0
    children = _folders(folder, root, findings)
    for child in children:
        inside = _folders(child, root, _Findings())
        if folder != root and child.name.lower() in SYNONYMS and inside:
            findings.problems.append(
                f"{where}{child.name} looks like a split inside of a split; move it beside {folder.name}"
            )
            continue
        walk = _Walk()
        _walk(child, 1, walk, {os.path.realpath(child)})
        findings.add(walk)
        nested += bool(walk.pictures) and all(depth > 1 for _, depth in walk.pictures)
        if not walk.pictures:
            empty.append(child.name)
        rows += [Row(path, path.relative_to(root).as_posix(), child.name) for path, _ in walk.pictures]
    direct = _Walk()
    _walk(folder, 1, direct, set(), deep=False)
    if direct.pictures and not rows:
        findings.problems.append(
            f"{len(direct.pictures):,} pictures lie directly in {where or 'the folder'}: their classes "
            "are unknown; sort them into a folder for each class, or give a CSV list"
        )
    elif direct.pictures:
        findings.notes.append(
            f"left out, {len(direct.pictures):,} pictures directly in {where or 'the folder'} outside of "
            "the class folders"
        )
    findings.ignored += Counter(name for name in direct.ignored.elements() if not name.endswith("/"))
    findings.unsupported += direct.unsupported
    if nested and nested == len(children) - len(empty):
        findings.problems.append(
            f"{where or 'the folder'} has pictures only in sub-sub-folders, such as {rows[0].id!r}. "
            f"{_guess(folder)}".strip()
        )
    if empty:
        findings.notes.append(
            f"{where}: no picture in class folder {', '.join(map(repr, empty[:10]))}".removeprefix(": ")
        )
    return rows


def _folders(folder: Path, root: Path, findings: _Findings) -> list[Path]:
    """The folders in `folder` that may matter, sorted naturally."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    continue
                if _is_junk(entry.name) or (folder == root and entry.name.lower() in JUNK_IN_ROOT):
                    findings.ignored[entry.name + "/"] += 1
                else:
                    found.append(Path(entry.path))
    except OSError as problem:
        findings.problems.append(f"{str(folder)!r} can't be read: {problem.strerror or problem}")
    return sorted(found, key=lambda path: natural(path.name))


def _walk(folder: Path, depth: int, walk: _Walk, visited: set[str], deep: bool = True) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
    except OSError as problem:
        walk.problems.append(f"{str(folder)!r} can't be read: {problem.strerror or problem}")
        return
    for entry in entries:
        path = Path(entry.path)
        if _is_junk(entry.name):
            walk.ignored[entry.name + ("/" if _is_folder(entry) else "")] += 1
        elif _is_folder(entry):
            real = os.path.realpath(path)
            if not deep:
                continue
            if real in visited or os.path.realpath(folder).startswith(real + os.sep):
                walk.ignored[f"{entry.name} (a link that leads back)"] += 1
            else:
                visited.add(real)
                _walk(path, depth + 1, walk, visited)
        elif path.suffix.lower() in EXTENSIONS or _is_picture(path):
            walk.pictures.append((path, depth))
        elif path.suffix.lower() in UNSUPPORTED:
            walk.unsupported[path.suffix.lower()] += 1
        else:
            walk.ignored[path.suffix.lower() or entry.name] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads to itself is none: it is left to the scan, which names it."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


def _is_picture(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return identify(stream.read(SNIFFED)) is not None
    except OSError:
        return False


def _counts(counter: Counter[str]) -> str:
    items = [f"{count:,} {name}" for name, count in counter.most_common(10)]
    return ", ".join(items) + (", ..." if len(counter) > 10 else "")


def _nothing(root: Path, findings: _Findings) -> None:
    found = findings.unsupported + findings.ignored
    raise InputError(
        f"{str(root)!r} holds no supported picture: found {_counts(found) if found else 'nothing'}, 0 supported",
        ACCEPTED,
        _guess(root) or "Convert the pictures, or name another folder.",
    )


def _guess(root: Path) -> str:
    """Which folder inside `root` was probably meant."""
    for child in _folders(root, root, _Findings()):
        inside = _folders(child, root, _Findings())
        if any(path.name.lower() in SYNONYMS for path in inside):
            return f"Did you mean {str(child)!r}, which has {', '.join(path.name for path in inside[:5])}?"
    children = _folders(root, root, _Findings())
    if len(children) == 1:
        inside = _folders(children[0], root, _Findings())
        if len(inside) > 1:
            return f"Did you mean {str(children[0])!r}, with the classes {', '.join(path.name for path in inside[:5])}?"
    elif any(_folders(child, root, _Findings()) for child in children):
        return "Move the class folders up by one level."
    return ""
