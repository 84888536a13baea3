"""Channels, resizing and cropping of one picture: uint8 (H, W, C) in, uint8 (H, W, C) out.

All resampling is Pillow's, whose bilinear, bicubic and Lanczos kernels widen with the reduction: it always antialiases
(nearest never does). Every place that resizes a picture calls these functions, so training, evaluation and
prediction cannot differ in a rounding rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerwise.errors import InputError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Beyond it only the central part of a strip is resized: 1 x 100,000 must not become 256 x 25,600,000.
LONGEST_ASPECT = 20


def to_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Grey to RGB by replication, RGB to grey by ITU-R 601-2 luma in Pillow's integer arithmetic (its mode "L").

    images (..., H, W, C) with C 1 or 3 -> (..., H, W, channels); the same array where nothing is to do.
    """
    have = images.shape[-1]
    if have == channels:
        return images
    if have == 1 and channels == 3:
        return np.repeat(images, 3, axis=-1)
    if have == 3 and channels == 1:
        red, green, blue = (images[..., band].astype(np.uint32) for band in range(3))
        luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
        return luma.astype(np.uint8)[..., None]
    raise InputError(
        f"a picture with {have} channels cannot become {channels}-channel",
        "Pictures have 1 channel (grey) or 3 (RGB), and so has the network's input.",
        "use channels=1 or channels=3",
    )


def resize_to(image: NDArray[np.uint8], height: int, width: int, interpolation: str) -> NDArray[np.uint8]:
    """Resample to exactly (height, width), whatever the aspect: (H, W, C) -> (height, width, C)."""
    if image.shape[:2] == (height, width):
        return image
    grey = image.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if grey else image))
    resized = np.array(picture.resize((width, height), INTERPOLATIONS[interpolation]))
    return resized[:, :, None] if grey else resized


def resize_short_side(image: NDArray[np.uint8], side: int, interpolation: str) -> NDArray[np.uint8]:
    """Resample so that the shorter side is `side` pixels: (H, W, C) -> (H', W', C), the aspect kept.

    The longer side is long * side / short rounded half up, in integers. Of a picture longer than 20 times its shorter
    side the central 20:1 part is taken first.
    """
    height, width = image.shape[:2]
    longest = LONGEST_ASPECT * min(height, width)
    if max(height, width) > longest:
        image = centre_crop(image, min(height, longest), min(width, longest))
        height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    longer = rounded_ratio(long * side, short)
    return resize_to(image, *((side, longer) if height <= width else (longer, side)), interpolation)


def fit_inside(image: NDArray[np.uint8], side: int, interpolation: str) -> NDArray[np.uint8]:
    """Resample so that the longer side is `side` pixels: (H, W, C) -> (H', W', C), at least one pixel each."""
    height, width = image.shape[:2]
    long = max(height, width)
    new = [max(1, rounded_ratio(extent * side, long)) for extent in (height, width)]
    return resize_to(image, new[0], new[1], interpolation)


def centre_crop(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The central (height, width) part; an odd pixel left over stays at the bottom and right. A view."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def rounded_ratio(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded half up, exact for integers of any size."""
    return (2 * numerator + denominator) // (2 * denominator)
