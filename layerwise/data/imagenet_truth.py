"""Which class a validation or test picture of ImageNet has: from the published files alone, nothing is built in.

LOC_val_solution.csv (Kaggle) names the synset of each picture. The development kits give numbers in the order of the
pictures (ILSVRC2012_validation_ground_truth.txt) and, in meta.mat, the synset of each number; a kit is read as a folder
or as the archive it came in.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerwise.data.tars import regular
from layerwise.errors import InputError

SOLUTION = "LOC_val_solution.csv"
META = "meta.mat"
MOST = 1 << 26  # bytes of a file of the kit
SYNSET = re.compile(r"n\d{8}")


@dataclass
class Truth:
    """`by_stem`: the synset of each picture, by its name without extension; `train_counts`: pictures of each synset
    that the kit says there are, empty where it does not; `source`: the file."""

    by_stem: dict[str, str]
    source: str
    train_counts: dict[str, int] = field(default_factory=dict)


def read_truth(places: Sequence[Path], year: str, split: str) -> Truth | None:
    """The labels of a split ("val" or "test") of ILSVRC `year` from the first of the folders that has them, or None."""
    validation = f"ILSVRC{year}_validation_ground_truth.txt"
    listed = validation if split == "val" else f"ILSVRC{year}_test_ground_truth.txt"
    for place in places:
        if split == "val" and year == "2012" and (place / SOLUTION).is_file():
            return _solution(place / SOLUTION)
        for source, kit in _kits(place, (listed, META)):
            if listed in kit and META in kit:
                return _numbered(kit[listed], kit[META], year, split, f"{source}{listed}")
    # The labels of ILSVRC-2010's test set are handed out apart from the kit, whose numbers of classes they use.
    alone = [file for place in places if (file := place / listed).is_file()]
    kits = (kit for place in places if alone for _, kit in _kits(place, (validation, META)))
    meta = next((kit[META] for kit in kits if len(kit) == 2), None)
    return None if meta is None else _numbered(alone[0].read_bytes(), meta, year, split, str(alone[0]))


def _kits(place: Path, wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Those of the files that are in each development kit in the folder, or that is the folder; first where it lies."""
    folders = (place, place / "data", *sorted(place.glob("*devkit*/data")), *sorted(place.glob("*devkit*/*/data")))
    for folder in folders:
        yield f"{folder}{os.sep}", {name: (folder / name).read_bytes() for name in wanted if (folder / name).is_file()}
    for archive in sorted((*place.glob("*devkit*.tar*"), *place.glob("*devkit*.tgz"))):
        yield f"{archive}: ", _kit(archive, wanted)


def _solution(file: Path) -> Truth:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found, wrong = {}, []
    for number, row in enumerate(rows, 2):
        name, words = row.get("ImageId"), (row.get("PredictionString") or "").split()
        if not name or not words or not SYNSET.fullmatch(words[0]):
            wrong.append(f"line {number}: no picture and synset")
        else:
            found[name] = words[0]
    if wrong or not found:
        raise InputError(f"{str(file)!r} is not the solution of the validation set",
                         "Expected is ImageId,PredictionString with a synset such as n01751748 first.",
                         "Fetch it again.", wrong)
    return Truth(found, str(file))


def _numbered(text: bytes, meta: bytes, year: str, split: str, source: str) -> Truth:
    synsets, counts = _meta(meta, year, source)
    found, wrong = {}, []
    for number, word in enumerate(text.decode("ascii", "replace").split(), 1):
        synset = synsets.get(int(word)) if word.isdigit() else None
        if synset is None:
            wrong.append(f"line {number}: {word!r} is no class of {META}")
        else:
            found[f"ILSVRC{year}_{split}_{number:08d}"] = synset
    if wrong or not found:
        raise InputError(f"{source!r} does not fit its {META}", "Expected is a class's number on each line.",
                         "Fetch the development kit again.", wrong)
    return Truth(found, source, counts)


def _meta(data: bytes, year: str, source: str) -> tuple[dict[int, str], dict[str, int]]:
    """(the synset of each number, the training pictures of each synset)."""
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        numbers = [int(number) for number in synsets[f"ILSVRC{year}_ID"]]
        names = [str(name) for name in synsets["WNID"]]
        leaves = [int(count) == 0 for count in synsets["num_children"]]
        known = "num_train_images" in (synsets.dtype.names or ())
        counts = [int(count) for count in synsets["num_train_images"]] if known else [0] * len(names)
    except Exception as problem:  # whatever the reader meets in a damaged file
        raise InputError(f"{source!r}: its {META} can't be read ({type(problem).__name__}: {problem})",
                         mend="Fetch the development kit again.") from None
    chosen = [at for at, leaf in enumerate(leaves) if leaf]
    return ({numbers[at]: names[at] for at in chosen},
            {names[at]: counts[at] for at in chosen} if known else {})


def _kit(archive: Path, wanted: Sequence[str]) -> dict[str, bytes]:
    """The files of these names in a development kit, which is small."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as kit:
            for member in regular(kit):
                name = member.name.rsplit("/", 1)[-1]
                if name in wanted and member.size <= MOST:
                    stream = kit.extractfile(member)
                    assert stream is not None
                    found[name] = stream.read()
    except Exception as problem:  # a damaged or hostile archive may end in any
        raise InputError(f"{str(archive)!r} is not a whole development kit: {problem}",
                         mend="Fetch it again.") from None
    return found
