"""The kernels of a network's first convolution, tower by tower, and how specific to colours they are.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012, figure 3: "the
kernels on GPU 1 are largely color-agnostic, while the kernels on GPU 2 are largely color-specific" (section 6.1).

Left open in the paper: how specific to colours a kernel is, which it tells by eye. Here the part of a kernel's energy
that lies off the grey axis: 1 - 3 |mean over the channels|^2 / |kernel|^2, which is 0 where the three channels are
equal and 2/3 on average for random ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.order import executed


@dataclass(frozen=True, eq=False)
class Kernels:
    """The first convolution: its path, its kernels (K, C, h, w) and the kernels of each tower as (first, behind).

    Where the next convolution reads the maps in groups, each group's maps are a tower; else all kernels are one.
    """

    layer: str
    weights: Tensor
    towers: tuple[tuple[int, int], ...]


def first_kernels(model: nn.Module, image: Tensor) -> Kernels:
    """The kernels of the convolution that `image` (1, C, H, W) goes through first; InputError where there is none."""
    order = executed(model, image, (nn.Conv2d,))
    if not order:
        raise InputError("this network has no convolution", "Only kernels over a picture can be looked at.",
                         "Choose a network with convolutions.")
    first = model.get_submodule(order[0])
    assert isinstance(first, nn.Conv2d)
    after = model.get_submodule(order[1]) if len(order) > 1 else first
    groups = after.groups if isinstance(after, nn.Conv2d) and after is not first else 1
    count = first.out_channels
    # A group for each map is a depthwise convolution, and no tower.
    if groups >= count or count % groups:
        groups = 1
    each = count // groups
    towers = tuple((start, start + each) for start in range(0, count, each))
    return Kernels(order[0], first.weight.detach().float().cpu(), towers)


def colour_shares(kernels: Tensor) -> Tensor:
    """The part of the energy of each kernel (K, 3, h, w) that lies off the grey axis, (K,); 0 for one channel."""
    energy = kernels.square().sum((1, 2, 3))
    grey = kernels.shape[1] * kernels.mean(1).square().sum((1, 2))
    return 1 - grey / energy.clamp_min(torch.finfo(kernels.dtype).tiny)


def levels(kernels: Tensor) -> Tensor:
    """The kernels (K, C, h, w) as pictures (K, h, w, C) of 0 to 255: each from its lowest to its highest value."""
    low, high = kernels.amin((1, 2, 3), keepdim=True), kernels.amax((1, 2, 3), keepdim=True)
    return (255 * (kernels - low) / (high - low).clamp_min(1e-12)).round().permute(0, 2, 3, 1)
