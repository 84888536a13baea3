"""Networks made for weights that are known already: no random number is drawn that would be written over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

FILLS = ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_",
         "xavier_uniform_", "orthogonal_")


class Unfilled(TorchFunctionMode):
    """Within it the random fills of weights do nothing: what a layer holds is whatever the memory held.

    For a network of which every entry is loaded next, or of which only the shapes matter. Besides the time of drawing
    it saves, on the meta device, the second that torch takes to import its compiler for a random fill.
    """

    def __torch_function__(self, function: Callable[..., Any], types: Sequence[type], arguments: Sequence[Any] = (),
                           named: Mapping[str, Any] | None = None) -> Any:
        if getattr(function, "__name__", "") in FILLS:
            return arguments[0] if arguments else (named or {})["tensor"]
        return function(*arguments, **(named or {}))
