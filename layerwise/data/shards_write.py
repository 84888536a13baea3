"""Writes a data set as shards (`shards` says what they are): whole or not at all, and never over anything.

They are made in a folder beside the target, `.NAME.packing`, which gets its name when everything in it is durable. A
pack that was killed goes on behind its last whole shard. Each shard is a pure function of the pictures and options.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerwise.data.images import MAX_PIXELS, ImageFacts, ImageRules, open_image
from layerwise.data.layout import Layout, Row
from layerwise.data.pieces import Scanned
from layerwise.data.resize import resize_to, rounded_ratio
from layerwise.data.scan import perceptual_hash, pixels_digest, scan_files
from layerwise.data.shards import COLUMNS, FORMAT, INDEX, SUMS, Shard
from layerwise.errors import InputError, MachineError
from layerwise.randomness import permutation

NAMES_OF_FORMATS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif"}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
QUALITY = 95  # of JPEG that is written anew
PLAN = "plan.json"


@dataclass(frozen=True)
class PackOptions:
    """`shard_bytes`: the most that a shard's pictures take, but for a single larger one; `per_shard`: the most
    pictures of a shard, 0: any number; `short_side`: larger pictures are made smaller to this, 0: none is touched;
    `max_pixels`: as in ImageRules."""

    shard_bytes: int = 256 * 10**6
    per_shard: int = 0
    short_side: int = 0
    max_pixels: int = MAX_PIXELS

    @property
    def rules(self) -> ImageRules:
        """The rules by which pictures are opened."""
        return ImageRules(max_pixels=self.max_pixels)


@dataclass(frozen=True)
class Packed:
    """What was written."""

    directory: Path
    pictures: dict[str, int]  # by split
    shards: int
    bytes: int
    resumed: int  # shards that an earlier, interrupted pack had made


def parse_size(text: str) -> int:
    """Bytes from "256MB", "1GiB" or "5000000"; InputError where it isn't that."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise InputError(f"--shard-size {text}: is no size", mend="Give it as 256MB or 1GiB.")
    return size


def pack(
    layout: Layout, to: Path, options: PackOptions = PackOptions(), progress: Callable[[int, int], None] | None = None
) -> Packed:
    """Writes the pictures of `layout` as shards in the new directory `to`, their bytes as they are unless made smaller.

    Raises InputError where `to` exists, or any picture can't be opened; MachineError where another process is packing
    to it.
    """
    if to.exists():
        raise InputError(f"{to}: exists, and nothing is overwritten", mend="Name another directory with --to.")
    if not to.absolute().parent.is_dir():
        raise InputError(f"{to}: there is no directory {to.parent}", mend=f"mkdir {to.parent}")
    every = [row for rows in layout.rows.values() for row in rows]
    scanned = scan_files([row.path for row in every], options.rules, progress=progress)
    bad = [one.error for one in scanned if one.error]
    if bad:
        raise InputError(f"{len(bad):,} of {len(every):,} pictures can't be opened, so nothing was packed",
                         "Left out, they would change the data without a trace.",
                         "Repair or remove them (`layerwise check` lists all).", bad)
    working = to.absolute().parent / f".{to.name}.packing"
    working.mkdir(exist_ok=True)
    with _alone(working, to):
        plan = _plan(layout, scanned, options)
        if _read(working / PLAN) != plan:  # of other data or options: of no use
            for entry in working.iterdir():
                if entry.name != "lock":
                    entry.unlink()
            _write(working / PLAN, json.dumps(plan).encode())
        shards, sums, resumed, start = [], {}, 0, 0
        for split, rows in layout.rows.items():
            order = permutation(0, 0, len(rows), f"pack-{split}")  # a reader from first to last sees mixed classes
            done = number = 0
            while done < len(rows):
                name = f"{split}-{number:06d}.tar"
                kept = _read(working / f"{name}.json")
                if kept is None or _digest(working / name) != kept["sum"]:
                    kept = _shard(working / name, layout, split, order[done:], scanned[start : start + len(rows)],
                                  options)
                    _write(working / f"{name}.json", json.dumps(kept).encode())
                else:
                    resumed += 1
                shards.append(kept)
                sums[name] = kept["sum"]
                done, number = done + len(kept["id"]), number + 1
            start += len(rows)
        packed = Packed(to, {split: len(rows) for split, rows in layout.rows.items()}, len(shards),
                        sum(shard["bytes"] for shard in shards), resumed)
        _finish(working, layout, shards, sums, options)
        if to.exists():
            raise InputError(f"{to}: exists by now, and nothing is overwritten", mend="Name another directory.")
        os.rename(working, to)
    (to / "lock").unlink(missing_ok=True)
    _fsync_directory(to.absolute().parent)
    return packed


