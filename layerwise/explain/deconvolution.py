"""What in a picture makes a unit answer: its activation projected down to the pixels by a deconvolutional network.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, section 2.1. All other activations of the
layer are set to 0; then each layer below is undone: unpooling puts a value where the maximum was (the switches),
rectification keeps what is above 0, filtering applies the transposed filters. Biases are left out.

Unpooling with switches and transposed filters are what the chain rule does to max pooling and convolutions (Simonyan,
Vedaldi, Zisserman 2013, section 4), so the projection is a backward pass in which ReLU rectifies the *signal* instead
of passing it where its own input was positive. That holds for any network; for what the paper's has not, see `RULES`.

The switches are all that a projection has of the picture. A network without max pooling has none: the projection of a
unit would be the same for every picture. For it there is `guided` backpropagation (Springenberg, Dosovitskiy, Brox,
Riedmiller, "Striving for simplicity: the all convolutional net", 2015, section 3.4), which also stops the signal where
a ReLU gave 0; `rule_for` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from layerwise.errors import InputError
from layerwise.explain.stages import map_at

RECTIFIERS = (F.relu, F.relu_, F.relu6, F.hardtanh, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)

RULES: Mapping[str, str] = {
    "rectified": "ReLU: the signal is rectified",
    "guided": "there is no max pooling, so no switches: a deconvolution would be the same for every picture, and the "
              "signal is also stopped where a ReLU gave 0 (guided backpropagation)",
    "max pooling": "max pooling: the signal goes to where the maximum was (switches); signals that meet add up",
    "average pooling": "average pooling: the signal is spread evenly over the window; there are no switches",
    "response normalisation": "response normalisation: the signal is scaled as the activation was on the way up",
    "batch normalisation": "batch normalisation: a fixed scale a map in evaluation mode; the shift is left out",
    "maxout": "maxout: the signal goes to the piece that won",
    "smooth": "sigmoid and tanh: the signal is multiplied by their slope, as in a gradient; nothing is rectified",
    "sum": "where maps are added the signal takes both ways and is added below; where they are joined it is split",
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "rectified": ("ReLU", "ReLU6", "DropConnectReLU"),
    "max pooling": ("MaxPool2d",),
    "average pooling": ("AvgPool2d", "AdaptiveAvgPool2d", "Subsampling"),
    "response normalisation": ("ResponseNorm", "LocalResponseNorm"),
    "batch normalisation": ("BatchNorm2d", "BatchNorm1d", "ShiftNorm"),
    "maxout": ("Maxout",),
    "smooth": ("Sigmoid", "Tanh", "ScaledTanh"),
}


@dataclass(frozen=True)
class Deconvolution:
    """One unit a picture, projected to the pixels.

    `channels` (N), `positions` (N, 2): row and column in the layer's map, `activations` (N); `projections`
    (N, C, H, W), signed, in the network's input space.
    """

    layer: str
    channels: NDArray[np.int64]
    positions: NDArray[np.int64]
    activations: NDArray[np.float32]
    projections: NDArray[np.float32]


class _Rectified(torch.autograd.Function):
    """Forward: `after`, whatever it is. Backward: the signal rectified, handed to `before`."""

    @staticmethod
    def forward(ctx: Any, before: Tensor, after: Tensor) -> Tensor:
        return after.view_as(after)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None]:
        return signals[0].clamp(min=0), None


class _Guided(torch.autograd.Function):
    """Forward: `after`, whatever it is. Backward: the signal rectified where `after` is above 0, and 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, before: Tensor, after: Tensor) -> Tensor:
        ctx.save_for_backward(after > 0)
        return after.view_as(after)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None]:
        (answered,) = ctx.saved_tensors
        return signals[0].clamp(min=0) * answered, None


Rule = Callable[[Tensor, Tensor], Tensor]  # what a ReLU took and what it gives; its backward pass is the rule


def rectified(before: Tensor, after: Tensor) -> Tensor:
    """The deconvolutional network's rule: on its way down the signal is rectified."""
    found: Tensor = _Rectified.apply(before, after)  # type: ignore[no-untyped-call]
    return found


def guided(before: Tensor, after: Tensor) -> Tensor:
    """Guided backpropagation's rule: the signal is rectified, and stopped where the ReLU gave 0 on the way up."""
    found: Tensor = _Guided.apply(before, after)  # type: ignore[no-untyped-call]
    return found


