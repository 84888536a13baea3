"""What a network needs to see: the fall of a class's probability while a square covers part of the picture.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, section 4.2 and figure 7 (d).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.attribution import Classes, chosen, rows
from layerwise.explain.order import mode

BATCH = 64  # covered pictures at a time


@dataclass(frozen=True)
class Occlusion:
    """Occlusion maps of K classes of N pictures.

    `drops` (N, K, H, W): how much lower the class's probability was while the square lay on a pixel, the mean over
    the squares that did. Below 0 where the covered part spoke against the class. `probabilities` (N, K) uncovered.
    """

    drops: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def occlusion(
    model: nn.Module, images: Tensor, classes: Classes, window: int, stride: int, fill: float = 0.0
) -> Occlusion:
    """Slides a square of `window` pixels over `images` (N, C, H, W) in steps of `stride`, for `classes` (N, K).

    The square has the value `fill` in the network's input space, where 0 is the mean colour. The last squares are cut
    off at the right and lower border, so that every pixel is covered. Raises InputError for a window or stride below 1,
    and a stride above the window, which would leave pixels uncovered.
    """
    if not 1 <= stride <= window:
        raise InputError(f"window={window}, stride={stride}: pixels would be left uncovered",
                         mend="Choose a stride from 1 to the window's side.")
    height, width = images.shape[2:]
    corners = [(top, left) for top in _starts(height, window, stride) for left in _starts(width, window, stride)]
    drops, whole = [], []
    with mode(model, training=False), torch.no_grad():
        for image, wanted in zip(images, rows(classes, len(images)), strict=True):
            before = chosen(model(image[None]).softmax(1), wanted[None])[0]  # (K)
            total = torch.zeros(len(before), height, width, device=image.device)
            squares = torch.zeros(height, width, device=image.device)
            for first in range(0, len(corners), BATCH):
                part = corners[first : first + BATCH]
                covered = image.repeat(len(part), 1, 1, 1)
                for copy, (top, left) in zip(covered, part, strict=True):
                    copy[:, top : top + window, left : left + window] = fill
                after = chosen(model(covered).softmax(1), wanted.expand(len(part), -1))  # (squares, K)
                for fall, (top, left) in zip(before - after, part, strict=True):
                    total[:, top : top + window, left : left + window] += fall[:, None, None]
                    squares[top : top + window, left : left + window] += 1
            drops.append((total / squares).cpu().numpy())
            whole.append(before.float().cpu().numpy())
    return Occlusion(np.stack(drops), np.stack(whole))


def _starts(side: int, window: int, stride: int) -> range:
    """Where the squares begin along a side: one pixel after another is covered, up to the last."""
    return range(0, max(side - window, 0) + stride, stride)
