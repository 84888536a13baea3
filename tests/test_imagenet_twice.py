"""ImageNet in a folder that holds more than one thing: a synset as tar and as folder, releases of two years."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerwise.data import DataOptions, DataSet, open_data
from layerwise.data.pieces import Slice
from layerwise.errors import InputError
from tests.test_imagenet import LAYOUTS, TRUTH, flat, folders, jpeg, kit_archive, nested, put, tar, training


def class_tars(prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{synset}.tar": tar(files) for synset, files in training().items()}


def sorted_validation() -> dict[str, bytes]:
    return {f"val/{synset}/{name}": data for (name, data), synset in zip(flat().items(), TRUTH, strict=True)}


# The release, what it lies there as, and as what it lies there too.
TWICE = {
    "tars and folders": ("imagenet-fall2009", class_tars, lambda: folders("")),
    "one tar and tars": ("imagenet-fall2011", lambda: {"fall11_whole.tar": nested()}, class_tars),
    "training": ("imagenet", LAYOUTS["class tars"], lambda: folders("train/")),
    "validation": ("imagenet", LAYOUTS["class tars"], sorted_validation),
}


@pytest.mark.parametrize("kind", TWICE)
def test_what_lies_there_in_two_ways_is_counted_once(tmp_path: Path, kind: str) -> None:
    name, once, again = TWICE[kind]
    sets = [open_data(name, DataOptions(data_dir=put(tmp_path / place / name, files).parent))
            for place, files in (("alone", once()), ("both", once() | again()))]
    alone, both = sets
    for data in sets:
        ids = [one for samples in data.splits.values() for one in samples.ids]
        assert len(ids) == len(set(ids))
    assert both.fingerprint == alone.fingerprint
    assert [any("that lie there twice, such as" in note for note in data.notes) for data in sets] == [False, True]
    assert all(isinstance(path, Slice) for path in both.train.paths or ())  # those in a tar are read


def released(year: str) -> dict[str, bytes]:
    """The archives of a challenge; those of 2010 hold other training pictures under the same names."""
    kind, first = ("img", 0) if year == "2012" else ("images", 7000)
    pictures = {synset: {name: jpeg(first + 100 * at + number) for number, name in enumerate(files)}
                for at, (synset, files) in enumerate(training().items())}
    return {f"ILSVRC{year}_{kind}_train.tar": tar({f"{synset}.tar": tar(files) for synset, files in pictures.items()}),
            f"ILSVRC{year}_{kind}_val.tar": tar(flat("val", year)),
            f"ILSVRC{year}_devkit_t12.tar.gz": kit_archive(year)}


def found(name: str, place: Path) -> DataSet:
    return open_data(name, DataOptions(data_dir=place))


@pytest.mark.parametrize("folder", ["", "imagenet"])
def test_of_two_years_in_one_folder_the_named_one_is_read(tmp_path: Path, folder: str) -> None:
    alone = {}
    both = put(tmp_path / "both" / folder, released("2010") | released("2012"))
    for name, year in (("imagenet", "2012"), ("imagenet-2010", "2010")):
        put(tmp_path / year / folder, released(year))
        alone[name] = found(name, tmp_path / year)
        data = found(name, tmp_path / "both")
        assert data.fingerprint == alone[name].fingerprint
        assert sum(note.endswith(": of another year") for note in data.notes) == 2
        assert not any(note.endswith(": of another year") for note in alone[name].notes)
    assert alone["imagenet"].train.fingerprint != alone["imagenet-2010"].train.fingerprint  # else it could not show
    assert open_data(str(both), DataOptions()).fingerprint == alone["imagenet"].fingerprint


@pytest.mark.parametrize("kind", ["tars", "folders"])
def test_another_years_pictures_are_not_taken_for_the_named_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 kind: str) -> None:
    place = put(tmp_path / "first" / "imagenet", released("2012") if kind == "tars" else LAYOUTS["kaggle"]())
    assert found("imagenet", tmp_path / "first").name == "imagenet"  # the control
    with pytest.raises(InputError, match="imagenet-2010: ILSVRC-2010 is not on this machine") as caught:
        found("imagenet-2010", tmp_path / "first")
    assert f"looked in {place}, which holds pictures of another release or none" in caught.value.details
    # The search goes on to the next place.
    put(tmp_path / "second" / "imagenet", released("2010"))
    monkeypatch.setenv("LAYERWISE_DATA", str(tmp_path / "second"))
    data = found("imagenet-2010", tmp_path / "first")
    assert data.val is not None
    assert data.val.ids[0] == "val/ILSVRC2010_val_00000001.JPEG"
