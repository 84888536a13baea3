"""Exact sums over the training pictures: integers, so that neither order nor threads change a statistic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from layerwise.data.source import Samples
from layerwise.processor import cores
from layerwise.randomness import permutation

MOST_FILES = 5_000  # of a folder's pictures; memory is cheap to read, files are not
CHUNK = 64

Picture = NDArray[np.uint8]
Outcome = TypeVar("Outcome")


def representative(samples: Samples) -> NDArray[np.int64]:
    """The indices that statistics are taken over: all in memory; of files at most 5,000, drawn without a seed.

    The draw depends on the number of files alone, so that every seed of an experiment has the same preprocessing.
    """
    size = len(samples)
    if samples.images is not None or size <= MOST_FILES:
        return np.arange(size, dtype=np.int64)
    return np.sort(permutation(0, 0, size, "statistics")[:MOST_FILES])


def pictures(samples: Samples, change: Callable[[Picture], Outcome]) -> Iterator[Sequence[Outcome]]:
    """What `change` makes of the representative pictures, decoded in threads, a few dozen at a time."""
    indices = [int(index) for index in representative(samples)]
    with ThreadPoolExecutor(cores(), "layerwise-statistics") as pool:
        for start in range(0, len(indices), CHUNK):
            yield list(pool.map(lambda index: change(samples.read(index)), indices[start : start + CHUNK]))


def histograms(images: Picture) -> NDArray[np.int64]:
    """How often each value occurs in each channel: (..., C) uint8 -> (C, 256)."""
    return np.stack(
        [np.bincount(images[..., band].ravel(), minlength=256) for band in range(images.shape[-1])]
    ).astype(np.int64)


def mean_and_deviation(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel on the 0..1 scale from (C, 256) counts: (C,), (C,).

    The sums are exact integers; a channel of one value has deviation 0.
    """
    means, deviations = [], []
    for row in counts.tolist():
        total = sum(row)
        first = sum(value * times for value, times in enumerate(row))
        second = sum(value * value * times for value, times in enumerate(row))
        means.append(first / total / 255)
        deviations.append(((total * second - first * first) / total**2) ** 0.5 / 255)
    return np.array(means), np.array(deviations)
