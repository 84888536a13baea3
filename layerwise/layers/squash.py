"""The scaled hyperbolic tangent (LeCun et al. 1989 and 1998)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledTanh(nn.Module):
    """f(a) = 1.7159 tanh(2a/3), so that f(1) = 1 and f(-1) = -1 (LeCun et al. 1998, appendix A). Any shape."""

    def forward(self, values: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(values * (2 / 3))
