"""What a data set is to everything else: labelled pictures in splits, with class names, ids and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from layerwise.data.images import ImageRules, open_image
from layerwise.data.pieces import Source
from layerwise.data.scan import Scanned, scan_files
from layerwise.errors import InputError

SMALL_SIDE = 64
SMALL_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled pictures of one split, either in memory (`images`) or as files or pieces of files (`paths`).

    `labels` (N,) int64 index `class_names`; `ids` are stable and unique within a data set ("train/cat/3.jpg",
    "fashion-mnist/train/17"); `images` are (N, H, W, C) uint8 with C 1 or 3. Raises InputError where these
    disagree or a label is out of range.
    """

    name: str
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    images: NDArray[np.uint8] | None = None
    paths: tuple[Source, ...] | None = None
    rules: ImageRules = field(default_factory=ImageRules)
    digests: tuple[str, ...] | None = None  # SHA-256 (hex) of each file, where it is known already
    shapes: NDArray[np.int32] | None = None  # (N, 3): height, width and channels of each file, where known already

    def __post_init__(self) -> None:
        content = self.images if self.images is not None else self.paths
        if content is None or (self.images is not None and self.paths is not None):
            raise InputError(f"split {self.name!r} needs either pictures in memory or paths, not both")
        if not len(content) == len(self.labels) == len(self.ids):
            raise InputError(
                f"split {self.name!r} has {len(content)} pictures, {len(self.labels)} labels and {len(self.ids)} ids",
                "Each picture has one label and one id.",
            )
        if self.images is not None and (
            self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] not in (1, 3)
        ):
            raise InputError(
                f"split {self.name!r} has pictures of shape {self.images.shape}, {self.images.dtype}",
                "They are uint8, (N, H, W, C) with 1 or 3 channels.",
            )
        if self.labels.ndim != 1 or self.labels.dtype != np.int64:
            raise InputError(
                f"split {self.name!r} has labels of shape {self.labels.shape}, {self.labels.dtype}",
                "They are int64, one a picture; several labels a picture are not supported.",
            )
        bad = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if bad.size:
            raise InputError(
                f"{bad.size} labels of split {self.name!r} are out of range",
                f"There are {len(self.class_names)} classes, so labels are 0 to {len(self.class_names) - 1}.",
                "Correct the labels.",
                [f"label {self.labels[i]} of {self.ids[i]!r}" for i in bad],
            )

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The picture (H, W, C) uint8; InputError with path and reason where the file can't be opened."""
        if self.images is not None:
            return np.asarray(self.images[index])
        assert self.paths is not None
        return open_image(self.paths[index], self.rules)[0]

    def subset(self, indices: Sequence[int] | NDArray[np.int64], name: str) -> Samples:
        """The samples at `indices`, in that order, as a split called `name`."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            name=name,
            labels=self.labels[chosen],
            ids=tuple(self.ids[i] for i in chosen),
            images=None if self.images is None else self.images[chosen],
            paths=None if self.paths is None else tuple(self.paths[i] for i in chosen),
            digests=None if self.digests is None else tuple(self.digests[i] for i in chosen),
            shapes=None if self.shapes is None else self.shapes[chosen],
        )

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Pictures of each class, in the order of `class_names`."""
        return tuple(int(count) for count in np.bincount(self.labels, minlength=len(self.class_names)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over class names, ids, labels and content: the arrays' bytes, or the SHA-256 of each file."""
        total = hashlib.sha256(json.dumps([self.class_names, self.ids]).encode())
        total.update(self.labels.astype("<i8").tobytes())
        if self.images is not None:
            total.update(json.dumps(self.images.shape).encode())
            total.update(np.ascontiguousarray(self.images).data)
        else:
            assert self.paths is not None
            digests = self.digests or [found.sha256 for found in scan_files(self.paths, self.rules)]
            total.update("\n".join(digests).encode())
        return total.hexdigest()

    def in_memory(self, scanned: Sequence[Scanned]) -> Samples:
        """These samples with every file decoded into one array, so that they are augmented as whole batches.

        Unchanged where they are in memory already, differ in shape, exceed 64 pixels a side, or 1 GiB together.
        `scanned` are the findings for `paths`, in the same order.
        """
        if self.paths is None or not self.paths or not small_and_equal(scanned):
            return self
        first = scanned[0].facts
        assert first is not None
        images = np.empty((len(self), first.height, first.width, first.channels), dtype=np.uint8)
        for index in range(len(self)):
            images[index] = self.read(index)
        return replace(self, images=images, paths=None, digests=None, shapes=None)


def small_and_equal(scanned: Sequence[Scanned]) -> bool:
    """Whether all pictures have one shape, at most 64 pixels a side, and fit into 1 GiB together."""
    shapes = {(one.facts.height, one.facts.width, one.facts.channels) if one.facts else None for one in scanned}
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape is None:
        return False
    return max(shape[:2]) <= SMALL_SIDE and len(scanned) * shape[0] * shape[1] * shape[2] <= SMALL_BYTES


@dataclass(frozen=True, eq=False)
class DataSet:
    """The splits of one data set. `notes` say what was found, assumed, left out; they are stored in every run.

    `doubts` are those of the notes that make a number wrong: they are repeated where it is reported.
    The class names of all splits are those of `train`, in its order.
    """

    name: str
    train: Samples
    val: Samples | None
    test: Samples | None
    notes: tuple[str, ...] = ()
    licence: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Samples]:
        """The splits that exist, by name, in the order train, val, test."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: samples for name, samples in every.items() if samples is not None}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the splits' names and fingerprints."""
        parts = [[name, samples.fingerprint] for name, samples in self.splits.items()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
