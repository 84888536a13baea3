"""Which pixels speak for a class: gradients, Grad-CAM and integrated gradients, for several classes of each picture.

Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2013, section 3 (gradient, saliency).
Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2017, section 3.
Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", 2017, section 3 (integrated gradients).

All explain the logit, not the probability, whose gradient vanishes where the network is sure. Own code: three short
functions that leave the network as it was; tests compare them with captum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.order import mode
from layerwise.explain.stages import tapped

Maps = NDArray[np.float32]
Classes = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients of K classes of N pictures.

    `attributions` (N, K, C, H, W), signed. They should add up to `differences` (N, K), the logit of the picture less
    that of the baseline (completeness); `gaps` (N, K) is by how much their sum is larger.
    """

    attributions: Maps
    differences: Maps
    gaps: Maps


def gradients(model: nn.Module, images: Tensor, classes: Classes) -> Maps:
    """d logit / d picture, (N, K, C, H, W), for `classes` (N, K) of `images` (N, C, H, W). Raises InputError."""
    pictures = images.detach().clone().requires_grad_()
    with torch.enable_grad(), mode(model, training=False):
        return _array(_by_class(_logits(model, pictures, classes), pictures))


def saliency(found: Maps) -> Maps:
    """Gradients (N, K, C, H, W) to maps (N, K, H, W): the largest absolute value over the channels (section 3.1)."""
    largest: Maps = np.abs(found).max(2)
    return largest


def grad_cam(model: nn.Module, images: Tensor, classes: Classes, layer: str) -> Maps:
    """Where `layer` saw what speaks for a class: (N, K, H, W), not below 0, enlarged to the picture (bilinear).

    Maps weighted by their mean gradient, added up, rectified (eqs. 1 and 2). `classes` (N, K) of `images` (N, C, H, W).
    Raises InputError for an unknown layer and one without maps.
    """
    pictures = images.detach().clone().requires_grad_()
    with torch.enable_grad(), mode(model, training=False), tapped(model, layer) as taken:
        logits = _logits(model, pictures, classes)
        if not taken or taken[-1].ndim != 4:
            raise InputError(f"layer {layer} has no maps for Grad-CAM", mend="Choose a layer before the classifier.")
        maps = taken[-1]
        slopes = _by_class(logits, maps)  # (N, K, C, h, w)
        cams = (slopes.mean((3, 4), keepdim=True) * maps.detach()[:, None]).sum(2).relu()
    return _array(F.interpolate(cams, size=images.shape[2:], mode="bilinear", align_corners=False))


def integrated_gradients(
    model: nn.Module, images: Tensor, classes: Classes, baseline: float | Tensor = 0.0, steps: int = 64
) -> Integrated:
    """The gradient averaged along the straight line from `baseline` to the picture, times the way (eq. 1).

    `baseline` is in the network's input space, where 0 is the mean colour of the training pictures. The integral is
    the midpoint rule with `steps` points (eq. 3 has the right-hand rule, which needs more of them). `classes` (N, K) of
    `images` (N, C, H, W). Raises InputError.
    """
    if steps < 1:
        raise InputError(f"steps={steps}: the path needs at least one point", mend="Use 64 or so.")
    pictures = images.detach()
    start = torch.zeros_like(pictures) + baseline
    way = pictures - start
    with torch.enable_grad(), mode(model, training=False):
        total: Tensor | None = None
        for step in range(steps):
            point = (start + way * ((step + 0.5) / steps)).requires_grad_()
            found = _by_class(_logits(model, point, classes), point)
            total = found if total is None else total + found
        assert total is not None
        with torch.no_grad():
            differences = _logits(model, pictures, classes) - _logits(model, start, classes)
    attributions = total / steps * way[:, None]
    return Integrated(_array(attributions), _array(differences), _array(attributions.sum((2, 3, 4)) - differences))


def chosen(answers: Tensor, classes: Classes) -> Tensor:
    """Of answers (N, classes of the network) those for `classes` (N, K). Raises InputError where there is none."""
    wanted = rows(classes, len(answers)).to(answers.device)
    if wanted.numel() and not 0 <= int(wanted.min()) <= int(wanted.max()) < answers.shape[1]:
        raise InputError(f"classes from {int(wanted.min())} to {int(wanted.max())}",
                         mend=f"This network's classes are 0 to {answers.shape[1] - 1}.")
    return answers.gather(1, wanted)


def rows(classes: Classes, pictures: int) -> Tensor:
    """The class numbers (N, K) as a tensor. Raises InputError where there is no row for each picture."""
    wanted = torch.as_tensor(classes, dtype=torch.int64)
    if wanted.ndim != 2 or len(wanted) != pictures:
        raise InputError(f"classes of shape {tuple(wanted.shape)} for {pictures} pictures",
                         mend="Give (N, K): a row of class numbers for each picture.")
    return wanted


def _logits(model: nn.Module, images: Tensor, classes: Classes) -> Tensor:
    return chosen(model(images), classes)


def _by_class(logits: Tensor, source: Tensor) -> Tensor:
    """The gradient of each class's logit (N, K) by `source` (N, ...): (N, K, ...). Pictures do not mix."""
    found = [torch.autograd.grad(logits[:, k].sum(), source, retain_graph=True)[0] for k in range(logits.shape[1])]
    return torch.stack(found, 1)


def _array(values: Tensor) -> Maps:
    array: Maps = values.detach().float().cpu().numpy()
    return array
