"""Loader: what a sample looks like depends on (seed, epoch, sample) alone; no sample is lost, doubled or reordered."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from layerwise.data import augment, colour, loader
from layerwise.data.augment import fit_colour
from layerwise.data.loader import (
    class_weights,
    draw_rates,
    epoch_batches,
    epoch_order,
    plain_batches,
    training_batches,
)
from layerwise.data.memory import Batches
from layerwise.data.order import repeats
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.recipe import Recipe
from tests.random_samples import as_files, in_memory, recipe

# Every kind of augmentation; the first two are done as whole batches where the pictures are in memory.
KINDS: dict[str, dict[str, Any]] = {
    "pad": {"crop": "pad", "pad": 3, "colour": "pca", "colour_sigma": 1.0},
    "none": {"crop": "none", "mean": "per-pixel", "std": "none"},
    "resized": {"crop": "resized", "resize": "squash", "input_size": 10},
    "scale": {"crop": "scale", "scale_range": (11, 19), "resize": "short-side", "resize_to": 12, "input_size": 10},
}


def batches_of(samples: Samples, chosen: Recipe, epoch: int = 0, start: int = 0, workers: int = 0) -> list[Any]:
    preprocess = fit_preprocess(samples, chosen)
    principal = fit_colour(samples, preprocess) if chosen.colour == "pca" else None
    return list(training_batches(samples, chosen, preprocess, epoch, start, principal, workers))


def views(batches: list[Any]) -> dict[int, bytes]:
    """What was seen of each sample, by index."""
    return {
        int(index): image.contiguous().numpy().tobytes()
        for batch in batches
        for index, image in zip(batch["index"], batch["image"], strict=True)
    }


def same(some: list[Any], other: list[Any]) -> bool:
    """Whether two lists of batches are equal to the bit."""
    return len(some) == len(other) and all(
        one.keys() == two.keys()
        and all(torch.equal(one[name], two[name]) if name != "bad" else one[name] == two[name] for name in one)
        for one, two in zip(some, other, strict=True)
    )


def pure(samples: Samples, files: Samples, chosen: Recipe) -> list[str]:
    """Where the batches depend on more than (seed, epoch, sample): workers, start, batch size, memory or files."""
    whole = batches_of(samples, chosen)
    found = [f"{workers} workers" for workers in (1, 2, 8) if not same(whole, batches_of(files, chosen, 0, 0, workers))]
    starts = (1, 3, len(whole))
    found += [f"start {start}" for start in starts if not same(whole[start:], batches_of(files, chosen, 0, start))]
    if not same(whole[2:], batches_of(samples, chosen, start=2)):
        found.append("start in memory")
    for batch_size in (5, 64):
        other = batches_of(files, dataclasses.replace(chosen, batch_size=batch_size))
        if views(whole) != views(other):
            found.append(f"batch size {batch_size}")
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_sample_looks_the_same_whatever_workers_start_batch_size_and_store(kind: str, tmp_path: Path) -> None:
    samples = in_memory(29)
    files = as_files(samples, tmp_path)
    chosen = recipe(**KINDS[kind])
    assert pure(samples, files, chosen) == []
    seen, again, later = (views(batches_of(samples, chosen, epoch)) for epoch in (0, 0, 1))
    assert seen == again
    different = [index for index in seen if seen[index] != later[index]]
    assert len(different) >= (10 if kind == "none" else 25), "a flip alone leaves half of them as they were"
    other_seed = views(batches_of(samples, dataclasses.replace(chosen, seed=1)))
    assert seen != other_seed


def test_a_carried_generator_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above: numbers from a generator's state instead of the sample's identity."""
    generator = np.random.default_rng(0)

    def carried(seed: int, epoch: int, keys: NDArray[np.int64], stage: str, count: int = 1) -> NDArray[np.float64]:
        return generator.random((len(keys), count))

    samples = in_memory(29)
    files = as_files(samples, tmp_path)
    monkeypatch.setattr(augment, "uniform", carried)
    found = pure(samples, files, recipe(crop="pad"))
    assert {"1 workers", "8 workers", "start 1", "start in memory", "batch size 5"} <= set(found)


