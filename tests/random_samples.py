"""Small labelled pictures for the tests of preprocessing, augmentation and loader: in memory, or the same as files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from layerwise.data.source import Samples
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset


def in_memory(number: int, size: int = 12, channels: int = 3, classes: int = 3) -> Samples:
    """`number` random pictures, all different, labelled 0, 1, 2, 0, ..."""
    rng = np.random.default_rng(number)
    return Samples(
        name="train",
        class_names=tuple(f"class {label}" for label in range(classes)),
        labels=np.arange(number, dtype=np.int64) % classes,
        ids=tuple(f"train/{index:04d}.png" for index in range(number)),
        images=rng.integers(0, 256, (number, size, size, channels), dtype=np.uint8),
    )


def as_files(samples: Samples, folder: Path) -> Samples:
    """The same pictures as PNG files in `folder`."""
    assert samples.images is not None
    paths = []
    for index, image in enumerate(samples.images):
        path = folder / f"{index:04d}.png"
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
        paths.append(path)
    return dataclasses.replace(samples, images=None, paths=tuple(paths))


def recipe(**changes: Any) -> Recipe:
    """The preset `fast` with a batch of 8 and these fields changed."""
    return dataclasses.replace(preset("fast"), **{"batch_size": 8, **changes})
