"""A classifier as a fully convolutional network, for pictures larger than it was trained on.

Sermanet et al. 2014 ("OverFeat") and Simonyan & Zisserman 2014, section 3.2, as He et al. 2015 use it in table 4: fully
connected layers become convolutions, the map of scores is averaged over its positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.layers.squash import ScaledTanh
from layerwise.models.lenet import PositionBias
from layerwise.models.network import Network, named
from layerwise.models.shapes import stage_shapes

# Layers that do the same at every position, whatever the size of the map.
ANY_SIZE = (nn.ReLU, nn.Dropout, ScaledTanh)


class Dense(nn.Module):
    """`features`, then `head` as convolutions. Pictures (N, C, H, W) to logits (N, num_classes)."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def score_map(self, images: Tensor) -> Tensor:
        """The logits of every position, (N, num_classes, H', W')."""
        scores: Tensor = self.head(self.features(images))
        return scores

    def forward(self, images: Tensor) -> Tensor:
        return self.score_map(images).mean((2, 3))


def fully_convolutional(model: nn.Module) -> nn.Module:
    """The same network for pictures of its trained size and above: equal logits at that size (section 4.1, testing).

    A layer after global average pooling becomes a 1x1 convolution; the first layer after a flattened map becomes one
    whose kernel is that map. Weights are shared with `model`, and so is the mode, training or evaluation, at the time
    of the call. Raises InputError where a layer depends on its position or is not known.
    """
    if not isinstance(model, Network) or "name" not in model.architecture:
        raise InputError(
            f"{type(model).__name__} cannot be made fully convolutional",
            "Only networks made by build() are known well enough.",
            "Build it with layerwise.build(name).",
        )
    fixed = [name for name, module in model.named_modules() if isinstance(module, PositionBias)]
    if fixed:
        raise _refused(model, fixed[0], "has a bias of its own for each position")
    channels, side, _ = list(stage_shapes(model).values())[-1]
    layers: dict[str, nn.Module] = {}
    for name, module in model.head.named_children():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            side = 1
        elif isinstance(module, nn.Linear):
            layers[name] = _convolution(module, channels, side)
            channels, side = module.out_features, 1
        elif isinstance(module, ANY_SIZE):
            layers[name] = module
        elif not isinstance(module, nn.Flatten):
            raise _refused(model, f"head.{name}", "is not known as a convolution")
    return Dense(model.features, named(layers)).train(model.training)


def _convolution(linear: nn.Linear, channels: int, side: int) -> nn.Conv2d:
    """The convolution with the linear layer's own weights, seen as kernels of side x side."""
    assert linear.in_features == channels * side * side, "the map before the linear layer has another size"
    with torch.device("meta"):
        convolution = nn.Conv2d(channels, linear.out_features, side, bias=linear.bias is not None)
    kernels = linear.weight.view(linear.out_features, channels, side, side)
    convolution.weight = nn.Parameter(kernels.detach(), requires_grad=linear.weight.requires_grad)
    convolution.bias = linear.bias
    return convolution


def _refused(model: Network, layer: str, why: str) -> InputError:
    return InputError(
        f"{model.architecture['name']} cannot be made fully convolutional: {layer} {why}",
        mend="Use a protocol with pictures of the trained size, such as centre or ten-crop.",
    )
