"""Damaged pictures (B1) and one scene in many encodings (B4): what `open_image` and the scan make of them.

B1 runs in a child process under an address limit of 2 GiB, so that a decoder that crashes, or takes what it is told to,
ends the child and not the suite. Each file is read twice: as it lies in a folder, and as a shard has it, whose index is
the manifest. The oracle of the first is Pillow itself on the same bytes: what we return is what these bytes hold, and
never another file's picture.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faults.goal import Control, Goal, Outcome
from layerwise.data.images import ImageRules
from layerwise.data.pieces import Scanned, Slice
from layerwise.data.scan import pixels_digest, scan_one

ROOT = Path(__file__).resolve().parents[1]
RULES = ImageRules()
ADDRESSES = 2 << 30  # bytes
SLOWEST = 0.1  # seconds of processor time a file
BATCH = 1000
DAMAGES = ("truncated", "bits", "zeros", "extension", "polyglot")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
ENDINGS = dict(zip(FORMATS, (".jpg", ".png", ".webp", ".gif", ".bmp", ".tif"), strict=True))
FOREIGN = (b"PK\x03\x04" + bytes(60), b"<!DOCTYPE html><script>alert(1)</script>", b"%PDF-1.7\n%%EOF",
           b"MZ" + bytes(80), b"#!/bin/sh\necho owned\n", b"GIF89a=1;/*", b"\x80\x04cos\nsystem\n")


def scene(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) with soft edges and a little noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows * random.uniform(0.05, 0.4) + columns * random.uniform(0.05, 0.4) + phase)
             for phase in (0, 2, 4)]
    noise = random.normal(0, 6, (height, width, 3))
    return (128 + 100 * np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8)


def originals() -> list[tuple[str, bytes]]:
    """(format, bytes): five pictures in each of the six formats, one of them grey."""
    found = []
    for form in FORMATS:
        for seed, (height, width) in enumerate(((32, 48), (64, 64), (24, 24), (50, 33), (40, 40))):
            image = Image.fromarray(scene(height, width, seed))
            stream = io.BytesIO()
            (image.convert("L") if seed == 4 else image).save(stream, form)
            found.append((form, stream.getvalue()))
    return found


def damaged(data: bytes, how: str, random: np.random.Generator, other: bytes) -> bytes:
    """The bytes after one damage; a wrong extension leaves them as they are."""
    if how == "truncated":
        return data[: int(random.integers(0, len(data)))]
    if how == "bits":
        changed = np.frombuffer(data, dtype=np.uint8).copy()
        for place in random.integers(0, len(data), int(random.integers(1, 9))):
            changed[place] ^= np.uint8(1 << int(random.integers(0, 8)))
        return changed.tobytes()
    if how == "zeros":
        length = int(random.choice([16, 64, 512, 4096]))
        start = int(random.integers(0, max(1, len(data) - length // 2)))
        return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]
    if how == "polyglot":
        foreign = FOREIGN[int(random.integers(0, len(FOREIGN)))]
        kinds = (data + foreign, foreign + data, data + other, data[: len(data) // 2] + other)
        return kinds[int(random.integers(0, len(kinds)))]
    return data


def bare(data: bytes) -> str:
    """The digest of what Pillow alone makes of the bytes, or "" where it raises: the oracle, and a control."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(data))
            if image.mode not in ("L", "RGB"):
                image = image.convert("RGB")
            pixels = np.asarray(image)
    except Exception:  # whatever a decoder raises
        return ""
    return pixels_digest(pixels[..., None] if pixels.ndim == 2 else pixels)


