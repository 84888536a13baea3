"""Batch normalisation over the micro-batches of all processes at once: batch_norm=all.

The papers took the statistics over what one processor had. Where a process has few pictures, those of all make better
statistics; N processes then compute what one would with the whole batch. Forward adds up each channel's sums over the
processes, backward those of the gradients. The network itself stays as it is: only its calls are taken over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from layerwise import hardware
from layerwise.distributed import World
from layerwise.errors import MachineError
from layerwise.recipe import Recipe
from layerwise.training.failure import pictures_of_all
from layerwise.training.optimiser import clip_gradients
from layerwise.training.running_statistics import put_back
from layerwise.training.state import Training
from layerwise.training.virtual_workers import exact_gradients

# The arguments of torch's batch_norm in their order, and what is taken where one is left out.
DEFAULTS: dict[str, Any] = {"input": None, "running_mean": None, "running_var": None, "weight": None, "bias": None,
                            "training": False, "momentum": 0.1, "eps": 1e-5}


class _Normalised(Function):
    """x (N, C, ...) less the mean and over the deviation of all processes' pictures; with mean and variance (C,)."""

    @staticmethod
    def forward(context: Any, x: Tensor, world: World, weight: float, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        axes, shape = _axes(x)
        count = x.numel() // x.shape[1] * weight
        first = torch.cat([x.sum(axes) * weight, x.new_full((1,), count)])
        world.add_tensor(first)
        total = float(first[-1])
        mean = first[:-1] / total
        centred = x - mean.view(shape)
        squares = (centred * centred).sum(axes) * weight
        world.add_tensor(squares)
        variance = squares / total
        scale = torch.rsqrt(variance + epsilon)
        normal = centred * scale.view(shape)
        context.save_for_backward(normal, scale)
        context.world, context.weight, context.total = world, weight, total
        unbiased = variance * (total / max(1.0, total - 1))
        context.mark_non_differentiable(mean, unbiased)
        return normal, mean, unbiased

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        normal, scale = context.saved_tensors
        axes, shape = _axes(normal)
        slope = slopes[0]
        sums = torch.stack([slope.sum(axes), (slope * normal).sum(axes)]) * context.weight
        context.world.add_tensor(sums)
        mean, product = (part.view(shape) for part in sums / context.total)
        return (slope - (mean + normal * product) * context.weight) * scale.view(shape), None, None, None


def _axes(x: Tensor) -> tuple[list[int], list[int]]:
    """All axes but the channels', and the shape in which a number a channel fits to x."""
    return [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]


class Synchronised(TorchFunctionMode):
    """Within it batch normalisation in training takes its statistics over all processes; each makes the same calls.

    `idle` is for a process without a picture: it takes part with any picture, which counts nothing.
    """

    def __init__(self, world: World, idle: bool = False) -> None:
        super().__init__()
        self.world, self.weight = world, 0.0 if idle else 1.0

    def __torch_function__(self, called: Callable[..., Any], types: Sequence[type], arguments: Sequence[Any] = (),
                           named: Mapping[str, Any] | None = None) -> Any:
        """torch's call of a function, with batch normalisation's in training taken over."""
        if called is functional.batch_norm:
            return self._batch_norm(DEFAULTS | dict(zip(DEFAULTS, arguments, strict=False)) | dict(named or {}))
        return called(*arguments, **(named or {}))

    def _batch_norm(self, given: Mapping[str, Any]) -> Tensor:
        if not given["training"]:
            return functional.batch_norm(**given)
        x, weight, bias = given["input"], given["weight"], given["bias"]
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        normal, mean, variance = _Normalised.apply(wide, self.world, self.weight, given["eps"])  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for running, now in ((given["running_mean"], mean), (given["running_var"], variance)):
                if running is not None:
                    running.lerp_(now.to(running.dtype), given["momentum"])
        shape = _axes(x)[1]
        # The result is another tensor than the one that is kept for backward: what follows may write over it.
        scaled: Tensor = normal.clone() if weight is None else normal * weight.view(shape)
        return (scaled if bias is None else scaled + bias.view(shape)).to(x.dtype)


def own_gradients(recipe: Recipe) -> Callable[[Training, dict[str, Any]], dict[str, float]] | None:
    """What stands in place of `train.gradients`: virtual workers', or those of batch_norm=all; None for the usual."""
    if recipe.virtual_workers:
        return exact_gradients
    return synchronised_gradients if recipe.batch_norm == "all" else None


def synchronised_gradients(training: Training, batch: dict[str, Any]) -> dict[str, float]:
    """What `train.gradients` does, with batch normalisation over the micro-batches of all processes at once.

    Every process makes as many passes as the one with the most pictures, those without any on a picture that counts
    nothing. Raises MachineError where memory runs out: halving on one process would leave the others waiting.
    """
    model, world, recipe = training.model, training.world, training.recipe
    buffers = list(model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    count = len(batch["label"])
    whole = pictures_of_all(training, batch)
    passes = math.ceil(max(world.exchange(count)) / training.position.micro_batch)
    parts = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    training.optimiser.zero_grad(set_to_none=True)
    told: list[tuple[float, float]] = []
    for rows in torch.arange(count).tensor_split(passes):
        idle = not len(rows)
        micro = {name: (value.new_zeros((1, *value.shape[1:])) if idle else value[rows]).to(training.device)
                 for name, value in parts.items()}
        micro["image"] = micro["image"].contiguous(memory_format=hardware.memory_format(recipe))
        try:
            with Synchronised(world, idle), hardware.autocast(recipe):
                losses = training.task.loss(training.forward, micro)
            (losses["loss"] * (len(rows) / whole)).backward()
        except RuntimeError as error:
            if not hardware.memory_ran_out(error):
                raise
            raise MachineError(f"step {training.position.step}: {len(rows)} pictures at a time do not fit into memory",
                               "With batch_norm=all the micro-batch is the same on all processes and is not halved.",
                               "Start again with a smaller micro_batch.") from error
        told.append((float(losses["loss"].detach()) * len(rows), 0.0 if idle else float(losses.get("errors", 0))))
    world.add_gradients(model.parameters())
    norm = float(clip_gradients(list(model.parameters()), recipe.clip_norm))
    loss, errors, samples, unread = world.add(
        sum(row[0] for row in told), sum(row[1] for row in told), count, len(batch["bad"]))
    sums = {"loss": loss, "errors": errors, "samples": samples, "unread": unread, "norm": norm}
    if not all(math.isfinite(value) for value in sums.values()):
        put_back(buffers, kept)
    return sums
