"""Augmentation of training pictures. Every draw is a pure function of (seed, epoch, sample, stage).

Geometry is done in uint8 before normalisation, colour and mixup in float32 after it. With pad_with=mean the borders of
pad-and-crop have the training set's mean colour rounded to uint8, which normalisation brings to about 0: the papers pad
with zeros after the mean is subtracted. (A per-pixel mean is subtracted after the crop, in the crop's own coordinates.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerwise.data import resize
from layerwise.data.colour import Colour, colour_shift, fit_colour
from layerwise.data.decoding import Needs, Opened, largest_scale
from layerwise.data.memory import Scratch
from layerwise.data.preprocess import Preprocess
from layerwise.data.windows import DeviceWindows, Windows
from layerwise.errors import InputError
from layerwise.randomness import uniform
from layerwise.recipe import Recipe

__all__ = [
    "Colour",
    "Draws",
    "augment_batch",
    "augment_picture",
    "check_augmentation",
    "colour_shift",
    "crop_needs",
    "draw",
    "fit_colour",
    "mix",
    "on_device",
    "pad_and_crop",
    "resample",
    "resized_box",
    "whole_batches",
]

TRIES = 10  # of the random resized crop, before the centre is taken
RATIOS = (3 / 4, 4 / 3)  # its aspect ratios, width over height
NUMBERS = {"none": 0, "pad": 2, "resized": 4 * TRIES, "scale": 3, "square": 3}  # uniform numbers that each crop takes


@dataclass(frozen=True, eq=False)
class Draws:
    """What chance decided for N pictures: `crop` (N, k) uniform numbers in [0, 1), `flip` (N,)."""

    crop: NDArray[np.float64]
    flip: NDArray[np.bool_]

    def part(self, first: int, count: int) -> Draws:
        """Those of `count` pictures from `first` on."""
        return Draws(self.crop[first : first + count], self.flip[first : first + count])


def draw(recipe: Recipe, epoch: int, keys: NDArray[np.int64]) -> Draws:
    """The draws for the pictures with these keys (a sample's index, or another number for a repetition).

    With flip_turns=alternate a picture that was mirrored in one epoch is not in the next (Jordan 2024, section 3.6):
    two epochs always show both of its sides, where chance would show one side twice to half of the pictures.
    """
    crop = uniform(recipe.seed, epoch, keys, "crop", NUMBERS[recipe.crop])
    if recipe.flip:
        turns = recipe.flip_turns == "alternate"
        flipped = uniform(recipe.seed, 0 if turns else epoch, keys, "flip")[:, 0] < 0.5
        return Draws(crop, flipped ^ bool(turns and epoch % 2))
    return Draws(crop, np.zeros(len(keys), np.bool_))


def whole_batches(recipe: Recipe, preprocess: Preprocess) -> bool:
    """Whether pictures of one size can be augmented as whole batches, without resampling each."""
    return preprocess.resize == "none" and recipe.crop in ("none", "pad")


def check_augmentation(recipe: Recipe, preprocess: Preprocess, colour: Colour | None) -> None:
    """Raises InputError where the recipe's augmentation and the preprocessing do not agree."""
    low = recipe.scale_range[0]
    if recipe.crop in ("scale", "square") and low < preprocess.size:
        raise InputError(
            f"scale_range starts at {low}, below the network's input of {preprocess.size} pixels",
            "The crop would be larger than the resized picture.",
            f"use --set scale_range={preprocess.size},{max(recipe.scale_range[1], preprocess.size)}",
        )
    if recipe.colour == "pca" and colour is None:
        raise InputError(
            "colour=pca needs the training set's principal colours",
            "They are fitted once a training and belong to all its epochs.",
            "pass fit_colour(samples, preprocess) to training_batches",
        )


def augment_batch(
    images: NDArray[np.uint8], draws: Draws, recipe: Recipe, preprocess: Preprocess
) -> NDArray[np.uint8]:
    """Augments pictures of one size as a whole: (N, H, W, C) -> (N, size, size, channels); see `whole_batches`."""
    placed = preprocess.place_batch(images)
    if recipe.crop == "pad":
        return pad_and_crop(placed, draws, recipe.pad, border(recipe, preprocess))
    flipped = placed.copy()
    flipped[draws.flip] = placed[draws.flip, :, ::-1]
    return flipped


def of_batches(
    images: NDArray[np.uint8], most: int, recipe: Recipe, preprocess: Preprocess
) -> Callable[[NDArray[np.int64], Draws], NDArray[np.uint8]]:
    """`augment_batch` of `images[indices]`, at most so many: (indices, draws) -> pictures, which are the caller's.

    The memory on the way there is used again.
    """
    if recipe.crop != "pad" or preprocess.channels != images.shape[3]:
        return lambda indices, draws: augment_batch(images[indices], draws, recipe, preprocess)
    preprocess.check_size(images.shape[1], images.shape[2])
    windows = Windows(most, images.shape[1:], recipe.pad, border(recipe, preprocess))
    return lambda indices, draws: windows.crop(images, indices, draws.crop, draws.flip)


def on_device(
    images: NDArray[np.uint8] | None, recipe: Recipe, preprocess: Preprocess, device: torch.device, most: float
) -> Callable[[NDArray[np.int64], Draws], Tensor] | None:
    """As `of_batches`, the whole set lying on `device`: (indices, draws) -> uint8 (N, size, size, channels) there.

    None where it can't: pictures that are files, of other sides or channels, or that take more than `most` bytes.
    """
    if images is None or not whole_batches(recipe, preprocess) or preprocess.channels != images.shape[3]:
        return None
    count, height, width, channels = images.shape
    pad = recipe.pad if recipe.crop == "pad" else 0
    if count * (height + 2 * pad) * (width + 2 * pad) * channels > most:
        return None
    preprocess.check_size(height, width)
    windows = DeviceWindows(images, pad, border(recipe, preprocess), device)
    return lambda indices, draws: windows.crop(indices, draws.crop, draws.flip)


def augment_picture(
    picture: NDArray[np.uint8] | Opened,
    draws: Draws,
    position: int,
    recipe: Recipe,
    preprocess: Preprocess,
    scratch: Scratch | None = None,
) -> NDArray[np.uint8]:
    """Augments one opened picture with the draws at `position`: (H, W, C) -> (size, size, channels), maybe a view.

    With `scratch` it may lie in that, good until the next picture.
    """
    scratch = scratch or Scratch()
    if not isinstance(picture, Opened):
        picture = Opened.whole(picture)
    numbers, size = draws.crop[position], preprocess.size
    if recipe.crop in ("none", "pad"):
        image = preprocess.place(picture.pixels)
        if recipe.crop == "pad":
            cropped = pad_and_crop(image[None], draws.part(position, 1), recipe.pad, border(recipe, preprocess))
            return np.asarray(cropped[0])
    else:
        if recipe.crop == "resized":
            image = picture.part(resized_box(picture.height, picture.width, recipe.crop_area_min, numbers))
            image = _fewer_channels(image, preprocess)
            image = resample(image, size, size, preprocess.interpolation, scratch)
        else:
            side = short_side(recipe, numbers)
            image = _fewer_channels(picture.pixels, preprocess)
            if _strip(picture.height, picture.width):
                image = resize.resize_short_side(image, side, preprocess.interpolation)
            else:
                image = resample(image, *_sides(picture, side), preprocess.interpolation, scratch)
            if recipe.crop == "square":
                image = resize.centre_crop(image, side, side)
            top = int(numbers[1] * (image.shape[0] - size + 1))
            left = int(numbers[2] * (image.shape[1] - size + 1))
            image = image[top : top + size, left : left + size]
        image = resize.to_channels(image, preprocess.channels)
    return mirrored(image, scratch) if draws.flip[position] else image


def mirrored(image: NDArray[np.uint8], scratch: Scratch) -> NDArray[np.uint8]:
    """The picture with left and right exchanged, (H, W, C): as `image[:, ::-1]`, whose copy takes 6 times as long.

    Numpy copies a channel at a time faster than pixels of three bytes; torch would start threads of its own.
    """
    turned = scratch.picture("mirrored", image.shape)
    for channel in range(image.shape[2]):
        turned[..., channel] = image[:, ::-1, channel]
    return turned


def _in_memory(image: NDArray[np.uint8], scratch: Scratch) -> NDArray[np.uint8]:
    """The picture, or a copy of it, in one piece that torch may have.

    Torch would copy in threads of its own, beside those that decode.
    """
    if image.flags.c_contiguous and image.flags.writeable:
        return image
    copy = scratch.picture("cut", image.shape)
    copy[...] = image
    return copy


def crop_needs(
    recipe: Recipe, preprocess: Preprocess, numbers: NDArray[np.float64]
) -> Callable[[int, int], Needs] | None:
    """What the crop takes of a picture of (height, width); None where that is all of it as it is."""

    def box(height: int, width: int) -> Needs:
        top, _, down, across = resized_box(height, width, recipe.crop_area_min, numbers)
        return Needs(largest_scale(down, across, preprocess.size), top + down)

    def whole(height: int, width: int) -> Needs:
        if _strip(height, width):
            return Needs()
        return Needs(largest_scale(height, width, short_side(recipe, numbers)))

    return {"resized": box, "scale": whole, "square": whole}.get(recipe.crop)


def _strip(height: int, width: int) -> bool:
    """Whether only the central part of so long a picture is used; see `resize.resize_short_side`."""
    return max(height, width) > resize.LONGEST_ASPECT * min(height, width)


def short_side(recipe: Recipe, numbers: NDArray[np.float64]) -> int:
    """The shorter side that crop=scale and crop=square draw, uniform in `scale_range`."""
    low, high = recipe.scale_range
    return low + int(numbers[0] * (high - low + 1))


def _sides(picture: Opened, side: int) -> tuple[int, int]:
    """What the (height, width) of the whole picture become where its shorter side becomes `side`."""
    short, long = sorted((picture.height, picture.width))
    longer = resize.rounded_ratio(long * side, short)
    return (side, longer) if picture.height <= picture.width else (longer, side)


def _fewer_channels(image: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """RGB to grey before resampling, where the network takes grey; grey becomes RGB after it, for it is cheaper."""
    return resize.to_channels(image, preprocess.channels) if image.shape[2] > preprocess.channels else image


def resample(
    image: NDArray[np.uint8], height: int, width: int, interpolation: str, scratch: Scratch | None = None
) -> NDArray[np.uint8]:
    """Resamples a training crop: (H, W, C) -> (height, width, C).

    Bilinear and bicubic are torch's: Pillow's antialiased kernels in vector instructions, several times as fast, with
    coarser weights: a few of a hundred values differ from Pillow's, by 2 at most, a rounding in each direction.
    Evaluation keeps Pillow's (`resize.resize_to`).
    """
    if image.shape[:2] == (height, width) or interpolation not in ("bilinear", "bicubic"):
        return resize.resize_to(image, height, width, interpolation)
    # `reshape` puts the batch's axis in front with a length in bytes: only so torch sees, and returns, channels-last.
    # By numpy, because each of torch's calls lets go of the interpreter's lock and waits for it again.
    batch = _in_memory(image, scratch or Scratch()).reshape(1, *image.shape)
    pixels = torch.from_numpy(batch.transpose(0, 3, 1, 2))
    resized = torch.nn.functional.interpolate(pixels, (height, width), mode=interpolation, antialias=True)
    return np.asarray(resized.numpy()[0].transpose(1, 2, 0))


def border(recipe: Recipe, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The colour of pad-and-crop's border, (C,): black lets pictures on a black ground go on without an edge."""
    colour = preprocess.pad_colour
    return np.zeros_like(colour) if recipe.pad_with == "black" else colour


def pad_and_crop(
    images: NDArray[np.uint8], draws: Draws, pad: int, colour: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Crops (H, W) at random from pictures with borders of `pad` pixels of `colour`, and flips: (N, H, W, C) -> same.

    The offsets 0 .. 2 pad are equally likely in both directions (He et al. 2015, section 4.2, with pad 4).
    """
    every = np.arange(len(images), dtype=np.int64)
    return Windows(len(images), images.shape[1:], pad, colour).crop(images, every, draws.crop, draws.flip)


def resized_box(height: int, width: int, area_min: float, numbers: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """The part (top, left, height, width) of a random resized crop (Szegedy et al. 2014, section 6).

    Its area is uniform in [area_min, 1] of the picture's, its aspect log-uniform in [3/4, 4/3]. `numbers` holds ten
    tries of four uniform numbers: area, aspect, top, left. The first that fits is taken; else the largest central
    part with an aspect in that range.
    """
    for first in range(0, 4 * TRIES, 4):  # the first nearly always fits
        area, aspect, top, left = numbers[first : first + 4].tolist()
        target = (area_min + area * (1 - area_min)) * height * width
        ratio = math.exp(math.log(RATIOS[0]) + aspect * math.log(RATIOS[1] / RATIOS[0]))
        across, down = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < across <= width and 0 < down <= height:
            return int(top * (height - down + 1)), int(left * (width - across + 1)), down, across
    down = min(height, max(1, round(width / RATIOS[0])))
    across = min(width, max(1, round(height * RATIOS[1])))
    return (height - down) // 2, (width - across) // 2, down, across


def mix(images: Tensor, labels: Tensor, recipe: Recipe, epoch: int, keys: NDArray[np.int64]) -> dict[str, Tensor]:
    """Mixup (Zhang et al. 2018): each picture with the next one of the global batch, the last with the first.

    images (N, C, H, W) float32, labels (N,). Returns "image" = w x + (1 - w) x', "label", "label_b" = the partner's,
    "weight" (N,) = w, where w ~ Beta(alpha, alpha) is drawn for each picture by inverting the distribution function.
    """
    from scipy.special import betaincinv  # slow to import, and few recipes mix

    numbers = uniform(recipe.seed, epoch, keys, "mixup")[:, 0]
    weights = torch.from_numpy(np.asarray(betaincinv(recipe.mixup, recipe.mixup, numbers), dtype=np.float32))
    share = weights[:, None, None, None].to(images.device)
    return {
        "image": images * share + images.roll(-1, 0) * (1 - share),
        "label": labels,
        "label_b": labels.roll(-1, 0),
        "weight": weights,
    }
