"""DropConnect (Wan et al. 2013): in training each connection of a fully connected layer is there or not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DropConnect(nn.Linear):
    """u = (M * W) v with a fresh mask M of zeros and ones for each picture (Wan et al. 2013, section 3).

    Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of neural networks using DropConnect". Weights and biases
    are dropped with probability `drop` (the paper's 1 - p). What is dropped for a picture has no gradient from it
    (algorithm 1): forward and update share the mask. In evaluation mode the mean of u over the masks, p W v.
    Input (N, in_features), output (N, out_features). Masks take N * out_features * in_features numbers.
    """

    def __init__(self, in_features: int, out_features: int, drop: float = 0.5, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        assert 0 <= drop < 1, "drop is a part of the connections"
        self.drop = drop

    def forward(self, vectors: Tensor) -> Tensor:
        return self._masked(vectors) if self.training else self.moments(vectors)[0]

    def _masked(self, vectors: Tensor) -> Tensor:
        weight = self._kept(len(vectors), self.weight)
        bias = 0.0 if self.bias is None else self._kept(len(vectors), self.bias)
        return torch.einsum("noi,ni->no", weight, vectors) + bias

    def _kept(self, pictures: int, parameter: Tensor) -> Tensor:
        mask = torch.rand(pictures, *parameter.shape, device=parameter.device) >= self.drop
        return parameter * mask

    def moments(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean p W v and variance p (1 - p) (W * W)(v * v) of u over the masks (section 3.2), (N, out_features)."""
        keep = 1 - self.drop
        squares = None if self.bias is None else self.bias.square()
        variance = keep * self.drop * F.linear(vectors.square(), self.weight.square(), squares)
        return keep * F.linear(vectors, self.weight, self.bias), variance

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, drop={self.drop}"


class DropConnectReLU(DropConnect):
    """max(0, u) after DropConnect; in evaluation mode its mean for a normal u of the same moments (section 3.2).

    Algorithm 2 of the paper averages Z samples of that normal distribution; for a ReLU the mean of infinitely many is
    m Phi(m / s) + s phi(m / s) with m, s^2 the moments, so nothing is drawn. Leaving out the variance, as Dropout
    does, would be max(0, m).
    """

    def forward(self, vectors: Tensor) -> Tensor:
        if self.training:
            return self._masked(vectors).relu()
        mean, variance = self.moments(vectors)
        return rectified_mean(mean, variance)


def rectified_mean(mean: Tensor, variance: Tensor) -> Tensor:
    """The mean of max(0, u) for u ~ N(mean, variance); variance 0 is u = mean."""
    deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
    ratio = mean / deviation
    density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
    below: Tensor = torch.special.ndtr(ratio)
    return mean * below + deviation * density
