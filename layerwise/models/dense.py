"""A classifier as a fully convolutional network, for pictures larger than it was trained on.

Sermanet et al. 2014 ("OverFeat") and Simonyan & Zisserman 2014, section 3.2, as He et al. 2015 use it in table 4: fully
connected layers become convolutions, the map of scores is averaged over its positions.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.layers.locally_connected import LocallyConnected2d
from layerwise.layers.maxout import Maxout
from layerwise.layers.squash import ScaledTanh
from layerwise.models import published_input
from layerwise.models.lenet import PositionBias
from layerwise.models.network import Network, named
from layerwise.models.shapes import stage_shapes

# Layers that do the same at every position, whatever the size of the map.
ANY_SIZE = (
    nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity, Maxout, ScaledTanh,
    nn.ReLU, nn.ReLU6, nn.ELU, nn.PReLU, nn.Tanh, nn.Sigmoid, nn.Softsign,
)  # fmt: skip
# Layers that may change places with an average over positions (dropout: in evaluation mode).
LINEAR = (nn.Flatten, nn.Linear, nn.Dropout, nn.Identity)
OF_ITS_PLACE = {
    PositionBias: "has a bias of its own for each position",
    LocallyConnected2d: "has kernels of its own for each position",
}


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

    The first layer after a flattened map becomes a convolution whose kernel is that map, a layer after it or after
    global average pooling a 1x1 convolution. Where only linear layers follow the global average, it is taken of their
    scores, which is the same at any size; else it becomes an average over windows of the size that the paper's
    pictures give. Weights are shared with `model`, and so is the mode, training or evaluation, at the time of the call.
    Raises InputError where a layer depends on its position or is not known.
    """
    if not isinstance(model, Network) or "name" not in model.architecture:
        raise InputError(
            f"{type(model).__name__} cannot be made fully convolutional",
            "Only networks made by build() are known well enough.",
            "Build it with layerwise.build(name).",
        )
    for name, module in model.named_modules():
        if type(module) in OF_ITS_PLACE:
            raise _refused(model, name, OF_ITS_PLACE[type(module)])
    channels = _map_after(model, 0)[0]
    layers: dict[str, nn.Module] = {}
    for place, (name, module) in enumerate(model.head.named_children()):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            layers[name] = _average(model, place)
        elif type(module) is nn.Linear:  # not a kind of it, which may do more
            layers[name] = _convolution(module, channels)
            channels = module.out_features
        elif isinstance(module, ANY_SIZE):
            layers[name] = module
            if isinstance(module, nn.Conv2d):
                channels = module.out_channels
            elif isinstance(module, Maxout):
                channels //= module.pieces
        elif not isinstance(module, nn.Flatten):
            raise _refused(model, f"head.{name}", "is not known as a convolution")
    return Dense(model.features, named(layers)).train(model.training)


def _map_after(model: Network, count: int) -> tuple[int, int]:
    """Channels and side of the map after `count` layers of the head, for a picture of the paper's size."""
    channels, height, width = published_input(model.architecture["name"])
    channels = model.architecture["arguments"].get("in_channels", channels)
    head = {f"head_{name}": module for name, module in list(model.head.named_children())[:count]}
    alone = nn.Sequential()  # without the rest, which may be made for pictures of another size
    alone.add_module("features", named({"all": model.features, **head}))
    channels, side, _ = list(stage_shapes(alone, (channels, height, width)).values())[-1]
    return channels, side


def _average(model: Network, place: int) -> nn.Module:
    """What the head's average number `place` does at each position of a larger map."""
    layers = list(model.head.named_children())
    name, pool = layers[place]
    assert isinstance(pool, nn.AdaptiveAvgPool2d)
    side, size = _map_after(model, place)[1], pool.output_size
    if size in (1, (1, 1)):
        linear = all(isinstance(rest, LINEAR) for _, rest in layers[place + 1 :])
        return nn.Identity() if linear else nn.AvgPool2d(side, stride=1)
    if size in (side, (side, side)):
        return nn.Identity()
    raise _refused(model, f"head.{name}", f"averages a {side}x{side} map to {size}")


def _convolution(linear: nn.Linear, channels: int) -> nn.Conv2d:
    """The convolution with the linear layer's own weights, seen as kernels of a square map of `channels`."""
    side = isqrt(linear.in_features // channels)
    assert linear.in_features == channels * side * side, "the map before the linear layer is not square"
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