def test_colours_of_a_carried_generator_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    monkeypatch.setattr(colour, "normal", lambda *about: generator.normal(size=(len(about[2]), 3)))
    samples = in_memory(29)
    assert pure(samples, as_files(samples, tmp_path), recipe(**KINDS["pad"])) != []


def test_mixup_is_the_same_for_workers_start_and_store(tmp_path: Path) -> None:
    samples = in_memory(29)
    files = as_files(samples, tmp_path)
    chosen = recipe(mixup=0.4)
    whole = batches_of(samples, chosen)
    assert all({"label_b", "weight"} <= batch.keys() for batch in whole)
    for workers in (1, 8):
        assert same(whole, batches_of(files, chosen, workers=workers))
    assert same(whole[2:], batches_of(files, chosen, start=2))
    assert not same(whole, batches_of(samples, chosen, epoch=1))


def test_a_batch_is_what_the_contract_says() -> None:
    samples = in_memory(20)
    batches = batches_of(samples, recipe())
    assert [len(batch["label"]) for batch in batches] == [8, 8, 4]
    for batch in batches:
        assert set(batch) == {"image", "label", "index", "bad"}
        assert batch["image"].dtype == torch.float32
        assert batch["image"].shape[1:] == (3, 12, 12)
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        assert batch["label"].dtype == batch["index"].dtype == torch.int64
        assert np.array_equal(batch["label"].numpy(), samples.labels[batch["index"].numpy()])
        assert batch["bad"] == []
    assert sorted(int(index) for batch in batches for index in batch["index"]) == list(range(20))


@pytest.mark.parametrize("batch_size", [2, 5, 8])
@pytest.mark.parametrize("files", [False, True])
def test_tiny_data_and_last_batches(batch_size: int, files: bool, tmp_path: Path) -> None:
    """N = 1, 2, batch-1, batch, batch+1, and two batches and one: every sample once, no batch of one but N = 1."""
    for number in (1, 2, batch_size - 1, batch_size, batch_size + 1, 2 * batch_size + 1):
        samples = in_memory(number)
        samples = as_files(samples, tmp_path) if files else samples
        batches = batches_of(samples, recipe(batch_size=batch_size))
        assert sorted(int(index) for batch in batches for index in batch["index"]) == list(range(number))
        assert number == 1 or min(len(batch["index"]) for batch in batches) > 1
        assert max(len(batch["index"]) for batch in batches) <= batch_size + 1


@given(number=st.integers(0, 200), batch_size=st.integers(1, 50))
def test_batches_cut_the_order(number: int, batch_size: int) -> None:
    entries = np.arange(number, dtype=np.int64)[::-1]
    batches = epoch_batches(entries, batch_size)
    assert np.array_equal(np.concatenate([*batches, np.empty(0, np.int64)]), entries)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    if batches:
        least = 1 if batch_size == 1 or number == 1 else 2
        assert least <= len(batches[-1]) <= max(batch_size + 1 if batch_size > 1 else 1, least)


