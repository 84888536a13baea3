"""Random windows of small pictures with borders, mirrored or not: whole batches, without a step for each picture.

`Windows` takes them in this machine's memory, `DeviceWindows` on the device where the whole set lies: the same pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

AT_ONCE = 4096  # pictures that are sent to the device together


class Windows:
    """Takes windows of (H, W) from pictures of that size with a border of `pad` pixels of `colour` around them.

    The pictures are laid into one array whose borders stay as they are: those to be mirrored last and already
    mirrored, by torch, since numpy's copy of three bytes at a time takes six times as long. Windows are then whole
    rows of it.
    """

    def __init__(self, count: int, shape: tuple[int, ...], pad: int, colour: NDArray[np.uint8]) -> None:
        """For at most `count` pictures of `shape` (H, W, C) at a time."""
        height, width, channels = self.shape = shape
        self.places = 2 * pad + 1
        bordered = np.empty((count, height + 2 * pad, (width + 2 * pad) * channels), np.uint8)
        bordered[:] = np.tile(colour, width + 2 * pad)
        self.inside = bordered.reshape(count, height + 2 * pad, -1, channels)[
            :, pad : pad + height, pad : pad + width
        ]
        whole, row, _ = bordered.strides
        # (picture, top, left, rows of the window, bytes of a row)
        self.views = as_strided(
            bordered,
            (count, self.places, self.places, height, width * channels),
            (whole, row, channels, row, 1),
            writeable=False,
        )
        self.taken = np.empty((count, *shape), np.uint8)

    def crop(
        self,
        images: NDArray[np.uint8],
        indices: NDArray[np.int64],
        numbers: NDArray[np.float64],
        flip: NDArray[np.bool_],
    ) -> NDArray[np.uint8]:
        """The windows of `images[indices]`, (N, H, W, C), mirrored where `flip` (N,) says so.

        `numbers` (N, 2) are uniform in [0, 1): top and left, each of the 2 pad + 1 equally likely.
        """
        count = len(indices)
        order = np.argsort(flip, kind="stable")
        straight = count - int(np.count_nonzero(flip))
        taken = np.take(images, indices[order], axis=0, out=self.taken[:count], mode="clip")
        self.inside[:straight] = taken[:straight]
        self.inside[straight:count] = torch.from_numpy(taken[straight:]).flip(2).numpy()
        offsets = (numbers * self.places).astype(np.int64)
        left = np.where(flip, self.places - 1 - offsets[:, 1], offsets[:, 1])
        where = np.empty(count, np.int64)
        where[order] = np.arange(count)
        return self.views[where, offsets[:, 0], left].reshape(count, *self.shape)


class DeviceWindows:
    """The same windows of a whole set of pictures that lies on a device: what travels for a batch is where they lie."""

    def __init__(self, images: NDArray[np.uint8], pad: int, colour: NDArray[np.uint8], device: torch.device) -> None:
        """Sends `images` (N, H, W, C) to `device`, each with a border of `pad` pixels of `colour` (C,)."""
        count, *self.sides, channels = images.shape
        height, width = self.sides
        self.places, self.device = 2 * pad + 1, device
        shape = (count, height + 2 * pad, width + 2 * pad, channels)
        self.bordered = torch.empty(shape, dtype=torch.uint8, device=device)
        self.bordered[:] = torch.from_numpy(colour).to(device)
        for first in range(0, count, AT_ONCE):
            part = torch.from_numpy(images[first : first + AT_ONCE].copy()).to(device)
            self.bordered[first : first + AT_ONCE, pad : pad + height, pad : pad + width] = part

    def crop(self, indices: NDArray[np.int64], numbers: NDArray[np.float64], flip: NDArray[np.bool_]) -> Tensor:
        """As `Windows.crop`, (N, H, W, C) on the device; without a border `numbers` may be (N, 0)."""
        height, width = self.sides
        offsets = np.zeros((len(indices), 2), np.int64)
        offsets[:, : numbers.shape[1]] = (numbers * self.places).astype(np.int64)
        across = np.where(flip[:, None], np.arange(width)[::-1], np.arange(width))
        pictures, rows, columns = (torch.from_numpy(where).to(self.device, non_blocking=True) for where in (
            indices, offsets[:, :1] + np.arange(height), offsets[:, 1:] + across))
        return self.bordered[pictures[:, None, None], rows[:, :, None], columns[:, None, :]]
