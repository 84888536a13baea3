"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the authors' binary archives; the pickled ones are never read.

A record is one label byte (CIFAR-100: the coarse label, then the fine one, which is used) and 3,072 bytes of pixels: 32
rows of 32 for red, then green, then blue. The archive is read in place: nothing is extracted to a path it names.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerwise.data.download import REMOTES, fetch, search_folders
from layerwise.data.source import DataSet, Samples
from layerwise.data.tars import regular
from layerwise.errors import InputError

PIXELS = 3072
MAX_BYTES = 1 << 29
FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    "cifar100": {"train": ("train.bin",), "test": ("test.bin",)},
}
PUBLISHED = {"train": 50_000, "test": 10_000}
LICENCE = "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": tuple(_FINE.split()),
}  # fmt: skip


def open_cifar(name: str, data_dir: Path | None, offline: bool) -> DataSet:
    """`cifar10` or `cifar100`, from the archive or the unpacked .bin files, found or downloaded.

    Raises InputError where a file is damaged or missing in the archive, MachineError where none can be had.
    """
    archive = REMOTES[name][0].file
    parts = [part for split in FILES[name].values() for part in split]
    data: dict[str, bytes] | None = None
    place = Path()
    for folder in search_folders(name, data_dir):
        for place in (folder / FOLDERS[name], folder):
            if all((place / part).is_file() for part in parts):
                data = {part: _read(place / part) for part in parts}
                break
        if data is None and (folder / archive).is_file():
            place = folder / archive
            data = read_archive(place, parts)
        if data is not None:
            break
    if data is None:
        place = fetch(name, data_dir, offline) / archive
        data = read_archive(place, parts)
    notes = [f"{name} read from {place}"]
    splits = {}
    for split, files in FILES[name].items():
        pairs = [records(data[file], name, f"{str(place)!r}: {file}") for file in files]
        images, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
        if len(images) != PUBLISHED[split]:
            notes.append(f"{split} has {len(images):,} pictures; the published set has {PUBLISHED[split]:,}")
        ids = tuple(f"{name}/{split}/{index}" for index in range(len(images)))
        splits[split] = Samples(split, CLASS_NAMES[name], labels, ids, images)
    return DataSet(name, splits["train"], None, splits["test"], tuple(notes), LICENCE)


def read_archive(path: Path, parts: list[str]) -> dict[str, bytes]:
    """The bytes of the members called `parts` (whatever folder they are in), which must be plain files."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in regular(archive):
                name = member.name.rsplit("/", 1)[-1]
                if name not in parts:
                    continue
                if member.size > MAX_BYTES or name in found:
                    raise InputError(
                        f"{str(path)!r}: {name} is there twice or has {member.size:,} bytes",
                        "It is not the published archive.",
                        "Delete it and fetch it again.",
                    )
                stream = archive.extractfile(member)
                assert stream is not None
                found[name] = stream.read()
    except InputError:
        raise
    except Exception as problem:  # a damaged or hostile archive may end in any
        raise InputError(
            f"{str(path)!r} can't be read: {problem}", "It is damaged or truncated.", "Delete it and fetch it again."
        ) from None
    missing = [part for part in parts if part not in found]
    if missing:
        raise InputError(
            f"{str(path)!r} lacks {', '.join(missing)}",
            "The binary archive is needed; the pickled one for Python is never read.",
            "Fetch the binary version.",
        )
    return found


def records(data: bytes, name: str, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(pictures (N, 32, 32, 3), labels (N,)) of one file's bytes; InputError where they are not whole records."""
    width = PIXELS + (2 if name == "cifar100" else 1)
    if not data or len(data) % width:
        raise InputError(
            f"{where} has {len(data):,} bytes",
            f"It must be a multiple of {width:,}: it is truncated or not a file of {name}.",
            "Delete it and fetch it again.",
        )
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    labels = rows[:, width - PIXELS - 1].astype(np.int64)
    classes = len(CLASS_NAMES[name])
    if labels.max() >= classes:
        at = int(np.argmax(labels >= classes))
        raise InputError(
            f"{where}: label {labels[at]} in record {at}",
            f"{name} has labels 0 to {classes - 1}.",
            "Delete it and fetch it again.",
        )
    images = rows[:, width - PIXELS :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InputError(f"{str(path)!r} can't be read: {problem.strerror or problem}") from None
