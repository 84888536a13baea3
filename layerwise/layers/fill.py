"""Random numbers for a hundred million weights, drawn in parts by all threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

LARGE = 1 << 18  # numbers; below, threads save less than they cost
PART = 1 << 17
Draw = Callable[[Tensor, torch.Generator | None], Tensor]


def fill_normal(tensor: Tensor, deviation: float) -> None:
    """Numbers ~ N(0, deviation^2), in place."""
    _fill(tensor, lambda part, generator: part.normal_(0.0, deviation, generator=generator))


def fill_uniform(tensor: Tensor, bound: float) -> None:
    """Numbers ~ U(-bound, bound), in place."""
    _fill(tensor, lambda part, generator: part.uniform_(-bound, bound, generator=generator))


def _fill(tensor: Tensor, draw: Draw) -> None:
    """A large tensor in parts, each with a generator seeded by torch's own: the same for any number of threads."""
    numbers = tensor.detach()
    is_real = type(numbers) is Tensor and numbers.device.type == "cpu" and numbers.is_contiguous()
    if not is_real or numbers.numel() < LARGE:
        draw(numbers, None)
        return
    parts = numbers.view(-1).split(PART)
    seeds = torch.randint(2**63 - 1, (len(parts),), device="cpu").tolist()

    def draw_part(part: Tensor, seed: int) -> None:
        draw(part, torch.Generator("cpu").manual_seed(seed))

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        list(threads.map(draw_part, parts, seeds))
