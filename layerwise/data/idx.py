"""MNIST and Fashion-MNIST from IDX files, plain or gzip.

IDX (LeCun): two zero bytes, the type (8 = unsigned byte), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values. The published splits are 60,000 pictures of 28 x 28 for training and
10,000 for testing.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerwise.data.download import REMOTES, VARIABLE, fetch, search_folders
from layerwise.data.source import DataSet, Samples
from layerwise.errors import InputError

CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                      "Ankle boot"),
}  # fmt: skip
LICENCES = {"mnist": "CC BY-SA 3.0 (as commonly stated; LeCun, Cortes, Burges)", "fashion-mnist": "MIT (Zalando SE)"}
PUBLISHED = {"train": 60_000, "test": 10_000}
# The file names of both sets are the same; their first training labels tell them apart.
FIRST_LABELS = {"mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "fashion-mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5)}
MAX_VALUES = 1 << 31


def open_idx(name: str, data_dir: Path | None, offline: bool) -> DataSet:
    """`mnist` or `fashion-mnist`, found in `data_dir`, $LAYERWISE_DATA, the user's cache or the system, or downloaded.

    Raises InputError where a file is damaged or the files disagree, MachineError where they can't be had.
    """
    folder = next((at for at in search_folders(name, data_dir) if _files(at) is not None), None)
    if folder is None:
        folder = fetch(name, data_dir, offline)
    files = _files(folder)
    assert files is not None
    notes = [f"{name} read from {folder}"]
    splits = {}
    for split, (images_file, labels_file) in files.items():
        images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
        if len(images) != len(labels):
            raise InputError(
                f"{str(images_file)!r} has {len(images):,} pictures, {str(labels_file)!r} {len(labels):,} labels",
                "They must belong together.",
                "Fetch both files again.",
            )
        if labels.size and labels.max() > 9:
            at = int(np.argmax(labels > 9))
            raise InputError(
                f"{str(labels_file)!r}: label {labels[at]} at position {at}",
                f"{name} has 10 classes, labels 0 to 9.",
                "Fetch the file again.",
            )
        if len(images) != PUBLISHED[split]:
            notes.append(f"{split} has {len(images):,} pictures; the published set has {PUBLISHED[split]:,}")
        splits[split] = Samples(
            split,
            CLASS_NAMES[name],
            labels.astype(np.int64),
            tuple(f"{name}/{split}/{index}" for index in range(len(images))),
            np.ascontiguousarray(images[..., None]),
        )
    _other_set(name, splits["train"], folder)
    return DataSet(name, splits["train"], None, splits["test"], tuple(notes), LICENCES[name])


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file, plain or gzip, with that many dimensions; InputError where it is damaged."""
    mend = "Delete it and fetch it again."
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            header = stream.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise InputError(
                    f"{str(path)!r} is not an IDX file of unsigned bytes with {dimensions} dimensions",
                    f"It starts with {header[:4].hex(' ') or 'nothing'}.",
                    mend,
                )
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            if not 0 < size <= MAX_VALUES:
                raise InputError(f"{str(path)!r} states the shape {shape}", "That is empty or too large.", mend)
            data = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as problem:
        raise InputError(f"{str(path)!r} can't be read: {problem}", "It is damaged or truncated.", mend) from None
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data):,}"
        raise InputError(f"{str(path)!r} states {size:,} values and holds {found}", "It is damaged or truncated.", mend)
    return np.frombuffer(data, dtype=np.uint8).reshape(shape).copy()


def _files(folder: Path) -> dict[str, tuple[Path, Path]] | None:
    """The four files in `folder` by split, plain or gzip, with "-" or "." before idx; None unless all are there."""
    found: dict[str, tuple[Path, Path]] = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        pair = []
        for stem in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
            names = (stem, f"{stem}.gz", stem.replace("-idx", ".idx"), f"{stem.replace('-idx', '.idx')}.gz")
            pair += [folder / name for name in names if (folder / name).is_file()][:1]
        if len(pair) != 2:
            return None
        found[split] = (pair[0], pair[1])
    return found


def _other_set(name: str, train: Samples, folder: Path) -> None:
    first = tuple(int(label) for label in train.labels[:10])
    for other, labels in FIRST_LABELS.items():
        if other != name and first == labels and len(train) == PUBLISHED["train"]:
            raise InputError(
                f"{str(folder)!r} holds {other}, not {name}",
                "The two sets use the same file names.",
                f"Use the name {other}, or put {name} into a folder called {name} (in --data-dir or "
                f"{VARIABLE}); its files: {REMOTES[name][0].url} and so on.",
            )
