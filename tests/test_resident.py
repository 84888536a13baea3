"""A whole training set on a device: its batches, and a training from them, are those of the loader to the bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layerwise import train
from layerwise.data.augment import fit_colour, on_device
from layerwise.data.loader import shared_batches
from layerwise.data.order import Place
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import Samples
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.train import RunOptions
from layerwise.training import state
from tests.random_samples import in_memory, recipe
from tests.test_loader import same

HERE = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "pad": {"crop": "pad", "pad": 3},
    "pad with black": {"crop": "pad", "pad": 1, "pad_with": "black", "flip": False},
    "flips in turns": {"crop": "pad", "pad": 2, "flip_turns": "alternate"},
    "flips alone": {"crop": "none", "mean": "per-pixel", "std": "none"},
    "as it is": {"crop": "none", "flip": False},
    "colour and mixup": {"crop": "pad", "pad": 3, "colour": "pca", "colour_sigma": 1.0, "mixup": 0.3},
}


def batches(samples: Samples, chosen: Recipe, resident: bool, epoch: int = 1, rank: int = 0) -> list[Any]:
    preprocess = fit_preprocess(samples, chosen)
    colour = fit_colour(samples, preprocess) if chosen.colour == "pca" else None
    pictures = on_device(samples.images, chosen, preprocess, HERE, 1 << 30) if resident else None
    assert (pictures is not None) == resident
    place = Place(epoch, 0, rank, 2) if rank else Place(epoch, 0)
    return list(shared_batches(samples, chosen, preprocess, place, colour, resident=pictures))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_are_the_loaders_to_the_bit(kind: str, rank: int) -> None:
    samples, chosen = in_memory(70, 10), recipe(**{"input_size": 10, "batch_size": 16, **KINDS[kind]})
    assert same(batches(samples, chosen, True, rank=rank), batches(samples, chosen, False, rank=rank))
    # The negative control: other draws are seen.
    if kind != "as it is":
        assert not same(batches(samples, chosen, True, 2, rank), batches(samples, chosen, False, 1, rank))


def test_grey_pictures_too() -> None:
    samples, chosen = in_memory(40, 10, channels=1), recipe(input_size=10, crop="pad", pad=2, channels=1)
    assert same(batches(samples, chosen, True), batches(samples, chosen, False))


def test_what_can_not_lie_there() -> None:
    samples, chosen = in_memory(20, 10), recipe(input_size=10, crop="pad", pad=1)
    preprocess = fit_preprocess(samples, chosen)
    needed = 20 * 12 * 12 * 3
    assert on_device(samples.images, chosen, preprocess, HERE, needed) is not None
    assert on_device(samples.images, chosen, preprocess, HERE, needed - 1) is None
    assert on_device(None, chosen, preprocess, HERE, needed) is None
    resized = recipe(input_size=10, crop="resized", resize="squash")
    assert on_device(samples.images, resized, fit_preprocess(samples, resized), HERE, needed) is None
    grey = dataclasses.replace(preprocess, channels=1)
    assert on_device(samples.images, chosen, grey, HERE, needed) is None
    assert state.room(HERE) == 0  # this machine's memory is not a device's own


def test_the_set_is_left_as_it_is() -> None:
    samples, chosen = in_memory(20, 10), recipe(input_size=10, crop="pad", pad=1)
    assert samples.images is not None
    before = samples.images.copy()
    for batch in batches(samples, chosen, True):
        batch["image"].fill_(7)
    assert np.array_equal(samples.images, before)


def test_a_training_from_it_is_the_same_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["network=resnet20", "threads=1", "precision=fp32", "duration=1",
                "evaluate_every=1", "batch_size=48", "warmup=none", "warmup_length=0", "crop=pad", "pad=1"]
    chosen = changed(preset("digits"), settings)

    def run(where: Path) -> Path:
        return train.train(chosen, RunOptions(out=where, quiet=True, offline=True, confirmed=True))

    ordinary = run(tmp_path / "ordinary")
    seen, crop = [0], state.on_device

    def counted(*given: Any) -> Any:
        pictures = crop(*given)
        assert pictures is not None
        return lambda *asked: (seen.__setitem__(0, seen[0] + len(asked[0])), pictures(*asked))[1]

    monkeypatch.setattr(state, "room", lambda device: 1 << 30)
    monkeypatch.setattr(state, "on_device", counted)
    resident = run(tmp_path / "resident")
    assert seen[0] > 1000
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (resident / name).read_bytes() == (ordinary / name).read_bytes(), name
