"""Random numbers that are a pure function of (seed, epoch, sample, stage, counter).

There is no generator and so no state to save or lose: a worker, a process or a resumed run that asks for the numbers
of a sample gets the numbers every other would get.

The counter is hashed with the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, with Stafford's "Mix13" constants). (seed, epoch, stage) become two 64-bit keys by SHA-256;
the first starts a stream for each sample, the second separates the counters within it:

    start(sample)           = mix(key0 + GOLDEN * sample)
    bits(sample, counter)   = mix((start(sample) ^ key1) + GOLDEN * counter)        modulo 2**64
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, odd: SplitMix64's step


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, a bijection of 64-bit words; any shape."""
    words = words ^ (words >> np.uint64(30))
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def random_bits(seed: int, epoch: int, samples: NDArray[np.int64], stage: str, count: int = 1) -> NDArray[np.uint64]:
    """64 random bits for each sample and counter: (N, count) uint64."""
    digest = hashlib.sha256(_message(seed, epoch, stage)).digest()
    key0, key1 = (np.uint64(int.from_bytes(digest[at : at + 8], "little")) for at in (0, 8))
    indices = np.asarray(samples).astype(np.int64).reshape(-1, 1).astype(np.uint64)
    counters = np.arange(count, dtype=np.uint64).reshape(1, -1)
    starts = mix(indices * GOLDEN + key0)  # arrays wrap modulo 2**64 without a warning
    return mix((starts ^ key1) + counters * GOLDEN)


def uniform(seed: int, epoch: int, samples: NDArray[np.int64], stage: str, count: int = 1) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 random bits: (N, count).

    `samples` are the samples' stable indices in the training split, `stage` names what the numbers are for.
    """
    bits = random_bits(seed, epoch, samples, stage, count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, epoch: int, samples: NDArray[np.int64], stage: str, count: int = 1) -> NDArray[np.float64]:
    """Standard normal numbers by the inverse of the distribution function: (N, count), always finite.

    The uniform number is the centre of one of 2**52 equal cells, so neither 0 nor 1 is ever inverted.
    """
    from scipy.special import ndtri  # a third of a second that `predict` has no need of

    bits = random_bits(seed, epoch, samples, stage, count)
    centres = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return np.asarray(ndtri(centres), dtype=np.float64)


def permutation(seed: int, epoch: int, size: int, stage: str = "order") -> NDArray[np.int64]:
    """A random permutation of 0 .. size-1: the stable order of the 64-bit hashes of the positions; (size,) int64."""
    bits = random_bits(seed, epoch, np.arange(size, dtype=np.int64), stage)[:, 0]
    return np.argsort(bits, kind="stable").astype(np.int64)


def derived_seed(seed: int, *parts: int | str) -> int:
    """A seed of 63 bits from a seed and what it is for, for torch.manual_seed: derived_seed(0, "dropout", step)."""
    return int.from_bytes(hashlib.sha256(_message(seed, *parts)).digest()[:8], "little") >> 1


def _message(*parts: int | str) -> bytes:
    """Unambiguous bytes: ("1", 2) and (1, "2") differ, and so do ("ab", "c") and ("a", "bc")."""
    return json.dumps([part if isinstance(part, str) else int(part) for part in parts]).encode()
