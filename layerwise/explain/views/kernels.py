"""View: the kernels of the first convolution, both towers apart, as in the AlexNet paper's figure 3."""

from __future__ import annotations

import numpy as np
import torch

from layerwise.explain.kernels import colour_shares, first_kernels, levels
from layerwise.explain.pictures import Pixels, uri
from layerwise.explain.subject import Subject
from layerwise.explain.view import Gallery, Table, Tile, View, Words

FEW = 32  # kernels are drawn larger
MOST = 256  # kernels that are drawn
ENLARGED = 44  # pixels a side, at least; whole multiples, so that a kernel's own pixels stay sharp


def view(subject: Subject) -> View:
    """The kernels as small pictures, a gallery a tower, and how specific to colours each tower is."""
    side, channels = subject.file.preprocess.size, subject.file.preprocess.channels
    found = first_kernels(subject.file.model, torch.zeros(1, channels, side, side))
    count, depth, height, width = found.weights.shape
    drawable = depth in (1, 3)
    shares = colour_shares(found.weights)
    parts: list[Words | Table | Gallery] = []
    if drawable and depth == 3:
        parts.append(Table(
            "How specific to colours the kernels are: the part of their energy off the grey axis (0: grey alone; 2/3: "
            "what random kernels have).", ("tower", "kernels", "mean", "smallest", "largest"),
            tuple((f"kernels {first + 1} to {behind}", behind - first, *(round(float(value), 3) for value in (
                shares[first:behind].mean(), shares[first:behind].min(), shares[first:behind].max())))
                  for first, behind in found.towers)))  # fmt: skip
    elif drawable:
        parts.append(Words("The network takes grey pictures, so its kernels have no colours to be specific to."))
    pixels = levels(found.weights if drawable else found.weights.mean(1, keepdim=True)).to(torch.uint8).numpy()
    if not drawable:
        parts.append(Words(f"The kernels take {depth} channels each, which no picture shows: their mean is drawn."))
    for first, behind in found.towers:
        tiles = tuple(Tile(uri(_enlarged(pixels[number]))) for number in range(first, min(behind, first + MOST)))
        which = f"Kernels {first + 1} to {behind}" if len(found.towers) > 1 else f"All {count} kernels"
        parts.append(Gallery(f"{which} of {found.layer}, {height}×{width}×{depth}, each from its lowest value (black) "
                             "to its highest.", tiles, "small" if count > FEW else "medium"))
    bounds = (f"the first {MOST} kernels of a tower",) if any(b - a > MOST for a, b in found.towers) else ()
    return View(
        "kernels", "First-layer kernels",
        "What the first layer looks for: edges, blobs and colours in a trained network. Noise, or many equal or empty "
        "kernels, is a sign of too short a training, too high a rate or too little decay.",
        "What a kernel is good for: later layers decide that. Each is drawn on its own scale, so a strong one and a "
        "weak one look alike.",
        "Krizhevsky, Sutskever, Hinton 2012, section 6.1 and figure 3", tuple(parts), bounds)  # fmt: skip


def _enlarged(kernel: Pixels) -> Pixels:
    scale = max(1, -(-ENLARGED // max(kernel.shape[:2])))
    return np.repeat(np.repeat(kernel, scale, axis=0), scale, axis=1)
