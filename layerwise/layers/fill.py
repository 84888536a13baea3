"""Random numbers for a hundred million weights, drawn in parts by all threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

LARGE = 1 << 18  # numbers; below, threads save less than they cost
PART = 1 << 19
Draw = Callable[[Tensor, torch.Generator | None], Tensor]


def fill_normal(tensor: Tensor, deviation: float) -> None:
    """Numbers ~ N(0, deviation^2), in place."""
    _fill([(tensor, _normal(deviation))])


def fill_normals(weights: Iterable[tuple[Tensor, float]]) -> None:
    """As `fill_normal` for each tensor with its deviation, while the threads draw those before it."""
    _fill((tensor, _normal(deviation)) for tensor, deviation in weights)


def fill_uniform(tensor: Tensor, bound: float) -> None:
    """Numbers ~ U(-bound, bound), in place."""
    _fill([(tensor, _uniform(bound))])


def _normal(deviation: float) -> Draw:
    return lambda part, generator: part.normal_(0.0, deviation, generator=generator)


def _uniform(bound: float) -> Draw:
    return lambda part, generator: part.uniform_(-bound, bound, generator=generator)


def _fill(weights: Iterable[tuple[Tensor, Draw]]) -> None:
    """A large tensor in parts, each with a generator seeded by torch's own: the same for any number of threads."""
    waiting: list[Future[Tensor]] = []
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        for tensor, draw in weights:
            numbers = tensor.detach()
            is_real = type(numbers) is Tensor and numbers.device.type == "cpu" and numbers.is_contiguous()
            if not is_real or numbers.numel() < LARGE:
                draw(numbers, None)
                continue
            parts = numbers.view(-1).split(PART)
            seeds = torch.randint(2**63 - 1, (len(parts),), device="cpu").tolist()
            waiting += [threads.submit(_draw, draw, part, seed) for part, seed in zip(parts, seeds, strict=True)]
    for one in waiting:
        one.result()


def _draw(draw: Draw, part: Tensor, seed: int) -> Tensor:
    return draw(part, torch.Generator("cpu").manual_seed(seed))
