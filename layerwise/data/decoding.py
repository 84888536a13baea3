"""Pictures for training crops: JPEGs decoded no larger than the crop needs.

A JPEG is stored as transforms of 8x8 blocks, and can be decoded at 1/2, 1/4 or 1/8 of its size straight from the first
coefficients of each. A crop that will be shrunk to the network's input anyway takes the smallest of these pictures in
which it still has at least as many pixels as that input. Where none of them does, the pixels are those of `open_image`
to the bit. Only training crops are read like this; evaluation and prediction decode every picture whole.

`open_image` stays the judge of what a file is: here are grey and colour JPEGs alone, under its caps, its check of the
container and its rule for EXIF, and whatever is odd or fails is left to it, with its messages. The pixels are
simplejpeg's where that is installed, which is faster, else Pillow's; both are libjpeg-turbo and agree to the bit
(tests/test_decoding.py), so what is installed changes nothing but speed.

No library at hand decodes a part of a JPEG alone, but the rows below the crop can be left out: the decoder is told of a
lower picture, stops there and complains of what follows. Its rows are the whole picture's to the bit.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from layerwise.data import container
from layerwise.data.images import ImageRules, _turned
from layerwise.data.memory import Scratch
from layerwise.errors import InputError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

turbo: Callable[..., NDArray[np.uint8]] | None = None if simplejpeg is None else simplejpeg.decode_jpeg
SCALES = (8, 4, 2)  # what Pillow and simplejpeg both offer; libjpeg's others (7/8, 3/4, 5/8) cost more than the whole
END = b"\xff\xd9"
# Without waiting for a writer, where the path is a pipe; as bytes, where a system tells them from text.
READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# A JPEG's markers: frames that both decoders read, the segments that may stand before the scan, EXIF's, the scan's.
FRAMES, PLAIN, APP1, SCAN = (0xC0, 0xC1, 0xC2), {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}, 0xE1, 0xDA
PROGRESSIVE, RESTARTS = 0xC2, 0xDD
EXIF = b"Exif\0\0"
BELOW = 16  # at least so many rows more than are needed: those next to the last one have a part in its colours
LEFT_OUT = re.compile(r"\d+ extraneous bytes before marker 0xd9$")

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # top, left, height, width


class Needs(NamedTuple):
    """What a crop takes of a picture: all of it at 1 / `scale`, or its first `rows` alone, counted before scaling."""

    scale: int = 1
    rows: int = sys.maxsize


class Readable(Protocol):
    """A file, or a piece of one."""

    def read_bytes(self) -> bytes:
        """All its bytes."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture for a crop: `pixels` (h, w, C) uint8, upright, of a picture of `height` and `width`.

    h is height / scale, rounded up, and so w; less where rows below those that were needed are missing.
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


def open_scaled(
    file: Readable, rules: ImageRules, choose: Callable[[int, int], Needs], scratch: Scratch | None = None
) -> Opened | None:
    """What `choose(height, width)` needs of a JPEG of this upright size, its scale being 1, 2, 4 or 8.

    None where the file is for `open_image`: another format, an odd JPEG, or one that cannot be read. With `scratch`
    the pixels may lie in it: they are good until it is used for the next picture.
    """
    try:
        data = _content(file, rules)
        # The end marker is nearly always where it belongs, and searching for it would hold up the other threads.
        if data[:3] != b"\xff\xd8\xff" or (not data.endswith(END) and container.damage(data, "JPEG")):
            return None
        header = _header(data)
        if header is None or not 0 < header.height * header.width <= rules.max_pixels:
            return None
        if container.is_bomb(header.height * header.width * header.channels, len(data)):
            return None
        turn, readable = container.orientation(header.exif)
        if not readable:
            return None
        if turn != 1:
            JpegImagePlugin.JpegImageFile(io.BytesIO(data))  # warns of EXIF that `open_image` does without
        turn = turn if rules.exif == "apply" else 1
        height, width = (header.width, header.height) if turn >= 5 else (header.height, header.width)
        scale, rows = choose(height, width)
        pixels = _pixels(data, header, Needs(scale, rows if turn == 1 else header.height), scratch)
    except (InputError, OSError, SyntaxError, ValueError, IndexError, Warning, Image.DecompressionBombError):
        return None
    return Opened(pixels if turn == 1 else _turned(pixels, turn), height, width, scale)


