"""View: the nine strongest patches of some channels of some layers, each beside its deconvolution (ZFNet, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from layerwise.data.source import Samples
from layerwise.explain.activations import strongest_patches
from layerwise.explain.deconvolution import explained
from layerwise.explain.pictures import capped, from_input, signed, uri
from layerwise.explain.stages import map_at, stages
from layerwise.explain.subject import Subject, drawn
from layerwise.explain.view import Part, Strips, Tile, View, Words

T = TypeVar("T")
LAYERS, CHANNELS, NINE = 4, 4, 9
PICTURES = 2_000
BUDGET = 150_000_000_000  # multiply-adds of the pass over the pictures


def view(subject: Subject) -> View:
    """The strongest patches of channels at even steps in stages at even steps of the network."""
    model, preprocess = subject.file.model, subject.file.preprocess
    image = torch.zeros(1, preprocess.channels, preprocess.size, preprocess.size)
    layers = even(stages(model, image), LAYERS)
    channels = {layer: even(range(map_at(model, image, layer).shape[1]), CHANNELS) for layer in layers}
    samples = _looked_at(subject)
    found = strongest_patches(model, subject.batches(samples), channels, NINE)
    rows: list[tuple[Tile, ...]] = []
    for one in found:
        if not len(one.indices):
            continue
        patches = [Tile(uri(from_input(patch, preprocess), 96)) for patch in one.patches]
        shown = [Tile(uri(signed(capped(part)), 96)) for part in one.deconvolutions]
        names = [samples.class_names[samples.labels[index]] for index in one.indices.tolist()]
        rows.append(tuple(
            Tile(tile.uri, f"{one.layer.removeprefix('features.')} {one.channel}" if place == 0 else "",
                 (names[place],) if subject.own_labels else ()) for place, tile in enumerate(patches)))
        rows.append(tuple(shown))
    parts: list[Part] = [Strips(
        "For each layer and channel: the patches of the pictures that it answers most strongly, and below each what in "
        "it the answer comes from (grey is 0).", (f"the {NINE} strongest, from the left",), (NINE,), tuple(rows))]
    parts += [Words(" ".join(explained(model)))] if explained(model) else []
    return View(
        "activations", "Strongest activations",
        "What a channel has learned to find: what its strongest patches have in common, and which of their "
        "pixels count.",
        "What a channel is for: it answers to more than its strongest patches, and no channel works alone.",
        "Zeiler, Fergus 2014, sections 2 and 4, figure 2", tuple(parts),
        (*subject.bound(len(samples), subject.size("") if subject.asked is None else len(subject.asked), "pictures"),
         f"{CHANNELS} channels at even steps of {len(layers)} layers"))  # fmt: skip


def even(items: Sequence[T], most: int) -> tuple[T, ...]:
    """At most so many of the items, at even steps, the first and the last among them."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[int(place)] for place in np.linspace(0, len(items) - 1, most).round())


def _looked_at(subject: Subject) -> Samples:
    most = int(max(100, min(PICTURES, BUDGET // subject.multiply_adds)))
    return drawn(subject.asked if subject.asked is not None else subject.split("", most), most)
