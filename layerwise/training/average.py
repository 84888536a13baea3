"""The exponential moving average of a model's parameters and buffers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from layerwise.errors import InputError


class Average:
    """a <- d a + (1 - d) w after each step, over parameters AND floating-point buffers (running statistics).

    It starts as a copy of `model`. The decay of update t = 0, 1, ... is d = min(decay, (1 + t) / (10 + t)), so that
    the first weights are forgotten also in short runs. Integer buffers (counts) are copied. `count` is the number of
    updates.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        kept = model.state_dict(keep_vars=True).keys()  # without buffers that are not persistent
        self._tensors = {name: tensor.detach().clone() for name, tensor in _all(model).items() if name in kept}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in `model` after a step."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        current = _all(model)
        floating = [name for name, tensor in self._tensors.items() if tensor.is_floating_point()]
        averages = [self._tensors[name] for name in floating]
        torch._foreach_lerp_(averages, [current[name] for name in floating], 1 - decay)
        for name in self._tensors.keys() - set(floating):
            self._tensors[name].copy_(current[name])
        self.count += 1

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the average into `model`, a network of the same architecture."""
        current = _all(model)
        for name, tensor in self._tensors.items():
            current[name].copy_(tensor)

    def state_tensors(self) -> dict[str, Tensor]:
        """The average by the model's own names (not copies where they are contiguous); `count` goes beside it."""
        return {name: tensor.contiguous() for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Take over `state_tensors` and `count`, bit for bit. Raises InputError where names or shapes differ."""
        problems = [f"{name}: missing" for name in self._tensors if name not in tensors]
        problems += [f"{name}: not in the model" for name in tensors if name not in self._tensors]
        for name in self._tensors.keys() & tensors.keys():
            mine, other = self._tensors[name], tensors[name]
            if mine.shape != other.shape or mine.dtype != other.dtype:
                problems.append(
                    f"{name}: {tuple(other.shape)} {other.dtype}, expected {tuple(mine.shape)} {mine.dtype}"
                )
        if problems:
            raise InputError(
                "averaged weights: they are not this model's",
                "They belong to another network or another version of it.",
                "Resume from a checkpoint of this run.",
                sorted(problems),
            )
        for name, tensor in self._tensors.items():
            tensor.copy_(tensors[name])
        self.count = count


def _all(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))
