"""Where a run's data lie and what changed in them since it began; a name that is taken is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from layerwise import rundir, train
from layerwise.data.place import place_of, placed
from layerwise.data.source import DataSet, Samples
from layerwise.errors import InputError
from layerwise.jobs import main_job
from layerwise.jobs.assessment import Question, assess
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.train import RunOptions
from layerwise.training import preparation
from layerwise.training.state import Training, assemble

QUICK = ["network=lenet5", "threads=1", "precision=fp32", "unit=iterations", "duration=2", "evaluate_every=2",
         "schedule=constant", "warmup=none", "warmup_length=0", "batch_size=8", "label_smoothing=0", "ema=0",
         "resize=squash", "input_size=32", "channels=1", "split=", "validation=0"]


def photos(where: Path) -> Path:
    """Twelve pictures in train, six in test, two classes; one has a name that a spreadsheet takes for a formula."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name in ("=ant", "bee"):
            folder = where / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(random.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"{i}.png")
    return where


def recipe(data: str, *settings: str) -> Recipe:
    return changed(changed(preset("digits"), QUICK), [f"data={data}", *settings])


def run(data: str, where: Path) -> Path:
    return train.train(recipe(data), RunOptions(out=where, quiet=True, offline=True, confirmed=True))


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on data that were named by a relative path."""
    photos(tmp_path / "home" / "photos")
    monkeypatch.chdir(tmp_path / "home")
    return run("photos", tmp_path / "run")


def longer(**options: object) -> RunOptions:
    return RunOptions(quiet=True, offline=True, settings=("duration=3",), **options)


def test_a_relative_path_is_found_from_another_directory(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rundir.read_run(done)["data"]["place"] == str(tmp_path / "home" / "photos")
    assert rundir.read_recipe(done).data == "photos"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert assess([done], Question(on="test", offline=True)).result.samples == 6
    train.resume(done, longer())
    assert not [text for text in rundir.read_run(done)["notes"] if "not bit-exact" in text]
    record = rundir.read_run(done)
    rundir.update_run(done, {"data": {key: value for key, value in record["data"].items() if key != "place"}})
    with pytest.raises(InputError, match="there is no data at 'photos'"):  # the control: nothing was recorded
        assess([done], Question(on="test", offline=True))


def test_the_own_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "other").mkdir()
    record = {"data": {"place": str(tmp_path / "other")}}
    assert placed(recipe("photos"), record).data == "photos"
    assert placed(recipe("gone"), record).data == str(tmp_path / "other")
    assert placed(recipe("gone"), {"data": {"place": str(tmp_path / "none")}}).data == "gone"
    assert placed(recipe("gone"), {"data": "x"}).data == "gone"
    assert placed(recipe("digits"), record).data == "digits"
    assert (place_of("digits"), place_of("photos")) == ("", str(tmp_path / "photos"))


def test_changed_pictures_are_named(done: Path, tmp_path: Path) -> None:
    train_folder = tmp_path / "home" / "photos" / "train"
    (train_folder / "bee" / "0.png").unlink()
    Image.new("L", (12, 12), 9).save(train_folder / "bee" / "new.png")
    Image.new("L", (12, 12), 77).save(train_folder / "=ant" / "3.png")
    (train_folder / "=ant" / "5.png").rename(train_folder / "bee" / "moved.png")
    with pytest.raises(InputError, match="the data changed since the run began") as error:
        train.resume(done, longer())
    text = str(error.value)
    assert ("train: 2 added ('train/bee/moved.png', 'train/bee/new.png'), "
            "2 removed ('train/=ant/5.png', 'train/bee/0.png'), 1 changed ('train/=ant/3.png')") in text
    assert "test:" not in text
    train.resume(done, longer(accept_data_change=True))
    assert any("not bit-exact: the data changed (train: 2 added" in note for note in rundir.read_run(done)["notes"])


def test_of_many_the_first_five_are_named(done: Path, tmp_path: Path) -> None:
    for i in range(8):
        Image.new("L", (12, 12), i).save(tmp_path / "home" / "photos" / "test" / "bee" / f"more{i}.png")
    with pytest.raises(InputError) as error:
        train.resume(done, longer())
    assert "test: 8 added ('test/bee/more0.png', " in str(error.value)
    assert "'test/bee/more4.png', and 3 more)" in str(error.value)
    assert "more5" not in str(error.value)


def test_runs_without_lists_tell_the_split(done: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "photos" / "train" / "bee" / "0.png").unlink()
    for file in (done / "data").iterdir():
        file.write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match=r"train: [0-9a-f]{12} at the start, [0-9a-f]{12} now"):
        train.resume(done, longer())


def test_lists_hold_no_formulas_and_read_back(done: Path) -> None:
    text = (done / "data" / "train.csv").read_text("utf-8")
    assert ",'=ant," in text
    assert ",=ant" not in text
    rows = rundir.read_split(done / "data" / "train.csv")
    assert {label for _, label, _ in rows} == {"=ant", "bee"}
    assert len({content for *_, content in rows}) == 12


@pytest.mark.parametrize("name", ["a\rb", "a\nb", 'quo"te', "a,b", "'a", "\t", "\u202e"])
def test_every_name_reads_back_from_a_list(tmp_path: Path, name: str) -> None:
    images = np.zeros((1, 2, 2, 1), np.uint8)
    part = Samples("train", (name,), np.zeros(1, np.int64), (f"{name}/1.png",), images=images)
    (tmp_path / "run").mkdir()
    rundir.write_splits(tmp_path / "run", DataSet("x", part, None, None))
    assert rundir.read_split(tmp_path / "run" / "data" / "train.csv") == [
        (f"{name}/1.png", name, rundir.contents_of(part)[0])]


def test_a_taken_name_is_refused_before_the_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr(preparation, "open_data", never)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        run("digits", tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        run("digits", tmp_path / "file")
    with pytest.raises(AssertionError, match="the data were read"):  # the control: a free name
        run("digits", tmp_path / "free")


def test_a_taken_name_of_any_seed_is_refused_before_the_first_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Path | None] = []
    monkeypatch.setattr(main_job, "train", lambda recipe, options: trained.append(options.out))
    monkeypatch.setattr(main_job, "spread", lambda runs: {})
    options = RunOptions(out=tmp_path, quiet=True)
    main_job.train_seeds(recipe("digits"), options, 3)  # the control: free names
    assert trained == [tmp_path / "seed0", tmp_path / "seed1", tmp_path / "seed2"]
    for seed in (1, 2):
        (tmp_path / f"seed{seed}" / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="seed1: exists and is not empty") as error:
        main_job.train_seeds(recipe("digits"), options, 3)
    assert error.value.details == (f"{tmp_path / 'seed2'} too",)
    assert len(trained) == 3


def test_pictures_that_can_not_be_read_any_more_are_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for number in range(240):  # of different sizes, so that they stay files
        file = tmp_path / "data" / ("train", "test")[number % 2] / "ab"[number // 2 % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9 + number % 3, 9, 3), dtype=np.uint8)).save(file)
    chosen = recipe(str(tmp_path / "data"), "duration=15", "evaluate_every=15")  # an epoch

    def notes(where: Path) -> list[str]:
        done = train.train(chosen, RunOptions(out=where, quiet=True, offline=True, confirmed=True))
        return [note for note in rundir.read_run(done)["notes"] if "readable" in note]

    assert notes(tmp_path / "sound") == []

    def gone(*arguments: Any) -> Training:
        made = assemble(*arguments)
        (tmp_path / "data" / "train" / "a" / "0.png").unlink()
        return made

    monkeypatch.setattr(train, "assemble", gone)
    assert notes(tmp_path / "run") == ["not trained on, no longer readable: 1 picture in all epochs"]


@pytest.mark.parametrize("gone", [0, 1, 2, 100])
def test_validation_pictures_that_can_not_be_read_any_more(
    gone: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a hundred is told, more end the training; a run that reads them all says nothing."""
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 100)):
        for number in range(count):  # of different sizes, so that they stay files
            file = tmp_path / "data" / split / "ab"[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (9 + number % 3, 9, 3), dtype=np.uint8)).save(file)
    files, validate = sorted((tmp_path / "data" / "val").rglob("*.png")), train._validate

    def damaged(*arguments: Any) -> None:
        validate(*arguments)
        for file in files[:gone]:
            file.write_bytes(b"gone")

    monkeypatch.setattr(train, "_validate", damaged)
    chosen = recipe(str(tmp_path / "data"), "evaluate_every=1")
    options = RunOptions(out=tmp_path / "run", quiet=True, offline=True, confirmed=True)
    if gone > 1:
        with pytest.raises(InputError, match=f"{gone} of the 100 validation pictures cannot be read any more") as error:
            train.train(chosen, options)
        assert len(error.value.details) == gone
    else:
        train.train(chosen, options)
    record, lines = rundir.read_run(tmp_path / "run"), rundir.read_lines(tmp_path / "run" / "metrics.jsonl")
    assert record["state"] == ("failed" if gone > 1 else "finished")
    assert [note for note in record["notes"] if "readable" in note] == (
        ["not validated on, no longer readable: 1 picture"] if gone == 1 else [])
    told = [line.get("unreadable") for line in lines if line["kind"] == "val"]
    assert told == {0: [None, None], 1: [None, 1]}.get(gone, [None])
