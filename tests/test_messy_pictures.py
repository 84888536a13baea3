"""The main job on a folder with every kind of picture in it: the good ones are used rightly, the bad ones are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerwise.cli import main

BAD = ("truncated.jpg", "empty.png", "page.jpg", "half.png")
SMALL = ("input_size=16", "resize_to=16", "duration=1", "warmup_length=0.5", "batch_size=8", "threads=1", "device=cpu",
         "protocol=single")  # fmt: skip
SETTINGS = [word for setting in SMALL for word in ("--set", setting)]


def pixels(seed: int, channels: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 28, channels), dtype=np.uint8)


def odd_pictures(folder: Path, seed: int) -> None:
    """One of each kind; all different in content."""
    rgb = Image.fromarray(pixels(seed, 3))
    Image.fromarray(pixels(seed + 1, 1)[..., 0]).save(folder / "grey.png")
    deep = np.random.default_rng(seed + 2).integers(0, 65536, (20, 28), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "sixteen.png")
    Image.fromarray(pixels(seed + 3, 4), "CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels(seed + 4, 4), "RGBA").save(folder / "alpha.png")
    Image.fromarray(pixels(seed + 5, 3)).quantize(16).save(folder / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(seed + 6, 3)).save(folder / "rotated.jpg", exif=exif)
    Image.fromarray(pixels(seed + 7, 3)).save(folder / "misnamed.png", format="JPEG")
    rgb.save(folder / "plain.png")


def bad_pictures(folder: Path) -> None:
    whole = folder / "whole.jpg"
    Image.fromarray(pixels(99, 3)).save(whole)
    (folder / "truncated.jpg").write_bytes(whole.read_bytes()[:-300])
    whole.unlink()
    Image.fromarray(pixels(98, 3)).save(folder / "half.png")
    (folder / "half.png").write_bytes((folder / "half.png").read_bytes()[:600])
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<!DOCTYPE html><html>not found</html>")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("one", "two", "three")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        odd_pictures(folder, 100 * number)
    bad_pictures(tmp_path / "photos" / "two")
    return tmp_path / "photos"


def test_check_reports_each(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(photos)]) == 2
    printed = capsys.readouterr().out
    for words in ("4 of 28 pictures can't be opened", "gray", "16-bit", "CMYK", "palette", "alpha flattened on white",
                  "EXIF rotation", "extensions of another format", *BAD):
        assert words in printed, words
    assert main(["check", str(photos), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert len(report["unreadable"]) == 4
    assert {problem["kind"] for problem in report["problems"]} >= {"unreadable", "misnamed", "rotated"}


def test_training_stops_and_names_every_bad_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                 ) -> None:
    words = ["train", "resnet20", str(photos), "--split", "50/25/25", *SETTINGS, "--out", str(tmp_path / "run")]
    assert main(words) == 2
    seen = capsys.readouterr().err
    assert "4 of 28 pictures" in seen
    assert [name for name in BAD if name not in seen] == []
    assert "bad_images=skip" in seen
    assert not (tmp_path / "run").exists()


def test_skipped_files_are_recorded_and_the_rest_is_used(photos: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["train", "resnet20", str(photos), "--split", "50/25/25", *SETTINGS, "--set", "bad_images=skip", "--out"]
    assert main([*words, str(run), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    record = json.loads((run / "run.json").read_text())
    counts = record["data"]["counts"]
    (tested,) = summary["evaluations"]
    assert counts["train"] + counts["val"] + counts["test"] == 24
    assert tested["samples"] == counts["test"]
    said = " ".join([*record["notes"], *record["data"]["notes"]])
    assert [name for name in BAD if name not in said] == []
    split = {line.split(",")[0] for line in (run / "evaluations/test-single/predictions.csv").read_text().splitlines()}
    unreadable = sum(name in one for one in split for name in BAD)
    assert tested["unreadable"] == unreadable

    assert main(["predict", str(run), str(photos), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {Path(row["path"]).name for row in rows if row["error"]} == set(BAD)
    assert len(rows) == 28
