"""The order of samples, against its rules written out one sample at a time."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from layerwise.data.order import Place, class_weights, draw_rates, epoch_batches, epoch_order, repeats
from layerwise.data.source import Samples
from layerwise.randomness import permutation, uniform
from tests.random_samples import in_memory, recipe


def unequal(*counts: int) -> Samples:
    """Samples with these numbers of each class, in a mixed order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    return dataclasses.replace(in_memory(len(labels), size=2, classes=len(counts)), labels=labels)


@pytest.mark.parametrize("balance", ["sampler", "sqrt"])
def test_each_draw_is_its_two_numbers(balance: str) -> None:
    """The first number chooses the class by the rates, the second one of its samples in the order of the split."""
    samples, chosen = unequal(3, 0, 40, 157, 0), recipe(balance=balance, seed=5)
    bounds = list(itertools.accumulate(draw_rates(samples, chosen).tolist()))
    of_class = [[index for index in range(200) if samples.labels[index] == label] for label in range(5)]
    expected = []
    for entry in range(200):
        first, second = uniform(5, 7, np.array([entry]), "draw", 2)[0]
        mine = of_class[next(label for label, bound in enumerate(bounds) if first < bound)]
        expected.append(mine[int(second * len(mine))])
    order = epoch_order(samples, chosen, 7)
    assert order.tolist() == expected
    assert order.dtype == np.int64


@pytest.mark.parametrize("number", [1, 2, 50])
def test_without_balance_it_is_the_permutation_of_seed_and_epoch(number: int) -> None:
    samples = in_memory(number, size=2)
    for balance in ("none", "loss"):
        order = epoch_order(samples, recipe(balance=balance, seed=5), 7)
        assert order.tolist() == permutation(5, 7, number).tolist()


def test_a_number_behind_all_rates_draws_the_last_class_that_has_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = unequal(3, 4, 0)
    monkeypatch.setattr("layerwise.data.order.draw_rates", lambda *_: np.array([0.25, 0.25, 0]))  # as if rounded
    assert set(samples.labels[epoch_order(samples, recipe(balance="sampler"), 0)].tolist()) == {0, 1}


def test_repetitions_are_counted_in_long_orders_too() -> None:
    order = np.random.default_rng(1).integers(0, 40, 1000)
    order[1] = order[0]
    seen: Counter[int] = Counter()
    expected = []
    for entry in order.tolist():
        expected.append(seen[entry])
        seen[entry] += 1
    assert repeats(order).tolist() == expected


def test_batches_of_two_merge_a_last_one_too() -> None:
    assert [batch.tolist() for batch in epoch_batches(np.arange(5), 2)] == [[0, 1], [2, 3, 4]]
    assert [batch.tolist() for batch in epoch_batches(np.arange(3), 1)] == [[0], [1], [2]]


def test_a_place_is_that_of_one_process_unless_it_is_said() -> None:
    assert Place(3) == Place(epoch=3, start=0, rank=0, size=1, workers=0)
    assert Place(3).share(np.arange(4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("number", [0, 1, 10, 11])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_virtual_workers_have_contiguous_parts_and_processes_equally_many(number: int, size: int) -> None:
    batch = np.arange(number) * 3
    parts = [part.tolist() for part in np.array_split(batch, 4)]
    for rank in range(size):
        place = Place(0, 0, rank, size, 4)
        mine = range(rank * 4 // size, (rank + 1) * 4 // size)
        assert place.share(batch).tolist() == [entry for one in mine for entry in parts[one]]
        assert place.worker(batch).tolist() == [one for one in mine for _ in parts[one]]


def test_the_weights_of_the_loss_are_single_precision() -> None:
    samples = unequal(1, 0, 4, 5)
    for balance in ("loss", "none"):
        assert class_weights(samples, recipe(balance=balance)).dtype == np.float32
