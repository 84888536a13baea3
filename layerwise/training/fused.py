"""Batch normalisation compiled together with what follows it: compile=norm, in bf16 on a CPU.

Ioffe and Szegedy 2015, algorithm 1 and the gradients in section 3. torch's own kernels go over the maps for the mean,
the variance, the result, a residual block's sum and the activation one after another, and likewise backwards. Here it
is two passes forwards (both sums; all the rest) and two backwards, where the activation's slope is found from the
layer's input again. torch's compiler makes these loops once, for maps of every shape; all that is added up is in fp32.
Maximum pooling over 2x2 is compiled along with it (pooling.py).
What was measured is in benchmarks/README.md.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from layerwise import models
from layerwise.errors import InputError, MachineError
from layerwise.models.resnet import Residual
from layerwise.models.shapes import cost
from layerwise.recipe import Recipe
from layerwise.recipes.contradictions import against_compiled_norm
from layerwise.training.pooling import Highest, can_pool

FEWEST = 1 << 20  # numbers of all maps: for fewer the calls cost more than the passes
WIDTH = 64  # numbers of a row at least
GROUP = 1 << 14  # numbers of a group, whose rows are added up together: they stay in a core's cache
# Operations (two a multiply-add) from which on a training gains more than its first step waits for the compiler: eleven
# minutes of ResNet-20 at 600 pictures a second, of which it saves half a one; the compiler took 12 s there.
WORTH = 1e14
TRAINING = 6  # operations of a training step a multiply-add of the network: forwards, to the input, to the weights
Loop = Callable[..., Any]


def _value(activation: str, z: Tensor) -> Tensor:
    """What the activation answers to z."""
    if activation == "ReLU":
        return z.relu()
    if activation == "ReLU6":
        return z.clamp(0, 6)
    return z


def _through(activation: str, z: Tensor, slope: Tensor) -> Tensor:
    """The slope of the loss before the activation, from that behind it."""
    if activation == "ReLU":
        return torch.where(z > 0, slope, 0.0)
    if activation == "ReLU6":
        return torch.where((z > 0) & (z < 6), slope, 0.0)
    return slope


def _moments(x: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over rows of x (groups, rows, C) less a number near the mean, and of its square: each (groups, C)."""
    apart = x.float() - near
    return apart.sum(1), (apart * apart).sum(1)


