"""What a network needs to see: the fall of a class's probability while a square covers part of the picture.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, section 4.2 and figure 7 (d). Their
square is grey; a square is also something to see, with edges of its own. Covering with the blurred picture takes
details away and adds none: Fong, Vedaldi, "Interpretable explanations of black boxes by meaningful perturbation", 2017,
section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
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


def blurred(images: Tensor, deviation: float) -> Tensor:
    """`images` (N, C, H, W) under a Gaussian of `deviation` pixels, mirrored at the border: a cover for `occlusion`."""
    found = gaussian_filter(images.cpu().numpy(), (0, 0, deviation, deviation), mode="mirror")
    return torch.from_numpy(found).to(images)


def occlusion(
    model: nn.Module, images: Tensor, classes: Classes, window: int, stride: int, cover: float | Tensor = 0.0
) -> Occlusion:
    """Slides a square of `window` pixels over `images` (N, C, H, W) in steps of `stride`, for `classes` (N, K).

    The square has the value `cover` in the network's input space, where 0 is the mean colour, or shows that part of
    `cover` (N, C, H, W), such as `blurred(images, window / 2)`. The last squares are cut off at the right and lower
    border, so that every pixel is covered. Raises InputError for a window or stride below 1, a stride above the window,
    which would leave pixels uncovered, and a cover of another shape than the pictures'.
    """
    if not 1 <= stride <= window:
        raise InputError(f"window={window}, stride={stride}: pixels would be left uncovered",
                         mend="Choose a stride from 1 to the window's side.")
    if isinstance(cover, Tensor) and cover.shape != images.shape:
        raise InputError(f"cover of shape {tuple(cover.shape)} for pictures of {tuple(images.shape)}",
                         mend="Give a cover of the pictures' shape, such as blurred(images, window / 2).")
    covers = cover if isinstance(cover, Tensor) else torch.full_like(images, cover)
    height, width = images.shape[2:]
    corners = [(top, left) for top in _starts(height, window, stride) for left in _starts(width, window, stride)]
    drops, whole = [], []
    with mode(model, training=False), torch.no_grad():
        for image, hidden, wanted in zip(images, covers, rows(classes, len(images)), strict=True):
            before = chosen(model(image[None]).softmax(1), wanted[None])[0]  # (K)
            total = torch.zeros(len(before), height, width, device=image.device)
            squares = torch.zeros(height, width, device=image.device)
            for first in range(0, len(corners), BATCH):
                part = corners[first : first + BATCH]
                covered = image.repeat(len(part), 1, 1, 1)
                for copy, (top, left) in zip(covered, part, strict=True):
                    place = (slice(None), slice(top, top + window), slice(left, left + window))
                    copy[place] = hidden[place]
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
