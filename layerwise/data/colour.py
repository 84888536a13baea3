"""AlexNet's colour augmentation (Krizhevsky et al. 2012, section 4.1): shifts along the principal colours.

To each pixel of a picture [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T is added, where p and l are the eigenvectors and
eigenvalues of the 3x3 covariance of the training set's RGB values and a is drawn once a picture from N(0, sigma).
The scale is 0..1, as in later re-implementations; the paper does not say which scale its eigenvalues are on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.data.statistics import pictures
from layerwise.errors import InputError
from layerwise.randomness import normal
from layerwise.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Colour:
    """Principal colours on the 0..1 scale: `vectors` (3, 3), one a column, and `values` (3,), the largest first."""

    vectors: NDArray[np.float64]
    values: NDArray[np.float64]


def fit_colour(samples: Samples, preprocess: Preprocess) -> Colour:
    """The principal colours of the training pictures after `place`, called once a training.

    Pictures in memory are all counted, of files at most a fixed 5,000; a letterbox's bars are not. Of the two signs
    of an eigenvector the one whose largest component is positive is taken. Raises InputError for grey pictures.
    """
    if preprocess.channels != 3:
        raise InputError(
            "colour=pca with grey pictures",
            "A grey picture has no principal colours.",
            "use --set colour=none, or channels=3",
        )
    total, products, pixels = np.zeros(3), np.zeros((3, 3)), 0
    for chunk in pictures(samples, preprocess.content):
        for picture in chunk:
            # Sums of integers below 2**53 are exact in float64, whatever the order of the additions.
            values = picture.reshape(-1, 3).astype(np.float64)
            total += values.sum(axis=0)
            products += values.T @ values
            pixels += len(values)
    mean = total / pixels
    covariance = (products / pixels - np.outer(mean, mean)) / 255.0**2
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(3)]
    return Colour(np.ascontiguousarray(vectors * np.where(largest < 0, -1.0, 1.0)), np.ascontiguousarray(values))


def colour_shift(
    colour: Colour, recipe: Recipe, std: NDArray[np.float32], epoch: int, keys: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What is added to each normalised picture, (N, 3, 1, 1) float32: the shift on the 0..1 scale over `std`."""
    draws = normal(recipe.seed, epoch, keys, "colour", 3) * recipe.colour_sigma
    # Summed term by term: a matrix product's rounding may depend on how many pictures there are.
    steps = draws * colour.values
    shift = sum(steps[:, band, None] * colour.vectors[None, :, band] for band in range(3))
    return (np.asarray(shift)[:, :, None, None] / std.astype(np.float64)).astype(np.float32)
