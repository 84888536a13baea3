"""One picture that differs, among more files than statistics are taken over, settles channels and size all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerwise.data import DataOptions, open_data, statistics
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from tests.packed_photos import packed
from tests.random_samples import as_files, in_memory, recipe

SIDE = 80  # above 64 pixels, so that the pictures stay files


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8))


def test_a_picture_that_no_statistic_sees_has_its_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_FILES", 3)
    samples = as_files(in_memory(12, channels=1), tmp_path)
    assert samples.paths is not None
    unseen = min(set(range(12)) - set(statistics.representative(samples).tolist()))
    fitted = fit_preprocess(samples, recipe())  # the control
    assert (fitted.channels, fitted.size) == (1, 12)
    noise(12, 12, 3).save(samples.paths[unseen])
    assert fit_preprocess(samples, recipe()).channels == 3
    noise(12, 9).save(samples.paths[unseen])
    with pytest.raises(InputError, match="the pictures' sizes differ"):
        fit_preprocess(samples, recipe())


@pytest.mark.parametrize("shards", [False, True])
def test_of_opened_data_no_picture_is_read_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  shards: bool) -> None:
    for number in range(12):
        file = tmp_path / "photos" / ("train", "train", "test")[number % 3] / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(*(SIDE, SIDE, 3)[: 3 if number == 9 else 2]).save(file)
    place = tmp_path / ("shards" if shards else "photos")
    if shards:
        packed(tmp_path / "photos", place)
    else:
        (place / "train" / "a" / "0.png").write_bytes(b"")  # what is left out takes no other's shape with it
    train = open_data(str(place), DataOptions(bad_images="skip")).train
    assert train.images is None
    assert train.shapes is not None
    assert train.shapes.tolist() == [list(train.read(index).shape) for index in range(len(train))]
    colour = train.ids.index("train/b/9.png")

    def never(self: Samples, index: int) -> None:
        raise AssertionError("a picture was read")

    monkeypatch.setattr(Samples, "read", never)
    plain = recipe(mean="none", std="none")
    fitted = fit_preprocess(train, plain)
    assert (fitted.channels, fitted.size) == (3, SIDE)
    # Held out for validation, it has no say.
    rest = train.subset([index for index in range(len(train)) if index != colour], "train")
    assert fit_preprocess(rest, plain).channels == 1
