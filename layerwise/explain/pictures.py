"""Small pictures for a page: thumbnails, kernels, and heat over a picture, as data URIs of PNG or JPEG."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerwise.data.preprocess import Preprocess

Pixels = NDArray[np.uint8]  # (H, W, 1 or 3)
Floats = NDArray[np.floating]
SMALL = 64  # pixels a side; larger pictures are kept as JPEG
LARGEST = 160  # pixels a side on the page
# Heat from nothing to the most, and signed: blue is negative, white 0, red positive.
HEAT = np.array([(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], np.float64)
SIGNED = np.array([(33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43)], np.float64)


def uri(pixels: Pixels, side: int = LARGEST) -> str:
    """A picture (H, W, 1 or 3) as a data URI, shrunk to `side`: PNG up to 64 pixels a side, else JPEG."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    kind = "png" if max(image.size) <= SMALL else "jpeg"
    if kind == "png":
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def from_input(image: Floats, preprocess: Preprocess) -> Pixels:
    """What the network saw as a picture: (C, H, W), normalised, to (H, W, C) uint8, cut off at 0 and 255."""
    size = image.shape[1:]
    mean = preprocess.mean
    if mean.shape[1:] not in ((1, 1), size):
        mean = mean.mean(axis=(1, 2), keepdims=True)
    levels = 255 * (image * preprocess.std + mean)
    found: Pixels = levels.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return found


def spread(values: Floats) -> Pixels:
    """Numbers (C, H, W) with C 1 or 3 as a picture: from the smallest, black, to the largest, white."""
    low, high = float(values.min()), float(values.max())
    return _levels((values - low) / max(high - low, 1e-12))


def signed(values: Floats) -> Pixels:
    """Numbers (C, H, W) as a picture in which middle grey is 0, and the largest of either sign is black or white."""
    return _levels(0.5 + 0.5 * values / max(float(np.abs(values).max()), 1e-12))


def _levels(parts: Floats) -> Pixels:
    found: Pixels = (255 * parts).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return found


def capped(values: Floats, part: float = 0.995) -> Floats:
    """Numbers cut off at the size that `part` of them stay below, so that a few pixels don't leave the others blank."""
    most = float(np.quantile(np.abs(values), part))
    return values.clip(-most, most) if most > 0 else values


def heat(values: Floats) -> Pixels:
    """Numbers of at least 0 (H, W) as colours from black through red to yellow, the largest the brightest."""
    return _coloured(values / max(float(values.max()), 1e-12), HEAT)


def diverging(values: Floats) -> Pixels:
    """Signed numbers (H, W) as colours: blue below 0, white at 0, red above; the scale is the same on both sides."""
    return _coloured(0.5 + 0.5 * values / max(float(np.abs(values).max()), 1e-12), SIGNED)


def over(picture: Pixels, values: Floats) -> Pixels:
    """Heat (H, W) laid over a picture (H, W, C) of the same size, which is shown in grey below."""
    grey = picture.astype(np.float64).mean(axis=2, keepdims=True)
    found: Pixels = (0.45 * grey + 0.55 * heat(values)).round().astype(np.uint8)
    return found


def _coloured(parts: Floats, anchors: NDArray[np.float64]) -> Pixels:
    places = parts.clip(0, 1) * (len(anchors) - 1)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    found: Pixels = np.stack(channels, axis=-1).round().astype(np.uint8)
    return found
