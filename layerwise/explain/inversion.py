"""What a layer still knows of a picture: another picture with the same code.

Mahendran, Vedaldi, "Understanding deep image representations by inverting them", 2015, section 3: the picture x that
minimises |code(x) - code|^2 / |code|^2 + an alpha-norm, which keeps values in bounds, + total variation, which
keeps neighbours alike. It begins with noise.

Deviations from the paper: Adam with a rate that falls to 0 instead of momentum with steps by hand; the two
regularisers are means over pixels in units of `bound`, so that their weights hold for pictures of any size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.stages import map_at

NOISE = 0.1  # deviation of the first picture, in units of the bound


@dataclass(frozen=True)
class Objective:
    """What is minimised beside the code's error: weights of mean |x / bound|^alpha and of mean (dx^2 + dy^2)^(beta/2).

    `bound` is about the largest absolute value that pictures have in the network's input space; None: that of the
    pictures which are reconstructed. The default weights are a compromise for early and late layers: more variation
    smooths what early layers still know, less leaves late layers' pictures to noise.
    """

    alpha: float = 6.0
    alpha_weight: float = 0.3
    beta: float = 2.0
    variation_weight: float = 1.0
    bound: float | None = None

    def regularisers(self, pictures: Tensor) -> Tensor:
        """Both regularisers of pictures (N, C, H, W), weighted: (N)."""
        assert self.bound, "the bound is known once there are pictures"
        scaled = pictures / self.bound
        down = F.pad(scaled.diff(dim=2), (0, 0, 0, 1))
        right = F.pad(scaled.diff(dim=3), (0, 1))
        steps = down.square() + right.square()
        if self.beta != 2:
            steps = (steps + 1e-12).pow(self.beta / 2)  # the slope of a root at 0 is infinite
        norms = scaled.abs().pow(self.alpha)
        found: Tensor = self.alpha_weight * norms.flatten(1).mean(1)
        return found + self.variation_weight * steps.flatten(1).mean(1)


@dataclass(frozen=True)
class Inversion:
    """Pictures made from one layer's code.

    `pictures` (N, C, H, W) in the network's input space; `errors` (N): squared distance of their code from the
    original's, over the original's square; `history` (steps, N): that error before each step.
    """

    layer: str
    pictures: NDArray[np.float32]
    errors: NDArray[np.float32]
    history: NDArray[np.float32]


def inversion(
    model: nn.Module, images: Tensor, layer: str, objective: Objective | None = None, steps: int = 200,
    rate: float = 0.1, seed: int = 0,
) -> Inversion:
    """Reconstructs `images` (N, C, H, W) from what `layer` makes of them, all at once but independently.

    `rate` is Adam's first rate in units of the bound, falling to 0 along a cosine; the noise is drawn from `seed`.
    Raises InputError for an unknown layer, no steps, and a layer that gives nothing but 0.
    """
    if steps < 1:
        raise InputError(f"steps={steps}: a picture needs at least one", mend="Use 200 or so.")
    aim = objective or Objective()
    bound = aim.bound or float(images.abs().max()) or 1.0
    aim = replace(aim, bound=bound)
    with torch.no_grad():
        code = map_at(model, images, layer).flatten(1)
        size = code.square().sum(1)
    if bool((size == 0).any()):
        raise InputError(f"layer {layer} answers a picture with nothing but 0", "There is no code to go back from.",
                         "Choose another layer or picture.")
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    pictures = (noise * NOISE * bound).to(images).requires_grad_()
    adam = torch.optim.Adam([pictures], lr=rate * bound)
    history = []

    def errors() -> Tensor:
        return (map_at(model, pictures, layer).flatten(1) - code).square().sum(1) / size

    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * bound * (1 + math.cos(math.pi * step / steps)) / 2
        with torch.enable_grad():
            found = errors()
            # The gradient of the picture alone: backward() would fill those of the weights too.
            (pictures.grad,) = torch.autograd.grad((found + aim.regularisers(pictures)).sum(), pictures)
        adam.step()
        history.append(found.detach().float().cpu().numpy())
    with torch.no_grad():
        last = errors().float().cpu().numpy()
    return Inversion(layer, pictures.detach().float().cpu().numpy(), last, np.stack(history))