def rule_for(model: nn.Module) -> Rule:
    """`rectified` for a network with max pooling, whose switches know the picture; else `guided`."""
    return rectified if any(isinstance(module, nn.MaxPool2d) for module in model.modules()) else guided


class Deconvnet(TorchFunctionMode):
    """Within it backward passes project by `rule`. No module is touched, so none is changed."""

    def __init__(self, rule: Rule = rectified) -> None:
        super().__init__()
        self._rule = rule

    def __torch_function__(self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        given = kwargs or {}
        if func is F.local_response_norm:
            return _scaled(*args, **given)
        low, high = _bounds(func, *args, **given)
        if low != 0:
            return func(*args, **given)
        maps: Tensor = args[0] if args else given["input"]
        after = self._rule(maps, maps.detach().clamp(low, high))
        in_place = given.get("inplace", args[-1] is True) or func.__name__.endswith("_")
        return maps.copy_(after) if in_place else after


def _bounds(func: Callable[..., Any], *args: Any, **given: Any) -> tuple[float | None, float | None]:
    """Between what a function cuts off; (None, None) where it is no rectification. ReLU6 is a `hardtanh`."""
    if func is F.hardtanh:
        return given.get("min_val", (*args, -1.0)[1]), given.get("max_val", (*args, 1.0, 1.0)[2])
    return (0.0, 6.0 if func is F.relu6 else None) if func in RECTIFIERS else (None, None)


def _scaled(maps: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """torch's response normalisation, (N, C, H, W), as a scale that is fixed in the backward pass."""
    squares = F.pad(maps.detach().square()[:, None], (0, 0, 0, 0, size // 2, (size - 1) // 2))
    means = F.avg_pool3d(squares, (size, 1, 1), stride=1)[:, 0]
    return maps * (k + alpha * means).pow(-beta)


def deconvolution(
    model: nn.Module, images: Tensor, layer: str, channels: Sequence[int], positions: NDArray[np.int64] | None = None,
    rule: Rule = rectified,
) -> Deconvolution:
    """Projects one unit of `layer` in each of `images` (N, C, H, W) to the pixels, by `rule` through each ReLU.

    `channels`: the unit's map, one a picture; `positions` (N, 2): its row and column; None: where that map is largest.
    A fully connected layer has maps of 1x1. Raises InputError for an unknown layer and a map that it does not have.
    """
    pictures = images.detach().clone().requires_grad_()
    with torch.enable_grad(), Deconvnet(rule):
        maps = map_at(model, pictures, layer)
        maps = maps if maps.ndim == 4 else maps[:, :, None, None]
        chosen = torch.as_tensor(channels, dtype=torch.int64).to(maps.device)
        check_channels(layer, channels, maps.shape[1])
        each = torch.arange(len(maps), device=maps.device)
        if positions is None:
            places = maps.detach()[each, chosen].flatten(1).argmax(1)
            units = torch.stack((places // maps.shape[3], places % maps.shape[3]), 1)
        else:
            units = torch.as_tensor(positions, dtype=torch.int64).to(maps.device)
        values = maps[each, chosen, units[:, 0], units[:, 1]]
        (projections,) = torch.autograd.grad(values, pictures, values.detach())
    return Deconvolution(layer, np.asarray(channels, np.int64), units.cpu().numpy(),
                         values.detach().float().cpu().numpy(), projections.float().cpu().numpy())


def check_channels(layer: str, channels: Sequence[int], width: int) -> None:
    """Raises InputError where the layer has no such maps."""
    absent = sorted({channel for channel in channels if not 0 <= channel < width})
    if absent:
        raise InputError(f"layer {layer} has no channels {', '.join(map(str, absent))}",
                         mend=f"Choose from 0 to {width - 1}.")


def explained(model: nn.Module) -> tuple[str, ...]:
    """What the projection does with the kinds of layers in this network, a sentence each."""
    present = {type(module).__name__ for module in model.modules()}
    rules = [rule for rule, names in KINDS.items() if present & set(names)]
    if rule_for(model) is guided:
        rules.append("guided")
    features = getattr(model, "features", model)
    if any(next(block.children(), None) is not None and type(block).forward is not nn.Sequential.forward
           for block in features.modules()):
        rules.append("sum")
    return tuple(RULES[rule] for rule in rules)
