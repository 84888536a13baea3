"""Finds pictures that are there twice: the same pixels, or nearly (re-encoded, resized, mirrored, recoloured, cropped).

Exact: equal SHA-256 of the decoded pixels. Near: candidates whose perceptual hashes (scan.perceptual_hash, also of the
mirrored picture) differ in few bits, each confirmed on the pictures themselves: the correlation of their grey
thumbnails, allowing for a small crop. Measured on 108 tiles of photographs and 200 random textures (the tests repeat a
part of it): found are 98 % of JPEG at quality 50, 100 % of resized and mirrored, 98 % of recoloured pictures, 84 % of
crops to 90 %. What has hardly any detail (a piece of sky) is what is missed, or taken for its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, kron, vstack

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
    looks: dict[int, Look] = {}

    def seen(index: int) -> Look:
        if index not in looks:
            looks[index] = look(thumbnail(read(index), 4 * THUMBNAIL))
        return looks[index]

    pairs: list[Pair] = []
    for looked, (first, second) in enumerate(candidates(hashes)):
        if looked >= MAX_CANDIDATES:
            return pairs, False
        if (first, second) not in known and alike(seen(first), seen(second)):
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


@dataclass(frozen=True, eq=False)
class Look:
    """A picture ready for comparison; rows have mean 0 and length 1, or are zeros where there is (almost) no detail."""

    whole: NDArray[np.float32]  # (4, 256): the thumbnail, and mirrored left-right, up-down, both
    windows: NDArray[np.float32]  # (35, 256): the thumbnail and its crops


def look(thumb: NDArray[np.uint8]) -> Look:
    """From a grey thumbnail (64, 64)."""
    halved = _halved(thumb)
    small = _halved(halved)
    turned = np.stack([small, small[:, ::-1], small[::-1], small[::-1, ::-1]])
    windows = (_WINDOWS @ halved.ravel()).reshape(-1, THUMBNAIL * THUMBNAIL)
    return Look(_standard(turned.reshape(4, -1)), _standard(np.concatenate([small.reshape(1, -1), windows])))


def alike(first: Look, second: Look) -> bool:
    """Whether both show the same picture, one of them perhaps mirrored and cropped to 90 %."""
    best = max((first.windows @ second.whole.T).max(), (second.windows @ first.whole.T).max())
    return bool(best >= CORRELATION)


def _crops() -> csr_matrix:
    """Bilinear sampling of 95 % at 9 places and 90 % at 25, each to 16 x 16, from 32 x 32: (34 * 256, 1024), sparse."""
    side = 2 * THUMBNAIL
    blocks = []
    for part, places in ((0.95, 3), (0.9, 5)):
        starts = np.linspace(0, side * (1 - part), places)
        samplers = [_sampler(start, part * side, side) for start in starts]
        blocks += [kron(rows, columns, format="csr") for rows in samplers for columns in samplers]
    return csr_matrix(vstack(blocks))


def _sampler(start: float, length: float, side: int) -> csr_matrix:
    """(16, side): linear interpolation at 16 cell centres of the stretch."""
    at = (start + (np.arange(THUMBNAIL) + 0.5) * length / THUMBNAIL - 0.5).clip(0, side - 1)
    low = np.minimum(np.floor(at).astype(int), side - 2)
    weights = np.zeros((THUMBNAIL, side), dtype=np.float32)
    weights[np.arange(THUMBNAIL), low] = 1 - (at - low)
    weights[np.arange(THUMBNAIL), low + 1] = at - low
    return csr_matrix(weights)


_WINDOWS = _crops()


def _halved(image: NDArray[Any]) -> NDArray[np.float32]:
    side = image.shape[0] // 2
    return np.asarray(image.reshape(side, 2, side, 2).mean(axis=(1, 3)), dtype=np.float32)


def _standard(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(lengths < rows.shape[1] ** 0.5, 0, rows / np.maximum(lengths, 1e-6)).astype(np.float32)
