"""Random windows of small pictures with borders, mirrored or not: whole batches, without a step for each picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray


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
