"""The random start of very large weights: once, not twice, and on several cores, with the same numbers on any of them.

A fully connected layer of VGG has 103 million weights. torch fills them as a layer is made, on one core, and the
paper's rule fills them again. Here torch's own fill is left out and the rule's is done in parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LARGE = 2**22  # entries; smaller weights are filled as ever
PART = 2**23
TORCHS_OWN = math.sqrt(5)  # the slope with which torch's layers call kaiming_uniform_ as they are made

Fill = Callable[[Tensor, torch.Generator], Any]


class LargeWeights(TorchFunctionMode):
    """While active, weights of `LARGE` entries or more on a CPU start in parts, each part from a seed of its own.

    Where no rule follows torch's own, the first entry stays NaN: a network with a forgotten weight answers nothing.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__module__", "") != "torch.nn.init":
            return func(*args, **named)
        tensor = named["tensor"] if "tensor" in named else args[0]
        if tensor.numel() < LARGE or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return func(*args, **named)
        given = dict(zip(("tensor", "first", "second"), args, strict=False)) | named
        if func is nn.init.kaiming_uniform_ and given.get("a") == TORCHS_OWN:
            tensor.detach().view(-1)[0] = math.nan
            return tensor
        fill = _fill(func, tensor, given)
        if fill is None:
            return func(*args, **named)
        with torch.no_grad():
            _in_parts(tensor.view(-1), fill)
        return tensor


def _fill(func: Any, tensor: Tensor, given: Mapping[str, Any]) -> Fill | None:
    """The rule `func` as a fill of a part; None for rules that are not known here."""
    if func is nn.init.normal_:
        mean, deviation = given.get("mean", given.get("first", 0.0)), given.get("std", given.get("second", 1.0))
        return lambda part, generator: part.normal_(mean, deviation, generator=generator)
    if func is nn.init.uniform_:
        low, high = given.get("a", given.get("first", 0.0)), given.get("b", given.get("second", 1.0))
        return lambda part, generator: part.uniform_(low, high, generator=generator)
    inputs = tensor[0].numel()
    if func is nn.init.kaiming_normal_ and given.get("mode") == "fan_in" and given.get("nonlinearity") == "relu":
        return lambda part, generator: part.normal_(0, math.sqrt(2 / inputs), generator=generator)
    if func is nn.init.xavier_uniform_ and len(given) == 1:
        bound = math.sqrt(6 / (inputs + tensor.shape[0] * tensor[0, 0].numel()))
        return lambda part, generator: part.uniform_(-bound, bound, generator=generator)
    return None


def _in_parts(flat: Tensor, fill: Fill) -> None:
    parts = flat.split(PART)
    seeds = torch.randint(0, 2**62, (len(parts),)).tolist()  # drawn from the seed that is set, as the fill would

    def one(part: Tensor, seed: int) -> None:
        with torch.no_grad():
            fill(part, torch.Generator().manual_seed(seed))

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        list(pool.map(one, parts, seeds))
