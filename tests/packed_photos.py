"""A small folder of pictures, and what tests of shards do with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from layerwise.data import DataOptions, DataSet, open_data
from layerwise.data.opening import find_layout
from layerwise.data.shards_write import Packed, PackOptions, pack

COUNTS = {"train": 7, "val": 3, "test": 2}


def paint(root: Path) -> Path:
    """Two classes in three splits, PNG and JPEG of different sizes, one with the extension of the other."""
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for name in ("cat", "dog"):
            (root / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (40 + number, 70, 3), dtype=np.uint8)
                kind = ("PNG", "JPEG")[number % 2]
                file = root / "photos" / split / name / f"{number}{'.jpg' if number else '.PNG'}"
                Image.fromarray(pixels).save(file, kind)
    return root / "photos"


def packed(folder: Path, to: Path, options: PackOptions | None = None) -> Packed:
    return pack(find_layout(str(folder)), to, options or PackOptions(per_shard=3))


def opened(place: Path | str, split: str = "") -> DataSet:
    return open_data(str(place), DataOptions(split=split))


def alter(file: Path, at: int) -> None:
    """Changes one byte."""
    data = bytearray(file.read_bytes())
    data[at] ^= 255
    file.write_bytes(data)


def reindex(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Writes the index anew after `change(index)`, with its digest: what a forger would do."""
    file = directory / "index.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))
    sums = [line for line in (directory / "SHA256SUMS").read_text().splitlines() if "index.json" not in line]
    sums.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  index.json")
    (directory / "SHA256SUMS").write_text("\n".join(sums) + "\n")


def same(first: DataSet, second: DataSet) -> None:
    assert first.fingerprint == second.fingerprint
    for name, samples in first.splits.items():
        other = second.splits[name]
        assert (samples.ids, samples.class_names) == (other.ids, other.class_names)
        assert samples.labels.tolist() == other.labels.tolist()
        for index in range(len(samples)):
            np.testing.assert_array_equal(samples.read(index), other.read(index))
