"""The loader's threads: one that hangs is replaced and the batches stay the same, one that fails names its picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from layerwise.data import loader
from layerwise.data.preprocess import Preprocess, fit_preprocess
from layerwise.data.source import Samples
from layerwise.errors import MachineError
from layerwise.recipe import changed
from layerwise.recipes.presets import preset

RECIPE = changed(preset("digits"), ["batch_size=4", "input_size=8", "resize=squash", "seed=1"])


@pytest.fixture
def files(tmp_path: Path) -> Samples:
    paths = []
    for index in range(24):
        paths.append(tmp_path / f"{index:02d}.png")
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (9, 8), np.uint8)).save(paths[-1])
    return Samples("train", ("a", "b"), np.arange(24) % 2, tuple(path.name for path in paths), paths=tuple(paths))


@pytest.fixture
def preprocess(files: Samples) -> Preprocess:
    return fit_preprocess(files, RECIPE)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What hung threads wait for; a stall is noticed soon, and at the end they are let go."""
    monkeypatch.setattr("layerwise.data.workers.TICK", 0.02)
    monkeypatch.setattr(loader, "STALLED", 0.2)
    monkeypatch.setattr(loader, "LONGEST", 0.4)
    event = threading.Event()
    yield event
    event.set()


def at_picture(number: int, do: Callable[[], object], monkeypatch: pytest.MonkeyPatch, always: bool = False) -> None:
    """Has `do` done in the thread that makes the `number`-th picture (and each after it)."""
    make, made, lock = loader.augment_picture, [0], threading.Lock()

    def odd(*arguments: Any) -> Any:
        with lock:
            made[0] += 1
            now = made[0]
        if now == number or (always and now > number):
            do()
        return make(*arguments)

    monkeypatch.setattr(loader, "augment_picture", odd)


def batches_of(files: Samples, preprocess: Preprocess) -> list[torch.Tensor]:
    return [batch["image"].clone() for batch in loader.training_batches(files, RECIPE, preprocess, 0, 0, workers=2)]


@pytest.mark.parametrize("number", [1, 6, 24])
def test_a_thread_that_hangs_changes_no_batch(number: int, files: Samples, preprocess: Preprocess,
                                              released: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batches_of(files, preprocess)
    at_picture(number, released.wait, monkeypatch)
    found = batches_of(files, preprocess)
    assert all(torch.equal(one, other) for one, other in zip(whole, found, strict=True))


def test_a_file_on_which_all_threads_hang_is_named(files: Samples, preprocess: Preprocess, released: threading.Event,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    at_picture(9, released.wait, monkeypatch, always=True)
    with pytest.raises(MachineError, match=r"0\.4 seconds without a picture\n  - \d\d\.png") as told:
        batches_of(files, preprocess)
    assert "does not come to an end" in str(told.value)


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError("odd"), SystemExit("odd")])
def test_a_thread_that_fails_names_its_picture(error: BaseException, files: Samples, preprocess: Preprocess,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    at_picture(7, fail, monkeypatch)
    expected = rf"^\d\d\.png: a thread failed while it made this picture \({type(error).__name__}: odd\)"
    with pytest.raises(MachineError, match=expected) as told:
        batches_of(files, preprocess)
    assert told.value.mend == "Resume the run; if it fails again, look at that file."
    assert not [one for one in threading.enumerate() if one.name.startswith("layerwise-")]


@pytest.mark.parametrize("count", [1, 3])
def test_there_are_as_many_threads_as_were_asked_for(count: int, files: Samples, preprocess: Preprocess) -> None:
    for batches in (loader.training_batches(files, RECIPE, preprocess, 0, 0, workers=count),
                    loader.plain_batches(files, preprocess, 4, workers=count)):
        next(batches)
        names = sorted(one.name for one in threading.enumerate() if one.name.startswith("layerwise-"))
        batches.close()  # type: ignore[attr-defined]
        assert names == ["layerwise-assemble_0", *(f"layerwise-decode_{number}" for number in range(count))]
