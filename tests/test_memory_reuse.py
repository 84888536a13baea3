"""Memory that is used again: a batch's only when nobody can see it any more, a thread's only within its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerwise.data import memory
from layerwise.data.memory import LARGEST, MOST, Batches, Scratch

SHAPE = (2, 3, 4)


def test_a_batchs_memory_comes_back_when_nothing_refers_to_it() -> None:
    batches = Batches()
    first = batches.empty(SHAPE)
    at = first.data_ptr()
    assert first.shape == SHAPE
    assert first.dtype == torch.float32
    assert batches.empty(SHAPE).data_ptr() != at, "it is still held"
    del first
    assert batches.empty(SHAPE).data_ptr() == at
    assert batches.empty((1, 3, 4)).data_ptr() != at, "another shape"


@pytest.mark.parametrize("kind", ["view", "numpy", "detached", "graph"])
def test_whatever_shares_the_memory_keeps_it(kind: str) -> None:
    batches = Batches()
    whole = batches.empty(SHAPE)
    whole.fill_(1)
    weight = torch.ones(SHAPE, requires_grad=True)
    held = {
        "view": lambda one: one.permute(2, 0, 1)[1:],
        "numpy": lambda one: one.numpy()[0],
        "detached": lambda one: one.detach().view(-1),
        "graph": lambda one: (one * weight).sum(),  # keeps the batch for the weight's gradient
    }[kind](whole)
    del whole
    for _ in range(3):
        batches.empty(SHAPE).fill_(2)
    if kind == "graph":
        held.backward()  # type: ignore[union-attr]
        assert weight.grad is not None
        assert (weight.grad == 1).all()
    else:
        assert bool((held == 1).all())  # type: ignore[union-attr]


def test_without_the_count_of_references_a_held_batch_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above."""
    monkeypatch.setattr(memory, "_free", lambda array: True)
    batches = Batches()
    held = batches.empty(SHAPE).fill_(1)
    batches.empty(SHAPE).fill_(2)
    assert (held == 2).all()


def test_only_a_few_batches_are_kept() -> None:
    batches = Batches()
    held = [batches.empty(SHAPE) for _ in range(MOST + 3)]
    assert len({one.data_ptr() for one in held}) == MOST + 3
    held.clear()
    assert len(batches._arrays) == MOST


def test_scratch_is_used_again_and_large_pictures_are_not_kept() -> None:
    scratch = Scratch()
    large, small = scratch.picture("cut", (8, 8, 3)), scratch.picture("cut", (4, 4, 3))
    assert np.shares_memory(large, small)
    assert not np.shares_memory(large, scratch.picture("mirrored", (8, 8, 3)))
    huge = scratch.picture("cut", (LARGEST + 1,))
    assert huge.shape == (LARGEST + 1,)
    assert np.shares_memory(large, scratch.picture("cut", (8, 8, 3)))
    assert not np.shares_memory(huge, large)


def test_pinned_batches_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, dict[str, object]]] = []
    made = torch.empty(SHAPE)
    monkeypatch.setattr(memory.torch, "empty", lambda shape, **how: asked.append((shape, how)) or made)
    batches = Batches(pinned=True)
    assert batches.empty(SHAPE) is made
    assert batches.empty(SHAPE) is made
    assert asked == [(SHAPE, {"dtype": torch.float32, "pin_memory": True})] * 2
