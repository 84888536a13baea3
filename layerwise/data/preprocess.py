"""Preprocessing: the only path from an opened picture to the tensor a network sees.

A `Preprocess` is fitted once to the training pictures, lives in the model file, and is what training's evaluation,
`evaluate`, `predict` and everything later apply. Order: channels, resize, centre crop or bars (all in uint8), then
(x / 255 - mean) / std in float32.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerwise.data import resize, statistics
from layerwise.data.source import Samples
from layerwise.errors import InputError, nearest
from layerwise.recipe import Recipe

RESIZES = ("none", "short-side", "squash", "letterbox")
EXIF_RULES = ("apply", "ignore")
# What every version 1 specification does; written out so that another program can do the same.
FIXED: dict[str, Any] = {
    "format": 1,
    "channel_order": "RGB",
    "grey_from_rgb": "ITU-R 601-2 luma, Pillow's mode L",
    "rgb_from_grey": "replicate",
    "resampling": "Pillow, antialiased",
    "crop": "centre, floor",
    "scale": "1/255",
    "dtype": "float32",
}
FITTED: dict[str, type] = {
    "channels": int,
    "size": int,
    "resize": str,
    "resize_to": int,
    "interpolation": str,
    "exif": str,
}


@dataclass(frozen=True, eq=False)
class Preprocess:
    """How a picture becomes a network's input, (C, size, size).

    `mean` (C, 1, 1) or (C, size, size) and `std` (C, 1, 1) are on the 0..1 scale. `resize` is one of: none (the
    picture must have the size), short-side (the shorter side becomes `resize_to`, then the centre is cropped), squash
    (both sides become `size`), letterbox (the longer side becomes `size`, bars of the mean colour fill the rest).
    """

    channels: int
    size: int
    resize: str
    resize_to: int
    interpolation: str
    exif: str
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    _constants: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    @property
    def pad_colour(self) -> NDArray[np.uint8]:
        """The mean colour as (C,) uint8: what fills bars and borders, about 0 after normalisation."""
        colour: NDArray[np.uint8] = np.rint(self.mean.mean(axis=(1, 2), dtype=np.float64) * 255).astype(np.uint8)
        return colour

    def place(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture at the network's size, not yet normalised: (H, W, C) -> (size, size, channels).

        Raises InputError where resize is none and the picture has another size.
        """
        placed = self.content(image)
        height, width = placed.shape[:2]
        if (height, width) == (self.size, self.size):
            return placed
        framed = np.empty((self.size, self.size, self.channels), np.uint8)
        framed[:] = self.pad_colour
        top, left = (self.size - height) // 2, (self.size - width) // 2
        framed[top : top + height, left : left + width] = placed
        return framed

    def content(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`place` without a letterbox's bars: (H, W, C) -> (h, w, channels) with h, w at most size."""
        if image.shape[-1] > self.channels:
            image = resize.to_channels(image, self.channels)
        if self.resize == "none":
            self.check_size(image.shape[0], image.shape[1])
        elif self.resize == "squash":
            image = resize.resize_to(image, self.size, self.size, self.interpolation)
        elif self.resize == "letterbox":
            image = resize.fit_inside(image, self.size, self.interpolation)
        else:
            image = resize.resize_short_side(image, self.resize_to, self.interpolation)
            image = resize.centre_crop(image, self.size, self.size)
        # Grey becomes RGB last: the three channels are equal either way, and resizing one is cheaper.
        return resize.to_channels(image, self.channels)

    def place_batch(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`place` for pictures of one size: (N, H, W, C) -> (N, size, size, channels)."""
        if self.resize == "none":
            self.check_size(images.shape[1], images.shape[2])
            return resize.to_channels(images, self.channels)
        placed = np.empty((len(images), self.size, self.size, self.channels), np.uint8)
        for position, image in enumerate(images):
            placed[position] = self.place(image)
        return placed

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError unless (height, width) is the network's size."""
        if (height, width) != (self.size, self.size):
            raise InputError(
                f"a picture of {width}x{height} pixels where the network takes {self.size}x{self.size}",
                "The recipe says resize=none: pictures are used as they are.",
                f"train with --set resize=short-side --set resize_to={self.size} (or squash, letterbox)",
            )

    def normalise(self, batch: Tensor, out: Tensor | None = None) -> Tensor:
        """(x / 255 - mean) / std: uint8 (N, H, W, C) -> float32 (N, C, H, W) on the batch's device.

        The result keeps the memory order of the batch, which is torch's channels-last: no copy is made for it. Each
        operation is correctly rounded on its own, so a picture's values do not depend on the batch around it. Where
        a per-pixel mean's size is not the batch's (dense and multi-scale evaluation), its average over the pixels of
        each channel is subtracted. `out` (N, H, W, C) float32 is memory for the result.
        """
        if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[3] != self.channels:
            raise TypeError(
                f"normalise takes uint8 (N, H, W, {self.channels}), got {batch.dtype} {tuple(batch.shape)}"
            )
        scale, mean, std = self._constants_for(batch)
        values = batch.to(torch.float32) if out is None else out.copy_(batch)
        return values.permute(0, 3, 1, 2).div_(scale).sub_(mean).div_(std)

    def tensor(self, image: NDArray[np.uint8]) -> Tensor:
        """One opened picture to a batch of one: (H, W, C) uint8 -> (1, C, size, size) float32."""
        return self.normalise(to_tensor(self.place(image)[None]))

    def to_json(self) -> dict[str, Any]:
        """The specification without its tensors, for the header of a model file; `from_parts` reads it."""
        return {**FIXED, **{name: getattr(self, name) for name in FITTED}}

    def tensors(self) -> dict[str, Tensor]:
        """{"mean": (C, 1, 1) or (C, size, size), "std": (C, 1, 1)}, float32."""
        return {"mean": torch.from_numpy(self.mean.copy()), "std": torch.from_numpy(self.std.copy())}

    @property
    def sha256(self) -> str:
        """Digest of the specification and its tensors, hexadecimal."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode())
        for name in ("mean", "std"):
            values: NDArray[np.float32] = getattr(self, name)
            digest.update(f"{name} {values.shape}".encode() + values.astype("<f4").tobytes())
        return digest.hexdigest()

    @staticmethod
    def from_parts(parts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Preprocess:
        """Read what `to_json` and `tensors` wrote. Raises InputError with every problem at once."""
        problems = _json_problems(parts)
        if not problems:
            problems = _tensor_problems(parts, tensors)
        if problems:
            raise InputError(
                "the preprocessing specification cannot be used",
                "A network is only as good as the preprocessing it was trained with, so nothing is guessed.",
                "take the model file as it was written, or one written by this version",
                problems,
            )
        mean, std = (tensors[name].detach().cpu().contiguous().numpy().copy() for name in ("mean", "std"))
        return Preprocess(
            parts["channels"],
            parts["size"],
            parts["resize"],
            parts["resize_to"],
            parts["interpolation"],
            parts["exif"],
            mean,
            std,
        )

    def _constants_for(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """255, mean and std on the batch's device, the last two written out for each pixel in the batch's own order.

        Written out, because a mean of three numbers against channels-last pictures costs eight times as much; kept
        for the size the network was trained at. 255 is a tensor, because CUDA divides by a Python number as a product
        with its rounded inverse.
        """
        height, width = batch.shape[1:3]
        name = str(batch.device)
        if (height, width) == (self.size, self.size) and name in self._constants:
            return self._constants[name]
        mean = self.mean
        if mean.shape[1:] not in ((1, 1), (height, width)):
            mean = mean.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
        shape = (self.channels, height, width)
        last = (np.array(np.broadcast_to(values, shape).transpose(1, 2, 0), order="C") for values in (mean, self.std))
        mean_of, std_of = (torch.from_numpy(values).to(batch.device).permute(2, 0, 1) for values in last)
        found = (torch.tensor(255.0, dtype=torch.float32, device=batch.device), mean_of, std_of)
        if (height, width) == (self.size, self.size):
            self._constants[name] = found
        return found


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures as a uint8 tensor of the same shape; the memory is shared where it is contiguous and writable."""
    return torch.from_numpy(np.require(pictures, np.uint8, ["C", "W"]))


def fit_preprocess(samples: Samples, recipe: Recipe) -> Preprocess:
    """The preprocessing of a recipe, with the statistics of the training pictures after `place`.

    channels=0 becomes 1 where every picture is grey, else 3; input_size=0 becomes the pictures' own size. The mean is
    taken over all pictures in memory, and of files over all or a fixed 5,000 of them; a letterbox's bars do not count.
    The deviation is about the channel's mean; of a constant channel it is taken as 1. std=raw leaves the pixels in
    0..255, as the papers before 2014 have them. Raises InputError.
    """
    if len(samples) == 0:
        raise InputError(f"{samples.name}: no training pictures", mend="name a folder or list that holds pictures")
    if recipe.resize == "letterbox" and recipe.mean == "per-pixel":
        raise InputError(
            "mean=per-pixel with resize=letterbox",
            "The bars take the mean colour, and a per-pixel mean would in turn depend on the bars.",
            "use --set mean=per-channel",
        )
    channels, size = _resolved(samples, recipe)
    zeros, ones = np.zeros((channels, 1, 1), np.float32), np.ones((channels, 1, 1), np.float32)
    side = (recipe.resize_to or size) if recipe.resize == "short-side" else 0
    if recipe.resize == "short-side" and side < size:
        raise InputError(
            f"resize_to={side} is below input_size={size}",
            "The centre crop would be larger than the resized picture.",
            f"Add --set resize_to={size}, or more.",
        )
    draft = Preprocess(channels, size, recipe.resize, side, recipe.interpolation, recipe.exif, zeros, ones)
    if recipe.mean == "none" and recipe.std == "none":
        return draft
    counts, pixels, number = _sums(samples, draft, recipe.mean == "per-pixel")
    means, deviations = statistics.mean_and_deviation(counts)
    mean, std = zeros, ones
    if recipe.mean == "per-channel":
        mean = means.astype(np.float32)[:, None, None]
    elif recipe.mean == "per-pixel":
        mean = np.ascontiguousarray((pixels / (number * 255.0)).transpose(2, 0, 1).astype(np.float32))
    if recipe.std == "per-channel":
        std = np.where(deviations > 0, deviations, 1.0).astype(np.float32)[:, None, None]
    elif recipe.std == "raw":
        std = ones / np.float32(255)  # the one scale of the file format, 1/255, taken back
    return Preprocess(channels, size, recipe.resize, side, recipe.interpolation, recipe.exif, mean, std)


def _resolved(samples: Samples, recipe: Recipe) -> tuple[int, int]:
    """The channels and the size of a recipe that may leave either to the data."""
    channels, size = recipe.channels, recipe.input_size
    if channels and size:
        return channels, size
    # Of every picture, not of those that statistics are taken over: a single one in colour settles the channels.
    shapes: set[tuple[int, ...]]
    if samples.images is not None:
        shapes = {samples.images.shape[1:]}
    elif samples.shapes is not None:
        shapes = {tuple(shape) for shape in np.unique(samples.shapes, axis=0).tolist()}
    else:
        shapes = {samples.read(index).shape for index in range(len(samples))}
    channels = channels or max(shape[2] for shape in shapes)
    sizes = sorted({(shape[0], shape[1]) for shape in shapes})
    if not size and (len(sizes) > 1 or sizes[0][0] != sizes[0][1]):
        raise InputError(
            f"{samples.name}: the pictures' sizes differ or are not square, and the recipe names no input_size",
            "A batch holds pictures of one size.",
            "Add --set resize=short-side --set resize_to=256 --set input_size=224 (or squash, letterbox).",
            [f"{width}x{height} pixels" for height, width in sizes],
        )
    return channels, size or sizes[0][0]


def _sums(
    samples: Samples, draft: Preprocess, per_pixel: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Counts (C, 256), the sum over the pictures of each pixel (size, size, C), and the number of pictures."""
    counts = np.zeros((draft.channels, 256), np.int64)
    pixels = np.zeros((draft.size, draft.size, draft.channels), np.int64)
    number = 0
    if samples.images is not None and draft.resize == "none":
        for start in range(0, len(samples), 1024):
            stack = draft.place_batch(samples.images[start : start + 1024])
            counts += statistics.histograms(stack)
            number += len(stack)
            if per_pixel:
                pixels += stack.sum(axis=0, dtype=np.int64)
        return counts, pixels, number
    for chunk in statistics.pictures(samples, draft.content):
        for picture in chunk:
            counts += statistics.histograms(picture)
            if per_pixel:
                pixels += picture
        number += len(chunk)
    return counts, pixels, number


def _json_problems(parts: Mapping[str, Any]) -> list[str]:
    """What is wrong with a specification's JSON."""
    known = [*FIXED, *FITTED]
    problems = [f"unknown field {name!r}{nearest(str(name), known)}" for name in parts if name not in known]
    problems += [f"field {name!r} is missing" for name in known if name not in parts]
    for name, value in FIXED.items():
        if name in parts and (type(parts[name]) is not type(value) or parts[name] != value):
            problems.append(f"{name} is {parts[name]!r}; this version knows {value!r}")
    for name, kind in FITTED.items():
        if name in parts and type(parts[name]) is not kind:
            problems.append(f"{name} is {parts[name]!r}; expected {kind.__name__}")
    if problems:
        return problems
    allowed = {"resize": RESIZES, "interpolation": tuple(resize.INTERPOLATIONS), "exif": EXIF_RULES, "channels": (1, 3)}
    problems = [
        f"{name} is {parts[name]!r}; expected one of {', '.join(map(str, values))}"
        for name, values in allowed.items()
        if parts[name] not in values
    ]
    if not 1 <= parts["size"] <= 65_535:
        problems.append(f"size is {parts['size']}; expected 1 to 65535")
    short = parts["resize"] == "short-side"
    if short and not parts["size"] <= parts["resize_to"] <= 65_535:
        problems.append(f"resize_to is {parts['resize_to']}; expected size ({parts['size']}) to 65535")
    if not short and parts["resize_to"] != 0:
        problems.append(f"resize_to is {parts['resize_to']}; expected 0 where resize is {parts['resize']}")
    return problems


def _tensor_problems(parts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with a specification's tensors, given sound JSON."""
    problems = [f"unknown tensor {name!r}" for name in tensors if name not in ("mean", "std")]
    channels, size = parts["channels"], parts["size"]
    shapes = {"mean": [(channels, 1, 1), (channels, size, size)], "std": [(channels, 1, 1)]}
    for name, allowed in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            problems.append(f"tensor {name!r} is missing")
        elif tensor.dtype != torch.float32 or tuple(tensor.shape) not in allowed:
            expected = " or ".join(map(str, allowed))
            problems.append(f"{name} is {tensor.dtype} {tuple(tensor.shape)}; expected float32 {expected}")
        elif not bool(torch.isfinite(tensor).all()) or (name == "std" and not bool((tensor > 0).all())):
            problems.append(f"{name} holds a value that is not finite{' and positive' if name == 'std' else ''}")
        elif name == "mean" and not bool(((tensor >= 0) & (tensor <= 1)).all()):
            problems.append("mean lies outside the 0..1 scale")
    return problems
