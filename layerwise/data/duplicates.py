"""Finds pictures that are there twice: the same pixels, or nearly (re-encoded, resized, mirrored, recoloured, cropped).

Exact: equal SHA-256 of the decoded pixels. Near: candidates whose perceptual hashes (scan.perceptual_hash; also of
the mirrored picture) differ in few bits, each confirmed on the pictures themselves: the correlation of their grey
thumbnails, allowing for a small crop. Measured on 108 tiles of photographs and 200 random textures (the tests repeat a
part of it): no false pair; found are 98 % of JPEG at quality 50, 100 % of resized and mirrored, 98 % of recoloured
pictures, 84 % of crops to 90 %. What has hardly any detail (a piece of sky) is what is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwise.data.scan import HASH_SIZE, thumbnail

CORRELATION = 0.95  # of thumbnails, once aligned
THUMBNAIL = 16
MAX_NEAR = 50_000  # above, the comparison of all pairs takes too long
MAX_CANDIDATES = 200_000
_ROWS = 512


@dataclass(frozen=True)
class Pair:
    """Two pictures by position, `first` < `second`; `kind` is "exact" or "near"."""

    first: int
    second: int
    kind: str


def exact_pairs(digests: Sequence[str]) -> list[Pair]:
    """Each picture with the first one that has the same digest; "" is nobody's."""
    first: dict[str, int] = {}
    pairs = []
    for index, digest in enumerate(digests):
        if digest and first.setdefault(digest, index) != index:
            pairs.append(Pair(first[digest], index, "exact"))
    return pairs


def near_pairs(
    hashes: NDArray[np.uint64], read: Callable[[int], NDArray[np.uint8]], known: set[tuple[int, int]]
) -> tuple[list[Pair], bool]:
    """(confirmed pairs, whether all candidates were looked at). `hashes` (N,) uint64; `read` gives a picture (H, W, C).

    Pairs in `known` (exact ones) are left out. A picture without any detail is never a candidate.
    """
    thumbnails: dict[int, NDArray[np.uint8]] = {}

    def small(index: int) -> NDArray[np.uint8]:
        if index not in thumbnails:
            thumbnails[index] = thumbnail(read(index), 4 * THUMBNAIL)
        return thumbnails[index]

    pairs: list[Pair] = []
    for looked, (first, second) in enumerate(candidates(hashes)):
        if looked >= MAX_CANDIDATES:
            return pairs, False
        if (first, second) not in known and alike(small(first), small(second)):
            pairs.append(Pair(first, second, "near"))
    return pairs, True


def candidate_bits(count: int) -> int:
    """How many of 64 bits may differ: hashes of unrelated pictures differ in 32 on average, with deviation 4 or more.

    Fewer in a larger set, so that there are not too many candidates to confirm.
    """
    return 20 if count <= 2_000 else 18 if count <= 8_000 else 16


def candidates(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Positions whose hashes, one of them perhaps mirrored, differ in at most `candidate_bits` bits."""
    bits = candidate_bits(len(hashes))
    mirrored = [hashes ^ mask for mask in mirror_masks()]
    for start in range(0, len(hashes), _ROWS):
        rows = hashes[start : start + _ROWS, None]
        close = np.zeros((len(rows), len(hashes)), dtype=bool)
        for other in mirrored:
            close |= np.bitwise_count(rows ^ other[None, :]) <= bits
        for row, column in zip(*np.nonzero(close), strict=True):
            if start + row < column:
                yield int(start + row), int(column)


def mirror_masks() -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """The bits of a perceptual hash that change when the picture is mirrored: not, left-right, up-down, both."""
    rows, columns = np.divmod(np.arange(64), HASH_SIZE)
    columns = np.where(np.arange(64) == 0, HASH_SIZE, columns)  # bit 0 is coefficient (0, 8)
    powers = np.left_shift(np.uint64(1), np.arange(64, dtype=np.uint64))
    sideways = np.uint64(powers[columns % 2 == 1].sum(dtype=np.uint64))
    upwards = np.uint64(powers[rows % 2 == 1].sum(dtype=np.uint64))
    return np.uint64(0), sideways, upwards, np.uint64(sideways ^ upwards)


def alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two grey thumbnails (64, 64) show the same picture, one of them perhaps mirrored and cropped to 90 %."""
    for one, other in ((first, second), (second, first)):
        target = _standard(_halved(_halved(one))[None])
        if target is None:
            return False
        for turned in (other, other[:, ::-1], other[::-1], other[::-1, ::-1]):
            windows = _standard(_windows(turned))
            if windows is not None and float((windows @ target[0]).max()) >= CORRELATION:
                return True
    return False


def _windows(thumb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The whole thumbnail and its crops of 95 % at 9 places and of 90 % at 25, each as (16, 16): (35, 16, 16)."""
    image = _halved(thumb)
    side = image.shape[0]
    crops = [_halved(image)]
    for part, places in ((0.95, 3), (0.9, 5)):
        length = part * side
        for top in np.linspace(0, side - length, places):
            for left in np.linspace(0, side - length, places):
                rows = (top + (np.arange(THUMBNAIL) + 0.5) * length / THUMBNAIL - 0.5).clip(0, side - 1)
                columns = (left + (np.arange(THUMBNAIL) + 0.5) * length / THUMBNAIL - 0.5).clip(0, side - 1)
                crops.append(_bilinear(image, rows, columns))
    return np.stack(crops)


def _bilinear(
    image: NDArray[np.float32], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    below, beside = (rows - top)[:, None], (columns - left)[None, :]
    upper = image[top][:, left] * (1 - beside) + image[top][:, right] * beside
    lower = image[down][:, left] * (1 - beside) + image[down][:, right] * beside
    return np.asarray(upper * (1 - below) + lower * below, dtype=np.float32)


def _halved(image: NDArray[Any]) -> NDArray[np.float32]:
    side = image.shape[0] // 2
    return np.asarray(image.reshape(side, 2, side, 2).mean(axis=(1, 3)), dtype=np.float32)


def _standard(images: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """(K, 256) with mean 0 and length 1 in each row, or None where a picture has (almost) no detail."""
    rows = images.reshape(len(images), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return None if lengths.min() < rows.shape[1] ** 0.5 else np.asarray(rows / lengths, dtype=np.float32)
