"""One scene in 192 encodings (B4): 24 pairs of a mode and a format, each in the eight EXIF orientations.

The scene's colours lie on one curve of fewer than 256 points, so that a palette holds it exactly; its gradient runs
askew, so that all eight orientations differ. Grey modes hold its luminance.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faults.bombs import png
from faults.goal import Control, Goal, Outcome
from layerwise.data.images import ImageRules, open_image
from layerwise.errors import InputError

HEIGHT, WIDTH = 24, 36
LOSSLESS, LOSSY = 2, 8  # levels
Pixels = NDArray[np.uint8]


def scene() -> Pixels:
    """(24, 36, 3)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    along = (3 * rows + 4 * columns) / (3 * HEIGHT + 4 * WIDTH)
    return np.stack([40 + 180 * along, 200 - 150 * along, 90 + 80 * np.sin(2 * along)], axis=2).round().astype(np.uint8)


def grey(pixels: Pixels) -> Pixels:
    """The luminance, (H, W)."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def stored(pixels: Pixels, orientation: int) -> Pixels:
    """The rows and columns as a camera stores them that says `orientation`; EXIF 2.3, the table of tag 0x0112."""
    turns: dict[int, Callable[[Pixels], Pixels]] = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1)}  # fmt: skip
    return np.ascontiguousarray(turns[orientation](pixels))


def exif(orientation: int) -> Image.Exif:
    """A block that says so."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def saved(image: Image.Image, form: str, orientation: int, **options: object) -> bytes:
    """The picture with its orientation."""
    stream = io.BytesIO()
    image.save(stream, form, exif=exif(orientation), **options)
    return stream.getvalue()


def deep(values: Pixels) -> NDArray[np.uint16]:
    """8 bits as 16: 257 times."""
    return values.astype(np.uint16) * np.uint16(257)


def deep_png(pixels: Pixels, orientation: int, alpha: bool = False, colour: bool = True) -> bytes:
    """16 bits a channel, which Pillow can't write."""
    channels = deep(pixels if colour else grey(pixels)[..., None])
    if alpha:
        channels = np.concatenate([channels, np.full((*channels.shape[:2], 1), 65535, np.uint16)], axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    kind = {(True, False): 2, (True, True): 6, (False, True): 4}[colour, alpha]
    block = exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    return png(channels.shape[1], channels.shape[0], 16, kind, zlib.compress(rows), (b"eXIf", block))


def palette(pixels: Pixels) -> Image.Image:
    """The exact colours as a palette, the last entry unused."""
    colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    image = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), "P")
    image.putpalette(colours.tobytes())
    return image


def opaque(pixels: Pixels, mode: str) -> Image.Image:
    """With an alpha channel that is 255 everywhere."""
    return Image.fromarray(pixels).convert("L" if mode == "LA" else "RGB").convert(mode)


def ink(pixels: Pixels) -> Image.Image:
    """Cyan, magenta, yellow without black: 255 minus red, green, blue."""
    return Image.fromarray(np.dstack([255 - pixels, np.zeros(pixels.shape[:2], np.uint8)]), "CMYK")


def floats(pixels: Pixels) -> Image.Image:
    """The luminance in 0..1."""
    return Image.fromarray(grey(pixels).astype(np.float32) / 255)


def sixteen(pixels: Pixels, order: str = "<") -> Image.Image:
    """The luminance in 16 bits."""
    values = deep(grey(pixels)).astype(order + "u2")
    return Image.frombytes("I;16" if order == "<" else "I;16B", values.shape[::-1], values.tobytes())


Encoder = Callable[[Pixels, int], bytes]


def made(form: str, picture: Callable[[Pixels], Image.Image] = Image.fromarray, **options: object) -> Encoder:
    """An encoder by Pillow."""
    return lambda pixels, orientation: saved(picture(pixels), form, orientation, **options)


def luminance(pixels: Pixels) -> Image.Image:
    """Grey, 8 bits."""
    return Image.fromarray(grey(pixels))