def _content(file: Readable, rules: ImageRules) -> bytes:
    """The file's bytes; an error where it is no file (a pipe would never end), above the cap, or changes under us."""
    if not isinstance(file, Path):
        data = file.read_bytes()
        if len(data) > rules.max_bytes:
            raise OSError("too long")
        return data
    opened = os.open(file, READING)
    try:
        state = os.fstat(opened)
        if not stat.S_ISREG(state.st_mode) or state.st_size > rules.max_bytes:
            raise OSError("no file, or too long")
        data = os.read(opened, state.st_size + 1)
    finally:
        os.close(opened)
    if len(data) != state.st_size:
        raise OSError("not read in one piece")
    return data


@dataclass(frozen=True)
class Header:
    """What a JPEG says of itself before its pixels."""

    height: int  # as stored
    width: int
    channels: int
    exif: bytes
    height_at: int  # where it says so
    straight: bool  # one scan from top to bottom without restarts


def _header(data: bytes) -> Header | None:
    """The header of a JPEG in grey or three colours; None where anything about it is unusual. IndexError at its end.

    Pillow's reader of headers and a search of the whole file take several times as long; no other thread runs then.
    """
    position, frame, exif, height_at, straight, segments = 2, (0, 0, 0), b"", 0, True, 0
    while data[position + 1] != SCAN:
        segments += 1
        if segments > container.PARTS:
            return None
        kind, length = data[position + 1], data[position + 2] << 8 | data[position + 3]
        content = position + 4
        if data[position] != 0xFF or length < 2:
            return None
        if kind in FRAMES:
            if frame[2] or data[content] != 8:  # a second frame, or more than 8 bits
                return None
            sides = data[content + 1] << 8 | data[content + 2], data[content + 3] << 8 | data[content + 4]
            frame, height_at = (*sides, data[content + 5]), content + 1
            straight = straight and kind != PROGRESSIVE
        elif kind == APP1 and data[content : content + 6] == EXIF:
            if exif:
                return None
            exif = data[content : position + 2 + length]
        elif kind not in PLAIN:
            return None
        straight = straight and kind != RESTARTS
        position += 2 + length
    if data[position] != 0xFF or frame[2] not in (1, 3):
        return None
    straight = straight and data[position + 4] == frame[2]
    if not straight and container.too_many_scans(data):
        return None
    return Header(*frame, exif, height_at, straight)


def _pixels(data: bytes, header: Header, needs: Needs, scratch: Scratch | None) -> Picture:
    """The JPEG's pixels (H / scale, W / scale, C), sides rounded up, as stored; maybe its first rows alone."""
    scale = needs.scale
    if turbo is not None:
        first = (needs.rows // BELOW + 2) * BELOW
        decoded = _fast(data, header, first, scale, scratch) if header.straight and first < header.height else None
        if decoded is None:
            decoded = _fast(data, header, header.height, scale, scratch)
        if decoded is not None:
            return decoded
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if scale > 1:
        picture.draft(None, (picture.width // scale, picture.height // scale))
    pixels = np.asarray(picture, dtype=np.uint8).reshape(*picture.size[::-1], -1)
    if pixels.shape != (-(-header.height // scale), -(-header.width // scale), header.channels):
        raise ValueError("decoded at another scale")
    return pixels


def _fast(data: bytes, header: Header, rows: int, scale: int, scratch: Scratch | None) -> Picture | None:
    """The first rows by the fast decoder; None where it found anything odd in them."""
    assert turbo is not None
    shape = (-(-rows // scale), -(-header.width // scale), header.channels)
    pixels = (scratch or Scratch()).picture("decoded", shape)
    if rows < header.height:
        data = b"".join((data[: header.height_at], rows.to_bytes(2, "big"), data[header.height_at + 2 :]))
    try:
        # The factor is the least shrinking, the sides are the most of it.
        decoded = turbo(data, "GRAY" if header.channels == 1 else "RGB", min_factor=scale, min_height=shape[0],
                        min_width=shape[1], buffer=pixels)
    except ValueError as problem:  # also for what libjpeg only warns of, and its first warning alone is told
        return pixels if rows < header.height and LEFT_OUT.search(str(problem)) else None
    return pixels if decoded.shape == shape else None