def _shard(
    file: Path, layout: Layout, split: str, order: NDArray[np.int64], scanned: Sequence[Scanned], options: PackOptions
) -> dict[str, Any]:
    """Writes one shard with as many pictures of `order` as it holds; its entry, with "sum" and facts written out."""
    rows, labels = layout.rows[split], {name: label for label, name in enumerate(layout.class_names)}
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    with open(file, "wb") as stream:
        counted = _Hashing(stream)
        with tarfile.open(fileobj=cast(IO[bytes], counted), mode="w", format=tarfile.USTAR_FORMAT) as archive:
            held = 0
            for position in order.tolist():
                row = rows[position]
                data, found = _content(row, scanned[position], options)
                if columns["id"] and (held + len(data) > options.shard_bytes
                                      or len(columns["id"]) == options.per_shard):
                    break
                held += len(data)
                key, label = f"{split}-{position:08d}", labels[row.class_name]
                assert found.facts is not None
                columns["offset"].append(archive.offset + tarfile.BLOCKSIZE)
                _add(archive, f"{key}.{NAMES_OF_FORMATS[found.facts.format]}", data)
                _add(archive, f"{key}.cls", str(label).encode())
                told = {"id": row.id, "class": row.class_name, "label": label}
                _add(archive, f"{key}.json", json.dumps(told).encode())
                values = (position, len(data), label, row.id, found.sha256, asdict(found.facts), found.pixels_sha256,
                          found.perceptual)
                for name, value in zip([name for name in COLUMNS if name != "offset"], values, strict=True):
                    columns[name].append(value)
        stream.flush()
        os.fsync(stream.fileno())
    return {**Shard(file.name, split, counted.size, columns).to_json(), "sum": counted.total.hexdigest()}


def _content(row: Row, found: Scanned, options: PackOptions) -> tuple[bytes, Scanned]:
    """The bytes to write, and what is in them."""
    data = row.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != found.sha256:
        raise InputError(f"{str(row.path)!r} changed while it was packed", mend="Pack again, once nobody writes to it.")
    facts = found.facts
    assert facts is not None
    short = min(facts.width, facts.height)
    if not options.short_side or short <= options.short_side:
        return data, found
    # Not `resize_short_side`, which takes the central part of a long picture: nothing is cut away here.
    height, width = (rounded_ratio(side * options.short_side, short) for side in (facts.height, facts.width))
    pixels = resize_to(open_image(data, options.rules)[0], height, width, "bicubic")
    image, stream = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), io.BytesIO()
    if facts.format == "JPEG":
        image.save(stream, "JPEG", quality=QUALITY, subsampling=0)
    else:
        image.save(stream, "PNG")
    data = stream.getvalue()
    pixels, facts = open_image(data, options.rules)
    return data, Scanned(hashlib.sha256(data).hexdigest(), "", facts, pixels_digest(pixels), perceptual_hash(pixels))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner: the same pictures make the same bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _finish(
    working: Path, layout: Layout, shards: list[dict[str, Any]], sums: dict[str, str], options: PackOptions
) -> None:
    """Writes index and digests, and takes away what only a resumption needs."""
    facts: dict[ImageFacts, int] = {}
    for shard in shards:
        shard.pop("sum")
        shard["facts"] = [facts.setdefault(ImageFacts(**one), len(facts)) for one in shard["facts"]]
    notes = [note for note in layout.notes if not note.startswith(("found ", "read from "))]  # they are said anew
    if options.short_side:
        notes.append(f"larger pictures were made smaller: short side {options.short_side}, bicubic, upright, "
                     f"JPEG of quality {QUALITY} or PNG")
    index = {"format": FORMAT, "name": layout.name, "class_names": list(layout.class_names), "notes": notes,
             "doubts": list(layout.doubts), "facts": [asdict(one) for one in facts], "shards": shards}
    text = json.dumps(index, separators=(",", ":")).encode()
    _write(working / INDEX, text)
    every = {INDEX: hashlib.sha256(text).hexdigest(), **sums}
    _write(working / SUMS, "".join(f"{digest}  {name}\n" for name, digest in every.items()).encode())
    for entry in working.iterdir():
        if entry.name not in (SUMS, "lock", *every):
            entry.unlink()
    _fsync_directory(working)


def _plan(layout: Layout, scanned: Sequence[Scanned], options: PackOptions) -> dict[str, Any]:
    """What the shards are a function of; parts of another one's are of no use."""
    rows = [[split, row.id, row.class_name] for split, found in layout.rows.items() for row in found]
    text = json.dumps([layout.name, layout.class_names, rows, [one.sha256 for one in scanned]])
    return {"format": FORMAT, "options": asdict(options), "pictures": hashlib.sha256(text.encode()).hexdigest()}


@contextlib.contextmanager
def _alone(working: Path, to: Path) -> Iterator[None]:
    """Holds a lock, which the system frees where a process is killed, so that two never write the same shards."""
    with open(working / "lock", "wb") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows, which renames no folder with an open file in it
            lock.close()
        except OSError:
            raise MachineError(f"{to}: another process is packing to it", mend="Wait for it.") from None
        yield


class _Hashing:
    """Counts and hashes what is written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.total, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """As of a file."""
        self.total.update(data)
        self.size += len(data)
        return self.stream.write(data)

    def tell(self) -> int:
        """As of a file."""
        return self.size


def _digest(file: Path) -> str:
    with contextlib.suppress(OSError), open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    return ""


def _read(file: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text("utf-8"))
    return None


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_name(f".{file.name}.writing")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
    _fsync_directory(file.parent)


def _fsync_directory(directory: Path) -> None:
    if os.name != "nt":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