FINE = {"quality": 100, "subsampling": 0}
# Name: (encoder, levels that may differ, whether it holds colour).
PAIRS: dict[str, tuple[Encoder, int, bool]] = {
    "PNG L": (made("PNG", luminance), LOSSLESS, False),
    "PNG LA": (made("PNG", lambda a: opaque(a, "LA")), LOSSLESS, False),
    "PNG P": (made("PNG", palette), LOSSLESS, True),
    "PNG P with a transparent entry": (made("PNG", palette, transparency=255), LOSSLESS, True),
    "PNG RGB": (made("PNG"), LOSSLESS, True),
    "PNG RGBA": (made("PNG", lambda a: opaque(a, "RGBA")), LOSSLESS, True),
    "PNG 16-bit": (made("PNG", sixteen), LOSSLESS, False),
    "PNG 16-bit RGB": (deep_png, LOSSLESS, True),
    "PNG 16-bit RGBA": (lambda a, turn: deep_png(a, turn, alpha=True), LOSSLESS, True),
    "PNG 16-bit LA": (lambda a, turn: deep_png(a, turn, alpha=True, colour=False), LOSSLESS, False),
    "JPEG L": (made("JPEG", luminance, quality=100), LOSSY, False),
    "JPEG RGB": (made("JPEG", **FINE), LOSSY, True),
    "JPEG RGB, 4:2:0": (made("JPEG", quality=95, subsampling=2), LOSSY, True),
    "JPEG RGB, progressive": (made("JPEG", progressive=True, **FINE), LOSSY, True),
    "JPEG CMYK, inverted by Adobe": (made("JPEG", ink, **FINE), LOSSY, True),
    "WebP": (made("WEBP", quality=100), LOSSY, True),
    "WebP, lossless": (made("WEBP", lossless=True), LOSSLESS, True),
    "WebP RGBA, lossless": (made("WEBP", lambda a: opaque(a, "RGBA"), lossless=True), LOSSLESS, True),
    "TIFF L": (made("TIFF", luminance), LOSSLESS, False),
    "TIFF RGB, LZW": (made("TIFF", compression="tiff_lzw"), LOSSLESS, True),
    "TIFF RGBA": (made("TIFF", lambda a: opaque(a, "RGBA")), LOSSLESS, True),
    "TIFF CMYK": (made("TIFF", ink), LOSSLESS, True),
    "TIFF 16-bit, big-endian": (made("TIFF", lambda a: sixteen(a, ">")), LOSSLESS, False),
    "TIFF float": (made("TIFF", floats), LOSSLESS, False),
}


def ours(data: bytes) -> Pixels:
    """By `open_image`."""
    return open_image(data, ImageRules())[0]


def bare(data: bytes) -> Pixels:
    """By Pillow alone, the control."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def one_scene(trials: int, folder: Path, reader: Callable[[bytes], Pixels] = ours) -> Outcome:
    """B4."""
    wanted, violations, worst = scene(), [], {LOSSLESS: 0, LOSSY: 0}
    cases = [(name, turn) for turn in range(1, 9) for name in PAIRS][:trials]
    for name, turn in cases:
        encoder, levels, colour = PAIRS[name]
        expected = wanted if colour else np.repeat(grey(wanted)[..., None], 3, axis=2)
        try:
            found = np.broadcast_to(pixels := reader(encoder(stored(wanted, turn), turn)), (*pixels.shape[:2], 3))
        except (InputError, OSError, ValueError) as problem:
            violations.append(f"{name}, orientation {turn}: {problem}")
            continue
        if found.shape != expected.shape:
            violations.append(f"{name}, orientation {turn}: {found.shape}, expected {expected.shape}")
            continue
        apart = int(np.abs(found.astype(int) - expected).max())
        worst[levels] = max(worst[levels], apart)
        if apart > levels:
            violations.append(f"{name}, orientation {turn}: {apart} levels apart")
    return Outcome(len(cases), tuple(violations),
                   f"furthest: {worst[LOSSLESS]} levels where lossless, {worst[LOSSY]} where lossy")


GOALS = (
    Goal("B4", "one scene in 192 encodings", "within 2 levels lossless, 8 lossy; 16 bits scaled, not clipped", 192, 192,
         one_scene, (Control("bare Pillow", lambda folder: one_scene(192, folder, bare)),)),
)
assert len(PAIRS) * 8 == 192
