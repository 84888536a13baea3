"""Virtual workers: sums that no division among processes changes; beside it the sum in order, which does change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from layerwise.errors import InputError
from layerwise.training.virtual_workers import Tree, require_divisible


def vectors(number: int, missing: frozenset[int] = frozenset()) -> list[Tensor | None]:
    """Numbers of very different sizes, so that each order of adding them rounds differently."""
    drawn = torch.randn(number, 257, generator=torch.Generator().manual_seed(number))
    drawn *= 10.0 ** torch.arange(number)[:, None]
    return [None if at in missing else row.clone() for at, row in enumerate(drawn)]


def summed(parts: list[Tensor | None]) -> Tensor | None:
    tree = Tree()
    for one in parts:
        tree.add(one)
    return tree.total()


def shared(parts: list[Tensor | None], processes: int) -> Tensor | None:
    size = len(parts) // processes
    return summed([summed(parts[rank * size : (rank + 1) * size]) for rank in range(processes)])


@pytest.mark.parametrize(("workers", "processes"), [(8, 1), (8, 2), (8, 4), (8, 8), (4, 2), (6, 3), (6, 6), (12, 3)])
@pytest.mark.parametrize("missing", [frozenset(), frozenset({1}), frozenset({2, 3}), frozenset({3, 4, 5})])
def test_the_sum_has_the_same_bits_for_any_number_of_processes(
    workers: int, processes: int, missing: frozenset[int]
) -> None:
    require_divisible(workers, processes)
    alone, together = summed(vectors(workers, missing)), shared(vectors(workers, missing), processes)
    assert alone is not None
    assert together is not None
    assert torch.equal(alone, together)


def test_the_control_a_sum_in_order_changes_with_the_processes() -> None:
    parts = [one for one in vectors(8) if one is not None]
    in_order = torch.stack(parts).cumsum(0)[-1]
    halves = torch.stack(parts[:4]).cumsum(0)[-1] + torch.stack(parts[4:]).cumsum(0)[-1]
    assert not torch.equal(in_order, halves)


def test_at_most_a_branch_a_height_is_held() -> None:
    tree = Tree()
    for _ in range(64):
        tree.add(torch.ones(1))
        assert len(tree._branches) <= 7
    assert tree.total() == 64


@pytest.mark.parametrize(("workers", "processes"), [(8, 3), (6, 2), (6, 4), (4, 8)])
def test_processes_that_would_cut_a_branch_are_refused(workers: int, processes: int) -> None:
    with pytest.raises(InputError, match=rf"virtual_workers={workers} can't be shared by {processes} processes"):
        require_divisible(workers, processes)
