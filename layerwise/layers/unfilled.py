"""Networks made without random numbers that would be written over: by a file, or by the network's own rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FILLS = ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_",
         "xavier_uniform_", "orthogonal_")
TORCHS_OWN = math.sqrt(5)  # the slope with which torch's layers fill themselves
_unfilled = ContextVar("unfilled", default=0)
LARGE = 1 << 17  # entries; smaller weights cost nothing, and keep the random numbers that they have always had


class Unfilled(TorchFunctionMode):
    """Within it the random fills of weights do nothing: what a layer holds is whatever the memory held.

    For a network of which every entry is loaded next, or of which only the shapes matter. Besides the time of drawing
    it saves, on the meta device, the second that torch takes to import its compiler for a random fill.
    """

    def __enter__(self) -> Unfilled:
        _unfilled.set(_unfilled.get() + 1)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        _unfilled.set(_unfilled.get() - 1)

    def __torch_function__(self, function: Callable[..., Any], types: Sequence[type], arguments: Sequence[Any] = (),
                           named: Mapping[str, Any] | None = None) -> Any:
        if getattr(function, "__name__", "") in FILLS:
            return arguments[0] if arguments else (named or {})["tensor"]
        return function(*arguments, **(named or {}))


def left_unfilled() -> bool:
    """Whether this thread is within `Unfilled`: what hands fills to other threads, where it does not hold, asks."""
    return _unfilled.get() > 0


class FilledOnce(TorchFunctionMode):
    """Within it torch leaves out its own fill of a weight of `LARGE` entries or more, as its layers are made.

    Every network fills its weights by its paper's rule, which for a hundred million of them takes as long again.
    """

    def __torch_function__(self, function: Callable[..., Any], types: Sequence[type], arguments: Sequence[Any] = (),
                           named: Mapping[str, Any] | None = None) -> Any:
        given = named or {}
        if function is nn.init.kaiming_uniform_ and given.get("a") == TORCHS_OWN:
            weight: Tensor = arguments[0] if arguments else given["tensor"]
            if weight.numel() >= LARGE:
                return weight
        return function(*arguments, **given)
