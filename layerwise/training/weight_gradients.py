"""Gradients of convolutions' weights as products of matrices, on processors that multiply tiles (AMX), in bf16.

oneDNN's routine for them loses most of such a processor on small maps and on kernels of 1x1: with few positions a
picture it fills its tiles badly. The same sum over pictures and positions is one product: gradients by channels times
windows by channels, which for 1x1 are the maps as they lie. What was measured is in benchmarks/README.md.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from layerwise import hardware
from layerwise.recipe import Recipe

# Where the product was faster, of 43 shapes: kernels of 1x1 over so many channels; larger ones on maps of so few
# positions, between so many channels (in times out). Elsewhere laying the windows out costs more than it saves.
CHANNELS_OF_1X1 = 128
POSITIONS = 100
PAIRS_OF_CHANNELS = 64 * 128

Pair = tuple[int, int]


def pays(weight: tuple[int, ...], positions: int) -> bool:
    """Whether the product is faster for weights (out, in, height, width) and maps of `positions` that come out."""
    out_channels, in_channels, *kernel = weight
    if kernel == [1, 1]:
        return in_channels >= CHANNELS_OF_1X1
    return positions <= POSITIONS and in_channels * out_channels >= PAIRS_OF_CHANNELS


def by_product(maps: Tensor, slope: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    """The gradient (out, in, height, width) of the weights: `maps` (N, in, H, W), `slope` (N, out, H', W')."""
    lines, columns = padding
    windows = pad(maps.permute(0, 2, 3, 1), (0, 0, columns, columns, lines, lines)) if any(padding) else (
        maps.permute(0, 2, 3, 1))
    windows = windows.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])  # (N, H', W', in, height, width)
    rows = windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, kernel[0] * kernel[1] * maps.shape[1])
    product = slope.permute(0, 2, 3, 1).reshape(-1, slope.shape[1]).t() @ rows
    return product.view(slope.shape[1], *kernel, maps.shape[1]).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """torch's convolution, whose weights get their gradient by `by_product`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding, ctx.out = stride, padding, None if bias is None else [len(bias)]
        return conv2d(maps, weight, bias, stride, padding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], False, ctx.needs_input_grad[2]]
        others: tuple[Tensor | None, ...] = (None, None, None)
        if any(wanted):
            others = torch.ops.aten.convolution_backward(
                slope, maps, weight, ctx.out, ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, wanted)
        kernel = (weight.shape[2], weight.shape[3])
        return others[0], by_product(maps, slope, kernel, ctx.stride, ctx.padding), others[2], None, None


def _convolved(maps: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """A layer's convolution: by products where its weights learn in bf16 and it pays."""
    if torch.is_autocast_enabled("cpu") and torch.is_grad_enabled() and weight.requires_grad:
        positions = 1
        for side, kernel, step, border in zip(maps.shape[2:], weight.shape[2:], stride, padding, strict=True):
            positions *= (side + 2 * border - kernel) // step + 1
        if pays(tuple(weight.shape), positions):
            kind = torch.get_autocast_dtype("cpu")
            words = maps.to(kind), weight.to(kind), bias, stride, padding
            return cast(Tensor, _Convolution.apply(*words))  # type: ignore[no-untyped-call]
    return conv2d(maps, weight, bias, stride, padding)


def multiply_windows(model: nn.Module, recipe: Recipe) -> int:
    """Lets the convolutions of `model` take their weights' gradients by products; how many may.

    0 where the recipe is not for bf16 on a processor with AMX, or compiles. For training alone, as `overwrite_inputs`.
    """
    if recipe.device != "cpu" or recipe.precision != "bf16" or recipe.compile == "yes" or not hardware.has_tiles():
        return 0
    found = [layer for layer in model.modules() if type(layer) is nn.Conv2d and layer.groups == 1 and
             layer.dilation == (1, 1) and layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)]
    for layer in found:
        stride, padding = cast(Pair, layer.stride), cast(Pair, layer.padding)
        layer._conv_forward = partial(_convolved, stride=stride, padding=padding)  # type: ignore[method-assign]
    return len(found)
