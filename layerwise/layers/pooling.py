"""Pooling beside plain maximum and average: Lp, mixed, stochastic, spatial-pyramid and RoI pooling.

Overlapping pooling (Krizhevsky et al. 2012, section 3.4) is torch's MaxPool2d with a window wider than its stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.layers.repeatable import AdaptiveMaxPool2d


def windows(maps: Tensor, kernel_size: int, stride: int) -> Tensor:
    """The windows of (N, C, H, W) as a view: (N, C, H', W', kernel_size, kernel_size). No padding."""
    rows: Tensor = maps.unfold(2, kernel_size, stride)
    return rows.unfold(3, kernel_size, stride)


class _Window(nn.Module):
    """A layer that slides a square window without padding; the stride is the window's side where none is given."""

    def __init__(self, kernel_size: int, stride: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride or kernel_size, 0

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}"


class LpPool2d(_Window):
    """(sum over the window of |x|^p)^(1/p) (Sermanet, Chintala, LeCun 2012, section 2.1, all weights G equal to 1).

    p = 1 is the sum, p = inf the maximum of the absolute values. torch's own LPPool2d keeps the sign of odd powers, so
    that positive and negative values cancel, gives no number for other powers of negative values, and overflows. Here
    windows are scaled by their largest value first: high powers neither overflow nor vanish. The gradient of a window
    of zeros is 0.
    Input (N, C, H, W), output (N, C, H', W').
    """

    def __init__(self, p: float, kernel_size: int, stride: int | None = None) -> None:
        assert p >= 1, "below 1 it is no norm"
        super().__init__(kernel_size, stride)
        self.p = p

    def forward(self, maps: Tensor) -> Tensor:
        parts = windows(maps, self.kernel_size, self.stride)
        if self.p == math.inf:
            return parts.abs().amax((-2, -1))
        # A factor that is taken out and put back has no gradient of its own: the norm is homogeneous.
        scale = parts.detach().abs().amax((-2, -1)).clamp_min(torch.finfo(maps.dtype).tiny)
        norms: Tensor = torch.linalg.vector_norm(parts / scale[..., None, None], self.p, (-2, -1))
        return norms * scale

    def extra_repr(self) -> str:
        return f"p={self.p}, {super().extra_repr()}"


class MixedPool2d(_Window):
    """Maximum or average pooling, drawn anew for each map of each picture with equal odds (Yu et al. 2014, eq. 5).

    Yu, Wang, Chen, Wei 2014, "Mixed pooling for convolutional neural networks". In evaluation mode the expectation:
    the mean of the two. The paper takes there the one that a map had more often in training; with fair draws that is
    left to chance. Input (N, C, H, W), output (N, C, H', W').
    """

    def forward(self, maps: Tensor) -> Tensor:
        largest = F.max_pool2d(maps, self.kernel_size, self.stride)
        average = F.avg_pool2d(maps, self.kernel_size, self.stride)
        if not self.training:
            return (largest + average) / 2
        choice = torch.rand(maps.shape[:2], device=maps.device)[..., None, None] < 0.5
        return torch.where(choice, largest, average)


class StochasticPool2d(_Window):
    """One activation a window, drawn with probability p_i = a_i / sum of a (Zeiler & Fergus 2013, eqs. 4 and 5).

    In evaluation mode the sum of p_i a_i (section 3.2, eq. 6). Activations are those after a ReLU; values below 0
    count as 0, and a window of zeros gives 0. Input (N, C, H, W), output (N, C, H', W').
    """

    def forward(self, maps: Tensor) -> Tensor:
        parts = windows(maps, self.kernel_size, self.stride).flatten(-2).clamp_min(0)
        if not self.training:
            total = parts.sum(-1).clamp_min(torch.finfo(maps.dtype).tiny)
            return (parts / total[..., None] * parts).sum(-1)
        edges = parts.detach().cumsum(-1)
        # Strictly below: an activation of 0 has an empty interval. In a window of zeros any index gives 0.
        drawn = torch.rand_like(edges[..., :1]) * edges[..., -1:]
        index = (edges <= drawn).sum(-1, keepdim=True).clamp_max(parts.shape[-1] - 1)
        return parts.gather(-1, index).squeeze(-1)


class SpatialPyramidPool(nn.Module):
    """Maxima over n x n bins for each level n, one vector for maps of any size (He et al. 2014, section 2.2).

    He, Zhang, Ren, Sun 2014, "Spatial pyramid pooling in deep convolutional networks for visual recognition". Bin i of
    n reaches from floor(i H / n) to ceil((i + 1) H / n) (appendix A), which is what torch's adaptive pooling does.
    The levels follow each other in the order given, each as (C, n, n). Input (N, C, H, W), output (N, C * sum of n^2).
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(AdaptiveMaxPool2d(level) for level in levels)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([level(maps).flatten(1) for level in self.levels], 1)


class RoIPool(nn.Module):
    """The largest values in an H x W grid of sub-windows of each region (Girshick 2015, "Fast R-CNN", section 2.1).

    `scale` is the map's size over the picture's. Corners times `scale` are rounded to the nearest position, halves
    away from zero, and belong to the region, which has at least one position; sub-windows are those of spatial pyramid
    pooling and may overlap. What lies outside the map is left out; a sub-window wholly outside gives 0. The gradient
    goes to the largest value (eq. 4).
    """

    def __init__(self, output_size: tuple[int, int], scale: float) -> None:
        super().__init__()
        self.output_size, self.scale = output_size, scale

    def forward(self, maps: Tensor, regions: Tensor) -> Tensor:
        """Maps (N, C, h, w), regions (R, 5): picture's index, then x1, y1, x2, y2 in pixels. Gives (R, C, H, W)."""
        if not len(regions):
            return maps.new_zeros(0, maps.shape[1], *self.output_size) + 0 * maps.sum()
        corners = regions[:, 1:].double() * self.scale
        whole = (corners.sign() * (corners.abs() + 0.5).floor()).long().tolist()
        pictures = regions[:, 0].long().tolist()
        return torch.stack([self._one(maps[n], corner) for n, corner in zip(pictures, whole, strict=True)])

    def _one(self, maps: Tensor, corners: list[int]) -> Tensor:
        x1, y1, x2, y2 = corners
        height, width = self.output_size
        return _largest(_largest(maps, 1, (y1, y2), height), 2, (x1, x2), width)

    def extra_repr(self) -> str:
        return f"{self.output_size}, scale={self.scale}"


def _largest(maps: Tensor, axis: int, ends: tuple[int, int], count: int) -> Tensor:
    """The largest values of `count` parts of positions ends[0] ... ends[1] of an axis; 0 where a part is empty."""
    start, length, side = ends[0], max(ends[1] - ends[0] + 1, 1), maps.shape[axis]
    parts = []
    for i in range(count):
        first = min(max(start + i * length // count, 0), side)
        last = min(max(start - (-(i + 1) * length // count), 0), side)  # rounded up
        part = maps.narrow(axis, first, max(last - first, 0))
        parts.append(part.max(axis).values if last > first else torch.zeros_like(maps.select(axis, 0)))
    return torch.stack(parts, axis)
