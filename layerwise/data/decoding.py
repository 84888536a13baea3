"""Pictures for training crops: JPEGs decoded no larger than the crop needs.

A JPEG is stored as transforms of 8x8 blocks, and can be decoded at 1/2, 1/4 or 1/8 of its size straight from the first
coefficients of each. A crop that will be shrunk to the network's input anyway takes the smallest of these pictures in
which it still has at least as many pixels as that input. Where none of them does, the pixels are those of `open_image`
to the bit. Only training crops are read like this; evaluation and prediction decode every picture whole.

`open_image` stays the judge of what a file is: here are grey and colour JPEGs alone, under its caps, its check of the
container and its rule for EXIF, and whatever is odd or fails is left to it, with its messages. The pixels are
simplejpeg's where that is installed, which is faster, else Pillow's; both are libjpeg-turbo and agree to the bit
(tests/test_decoding.py), so what is installed changes nothing but speed.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from layerwise.data import container
from layerwise.data.images import ImageRules, _turned
from layerwise.errors import InputError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

turbo: Callable[..., NDArray[np.uint8]] | None = None if simplejpeg is None else simplejpeg.decode_jpeg
SCALES = (8, 4, 2)  # what Pillow and simplejpeg both offer; libjpeg's others (7/8, 3/4, 5/8) cost more than the whole
END = b"\xff\xd9"

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # top, left, height, width


class Readable(Protocol):
    """A file, or a piece of one."""

    def read_bytes(self) -> bytes:
        """All its bytes."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture for a crop: `pixels` (h, w, C) uint8, upright, of a picture of `height` and `width`.

    h is height / scale, rounded up, and so w.
    """

    pixels: Picture
    height: int
    width: int
    scale: int = 1

    @staticmethod
    def whole(pixels: Picture) -> Opened:
        """A picture that was not made smaller."""
        return Opened(pixels, pixels.shape[0], pixels.shape[1])

    def part(self, box: Box) -> Picture:
        """The pixels of a box of the whole picture; its edges move by at most half a pixel of the smaller one.

        In a picture that EXIF turns they may move by one more, where its sides are no multiples of the scale.
        """
        edges = []
        for start, extent, side in zip(box[:2], box[2:], self.pixels.shape[:2], strict=True):
            first, last = ((2 * edge + self.scale) // (2 * self.scale) for edge in (start, start + extent))
            first = min(first, side - 1)
            edges.append(slice(first, min(max(last, first + 1), side)))
        return self.pixels[edges[0], edges[1]]


def largest_scale(down: int, across: int, size: int) -> int:
    """The largest of 8, 4, 2 by which a part of (down, across) pixels may shrink and keep `size` both ways; else 1."""
    return next((scale for scale in SCALES if min(down, across) // scale >= size), 1)


def open_scaled(file: Readable, rules: ImageRules, choose: Callable[[int, int], int]) -> Opened | None:
    """A JPEG decoded at 1 / `choose(height, width)` of its upright size, where that is 1, 2, 4 or 8.

    None where the file is for `open_image`: another format, an odd JPEG, or one that cannot be read.
    """
    try:
        data = _content(file, rules)
        # The end marker is nearly always where it belongs, and searching for it would hold up the other threads.
        if data[:3] != b"\xff\xd8\xff" or (not data.endswith(END) and container.damage(data, "JPEG")):
            return None
        picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        width, height = picture.size
        if picture.mode not in ("RGB", "L") or not 0 < width * height <= rules.max_pixels:
            return None
        turn, readable = container.orientation(picture.info.get("exif", b""))
        if not readable:
            return None
        turn = turn if rules.exif == "apply" else 1
        height, width = (width, height) if turn >= 5 else (height, width)
        scale = choose(height, width)
        pixels = _pixels(data, picture, scale)
    except (InputError, OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError):
        return None
    return Opened(pixels if turn == 1 else _turned(pixels, turn), height, width, scale)


def _content(file: Readable, rules: ImageRules) -> bytes:
    """The file's bytes; an error where it is no file (a pipe would never end) or above the cap."""
    if isinstance(file, Path):
        state = file.stat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > rules.max_bytes:
            raise OSError("no file, or too long")
    data = file.read_bytes()
    if len(data) > rules.max_bytes:
        raise OSError("too long")
    return data


def _pixels(data: bytes, picture: JpegImagePlugin.JpegImageFile, scale: int) -> Picture:
    """The JPEG's pixels (H / scale, W / scale, C), sides rounded up, as stored."""
    height, width = (-(-side // scale) for side in (picture.height, picture.width))
    if turbo is not None:
        colours = "GRAY" if picture.mode == "L" else "RGB"
        try:
            # The factor is the least shrinking, the sides are the most of it.
            decoded = turbo(data, colours, min_factor=scale, min_height=height, min_width=width)
        except ValueError:  # also for what libjpeg only warns of: Pillow decides
            decoded = None
        if decoded is not None and decoded.shape[:2] == (height, width):
            return np.asarray(decoded)
    if scale > 1:
        picture.draft(None, (picture.width // scale, picture.height // scale))
    pixels = np.asarray(picture, dtype=np.uint8)
    if pixels.shape[:2] != (height, width):
        raise ValueError("decoded at another scale")
    return pixels if pixels.ndim == 3 else pixels[..., None]
