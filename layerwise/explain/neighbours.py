"""Which training pictures a network finds alike: nearest in its last hidden layer, beside nearest in the pixels.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012, section 6.1 and
figure 4, right: the six training pictures whose feature vectors in the last hidden layer have the smallest Euclidean
distance from that of a test picture.

FAISS searches (Johnson, Douze, Jegou 2017); it is the extra `neighbours`, since training and testing do not need it.
It finds more candidates than are asked for, in float32, and their order is settled in float64: its short cut for large
searches, |a|^2 + |b|^2 - 2ab, loses digits where vectors are long and near to one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from layerwise.errors import InputError, MachineError
from layerwise.explain.order import executed, mode, watched

Vectors = NDArray[np.float32]
MORE = 16  # candidates beside those asked for
CHUNK = 1 << 26  # numbers gathered at a time while the order is settled


@dataclass(frozen=True)
class Neighbours:
    """Of each query the nearest entries, nearest first: (queries, k) indices, and distances in the search's own unit.

    Euclidean distances for vectors, differing bits for codes.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float64]


def faiss() -> ModuleType:
    """The package FAISS. Raises MachineError with the command that installs it where it is missing."""
    try:
        import faiss as found
    except ImportError:
        raise MachineError("the package faiss-cpu is not installed",
                           "It searches for the nearest among many vectors.",
                           "In the checkout of Layerwise: pip install -c constraints.txt '.[neighbours]'") from None
    return found


def last_hidden(model: nn.Module, batches: Iterable[dict[str, Any]]) -> Vectors:
    """The features (N, D) of pictures: what the network's last layer with weights takes, in evaluation mode.

    `batches` are dicts whose `image` is (N, C, H, W), preprocessed. Maps, as the last convolution of a network without
    fully connected layers takes them, are averaged over their positions. Raises InputError for no pictures.
    """
    return answered(model, batches)[0]


def answered(model: nn.Module, batches: Iterable[dict[str, Any]]) -> tuple[Vectors, Vectors]:
    """`last_hidden` of pictures, and the network's logits (N, classes) to them."""
    device = next(model.parameters()).device
    last, taken, logits = "", [], []

    def look(name: str, module: nn.Module, entered: Tensor, left: Tensor) -> None:
        maps = entered.detach().float()
        taken.append((maps.mean((2, 3)) if maps.ndim == 4 else maps).cpu())

    with mode(model, training=False), torch.no_grad():
        for batch in batches:
            images = batch["image"].to(device)
            if not len(images):
                continue
            last = last or executed(model, images)[-1]
            with watched({last: model.get_submodule(last)}, look):
                logits.append(model(images).float().cpu())
    if not taken:
        raise InputError("no pictures to take features of", mend="Name a split with pictures.")
    features, answers = (np.ascontiguousarray(torch.cat(parts).numpy()) for parts in (taken, logits))
    return features, answers


def pixels(batches: Iterable[dict[str, Any]], side: int = 0) -> Vectors:
    """The pictures themselves as vectors (N, C H W), as the network sees them; raises InputError for no pictures.

    Pictures larger than `side`, where it is given, are averaged down to side x side first.
    """
    taken = []
    for batch in batches:
        images = batch["image"].float()
        if side and len(images) and max(images.shape[2:]) > side:
            images = adaptive_avg_pool2d(images, side)
        taken += [images.cpu().flatten(1)] if len(images) else []
    if not taken:
        raise InputError("no pictures to take pixels of", mend="Name a split with pictures.")
    return np.ascontiguousarray(torch.cat(taken).numpy())


def vector_index(database: Vectors) -> Any:
    """A FAISS index that compares a query with every vector (N, D) by Euclidean distance, squared, in float32.

    Raises MachineError without FAISS.
    """
    index = faiss().IndexFlatL2(database.shape[1])
    index.add(database)
    return index


def nearest(database: Vectors, queries: Vectors, k: int) -> Neighbours:
    """The k entries of `database` (N, D) with the smallest Euclidean distance from each of `queries` (Q, D).

    Of equally near ones the first comes first. Raises InputError where there are fewer than k, or D differs;
    MachineError without FAISS.
    """
    if database.shape[1] != queries.shape[1] or not 0 < k <= len(database):
        raise InputError(f"{k} neighbours of vectors {queries.shape} among {database.shape}",
                         "Vectors are of one length, and there must be at least so many.")
    centre = database.mean(0, dtype=np.float64).astype(np.float32)  # shorter vectors keep more digits in float32
    _, candidates = vector_index(database - centre).search(queries - centre, min(k + MORE, len(database)))
    step = max(1, CHUNK // (candidates.shape[1] * database.shape[1]))
    parts = [_settled(database, queries[start : start + step], candidates[start : start + step], k)
             for start in range(0, len(queries), step)]
    indices, distances = zip(*parts, strict=True) if parts else ((candidates,), (candidates.astype(np.float64),))
    return Neighbours(np.concatenate(indices), np.concatenate(distances))


def _settled(
    database: Vectors, queries: Vectors, candidates: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k best of each query's candidates (Q, K), by exact distance and then by place."""
    candidates = np.sort(candidates, axis=1)  # a stable order then settles equal distances by place
    difference = database[candidates].astype(np.float64) - queries[:, None].astype(np.float64)
    distances = np.sqrt(np.square(difference).sum(2))
    best = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(candidates, best, 1), np.take_along_axis(distances, best, 1)


def precision(found: Neighbours, labels: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """The share of neighbours, in percent, that are of their query's class: labels (N) of entries, truth (Q)."""
    return 100.0 * float((labels[found.indices] == truth[:, None]).mean())
