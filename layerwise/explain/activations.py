"""The patches of the data that make a unit answer most, each beside its projection by the deconvolutional network.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, section 4 and figure 2: the nine largest
activations of a map over the data, each projected to the pixels, next to the part of the picture that the unit sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.deconvolution import check_channels, deconvolution, rule_for
from layerwise.explain.order import mode
from layerwise.explain.stages import map_at, tapped
from layerwise.models.receptive import Axis, Fields

Channels = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Strongest:
    """The k pictures in which one map of a layer answers most, strongest first; each picture by its strongest unit.

    `indices` (k) of the pictures, `activations` (k), `boxes` (k, 4): top, left, bottom, right of what the unit sees, in
    pixels of the network's input; they may reach beyond it. `patches` (k, C, h, w): that part of the picture, 0 beyond
    it, in the network's input space; `deconvolutions`: the same part of the unit's projection.
    """

    layer: str
    channel: int
    indices: NDArray[np.int64]
    activations: NDArray[np.float32]
    boxes: NDArray[np.int64]
    patches: NDArray[np.float32]
    deconvolutions: NDArray[np.float32]


class _Unit(NamedTuple):
    activation: float
    picture: int
    row: int
    column: int


def strongest_patches(
    model: nn.Module, batches: Iterable[dict[str, Any]], channels: Channels, count: int = 9
) -> tuple[Strongest, ...]:
    """The `count` strongest patches of each map named in `channels` (layer: its channels), in that order.

    `batches` are dicts with `image` (N, C, H, W), preprocessed, and `index` (N), gone through once; pictures are of
    one size. Activations that are not above 0 are left out: they have no projection. Raises InputError for an unknown
    layer or channel, and where there are no pictures.
    """
    best: dict[tuple[str, int], list[_Unit]] = {(layer, one): [] for layer in channels for one in channels[layer]}
    pictures: dict[int, Tensor] = {}
    sample: Tensor | None = None
    device = next(model.parameters()).device
    for batch in batches:
        images = batch["image"]
        if not len(images):
            continue
        sample = images[0].clone() if sample is None else sample
        indices = [int(index) for index in batch["index"]]
        for layer, maps in _maps(model, images.to(device), tuple(channels)).items():
            check_channels(layer, channels[layer], maps.shape[1])
            for channel in channels[layer]:
                answers = maps[:, channel].flatten(1)
                places = answers.argmax(1).tolist()
                found = [_Unit(float(values[place]), index, *divmod(place, maps.shape[3]))
                         for values, place, index in zip(answers, places, indices, strict=True)]
                kept = best[layer, channel] + [unit for unit in found if unit.activation > 0]
                best[layer, channel] = sorted(kept, key=lambda unit: -unit.activation)[:count]
        wanted = {unit.picture for units in best.values() for unit in units}
        pictures.update({index: image for index, image in zip(indices, images, strict=True) if index in wanted})
        # Clones: a part of a batch would keep the whole of it.
        pictures = {index: image.clone() if image._base is not None else image
                    for index, image in pictures.items() if index in wanted}
    if sample is None:
        raise InputError("no pictures to see the strongest patches of", mend="Name a split with pictures.")
    shape = sample.shape
    fields = {layer: _field(model, sample.to(device), layer) for layer in channels}
    return tuple(
        _strongest(model, layer, channel, units, fields[layer], pictures) if units
        else _nothing(layer, channel, (shape[0], *(min(axis.size, side) for axis, side in zip(fields[layer], shape[1:],
                                                                                             strict=True))))
        for (layer, channel), units in best.items()
    )


def _maps(model: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The output of each layer, (N, C, H', W'); a fully connected layer's are maps of 1x1."""
    with mode(model, training=False), torch.no_grad(), ExitStack() as stack:
        taken = {layer: stack.enter_context(tapped(model, layer)) for layer in layers}
        model(images)
    found = {layer: outputs[0] if outputs else map_at(model, images, layer) for layer, outputs in taken.items()}
    return {layer: maps if maps.ndim == 4 else maps[:, :, None, None] for layer, maps in found.items()}


def _field(model: nn.Module, image: Tensor, layer: str) -> tuple[Axis, Axis]:
    """What a unit of the layer sees along both axes; the whole picture where its map has no positions any more."""
    whole = (Axis(0, image.shape[1] - 1, 0), Axis(0, image.shape[2] - 1, 0))
    batch = image[None]
    with torch.no_grad(), Fields(batch) as fields:
        found = fields.axes(map_at(model, batch, layer))
    return found or whole


def _strongest(
    model: nn.Module, layer: str, channel: int, units: list[_Unit], field: tuple[Axis, Axis],
    pictures: Mapping[int, Tensor],
) -> Strongest:
    images = torch.stack([pictures[unit.picture] for unit in units])
    positions = np.array([(unit.row, unit.column) for unit in units], np.int64)
    device = next(model.parameters()).device
    projected = deconvolution(model, images.to(device), layer, [channel] * len(units), positions,
                              rule_for(model)).projections
    sides = [_box(field[0], unit.row, images.shape[2]) + _box(field[1], unit.column, images.shape[3]) for unit in units]
    boxes = np.array(sides)[:, [0, 2, 1, 3]]
    return Strongest(
        layer, channel, np.array([unit.picture for unit in units]),
        np.array([unit.activation for unit in units], np.float32), boxes,
        _cut(images.float().cpu(), boxes), _cut(torch.from_numpy(projected), boxes),
    )


def _nothing(layer: str, channel: int, shape: tuple[int, ...]) -> Strongest:
    patches = np.zeros((0, *shape), np.float32)
    return Strongest(layer, channel, np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.int64),
                     patches, patches)


def _box(axis: Axis, unit: int, side: int) -> tuple[int, int]:
    """First pixel, and the one behind the last; the whole side where the field is as large."""
    if axis.size >= side:
        return 0, side
    first = axis.first + unit * axis.step
    return first, first + axis.size


def _cut(images: Tensor, boxes: NDArray[np.int64]) -> NDArray[np.float32]:
    """The boxes of (k, C, H, W), 0 beyond the pictures."""
    parts = []
    for image, (top, left, bottom, right) in zip(images, boxes.tolist(), strict=True):
        # Padding by a negative number cuts off.
        parts.append(F.pad(image, (-left, right - image.shape[2], -top, bottom - image.shape[1])))
    cut: NDArray[np.float32] = torch.stack(parts).numpy()
    return cut
