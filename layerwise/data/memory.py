"""Memory that is used again: of batches that nobody holds any more, and of a thread's pictures on their way.

The kernel clears each page of a fresh large buffer, which for a batch of photographs takes longer than normalising it.
"""

from __future__ import annotations

import sys
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST = 8  # batches that are kept
LARGEST = 1 << 24  # bytes that a thread keeps; a larger picture gets a buffer of its own


class Batches:
    """float32 tensors whose memory comes back once nothing refers to it: neither they nor what was made of them.

    A tensor made of an array holds a reference to the array as long as its storage lives, whoever else shares that.
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._arrays: list[NDArray[np.float32]] = []

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of this shape, not filled."""
        if self.pinned:  # torch has a cache of its own for these
            return torch.empty(shape, dtype=torch.float32, pin_memory=True)
        for array in self._arrays:
            if array.shape == shape and _free(array):
                return torch.from_numpy(array)
        fresh = torch.empty(shape, dtype=torch.float32)
        if len(self._arrays) >= MOST:
            return fresh
        # Through torch all the same: its memory is aligned as its kernels like it.
        self._arrays.append(fresh.numpy())
        return torch.from_numpy(self._arrays[-1])


def _free(array: NDArray[np.float32]) -> bool:
    """Whether only the list refers to the array, and the two names by which it got here."""
    return sys.getrefcount(array) == 4


class Scratch:
    """Bytes for the pictures that one thread works on, by the step that they are for; each use overwrites the last."""

    def __init__(self) -> None:
        self._bytes: dict[str, NDArray[np.uint8]] = {}

    def picture(self, step: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of this shape, not filled."""
        needed = prod(shape)
        if needed > LARGEST:
            return np.empty(shape, np.uint8)
        if step not in self._bytes or len(self._bytes[step]) < needed:
            self._bytes[step] = np.empty(needed, np.uint8)
        return self._bytes[step][:needed].reshape(shape)
