"""Retrieval by short binary codes: an auto-encoder compresses vectors, and codes are compared by their differing bits.

Krizhevsky, Sutskever, Hinton 2012, section 6.1: comparing 4096 real numbers is slow, and an auto-encoder could compress
them to short binary codes; that "should produce a much better image retrieval method" than auto-encoders over pixels
(Krizhevsky, Hinton, "Using very deep autoencoders for content-based image retrieval", 2011), which know no labels.

Deviations from the paper of 2011: one hidden layer on each side of the code instead of five, tanh instead of logistic
units, no pre-training by restricted Boltzmann machines, no rounding of the code while it learns; a bit says whether a
unit is above its median over the training vectors, so that each bit parts them in halves.

The auto-encoder is scikit-learn's multi-layer perceptron with its input as the target. It learns vectors, while the
training loop of this library learns pictures, and a second loop beside it would be one too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import InputError
from layerwise.explain.neighbours import Neighbours, Vectors, faiss
from layerwise.randomness import derived_seed

HIDDEN = 256
BATCH = 256
Codes = NDArray[np.uint8]  # (N, bits / 8): eight bits a byte


@dataclass(frozen=True)
class Encoder:
    """The first half of an auto-encoder, and where each unit of its code is cut into 0 and 1.

    `centre` (D) and `scale` normalise a vector; `weights` and `biases` are of its two layers; `cuts` (bits).
    """

    centre: Vectors
    scale: float
    weights: tuple[Vectors, ...]
    biases: tuple[Vectors, ...]
    cuts: Vectors

    def units(self, vectors: Vectors) -> Vectors:
        """The code layer's answers, (N, D) to (N, bits), before they are cut."""
        values = (vectors - self.centre) / np.float32(self.scale)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            values = np.tanh(values @ weight + bias)
        return np.asarray(values, np.float32)

    def codes(self, vectors: Vectors) -> Codes:
        """The binary codes of vectors (N, D): (N, bits / 8)."""
        return np.packbits(self.units(vectors) > self.cuts, axis=1)


def learn(vectors: Vectors, bits: int, epochs: int, seed: int) -> Encoder:
    """Trains an auto-encoder D - 256 - bits - 256 - D on vectors (N, D), N at least 2, for the mean squared error.

    Raises InputError for a number of bits that is no multiple of 8.
    """
    if bits < 8 or bits % 8:
        raise InputError(f"codes of {bits} bits", "Codes are searched by whole bytes.", "Take a multiple of 8.")
    from sklearn.neural_network import MLPRegressor  # as slow to import as torch, and few commands need it

    centre = vectors.mean(0, dtype=np.float64).astype(np.float32)
    scale = float(np.std(vectors - centre)) or 1.0
    values = (vectors - centre) / np.float32(scale)
    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN, bits, HIDDEN), activation="tanh", batch_size=min(BATCH, len(vectors)), alpha=0.0,
        learning_rate_init=1e-3, random_state=derived_seed(seed, "auto-encoder", bits) % 2**32,
    )  # fmt: skip
    for _ in range(epochs):
        network.partial_fit(values, values)  # one pass over all vectors, in a new order
    weights, biases = (tuple(np.asarray(part, np.float32) for part in parts[:2])
                       for parts in (network.coefs_, network.intercepts_))
    untied = Encoder(centre, scale, weights, biases, np.zeros(bits, np.float32))
    return Encoder(centre, scale, weights, biases, np.median(untied.units(vectors), axis=0))


def code_index(database: Codes) -> Any:
    """A FAISS index that compares a query with every code (N, bytes) by its differing bits. Raises MachineError."""
    index = faiss().IndexBinaryFlat(8 * database.shape[1])
    index.add(database)
    return index


def nearest_codes(database: Codes, queries: Codes, k: int) -> Neighbours:
    """The k codes of `database` (N, bytes) with the fewest bits that differ from each of `queries` (Q, bytes).

    Codes that differ in equally many bits come in an order of FAISS's own. Raises InputError where there are fewer than
    k, or the lengths differ; MachineError without FAISS.
    """
    if database.shape[1] != queries.shape[1] or not 0 < k <= len(database):
        raise InputError(f"{k} neighbours of codes {queries.shape} among {database.shape}",
                         "Codes are of one length, and there must be at least so many.")
    distances, indices = code_index(database).search(queries, k)
    return Neighbours(indices, distances.astype(np.float64))