class Tally:
    """What came of the trials so far."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()

    def look(self, name: str, piece: Slice, data: bytes, original: tuple[bytes, str], manifest: bool) -> None:
        """One damaged file, by itself and with its manifest; `original` are the bytes and the pixels' digest."""
        found = self.tried(name, piece)
        if found is None:
            return
        whole = data == original[0]
        alone = bare(data)
        self.counts["altered"] += not whole
        self.counts["quarantined"] += bool(found.error)
        self.counts["bare"] += not whole and alone not in ("", original[1])
        if not found.error:
            self.counts["silent"] += not whole and found.pixels_sha256 != original[1]
            assert found.facts is not None
            # Transparency on white and orientation, which are noted in `conversion`, give other pixels than Pillow's.
            if found.pixels_sha256 != alone and (whole or not found.facts.conversion):
                self.violations.append(f"{name}: substituted, these are not the pixels of its bytes")
        elif whole:
            self.violations.append(f"{name}: refused although nothing is wrong with it: {found.error}")
        listed = Scanned(hashlib.sha256(original[0]).hexdigest(), "", None, original[1], 0)
        kept = self.tried(name, Slice(piece.file, piece.offset, piece.size, piece.name, listed if manifest else None))
        if kept is not None and bool(kept.error) == whole:
            self.violations.append(f"{name}: {'refused' if kept.error else 'altered, not found'} with its manifest")
        if kept is not None and not kept.error and kept.pixels_sha256 != original[1]:
            self.violations.append(f"{name}: other pixels with its manifest")

    def tried(self, name: str, piece: Slice) -> Scanned | None:
        """What the scan says of one file; None where it said nothing that counts."""
        seconds = SLOWEST * 1000
        for _ in range(3):  # a busy machine's processor is slow now and then: the least of three counts
            started = time.process_time()
            try:
                found = scan_one(piece, RULES)
            except BaseException as error:  # any of them would end a training
                self.violations.append(f"{name}: {type(error).__name__}: {error}")
                return None
            seconds = min(seconds, time.process_time() - started)
            if seconds <= SLOWEST:
                break
        self.counts["slowest, ms"] = max(self.counts["slowest, ms"], round(1000 * seconds))
        if seconds > SLOWEST:
            self.violations.append(f"{name}: {1000 * seconds:.0f} ms")
        if not found.error and not found.pixels_sha256:
            self.violations.append(f"{name}: neither decoded nor quarantined")
        if found.error and not found.error.partition(piece.name)[2].strip("' \n"):
            self.violations.append(f"{name}: quarantined without a reason")
        return found


def child(first: int, last: int, folder: str, manifest: bool) -> None:
    """Trials `first` to `last`; prints what came of them as JSON. How far it came stands in the file `at`."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    files = [(form, data, bare(data)) for form, data in originals()]
    tally = Tally()
    progress = os.open(os.path.join(folder, "at"), os.O_RDWR | os.O_CREAT)
    for start in range(first, last, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, last)):
            random = np.random.default_rng([1, number])
            form, data, digest = files[number % len(files)]
            how = DAMAGES[number // len(files) % len(DAMAGES)]
            batch.append((number, form, how, damaged(data, how, random, files[int(random.integers(len(files)))][1]),
                          (data, digest)))
        store = os.path.join(folder, "store")
        Path(store).write_bytes(b"".join(one[3] for one in batch))
        offset = 0
        for number, form, how, data, original in batch:
            os.pwrite(progress, number.to_bytes(8, "little"), 0)
            ending = ENDINGS[FORMATS[(FORMATS.index(form) + (how == "extension")) % len(FORMATS)]]
            piece = Slice(store, offset, len(data), f"{number}{ending}")
            tally.look(f"{form} {number}, {how}", piece, data, original, manifest)
            offset += len(data)
    print(json.dumps([tally.violations, tally.counts]))


def called(arguments: str, folder: Path, seconds: float) -> tuple[Any, str]:
    """What a function of the suite prints as JSON, called in a process of its own; or why there is nothing."""
    module, function = arguments.split(":", 1)
    program = f"from {module} import {function.split('(')[0]}; {function}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=seconds,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")})
    if done.returncode:
        return None, f"the process ended with {done.returncode}: {done.stderr[-600:]}"
    return json.loads(done.stdout.splitlines()[-1]), ""


def damaged_files(trials: int, folder: Path, manifest: bool = True) -> Outcome:
    """B1."""
    found, failed = called(f"faults.pictures:child(0, {trials}, {str(folder)!r}, {manifest})", folder, 60 + trials / 20)
    if failed:
        at = int.from_bytes((folder / "at").read_bytes() if (folder / "at").exists() else b"", "little")
        return Outcome(max(1, at), (f"trial {at}: {failed}",))
    violations, counts = found
    altered = max(1, counts["altered"])
    return Outcome(trials, tuple(violations),
                   f"{altered:,} files differ from the original: bare Pillow decodes {counts['bare'] / altered:.1%} of "
                   f"them to other pixels without an error, ours {counts['silent'] / altered:.1%} without a manifest "
                   f"and 0 % with one; {counts['quarantined']:,} quarantined; slowest {counts['slowest, ms']} ms")


def bare_pillow(folder: Path) -> Outcome:
    """The control of B1's reader: Pillow alone, for which a file counts as found if it raises."""
    violations, trials = [], 300
    files = originals()
    for number in range(trials):
        random = np.random.default_rng([1, number])
        _, data = files[number % len(files)]
        changed = damaged(data, DAMAGES[number % 3], random, b"")
        if changed != data and bare(changed) not in ("", bare(data)):
            violations.append(f"{number}: other pixels, no error")
    return Outcome(trials, tuple(violations))


GOALS = (
    Goal("B1", "a hundred thousand damaged pictures", "0 crashes, hangs above 100 ms of processor time, substitutions; "
         "all altered files found with a manifest", 100_000, 1_500, damaged_files,
         (Control("bare Pillow", bare_pillow),
          Control("manifest off", lambda folder: damaged_files(300, folder, manifest=False)))),
)
