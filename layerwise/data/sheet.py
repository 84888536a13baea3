"""A contact sheet: pairs of pictures side by side in one PNG, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELL = 96
COLUMNS = 6


def contact_sheet(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], file: Path) -> None:
    """Writes the pairs (pictures (H, W, C)) in rows of six, each picture within 96 x 96 pixels on white, as PNG."""
    rows = -(-len(pairs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (2 * CELL + 12), max(1, rows) * (CELL + 12)), "white")
    for index, pair in enumerate(pairs):
        row, column = divmod(index, COLUMNS)
        for side, pixels in enumerate(pair):
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
            scale = CELL / max(image.size)
            size = tuple(max(1, round(length * scale)) for length in image.size)
            resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
            image = image.resize((size[0], size[1]), resampling)
            sheet.paste(image, (column * (2 * CELL + 12) + side * (CELL + 2), row * (CELL + 12)))
    sheet.save(file, "PNG")
