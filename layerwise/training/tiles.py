"""Convolutions asked for in shapes that fill the tiles of a processor with AMX: the same sums, in training in bf16.

oneDNN's convolutions multiply tiles of up to 16 positions of one row of a map, so that of a map of 7x7 they use half a
tile and of 3x3 a fifth; their gradient to the weights of a 1x1 kernel is slower than a product of matrices, and so is
that of a first layer, whose few channels fill a tenth of a tile. Hence three other ways to ask for the same
convolution, forwards and backwards by torch's own operations: a 1x1 kernel as a fully connected layer over positions;
maps of few positions side by side in strips, with as many zeros between them as the border has; a stride's columns of
a picture as channels. What was measured is in benchmarks/README.md.
"""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

from layerwise import hardware
from layerwise.recipe import Recipe

# Where it was faster, of 34 shapes: kernels of 1x1 over so many channels; larger ones where so few positions come out,
# between so many channels (in times out). Elsewhere the copies cost more than they save.
CHANNELS_OF_1X1 = 128
POSITIONS = 100
PAIRS_OF_CHANNELS = 64 * 128
FEW_CHANNELS = 4  # pictures have so many at most; they are laid out as channels by a stride's columns
MAPS = 16  # of a strip, at most: strips of 8 and 32 took as long
FEWEST_MAPS = 4

Pair = tuple[int, int]


def over_positions(maps: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair) -> Tensor:
    """A convolution by 1x1 without border as a fully connected layer: (N, in, H, W) -> (N, out, H', W')."""
    positions = maps.permute(0, 2, 3, 1)[:, ::stride[0], ::stride[1]]
    return linear(positions, weight.flatten(1), bias).permute(0, 3, 1, 2)


def in_strips(maps: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, together: int) -> Tensor:
    """A convolution over strips of `together` maps side by side: (N, in, H, W) -> (N, out, H', W').

    N is a multiple of `together`. A map is followed by zeros, at least as many as the border has, up to a multiple of
    the stride: the border of this map and of the next, whose positions among the results are left out.
    """
    channels, height, width = maps.shape[1:]
    wide = math.ceil((width + padding[1]) / stride[1]) * stride[1]
    columns = (width + 2 * padding[1] - weight.shape[3]) // stride[1] + 1
    strips = pad(maps.permute(0, 2, 3, 1), (0, 0, 0, wide - width)).view(-1, together, height, wide, channels)
    strips = strips.transpose(1, 2).reshape(-1, height, together * wide, channels)
    found = conv2d(strips.permute(0, 3, 1, 2), weight, bias, stride, padding).permute(0, 2, 3, 1)
    each = wide // stride[1]
    if missing := together * each - found.shape[2]:  # at the last map's border; less than none where that is wide
        found = pad(found, (0, 0, 0, missing))
    found = found.reshape(len(found), found.shape[1], together, each, -1)
    return found.transpose(1, 2)[..., :columns, :].flatten(0, 1).contiguous().permute(0, 3, 1, 2)


def by_columns(maps: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """A convolution whose stride's columns lie beside each other as channels: (N, in, H, W) -> (N, out, H', W').

    To torch it is one over stride x in channels without a stride along the rows, its kernel filled up with zeros to
    whole strides. `maps` get no gradient: it is for pictures.
    """
    count, channels, height, width = maps.shape
    step, extent, left = stride[1], weight.shape[3], padding[1]
    columns = (width + 2 * left - extent) // step + 1
    taps = math.ceil(extent / step)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else maps.dtype
    wide = torch.empty(count, height, (columns - 1 + taps) * step, channels, dtype=dtype)
    kept = min(width, wide.shape[2] - left)  # the last columns may be in no window
    wide[:, :, :left], wide[:, :, left + kept:] = 0, 0
    wide[:, :, left:left + kept] = maps.detach().permute(0, 2, 3, 1)[:, :, :kept]
    beside = wide.view(count, height, -1, step * channels).permute(0, 3, 1, 2)
    kernel = pad(weight, (0, taps * step - extent)).unflatten(3, (taps, step))
    kernel = kernel.permute(0, 4, 1, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    return conv2d(beside, kernel, bias, (stride[0], 1), (padding[0], 0))


def _convolved(maps: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """A layer's convolution, in the shape that was fastest."""
    if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
        out_channels, in_channels, *kernel = weight.shape
        if kernel == [1, 1] and not any(padding) and in_channels >= CHANNELS_OF_1X1:
            return over_positions(maps, weight, bias, stride)
        if in_channels <= FEW_CHANNELS and 1 < stride[1] < kernel[1] and not maps.requires_grad:
            return by_columns(maps, weight, bias, stride, padding)
        positions = math.prod((side + 2 * border - extent) // step + 1 for side, border, extent, step in
                              zip(maps.shape[2:], padding, kernel, stride, strict=True))
        together = math.gcd(len(maps), MAPS)
        if (kernel != [1, 1] and positions <= POSITIONS and in_channels * out_channels >= PAIRS_OF_CHANNELS and
                together >= FEWEST_MAPS):
            return in_strips(maps, weight, bias, stride, padding, together)
    return conv2d(maps, weight, bias, stride, padding)


def fill_tiles(model: nn.Module, recipe: Recipe) -> int:
    """Lets the convolutions of `model` be asked for in such shapes; of how many it may be.

    0 where the recipe is not for bf16 on a processor with AMX, or compiles. For training alone, as `overwrite_inputs`.
    """
    if (recipe.device != "cpu" or recipe.precision != "bf16" or recipe.memory_format != "channels-last" or
            recipe.compile == "yes" or not hardware.has_tiles()):
        return 0
    found = [layer for layer in model.modules() if type(layer) is nn.Conv2d and layer.groups == 1 and
             layer.dilation == (1, 1) and layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)]
    for layer in found:
        stride, padding = cast(Pair, layer.stride), cast(Pair, layer.padding)
        layer._conv_forward = partial(_convolved, stride=stride, padding=padding)  # type: ignore[method-assign]
    return len(found)
