"""Shards: a data set as tar archives that are read by offset, here or remotely. `shards_write.pack` makes them.

    DIR/index.json          class names, and for each picture of each shard: offset, size, label, id, what is in it
    DIR/SHA256SUMS          digests of the index and of each shard, as `sha256sum -c` reads them
    DIR/train-000000.tar    train-00000017.jpg, train-00000017.cls, train-00000017.json, ...: names as in WebDataset

Any picture can be read at any time, so the order of an epoch is the same function of (seed, epoch) as for a folder.
`position` in the index is the picture's place in its split: how the pictures are spread over shards changes nothing.
A shard here is compared with its digest once, and again when it changes; of a remote one its length. Each picture's
bytes are compared with their own digest whenever they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from layerwise.data.images import ImageFacts
from layerwise.data.layout import ALL, Layout, Row, layout_notes
from layerwise.data.pieces import Scanned, Slice, is_remote, read_range, read_whole, size_of
from layerwise.data.scan import RECENT_NS, cache_folder, file_stamp
from layerwise.errors import InputError, amount
from layerwise.processor import cores

FORMAT = 1
INDEX, SUMS = "index.json", "SHA256SUMS"
SPLITS = ("train", "val", "test", ALL)
COLUMNS: dict[str, type] = {
    "position": int, "offset": int, "size": int, "label": int, "id": str, "sha256": str, "facts": int, "pixels": str,
    "perceptual": int,
}  # fmt: skip
CHUNK = 1 << 22
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Shard:
    """One archive: its name, its split, its length in bytes, and a column for each thing known of its pictures."""

    file: str
    split: str
    bytes: int
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns["id"])

    def to_json(self) -> dict[str, Any]:
        """The shard as its entry of the index."""
        return {"file": self.file, "split": self.split, "bytes": self.bytes, **self.columns}


def is_shards(place: str) -> bool:
    """Whether the folder or address holds shards, even if without their digests; an address always has to."""
    folder = Path(place)
    return is_remote(place) or ((folder / INDEX).is_file()
                                and ((folder / SUMS).is_file() or any(folder.glob("*-000000.tar"))))


def read_shards(place: str) -> Layout:
    """The layout of the shards in a folder or at an address, each shard compared with its digest or its length.

    Raises InputError that names every damaged or missing shard, or says what is wrong with the index.
    """
    sums = read_sums(place)
    text = read_whole(_inside(place, INDEX))
    if hashlib.sha256(text).hexdigest() != sums.get(INDEX):
        raise _wrong(place, f"{INDEX}: its SHA-256 is not the one in {SUMS}, so it was altered")
    index, shards = _parsed(place, text)
    problems = [problem for problem in _ask_all(lambda shard: damage(place, shard, sums), shards) if problem]
    if problems:
        raise InputError(f"{place!r}: {len(problems)} of {len(shards)} shards are damaged or missing",
                         "Without them the training would be on something else.",
                         "Copy these shards again, or pack the data again.", problems)
    class_names = tuple(index["class_names"])
    rows = {split: _rows(place, split, class_names, index["facts"], shards) for split in SPLITS
            if any(shard.split == split for shard in shards)}
    notes = [*layout_notes(class_names, {split: list(found) for split, found in rows.items()}), *index["notes"],
             f"read from {amount(len(shards), 'shards')}"]
    # What was noted of the classes when the data were packed is noted of them now: it is said once.
    return Layout(index["name"], class_names, rows, tuple(dict.fromkeys(notes)), tuple(index["doubts"]))


def read_sums(place: str) -> dict[str, str]:
    """The digests (hex) by file name."""
    if not is_remote(place) and not (Path(place) / SUMS).is_file():
        raise _wrong(place, f"{SUMS} is missing: without it, damage could not be told")
    found = {}
    for number, line in enumerate(read_whole(_inside(place, SUMS)).decode("ascii", "replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef") or not _plain(name):
            raise _wrong(place, f"{SUMS}, line {number}: is not a SHA-256 and the name of a file")
        found[name] = digest
    return found


def damage(place: str, shard: Shard, sums: dict[str, str]) -> str:
    """What is wrong with the shard's file, "" where nothing is."""
    file = _inside(place, shard.file)
    try:
        have = size_of(file)
    except InputError as problem:
        return f"{shard.file}: {problem.what}"
    if shard.file not in sums:
        return f"{shard.file}: {SUMS} does not name it"
    if have != shard.bytes:
        return f"{shard.file}: {'truncated at' if have < shard.bytes else 'altered,'} {have:,} of {shard.bytes:,} bytes"
    if is_remote(file) or file_digest(file) == sums[shard.file]:
        return ""
    return f"{shard.file}: its SHA-256 is not the one in {SUMS}, so it was altered"


def file_digest(file: str) -> str:
    """SHA-256 (hex) of a file here, remembered in the user's cache until its size or a time of change differs."""
    stamp = file_stamp(file)
    key = hashlib.sha256(os.path.abspath(file).encode("utf-8", "surrogateescape")).hexdigest()
    memory = cache_folder() / "digests" / f"{key[:32]}.json"
    known = recall(memory, stamp)
    if isinstance(known, str):
        return known
    total = hashlib.sha256()
    for start in range(0, stamp[0], CHUNK):
        total.update(read_range(file, start, min(CHUNK, stamp[0] - start)))
    remember(memory, stamp, total.hexdigest())
    return total.hexdigest()


