"""A network before and after: what a function that looks inside must leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode


class Breaks(nn.Module):
    """Passes maps on `passes` times, then raises KeyError."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.left = passes

    def forward(self, maps: Tensor) -> Tensor:
        if self.left == 0:
            raise KeyError("on purpose")
        self.left -= 1
        return maps


def small(last: nn.Module | None = None) -> nn.Sequential:
    """A little of everything: (N, 2, 8, 8) to (N, 3). One part is in evaluation mode, one weight frozen."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(96, 3), last or nn.Identity(),
    ).train()
    model[1].running_mean.uniform_(-1, 1)
    model[2].eval()
    model[0].weight.requires_grad_(False)
    return model


def state(model: nn.Module) -> list[object]:
    """Everything that must be the same afterwards."""
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return [
        {name: tensor.tolist() for name, tensor in tensors.items()},
        [module.training for module in model.modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        [len(hooks) for module in model.modules()
         for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)],
        [id(module) for module in model.modules()],
        _get_current_function_mode(),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
    ]


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Asserts it."""
    before = state(model)
    yield
    assert state(model) == before


@contextmanager
def breaking(model: nn.Module) -> Iterator[None]:
    """As `left_as_it_was`; within it the network must fail."""
    with left_as_it_was(model), pytest.raises(KeyError, match="on purpose"):
        yield
