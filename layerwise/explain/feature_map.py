"""The last hidden layer laid out in the plane, so that what the network finds alike lies together.

Van der Maaten, Hinton, "Visualizing data using t-SNE", 2008; scikit-learn's implementation (Barnes-Hut, van der Maaten
2014), started from the first two principal components, so that the same features give the same map.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import InputError

PERPLEXITY = 30.0
LEAST = 8


def feature_map(features: NDArray[np.floating], seed: int = 0) -> NDArray[np.float64]:
    """Places (N, 2) within 0..1 for features (N, D). Raises InputError for fewer than 8 pictures."""
    if len(features) < LEAST:
        raise InputError(f"{len(features)} pictures are too few for a map", mend=f"Give at least {LEAST}.")
    from sklearn.manifold import TSNE  # a second to import

    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    scale = float(np.abs(centred).max())
    if scale == 0:
        return np.full((len(features), 2), 0.5)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    flat = centred.shape[1] < 2
    places = TSNE(perplexity=perplexity, init="random" if flat else "pca", random_state=seed).fit_transform(
        (centred / scale).astype(np.float32))
    low, high = places.min(0), places.max(0)
    found: NDArray[np.float64] = (places.astype(np.float64) - low) / np.maximum(high - low, 1e-12)
    return found


def kept_near(features: NDArray[np.floating], places: NDArray[np.float64], k: int = 10) -> float:
    """The part of each picture's k nearest in the features that are among its k nearest on the map, 0..1."""
    shared = [len(set(a) & set(b)) for a, b in zip(_nearest(features, k), _nearest(places, k), strict=True)]
    return float(np.mean(shared)) / k


def _nearest(points: NDArray[np.floating], k: int) -> list[list[int]]:
    from sklearn.neighbors import NearestNeighbors

    found: list[list[int]] = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[1][:, 1:].tolist()
    return found
