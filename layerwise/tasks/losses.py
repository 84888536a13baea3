"""Losses of the papers' history beside softmax cross-entropy, each a number for every picture.

Those of classes: logits (N, C) and labels (N,) give (N,); the target of a class is +1, of the others -1. `contrastive`
compares pairs of embeddings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def targets(logits: Tensor, labels: Tensor) -> Tensor:
    """+1 for the label's class, -1 for the others: (N, C)."""
    signs = torch.full_like(logits, -1.0)
    return signs.scatter_(1, labels[:, None], 1.0)


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Half the squared distance to the targets (LeCun et al. 1989, section 4; Rumelhart et al. 1986)."""
    return 0.5 * (logits - targets(logits, labels)).square().sum(1)


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """One-against-all hinge, summed over classes: max(0, 1 - t s) (L1-SVM; Tang 2013, section 2.2)."""
    return (1 - targets(logits, labels) * logits).clamp_min(0).sum(1)


def squared_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """One-against-all squared hinge (L2-SVM): the output loss of deeply supervised nets (Lee et al. 2014, eq. 3)."""
    return (1 - targets(logits, labels) * logits).clamp_min(0).square().sum(1)


def contrastive(a: Tensor, b: Tensor, different: Tensor, margin: float = 1.0) -> Tensor:
    """Pairs of embeddings: D^2 / 2 for alike ones, max(0, margin - D)^2 / 2 for different ones, D = |a - b|.

    Hadsell, Chopra, LeCun 2006, "Dimensionality reduction by learning an invariant mapping", eq. 4, whose Y is
    `different`. a, b (N, D) and different (N,), true or false, give (N,). For equal embeddings D has no slope, and the
    gradient is 0.
    """
    distance = torch.linalg.vector_norm(a - b, dim=1)
    return 0.5 * torch.where(different.bool(), (margin - distance).clamp_min(0), distance).square()


OTHERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared-error": squared_error,
    "hinge": hinge,
    "squared-hinge": squared_hinge,
}