def _applied(activation: str, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return _value(activation, x.float() * scale + shift).to(x.dtype)


def _applied_to_sum(activation: str, x: Tensor, scale: Tensor, shift: Tensor, other: Tensor) -> Tensor:
    return _value(activation, x.float() * scale + shift + other.float()).to(x.dtype)


def _slopes(activation: str, slope: Tensor, x: Tensor, scale: Tensor, shift: Tensor,
            mean: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over rows of the slope behind the normalisation, and of it times x less its mean: each (groups, C)."""
    wide = x.float()
    before = _through(activation, wide * scale + shift, slope.float())
    return before.sum(1), (before * (wide - mean)).sum(1)


def _slopes_of_sum(slope: Tensor, answer: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The slope before a ReLU that answered so, and the two sums of `_slopes`."""
    before = torch.where(answer > 0, slope, 0.0)
    wide = before.float()
    return before, wide.sum(1), (wide * (x.float() - mean)).sum(1)


def _returned(activation: str, slope: Tensor, x: Tensor, scale: Tensor, shift: Tensor, by_x: Tensor,
              constant: Tensor) -> Tensor:
    """The slope before the normalisation."""
    wide = x.float()
    before = _through(activation, wide * scale + shift, slope.float())
    return (before * scale + wide * by_x + constant).to(x.dtype)


@cache
def _compiled(loop: Loop) -> Loop:
    """The loop, compiled for all shapes, for each activation that it is called with.

    Without fullgraph: where torch's limit of compilations is reached it runs as written, and does not end a training.
    """
    compiled: Loop = torch.compile(loop, dynamic=True)
    return compiled


@cache
def _grouping(channels: int, positions: int) -> tuple[int, int]:
    """How many positions lie side by side in a row, and how many rows make a group; both divide what there is."""
    beside = math.gcd(positions, max(1, WIDTH // channels))
    most = max(1, GROUP // (channels * beside))
    return beside, max(rows for rows in range(1, most + 1) if positions // beside % rows == 0)


def _rows(maps: Tensor) -> Tensor:
    """Channels-last maps (N, C, H, W) as (groups, rows, k C): k positions side by side where channels are few.

    `.data` makes it a tensor of its own, no view: the compiler would tell maps of different views apart.
    """
    channels = maps.shape[1]
    beside, rows = _grouping(channels, maps.numel() // channels)
    return maps.permute(0, 2, 3, 1).reshape(-1, rows, channels * beside).data


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """The reverse of `_rows`."""
    count, channels, height, width = like.shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


class _Normalised(Function):
    """activation(scale x + shift + other), where scale and shift give x the mean `bias` and the deviation `weight`.

    x, other (N, C, H, W) in bf16, channels-last; `other` may be None. Returns the same shape. Sums are in fp32.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, other: Tensor | None, layer: _BatchNorm, activation: str,
                weight: Tensor, bias: Tensor) -> Tensor:
        rows, channels = _rows(x), x.shape[1]
        count, beside = x.numel() // channels, rows.shape[2] // channels
        # Sums of squares lose digits where the mean is large against the deviation; a group's own mean is near it.
        near = rows[len(rows) // 2].view(-1, channels).float().mean(0)
        first, second = (_of_channels(part, channels) / count
                         for part in _compiled(_moments)(rows, _wide(near, beside)))
        variance = (second - first * first).clamp_(min=0)
        mean = near + first
        inverse = torch.rsqrt(variance + layer.eps)
        scale = weight * inverse
        shift = torch.addcmul(bias, mean, scale, value=-1)
        layer.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        layer.running_mean.lerp_(mean, layer.momentum)  # type: ignore[union-attr,arg-type]
        layer.running_var.lerp_(variance * (count / (count - 1)), layer.momentum)  # type: ignore[union-attr,arg-type]
        numbers = _wide(scale, beside), _wide(shift, beside)
        if other is None:
            answer = _maps(_compiled(_applied)(activation, rows, *numbers), x)
        else:
            answer = _maps(_compiled(_applied_to_sum)(activation, rows, *numbers, _rows(other)), x)
        context.save_for_backward(x, None if other is None else answer, mean, inverse, scale, shift)
        context.activation = activation
        return answer

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, answer, mean, inverse, scale, shift = context.saved_tensors
        activation = context.activation
        rows, channels = _rows(x), x.shape[1]
        count, beside = x.numel() // channels, rows.shape[2] // channels
        slope = _rows(slopes[0].contiguous(memory_format=torch.channels_last))
        to_other = None
        wide_mean, wide_scale, wide_shift = (_wide(one, beside) for one in (mean, scale, shift))
        if answer is None:
            sums = _compiled(_slopes)(activation, slope, rows, wide_scale, wide_shift, wide_mean)
        else:
            slope, *sums = _compiled(_slopes_of_sum)(slope, _rows(answer), rows, wide_mean)
            to_other, activation = _maps(slope, x), ""
        to_bias, product = (_of_channels(part, channels) for part in sums)
        by_x = scale * inverse * inverse * product / -count
        constant = scale * to_bias / -count - mean * by_x
        to_x = _compiled(_returned)(activation, slope, rows, wide_scale, wide_shift, _wide(by_x, beside),
                                    _wide(constant, beside))
        return _maps(to_x, x), to_other, None, None, product * inverse, to_bias


def _wide(numbers: Tensor, times: int) -> Tensor:
    """Numbers of the channels, (C,), so many times one after another; `repeat` takes twice as long."""
    return numbers if times == 1 else numbers.expand(times, -1).reshape(-1)


def _of_channels(sums: Tensor, channels: int) -> Tensor:
    """Sums of groups, (groups, k C), added up: (C,)."""
    return sums.sum(0).view(-1, channels).sum(0)


def _fits(layer: nn.Module, maps: Tensor) -> bool:
    """Whether the compiled loops are for this call: in training, in bf16, channels-last, and large."""
    return (layer.training and maps.dtype == torch.bfloat16 and maps.numel() >= FEWEST and
            torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and
            maps.is_contiguous(memory_format=torch.channels_last))


def _normalised(maps: Tensor, other: Tensor | None, layer: _BatchNorm, activation: str) -> Tensor:
    return cast(Tensor, _Normalised.apply(maps, other, layer, activation, layer.weight, layer.bias))  # type: ignore[no-untyped-call]


def _with_activation(layer: _BatchNorm, activation: nn.Module | None, maps: Tensor) -> Tensor:
    """What the layer and the activation behind it answer."""
    if _fits(layer, maps):
        return _normalised(maps, None, layer, "" if activation is None else type(activation).__name__)
    answer = type(layer).forward(layer, maps)
    return answer if activation is None else cast(Tensor, type(activation).forward(activation, answer))


def _pooled(layer: nn.MaxPool2d, maps: Tensor) -> Tensor:
    """What a layer answers that `can_pool`."""
    if _fits(layer, maps):
        return cast(Tensor, Highest.apply(maps, _compiled))  # type: ignore[no-untyped-call]
    return cast(Tensor, type(layer).forward(layer, maps))


def _given(maps: Tensor) -> Tensor:
    """An activation that the layer before it has computed already."""
    return maps


def _block(block: Residual, maps: Tensor) -> Tensor:
    """What a residual block answers, its last normalisation, addition and ReLU at once."""
    if not torch.is_autocast_enabled("cpu"):  # whoever walks through the layers sees each of them
        return type(block).forward(block, maps)
    *before, last = block.residual
    inner = maps
    for layer in before:
        inner = layer(inner)
    other = block.shortcut(maps)
    if isinstance(last, _BatchNorm) and _fits(last, inner) and other.dtype == inner.dtype:
        return _normalised(inner, other.contiguous(memory_format=torch.channels_last), last, "ReLU")
    return cast(Tensor, block.relu(last(inner) + other))


def _can(module: nn.Module) -> bool:
    """Whether a layer is batch normalisation as torch has it, with statistics that are kept and a scale and shift."""
    return (isinstance(module, nn.BatchNorm2d) and type(module).forward is _BatchNorm.forward and module.affine and
            module.track_running_stats and module.momentum is not None)


def fuse_normalisation(model: nn.Module, recipe: Recipe) -> int:
    """Lets the batch normalisations of `model` be computed by compiled loops with what follows them; their number.

    0 without compile=norm. For training alone, as `overwrite_inputs`. Raises InputError where the network has none,
    MachineError where there is no compiler.
    """
    if recipe.compile != "norm":
        return 0
    found = [module for module in model.modules() if isinstance(module, _BatchNorm) and _can(module)]
    if not found:
        raise InputError(f"compile=norm: {recipe.network} has no batch normalisation over maps",
                         "There is nothing that could be compiled.", "Set compile=no.")
    if missing := missing_for_compiler():
        raise MachineError(f"compile=norm: {missing}", "torch's compiler makes C++ of the loops.",
                           "Install it, or set compile=no.")
    activations: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            for layer, after in pairwise(module.children()):
                if _can(layer) and type(after) in (nn.ReLU, nn.ReLU6):
                    activations[layer] = after
                    after.forward = _given
    for layer in found:
        layer.forward = partial(_with_activation, layer, activations.get(layer))  # type: ignore[method-assign]
    for module in model.modules():
        if isinstance(module, Residual) and type(module).forward is Residual.forward and _can(module.residual[-1]):
            module.forward = partial(_block, module)  # type: ignore[method-assign]
        elif can_pool(module):
            module.forward = partial(_pooled, module)  # type: ignore[arg-type]
    return len(found)


def missing_for_compiler() -> str:
    """What torch's compiler needs for a CPU and does not find on this machine, in words; "" where all is there."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler}"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.is_file() else f"Python's header {header} is not there"


def can_fuse(recipe: Recipe) -> bool:
    """Whether compile=norm is possible and does anything; `recipe` is resolved, with its channels."""
    if any(against_compiled_norm(dataclasses.asdict(recipe))) or missing_for_compiler():
        return False
    return any(map(_can, _shapes(recipe).modules()))


def compiled_for(recipe: Recipe, pictures: int) -> str:
    """What compile=auto becomes once the data are known: norm where it pays, else what the machine's rule says.

    `recipe` is resolved, with its channels and input size; `pictures` are those of its data to train on.
    """
    if not can_fuse(recipe):
        return recipe.compile
    one = TRAINING * cost(_shapes(recipe), (recipe.channels, recipe.input_size, recipe.input_size)).multiply_adds
    seen = recipe.duration * (recipe.batch_size if recipe.unit == "iterations" else pictures)
    return "norm" if one * seen >= WORTH else recipe.compile


def _shapes(recipe: Recipe) -> nn.Module:
    with torch.device("meta"):
        return models.build(recipe.network, None, recipe.channels)
