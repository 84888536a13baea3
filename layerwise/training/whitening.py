"""The whitening start of a first convolution: its filters are the principal directions of the pictures' patches.

Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.1, after Page 2019. The patches of the
preprocessed training pictures have the second moments S = V L V^T (taken around 0, as the source does). The rows of
(L + e)^(-1/2) V^T, with e = 5e-4, give filters whose answers are uncorrelated and of variance near 1; each is there
with both signs, so that what an activation cuts off in one is kept in the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layerwise.data.loader import plain_batches
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.randomness import permutation

PICTURES = 5_000  # as in the source
EPSILON = 5e-4


def whiten_first(model: nn.Module, samples: Samples, preprocess: Preprocess) -> None:
    """Gives the first convolution its whitening filters, biases 0, and ends the training of the filters.

    A pure function of the training pictures: no seed changes it. Raises InputError where the network does not begin
    with a convolution that has two filters for each number of a patch.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.groups != 1 or first.out_channels != 2 * first.weight[0].numel():
        found = "it has no convolution" if first is None else (
            f"its first convolution has {first.out_channels} filters over {first.weight[0].numel()} numbers")
        raise InputError(f"whiten=first: the network can't whiten, {found}",
                         "A whitening layer has two filters for each number of a patch: as airnet has.",
                         "Set whiten=none, or choose airnet or airnet_narrow.")
    moments = patch_moments(samples, preprocess, first.weight.shape[2])
    filters = whitening_filters(moments).view(-1, *first.weight.shape[1:])
    with torch.no_grad():
        first.weight.copy_(torch.cat([filters, -filters]))
        if first.bias is not None:
            first.bias.zero_()
    first.weight.requires_grad_(False)


def patch_moments(samples: Samples, preprocess: Preprocess, side: int) -> Tensor:
    """The second moments of all patches (channels x side x side) of 5,000 training pictures: (D, D) float64."""
    chosen = permutation(0, 0, len(samples), "whitening")[:PICTURES]
    total, count = torch.zeros(()), 0
    for batch in plain_batches(samples.subset(sorted(chosen.tolist()), samples.name), preprocess, 50):
        patches = batch["image"].double().unfold(2, side, 1).unfold(3, side, 1)  # (N, C, H', W', side, side)
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, patches.shape[1] * side * side)
        total, count = total + rows.T @ rows, count + len(rows)
    return total / max(1, count)


def whitening_filters(moments: Tensor) -> Tensor:
    """The rows of (L + e)^(-1/2) V^T for the moments V L V^T (D, D), the largest first: (D, D) float32."""
    values, vectors = torch.linalg.eigh(moments)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * largest.sign()  # the sign of an eigenvector is free: its largest part is positive
    filters: Tensor = (vectors / (values.clamp_min(0) + EPSILON).sqrt()).T.flip(0).float()
    return filters
