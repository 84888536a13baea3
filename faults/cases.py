"""What a law is tried on: numbers, splits and recipes of a drawn case."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st
from torch import Tensor

from layerwise.data.source import Samples
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset

SEEDS = st.integers(0, 2**32 - 1)
CLASSES = 4


def generator(data: Any) -> np.random.Generator:
    """Numbers of a drawn case."""
    return np.random.default_rng(data.draw(SEEDS))


def close(found: Tensor, expected: Tensor, relative: float = 1e-12) -> None:
    """Equal to rounding, by the norm of the difference."""
    far = float((found - expected).norm())
    assert far <= relative * max(float(expected.norm()), 1e-3), f"apart by {far:.3g} of {float(expected.norm()):.3g}"


def samples(data: Any, least: int = 1) -> Samples:
    """A split of up to 60 pictures of one pixel in four classes, of which each has some."""
    labels = np.concatenate([np.full(data.draw(st.integers(least, 15)), label) for label in range(CLASSES)])
    labels = generator(data).permutation(labels).astype(np.int64)
    return Samples(name="train", class_names=tuple("abcd"), labels=labels,
                   ids=tuple(f"{number}.png" for number in range(len(labels))),
                   images=np.zeros((len(labels), 1, 1, 1), np.uint8))


def recipe_of(**changes: Any) -> Recipe:
    """The preset `fast` with some fields changed."""
    return dataclasses.replace(preset("fast"), **changes)