def recall(memory: Path, stamp: list[int]) -> Any:
    """What was remembered of a file while it had this stamp, or None."""
    try:
        stored = json.loads(memory.read_text("utf-8"))
        return stored["found"] if stored["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def remember(memory: Path, stamp: list[int], found: Any) -> None:
    """Keeps `found` in the user's cache; not of a file changed just now, and not where the cache can't be written."""
    if abs(time.time_ns() - max(stamp[1:])) <= RECENT_NS:
        return
    temporary = ""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False, encoding="utf-8") as stream:
            temporary = stream.name
            json.dump({"stamp": stamp, "found": found}, stream)
        os.replace(temporary, memory)
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _ask_all(question: Callable[[Shard], str], shards: list[Shard]) -> list[str]:
    with ThreadPoolExecutor(min(8, cores())) as pool:  # hashing releases the interpreter's lock
        return list(pool.map(question, shards))


def _rows(
    place: str, split: str, class_names: tuple[str, ...], facts: list[ImageFacts], shards: list[Shard]
) -> tuple[Row, ...]:
    """The pictures of a split, by their positions."""
    rows: dict[int, Row] = {}
    for shard in shards:
        if shard.split == split:
            file, known = _inside(place, shard.file), shard.columns
            for at, (position, name) in enumerate(zip(known["position"], known["id"], strict=True)):
                found = Scanned(known["sha256"][at], "", facts[known["facts"][at]], known["pixels"][at],
                                known["perceptual"][at])
                piece = Slice(file, known["offset"][at], known["size"][at], name, found)
                rows[position] = Row(piece, name, class_names[known["label"][at]])
    return tuple(rows[position] for position in range(len(rows)))


def _parsed(place: str, text: bytes) -> tuple[dict[str, Any], list[Shard]]:
    """The index with its facts as ImageFacts, and its shards; InputError where anything in it makes no sense."""
    try:
        index = json.loads(str(text, "utf-8"))
        if index["format"] != FORMAT:
            raise _wrong(place, f"{INDEX}: format {index['format']!r}, known is {FORMAT}")
        index.setdefault("doubts", [])  # the first shards that were packed had none
        for key in ("class_names", "notes", "doubts"):
            _all_of(index[key], str)
        index["name"] = _one(index["name"], str)
        index["facts"] = [ImageFacts(**fact) for fact in index["facts"]]
        shards = [Shard(_one(entry["file"], str), _one(entry["split"], str), _one(entry["bytes"], int),
                        {name: _all_of(entry[name], kind) for name, kind in COLUMNS.items()})
                  for entry in index["shards"]]
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _wrong(place, f"{INDEX}: can't be read ({type(error).__name__}: {error})") from None
    problems = [problem for shard in shards if (problem := _nonsense(shard, index))]
    for split in SPLITS:
        places = sorted(position for shard in shards if shard.split == split for position in shard.columns["position"])
        if places != list(range(len(places))):
            problems.append(f"{split}: positions are missing or there twice")
    if problems or not shards:
        raise _wrong(place, *(problems or [f"{INDEX}: names no shard"]))
    return index, shards


def _nonsense(shard: Shard, index: dict[str, Any]) -> str:
    """What of a shard's entry can't be, "" where all can."""
    columns = shard.columns
    ends = [offset + size for offset, size in zip(columns["offset"], columns["size"], strict=False)]
    if not _plain(shard.file) or shard.split not in SPLITS:
        return f"{shard.file!r} of {shard.split!r}: is no shard of a split"
    if len({len(column) for column in columns.values()}) != 1 or not ends:
        return f"{shard.file}: its columns differ in length, or are empty"
    if min(columns["offset"]) < 0 or min(columns["size"]) < 0 or max(ends) > shard.bytes:
        return f"{shard.file}: pictures lie outside of it"
    if not 0 <= min(columns["label"]) <= max(columns["label"]) < len(index["class_names"]):
        return f"{shard.file}: labels are not of the {len(index['class_names'])} classes"
    if not 0 <= min(columns["facts"]) <= max(columns["facts"]) < len(index["facts"]):
        return f"{shard.file}: facts are missing"
    return ""


def _one(value: object, kind: type[Kind]) -> Kind:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _all_of(values: object, kind: type) -> list[Any]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is not a list")
    for value in values:
        _one(value, kind)
    return values


def _plain(name: str) -> bool:
    """Whether `name` is a file's name and no path: an index must not lead out of its folder."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\:\0")


def _inside(place: str, name: str) -> str:
    return f"{place.rstrip('/')}/{name}" if is_remote(place) else str(Path(place) / name)


def _wrong(place: str, *problems: str) -> InputError:
    return InputError(f"{place!r} does not hold sound shards", "They are made, whole, by `layerwise pack`.",
                      "Pack the data again, or copy it again.", problems)