def test_the_order_is_a_permutation_that_differs_between_epochs_and_seeds() -> None:
    samples = in_memory(100)
    orders = [epoch_order(samples, recipe(seed=seed), epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for entries in orders:
        assert sorted(entries.tolist()) == list(range(100))
    assert np.array_equal(orders[0], epoch_order(samples, recipe(), 0))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_no_samples_is_said() -> None:
    with pytest.raises(InputError, match="split 'train' has no samples"):
        epoch_order(in_memory(3).subset([], "train"), recipe(), 0)


def imbalanced(counts: tuple[int, ...], repetitions: int = 1) -> Samples:
    """Samples with these numbers of each class, in a mixed order."""
    labels = np.repeat(np.arange(len(counts)), np.array(counts) * repetitions)
    samples = in_memory(len(labels), size=4, classes=len(counts))
    return dataclasses.replace(samples, labels=np.random.default_rng(0).permutation(labels).astype(np.int64))


@pytest.mark.parametrize(
    ("balance", "rates"),
    [("sampler", [1 / 3, 0, 1 / 3, 1 / 3]), ("sqrt", [1 / 6, 0, 2 / 6, 3 / 6]), ("none", [1 / 14, 0, 4 / 14, 9 / 14])],
)
def test_balanced_orders_draw_classes_at_their_rates(balance: str, rates: list[float]) -> None:
    samples = imbalanced((1, 0, 4, 9), 100)
    chosen = recipe(balance=balance)
    assert np.allclose(draw_rates(samples, chosen), rates)
    drawn = epoch_order(samples, chosen, 3)
    assert len(drawn) == len(samples)
    assert np.array_equal(drawn, epoch_order(samples, chosen, 3))
    assert not np.array_equal(drawn, epoch_order(samples, chosen, 4))
    counts = np.bincount(samples.labels[drawn], minlength=4)
    assert counts[1] == 0
    expected = np.array(rates)[[0, 2, 3]] * len(samples)
    assert stats.chisquare(counts[[0, 2, 3]], expected).pvalue > 1e-3
    if balance != "none":
        many = np.concatenate([epoch_order(samples, chosen, epoch) for epoch in range(50)])
        within = np.bincount(many, minlength=len(samples))[samples.labels == 0]
        assert stats.chisquare(within).pvalue > 1e-3, "the samples of a class are drawn equally often"


def test_a_repeated_sample_is_augmented_differently_and_purely(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = imbalanced((2, 38))
    chosen = recipe(balance="sampler", crop="pad", pad=1, flip=False)

    def pictures_of_the_rare() -> set[bytes]:
        return {
            image.contiguous().numpy().tobytes()
            for batch in batches_of(samples, chosen)
            for image, label in zip(batch["image"], batch["label"], strict=True)
            if label == 0
        }

    assert len(pictures_of_the_rare()) > 8
    assert same(batches_of(samples, chosen)[2:], batches_of(samples, chosen, start=2))
    monkeypatch.setattr("layerwise.data.loader.repeats", lambda order: np.zeros_like(order))
    assert len(pictures_of_the_rare()) == 2, "negative control: without the number of the repetition"


def test_repeats_count_what_came_before() -> None:
    assert repeats(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert repeats(np.empty(0, np.int64)).tolist() == []


def test_class_weights_have_mean_one_over_the_samples() -> None:
    samples = imbalanced((1, 0, 4, 5))
    weights = class_weights(samples, recipe(balance="loss"))
    assert weights.tolist() == pytest.approx([10 / 3, 1, 10 / 12, 10 / 15])
    assert weights[samples.labels].mean() == pytest.approx(1)
    assert class_weights(samples, recipe()).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("files", [False, True])
def test_plain_batches_are_the_preprocessing_and_nothing_else(kind: str, files: bool, tmp_path: Path) -> None:
    samples = in_memory(11, channels=1 if kind == "none" else 3)
    preprocess = fit_preprocess(samples, recipe(**KINDS[kind]))
    expected = torch.cat([preprocess.tensor(samples.read(index)) for index in range(11)])
    stored = as_files(samples, tmp_path) if files else samples
    for batch_size in (1, 4, 11, 50):
        batches = list(plain_batches(stored, preprocess, batch_size))
        assert torch.equal(torch.cat([batch["image"] for batch in batches]), expected)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(11))
        assert torch.cat([batch["label"] for batch in batches]).tolist() == samples.labels.tolist()
        assert max(len(batch["label"]) for batch in batches) <= batch_size


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("files", [True, False])
def test_batches_are_pinned_where_there_is_a_gpu(there: bool, files: bool, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    samples = as_files(in_memory(6), tmp_path) if files else in_memory(6)
    asked: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(loader, "Batches", lambda pinned=False: (asked.append(pinned), Batches())[1])
    batches_of(samples, recipe(**KINDS["pad"]))
    assert asked == [there]


def test_an_epoch_without_batches_left_is_empty() -> None:
    samples, chosen = in_memory(29), recipe(**KINDS["pad"])
    whole = batches_of(samples, chosen)
    assert len(batches_of(samples, chosen, start=len(whole) - 1)) == 1
    assert batches_of(samples, chosen, start=len(whole)) == []


def test_nothing_is_written_to_the_pictures_in_memory() -> None:
    samples = in_memory(9)
    assert samples.images is not None
    before = samples.images.copy()
    samples.images.setflags(write=False)
    batches_of(samples, recipe(**KINDS["pad"]))
    list(plain_batches(samples, fit_preprocess(samples, recipe()), 4))
    assert np.array_equal(samples.images, before)


def damage(samples: Samples, indices: list[int]) -> None:
    assert samples.paths is not None
    for index in indices:
        samples.paths[index].write_bytes(b"gone")


def test_a_file_that_turns_bad_is_left_out_and_named(tmp_path: Path) -> None:
    files = as_files(in_memory(100, size=4), tmp_path)
    chosen, preprocess = recipe(), fit_preprocess(files, recipe())
    whole = list(training_batches(files, chosen, preprocess, 0, 0))
    damage(files, [42])
    batches = list(training_batches(files, chosen, preprocess, 0, 0))
    assert [identity for batch in batches for identity in batch["bad"]] == ["train/0042.png"]
    assert sum(len(batch["label"]) for batch in batches) == 99
    for before, after in zip(whole, batches, strict=True):
        kept = before["index"] != 42
        assert torch.equal(before["image"][kept], after["image"])
        assert torch.equal(before["label"][kept], after["label"])
        assert len(after["index"]) == len(before["index"]) - len(after["bad"])


def test_more_than_one_bad_file_in_a_hundred_stops(tmp_path: Path) -> None:
    files = as_files(in_memory(100, size=4), tmp_path)
    preprocess = fit_preprocess(files, recipe())
    damage(files, [42, 7])
    with pytest.raises(InputError, match="2 of the 100 pictures of epoch 0 cannot be read any more") as error:
        list(training_batches(files, recipe(), preprocess, 0, 0))
    assert set(error.value.details) == {"train/0042.png", "train/0007.png"}
    assert "resume the run" in str(error.value)
    assert loader_threads() == []


def test_a_batch_that_lost_all_its_pictures_stops(tmp_path: Path) -> None:
    files = as_files(in_memory(100, size=4), tmp_path)
    chosen, preprocess = recipe(batch_size=1, mixup=0.2), fit_preprocess(files, recipe())
    damage(files, [int(epoch_order(files, chosen, 0)[5])])
    with pytest.raises(InputError, match="1 of the 100 pictures of epoch 0 cannot be read any more"):
        list(training_batches(files, chosen, preprocess, 0, 0))


def test_evaluation_names_unreadable_files_and_goes_on(tmp_path: Path) -> None:
    files = as_files(in_memory(10, size=4), tmp_path)
    preprocess = fit_preprocess(files, recipe())
    damage(files, [2, 4, 5])
    batches = list(plain_batches(files, preprocess, 2))
    assert [len(batch["label"]) for batch in batches] == [2, 1, 0, 2, 2]
    assert [batch["bad"] for batch in batches][1:3] == [["train/0002.png"], ["train/0004.png", "train/0005.png"]]
    assert batches[2]["image"].shape == (0, 3, 4, 4)


def test_a_picture_that_does_not_fit_the_recipe_is_no_bad_file(tmp_path: Path) -> None:
    files = as_files(in_memory(100, size=4), tmp_path)
    preprocess = dataclasses.replace(fit_preprocess(files, recipe()), size=5)
    with pytest.raises(InputError, match="a picture of 4x4 pixels where the network takes 5x5"):
        list(training_batches(files, recipe(), preprocess, 0, 0))
    assert loader_threads() == []


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("layerwise-")]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_closing_the_iterator_stops_its_threads(after: int, tmp_path: Path) -> None:
    files = as_files(in_memory(64, size=4), tmp_path)
    preprocess = fit_preprocess(files, recipe())
    batches = training_batches(files, recipe(), preprocess, 0, 0)
    for _ in range(after):
        next(batches)
    assert bool(loader_threads()) == (after > 0)
    assert isinstance(batches, Iterator)
    batches.close()  # type: ignore[attr-defined]
    assert loader_threads() == []


def test_only_a_few_batches_are_made_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = as_files(in_memory(64, size=4), tmp_path)
    preprocess = fit_preprocess(files, recipe())
    read: list[int] = []
    original = Samples.read
    monkeypatch.setattr(Samples, "read", lambda self, index: (read.append(index), original(self, index))[1])
    batches = training_batches(files, recipe(), preprocess, 0, 0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert 8 <= len(read) <= 8 * 4
    read.clear()
    assert len(list(training_batches(files, recipe(), preprocess, 0, 0))) == 8
    assert sorted(read) == list(range(64))
