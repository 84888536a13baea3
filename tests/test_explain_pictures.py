"""What `layerwise explain` makes of a folder's own pictures: moved ones, ones that can't be opened, odd names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerwise import rundir, train
from layerwise.explain.subject import Subject
from layerwise.explain.view import Table, View
from layerwise.jobs import explain as job
from layerwise.jobs import main_job
from layerwise.jobs.explain import MAKERS, Ask, explain
from layerwise.train import RunOptions
from tests.test_changed_data import longer, photos, recipe, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of pictures and a run on it."""
    where = tmp_path_factory.mktemp("own")
    folder = photos(where / "photos")
    return folder, run(str(folder), where / "run")


def test_a_picture_that_moved_to_another_class_makes_its_views_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos")
    done, made = run(str(folder), tmp_path / "run"), list[str]()

    def make(subject: Subject, name: str) -> View:
        made.append(name)
        return MAKERS[name][1](subject)

    monkeypatch.setattr(job, "make", make)
    for _ in range(2):
        explain(done, Ask(("classes",)))
    assert made == ["classes"], "the control: nothing moved"
    (folder / "test" / "bee" / "0.png").rename(folder / "test" / "=ant" / "moved.png")
    found = explain(done, Ask(("classes",))).views[0]
    assert made == ["classes", "classes"]
    assert isinstance(found.parts[0], Table)
    assert {row[0]: row[1] for row in found.parts[0].rows} == {"=ant": 4, "bee": 2}
    Image.new("L", (12, 12), 9).save(folder / "train" / "bee" / "0.png")
    explain(done, Ask(("classes",)))
    assert made == ["classes"] * 3, "also one that was only painted over"
    shutil.rmtree(folder)
    explain(done, Ask(("kernels",)))
    assert made[3:] == ["kernels"], "a view that needs no pictures needs none"


@pytest.mark.parametrize("labelled", [True, False])
def test_pictures_that_can_not_be_opened_are_counted(
    trained: tuple[Path, Path], tmp_path: Path, labelled: bool
) -> None:
    random = np.random.default_rng(0)
    for number in range(10):
        file = tmp_path / "own" / ("bee" if labelled else "holiday") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 12), dtype=np.uint8)).save(file)
    views = tuple(name for name in ("predictions", "feature-map", "classes") if labelled or name != "classes")
    asked = Ask(views, tmp_path / "own", out=tmp_path / "page.html")

    def told() -> list[str]:
        return [bound for view in explain(trained[1], asked).views for bound in view.bounds if "near" not in bound]

    assert told() == [], "the control: all ten are sound"
    file.write_bytes(file.read_bytes()[:60])
    assert told() == ["1 picture could not be opened"] * len(views)


def test_a_name_that_is_not_utf_8_is_trained_on_and_shown(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    odd = os.fsdecode(b"caf\xe9.png")
    for split in ("train", "test"):
        try:
            (folder / split / "bee" / "0.png").rename(folder / split / "bee" / odd)
        except OSError:
            pytest.skip("this file system takes names in UTF-8 alone")
    options = RunOptions(out=tmp_path / "run", quiet=True, offline=True, confirmed=True)
    done = main_job.train(recipe(str(folder), "protocol=single"), options)
    assert f"train/bee/{odd}" in [name for name, *_ in rundir.read_split(done / "data" / "train.csv")]
    train.resume(done, longer())  # where a name that reads back otherwise would be a picture that was added
    found = explain(done, Ask(("predictions", "neighbours")))
    assert "caf\\udce9.png" in found.page.read_text("utf-8")
    assert explain(done, Ask(("predictions",))).views[0] == found.views[0], "read back as it was"
