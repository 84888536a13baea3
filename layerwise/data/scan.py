"""Opens every file once, in threads, and remembers what it found by path, size and time of change.

The memory is a JSON file in the user's cache folder, replaced atomically. Where that folder can't be read or written,
or the file is damaged, everything is simply scanned again. A file changed within the last two seconds before it
was looked at, or dated later, is not remembered: it could change again without its time of change showing it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import platformdirs
from numpy.typing import NDArray
from PIL import Image

from layerwise.data.images import ImageFacts, ImageRules, open_image, read_image
from layerwise.data.pieces import Scanned, Slice, Source, is_remote
from layerwise.errors import InputError
from layerwise.processor import cores

__all__ = ["Scanned", "cache_folder", "perceptual_hash", "pixels_digest", "scan_files", "scan_one", "thumbnail"]

FORMAT = 1
RECENT_NS = 2_000_000_000
HASH_SIZE = 8
PART = 8  # files that a thread takes at once: handing over one by one took a fifth of the time
# Mean bytes of a file below which one thread scans faster than two, which then wait for the interpreter most of the
# time. JPEGs of 80x80 took 1.2 ms each with two threads and 0.9 with one, of 160x160 as long, of 224x224 1.2 and 1.6.
SMALL = 6 << 10
LOOKED_AT = 64


def scan_files(
    paths: Sequence[Source], rules: ImageRules, threads: int = 0, progress: Callable[[int, int], None] | None = None
) -> list[Scanned]:
    """What was found in each file, in the order of `paths`; nothing is raised for a bad file.

    `threads` 0 means one a core, at most 16, or a single one for small files; `progress(done, total)` is called now
    and then.
    """
    if not paths:
        return []
    memory = _Memory(paths, rules)
    found: list[Scanned] = []
    parts = [paths[start : start + PART] for start in range(0, len(paths), PART)]
    with ThreadPoolExecutor(threads or (1 if _mean_bytes(paths) < SMALL else min(16, cores()))) as pool:
        for part in pool.map(lambda part: [memory.look(path, rules) for path in part], parts):
            found += part
            if progress is not None and (len(found) % 64 == 0 or len(found) == len(paths)):
                progress(len(found), len(paths))
    memory.save()
    return found


def _mean_bytes(paths: Sequence[Source]) -> float:
    """The mean size of some of the files, evenly taken; one that can't be looked at counts nothing."""
    some = paths[:: max(1, len(paths) // LOOKED_AT)]
    total = 0
    for path in some:
        with suppress(OSError):
            total += path.size if isinstance(path, Slice) else os.stat(path).st_size
    return total / len(some)


def scan_one(path: Source, rules: ImageRules) -> Scanned:
    """Reads one file, once, so that what is said of it is of the bytes that were hashed; decodes them."""
    digest = ""
    try:
        data = read_image(path, rules)
        digest = hashlib.sha256(data).hexdigest()
        pixels, facts = open_image(path, rules, data)
    except InputError as problem:
        return Scanned(digest, str(problem), None, "", 0)
    return Scanned(digest, "", facts, pixels_digest(pixels), perceptual_hash(pixels))


def pixels_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 (hex) of the shape and the values of a picture (H, W, C); grey stored as RGB counts as grey."""
    if pixels.shape[2] == 3 and (pixels[..., :1] == pixels).all():
        pixels = pixels[..., :1]
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _cosines(size: int, count: int) -> NDArray[np.float64]:
    """The first `count` rows of the DCT-II of length `size`."""
    rows, columns = np.arange(count)[:, None], np.arange(size)[None, :]
    return np.asarray(np.cos(np.pi * rows * (2 * columns + 1) / (2 * size)))


_COSINES = _cosines(32, HASH_SIZE + 1)


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """64 signs of low DCT coefficients of the picture in 32 x 32 grey pixels; the constant one is left out.

    Bit 8 u + v is the sign of coefficient (u, v), u, v in 0..7, and bit 0 that of (0, 8). Thresholds of zero (instead
    of the median) make a mirrored picture's hash the same bits with those of odd frequency inverted.
    """
    grey = thumbnail(pixels, 32).astype(np.float64)
    coefficients = _COSINES @ grey @ _COSINES.T
    chosen = coefficients[:HASH_SIZE, :HASH_SIZE].copy()
    chosen[0, 0] = coefficients[0, HASH_SIZE]
    return int.from_bytes(np.packbits(chosen.ravel() > 0, bitorder="little").tobytes(), "little")


def thumbnail(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture squashed to (side, side) grey."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    gap = 2.0 if min(image.size) >= 4 * side else None
    return np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX, reducing_gap=gap), dtype=np.uint8)


def file_stamp(file: str | Path) -> list[int]:
    """Size and times of change of a file, which tell whether it may be another; OSError where there is none."""
    state = os.stat(file)
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _file(path: Source) -> str:
    """The file that holds the picture, as an absolute path; an address stays as it is."""
    if isinstance(path, Slice):
        return path.file if is_remote(path.file) else os.path.abspath(path.file)
    return str(path.absolute())


class _Memory:
    """Earlier findings for the files under one folder and one set of rules."""

    def __init__(self, paths: Sequence[Source], rules: ImageRules) -> None:
        folders = {os.path.dirname(_file(path)) for path in paths}
        root = os.path.commonpath(folders) if len({os.path.splitdrive(one)[0] for one in folders}) == 1 else ""
        key = hashlib.sha256(json.dumps([FORMAT, PIL.__version__, root, asdict(rules)]).encode()).hexdigest()
        self.file = cache_folder() / "scan" / f"{key[:32]}.json"
        self.entries: dict[str, list[Any]] = {}
        self.changed = False
        try:
            stored = json.loads(self.file.read_text("utf-8"))
            if isinstance(stored, dict):
                self.entries = stored
        except (OSError, ValueError, RecursionError):
            pass  # no memory: scan again

    def look(self, path: Source, rules: ImageRules) -> Scanned:
        if isinstance(path, Slice) and path.known is not None and _stands(path.known, rules):
            return path.known
        file = _file(path)
        key = f"{file}?{path.offset}+{path.size}" if isinstance(path, Slice) else file
        now = time.time_ns()
        try:
            stamp = file_stamp(file)
        except OSError:
            return scan_one(path, rules)
        known = _restored(self.entries.get(key), stamp)
        if known is not None:
            return known
        found = scan_one(path, rules)
        # Never remembered: a file that couldn't be read (the next time it may be), or one just written.
        if found.sha256 and now - max(stamp[1:]) > RECENT_NS:
            facts = asdict(found.facts) if found.facts else None
            self.entries[key] = [*stamp, found.sha256, found.error, facts, found.pixels_sha256, found.perceptual]
            self.changed = True
        return found

    def save(self) -> None:
        if not self.changed:
            return
        temporary = ""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.file.parent, delete=False, encoding="utf-8") as stream:
                temporary = stream.name
                json.dump(self.entries, stream)
            os.replace(temporary, self.file)
        except OSError:
            if temporary:
                Path(temporary).unlink(missing_ok=True)


def _stands(known: Scanned, rules: ImageRules) -> bool:
    """Whether what a shard's index tells of a picture would be found under these rules too."""
    same = (rules.exif, rules.max_bytes) == (ImageRules.exif, ImageRules.max_bytes)
    return same and known.facts is not None and known.facts.width * known.facts.height <= rules.max_pixels


def _restored(entry: object, stamp: list[int]) -> Scanned | None:
    """The remembered finding, or None where there is none, it is stale, or it makes no sense."""
    if not isinstance(entry, list) or len(entry) != 8 or entry[:3] != stamp:
        return None
    sha256, error, facts, pixels, perceptual = entry[3:]
    try:
        return Scanned(sha256, error, ImageFacts(**facts) if facts is not None else None, pixels, int(perceptual))
    except (TypeError, ValueError):
        return None


def cache_folder() -> Path:
    """The user's cache folder for Layerwise: what is found again if it is deleted."""
    return Path(platformdirs.user_cache_dir("layerwise", appauthor=False))
