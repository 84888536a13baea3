"""A run's directory: made once, never reused or emptied; its records are read and written here."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from layerwise import heartbeat
from layerwise.checkpoint import fsync_directory, make_durably, naming, replace_durably
from layerwise.data.scan import scan_files
from layerwise.data.source import DataSet, Samples
from layerwise.distributed import World
from layerwise.errors import InputError
from layerwise.recipe import Recipe
from layerwise.running_lock import locked
from layerwise.spreadsheet import plain_cell, safe_cell

FORMAT = 1
RECIPE, RUN, METRICS, SPEED, CHECKPOINTS = "recipe.json", "run.json", "metrics.jsonl", "speed.jsonl", "checkpoints"
LOCK = ".lock"


def require_new(*outs: Path) -> None:
    """Raises InputError where one of `outs` exists and is not an empty directory: nothing is written over."""
    for out in outs:
        if out.is_file():
            raise InputError(f"{out}: is a file", "A run is a directory.", "Choose another name with --out.")
    taken = [out for out in outs if out.exists() and any(out.iterdir())]
    if taken:
        raise InputError(
            f"{taken[0]}: exists and is not empty",
            "A run never writes over an earlier one.",
            f"Continue it with: layerwise resume {taken[0]} - or choose another name with --out, or move it aside.",
            [f"{out} too" for out in taken[1:]],
        )


def create(recipe: Recipe, out: Path | None) -> Path:
    """Makes a new directory: `out`, or `runs/<data>-<network>-seed<seed>` with the first free number behind it.

    Raises InputError where `out` exists and is not empty.
    """
    if out is not None:
        require_new(out)
        make_durably(out)
        heartbeat.tell("made", str(out.absolute()))
        return out
    data = re.sub(r"[^\w.-]+", "-", Path(recipe.data).stem or "data").strip("-") or "data"
    number = 1
    make_durably(Path("runs"))
    while True:
        suffix = "" if number == 1 else f"-{number}"
        directory = Path("runs") / f"{data}-{recipe.network}-seed{recipe.seed}{suffix}"
        try:
            directory.mkdir()
        except FileExistsError:
            number += 1
            continue
        fsync_directory(directory.parent)
        heartbeat.tell("made", str(directory.absolute()))
        return directory


def discard(run: Path) -> None:
    """Takes a directory that `create` made away again, where it holds nothing but empty records."""
    for name in (METRICS, SPEED):
        if (run / name).is_file() and not (run / name).stat().st_size:
            (run / name).unlink()
    with contextlib.suppress(OSError):  # it is not empty: then it stays
        run.rmdir()


@contextlib.contextmanager
def held(run: Path, world: World) -> Iterator[None]:
    """Keeps `run` to this process, or to those that work together, inside; a kill frees it.

    Raises InputError where another process has it.
    """
    with contextlib.ExitStack() as stack:
        pid = world.from_first(lambda: stack.enter_context(locked(run / LOCK)))
        if pid:
            known = pid > 0
            raise InputError(f"{run}: {f'process {pid}' if known else 'another process'} is at work on it",
                             "Two at once would write over each other's record and checkpoints.",
                             f"Wait until it ends{f', or stop it: kill {pid}' if known else ''}.")
        yield


def read_recipe(run: Path) -> Recipe:
    """The recipe of a run. Raises InputError where `run` is not a run's directory."""
    path = run / RECIPE
    if not path.is_file():
        raise InputError(f"{run}: not a run (it has no {RECIPE})", mend="Name a directory that layerwise train made.")
    return Recipe.from_json(path.read_text("utf-8"), str(path))


def write_json(path: Path, contents: dict[str, Any]) -> None:
    """Writes JSON atomically, readable for people."""
    replace_durably(path, (json.dumps(contents, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_run(run: Path) -> dict[str, Any]:
    """The record run.json. Raises InputError where it is missing or not JSON."""
    path = run / RUN
    try:
        record = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: missing", mend="Name a directory that layerwise train made.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path}: format {record.get('format') if isinstance(record, dict) else None!r}, "
                         f"expected {FORMAT}", mend="Read it with the version that wrote it.")
    return record


def update_run(run: Path, changes: dict[str, Any], *notes: str) -> None:
    """Changes some fields of run.json and adds notes, in one write: a kill leaves all of it or nothing."""
    record = read_run(run)
    write_json(run / RUN, record | changes | {"notes": list(dict.fromkeys([*record["notes"], *notes]))})


def add_notes(run: Path, *notes: str) -> None:
    """Adds notes for the closing summary and the report; each is kept once."""
    update_run(run, {}, *notes)


def now() -> str:
    """The time in UTC, to the second. For people to read: nothing is computed from it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_splits(run: Path, data: DataSet) -> None:
    """Writes which picture is in which split, its label and its content's digest, as `data/<split>.csv`."""
    (run / "data").mkdir()
    for samples in (data.train, data.val, data.test):
        if samples is not None:
            replace_durably(run / "data" / f"{samples.name}.csv",
                            _split_csv(samples).encode(errors="surrogateescape"))  # a file's name may not be UTF-8


def _split_csv(samples: Samples) -> str:
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\r\n")  # so that a carriage return in a name is quoted
    rows.writerow(["id", "label", "content"])
    names = [safe_cell(name) for name in samples.class_names]
    rows.writerows((safe_cell(name), names[label], content) for name, label, content in
                   zip(samples.ids, samples.labels, contents_of(samples), strict=True))
    return text.getvalue()


def contents_of(samples: Samples) -> list[str]:
    """The first half of the SHA-256 (hex) of each file or, where pictures are in memory, of its pixels."""
    if samples.images is not None:
        return [hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:32] for image in samples.images]
    assert samples.paths is not None
    digests = samples.digests or [found.sha256 for found in scan_files(samples.paths, samples.rules)]
    return [digest[:32] for digest in digests]


def read_split(file: Path) -> list[tuple[str, str, str]]:
    """Id, label and content ("" in earlier runs) of each picture from a `data/<split>.csv`.

    Raises OSError, or ValueError where it is none.
    """
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        try:
            rows = csv.DictReader(stream, strict=True)
            if not {"id", "label"} <= {*(rows.fieldnames or ())}:
                raise ValueError("no list of id,label: its first line names other columns")
            return [(plain_cell(row["id"]), plain_cell(row["label"]), row.get("content") or "") for row in rows]
        except (KeyError, AttributeError, csv.Error) as error:
            raise ValueError(f"no list of id,label: {error}") from None


class Lines:
    """An append-only file of JSON lines, cut back to where a checkpoint was when a run resumes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def cut(self, size: int) -> None:
        """Takes away what was written behind the first `size` bytes. Raises InputError where there are fewer."""
        have = self.path.stat().st_size
        if have < size:
            raise InputError(f"{self.path}: {have} bytes, the checkpoint knows of {size}",
                             "Lines of the record were lost, so the resumed run would not be the whole one.")
        os.truncate(self.path, size)

    def write(self, line: dict[str, Any]) -> None:
        """Appends one line; a number that is not finite becomes null."""
        told = {key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in line.items()}
        with naming(self.path), open(self.path, "ab") as file:
            file.write((json.dumps(told, allow_nan=False) + "\n").encode())

    def size(self) -> int:
        """Bytes that were written, durable or not."""
        return self.path.stat().st_size

    def sync(self) -> int:
        """Makes all lines durable; returns the file's size in bytes."""
        with naming(self.path), open(self.path, "ab") as file:
            os.fsync(file.fileno())
            size = file.tell()
        fsync_directory(self.path.parent)
        return size


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file of JSON lines; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
