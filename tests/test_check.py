"""The pre-flight: planted mistakes are found, clean data raises no alarm, reports keep their form."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from faults.folders import texture
from layerwise.data import DataOptions, open_data
from layerwise.data import check as check_module
from layerwise.data.check import CheckOptions, CheckReport, check_data, refusal
from layerwise.data.duplicates import alike, candidates, exact_pairs, look, mirror_masks, near_pairs
from layerwise.data.scan import perceptual_hash, thumbnail
from layerwise.errors import InputError

OPTIONS = DataOptions(offline=True)


def save(file: Path, pixels: NDArray[np.uint8], **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """24 different pictures in train, val and test of two classes."""
    seed = 0
    for split, each in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("cat", "dog"):
            for number in range(each):
                save(tmp_path / "photos" / split / name / f"{number}.png", texture(seed))
                seed += 1
    return tmp_path / "photos"


def kinds(report: CheckReport) -> dict[str, str]:
    return {problem.kind: problem.severity for problem in report.problems}


def test_clean_data_raises_no_alarm(clean: Path) -> None:
    report = check_data(str(clean), OPTIONS)
    assert (report.problems, report.duplicates, report.unreadable, report.exit_code) == ((), (), (), 0)
    assert report.counts == {"train": 12, "val": 6, "test": 6}
    assert report.class_counts == {"train": (6, 6), "val": (3, 3), "test": (3, 3)}
    assert report.modes == {"RGB": 24}
    assert report.sizes == {"96 x 96": 24}
    text = "\n".join(report.lines())
    assert "24 pictures in 2 classes" in text
    assert "train: 12 (6 a class)" in text
    assert "no problem found" in text


def test_exact_duplicates_leaks_and_labels(clean: Path) -> None:
    save(clean / "test/cat/leak.bmp", texture(0))  # train/cat/0.png, in another format
    save(clean / "train/dog/relabelled.png", texture(1))  # train/cat/1.png
    save(clean / "val/dog/again.tiff", texture(15))  # val/dog/0.png
    report = check_data(str(clean), OPTIONS)
    assert kinds(report) == {"exact-leak": "error", "exact-labels": "warning", "exact-duplicates": "warning"}
    assert report.exit_code == 2
    pairs = {(one.first, one.second, one.kind) for one in report.duplicates}
    assert pairs == {
        ("train/cat/0.png", "test/cat/leak.bmp", "exact"),
        ("train/cat/1.png", "train/dog/relabelled.png", "exact"),
        ("val/dog/0.png", "val/dog/again.tiff", "exact"),
    }
    text = "\n".join(report.lines())
    assert "error: the same picture is in two splits, 1 times: a leak" in text
    assert "  - train/cat/0.png (train, cat) and test/cat/leak.bmp (test, cat)" in text
    assert "warning: the same picture has two labels, 1 times" in text
    assert "warning: the same picture is twice in one split, 2 times" in text
    waived = check_data(str(clean), OPTIONS, CheckOptions(allow_leaks=True))
    assert kinds(waived)["exact-leak"] == "note"
    assert waived.exit_code == 0
    assert "(allowed)" in "\n".join(waived.lines())


def test_near_duplicates_list_and_contact_sheet(clean: Path, tmp_path: Path) -> None:
    save(clean / "test/dog/q50.jpg", texture(6), quality=50)  # train/dog/0.png
    save(clean / "test/dog/mirrored.png", np.ascontiguousarray(texture(7)[:, ::-1]))
    options = CheckOptions(pairs_csv=tmp_path / "pairs.csv", sheet_png=tmp_path / "sheet.png")
    report = check_data(str(clean), OPTIONS, options)
    assert kinds(report) == {"near-leak": "error"}
    rows = list(csv.DictReader((tmp_path / "pairs.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["kind"], row["first"], row["second"]) for row in rows} == {
        ("near", "train/dog/0.png", "test/dog/q50.jpg"),
        ("near", "train/dog/1.png", "test/dog/mirrored.png"),
    }
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 204, 108)
    assert check_data(str(clean), OPTIONS, CheckOptions(near="no")).problems == ()  # the control
    with pytest.raises(InputError, match="near='perhaps' is not a choice"):
        check_data(str(clean), OPTIONS, CheckOptions(near="perhaps"))


def test_modes_bad_files_and_other_findings(clean: Path) -> None:
    grey = texture(100)[..., 0]
    save(clean / "train/cat/grey.png", grey)
    save(clean / "train/cat/deep.png", texture(101)[..., 0].astype(np.uint16) * 257)
    Image.fromarray(texture(102)).convert("CMYK").save(clean / "train/cat/print.tiff")
    Image.fromarray(np.dstack([texture(103), grey])).save(clean / "train/cat/glass.png")
    Image.fromarray(texture(104)).save(clean / "train/cat/other.jpg", "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(texture(105)[:80]).save(clean / "train/cat/turned.png", exif=exif)
    frames = [Image.fromarray(texture(seed)) for seed in (106, 107)]
    frames[0].save(clean / "train/cat/moving.tiff", save_all=True, append_images=frames[1:])
    (clean / "train/dog/empty.png").write_bytes(b"")
    (clean / "val/dog/page.jpg").write_bytes(b"<html>")
    report = check_data(str(clean), OPTIONS)
    assert report.modes == {"RGB": 27, "gray": 1, "16-bit gray": 1, "CMYK": 1, "RGBA (alpha flattened on white)": 1}
    assert report.sizes == {"96 x 96": 30, "80 x 96": 1}
    assert kinds(report) == {"unreadable": "error", "misnamed": "note", "rotated": "note", "frames": "note"}
    assert report.problems[0].text == "2 of 33 pictures can't be opened"
    assert [error.split("' is ")[1].split(" ")[0] for error in report.unreadable] == ["empty", "an"]
    assert report.counts == {"train": 20, "val": 7, "test": 6}
    text = "\n".join(report.lines())
    for words in ("1 .jpg files are PNG", "1 pictures carry an EXIF rotation", "1 files have several frames"):
        assert words in text
    assert report.exit_code == 2


def test_layout_mistakes_are_in_the_report(clean: Path, tmp_path: Path) -> None:
    save(clean / "val/cats/1.png", texture(200))
    report = check_data(str(clean), OPTIONS)
    assert report.exit_code == 2
    assert "class 'cats' is not in train, did you mean 'cat'" in "\n".join(report.lines())
    assert check_data(str(tmp_path / "nowhere"), OPTIONS).problems[0].kind == "layout"


def test_single_folder_twins_and_imbalance(tmp_path: Path) -> None:
    for number in range(24):
        save(tmp_path / "Cat" / f"{number}.png", texture(number))
    for number, name in enumerate(("cat", "dog", "dog")):
        save(tmp_path / name / f"{number}.png", texture(30 + number))
    report = check_data(str(tmp_path), OPTIONS)
    assert report.counts == {"all": 27}
    assert kinds(report) == {"twins": "warning", "imbalance": "warning"}
    text = "\n".join(report.lines())
    assert "'Cat' and 'cat' are probably one class" in text
    assert "class 'Cat' has 24 pictures, 'cat' 1: see the recipe's balance" in text
    assert "training needs --split" in text


def test_a_drawn_split_is_checked_as_training_draws_it(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(10):
            save(tmp_path / name / f"{number}.png", texture(0 if name == "cat" else number + 1))
    report = check_data(str(tmp_path), DataOptions(offline=True, split="60/20/20"))
    assert report.counts == {"train": 12, "val": 4, "test": 4}
    assert kinds(report)["exact-leak"] == "error"
    assert "--waive-leaks" in str(refusal(report))
    data = open_data(str(tmp_path), DataOptions(offline=True, split="60/20/20"))
    assert data.doubts[0].startswith("2 of 4 pictures in val are in train too, so its error is too good")
    assert set(data.doubts) <= set(data.notes)
    wrong = refusal(check_data(str(tmp_path), DataOptions(offline=True, split="60/20")))
    assert "--split '60/20' is not a split" in str(wrong)
    assert "Give --split 80/10/10" in str(wrong)


def test_data_without_errors_is_not_refused_and_has_no_doubts(clean: Path) -> None:
    assert refusal(check_data(str(clean), OPTIONS)) is None
    assert open_data(str(clean), OPTIONS).doubts == ()


def test_in_memory_sets_and_json() -> None:
    report = check_data("digits", OPTIONS)
    assert report.counts == {"train": 1438, "test": 359}
    assert report.modes == {"gray": 1797}
    assert "near duplicates were not looked for" in report.notes
    assert report.duplicates == ()
    loaded = json.loads(report.to_json())
    assert loaded["exit_code"] == 0
    assert loaded["counts"] == {"train": 1438, "test": 359}


def test_small_pictures_are_no_near_leak(tmp_path: Path) -> None:
    for number in range(12):
        split, name = ("train", "test")[number % 2], "ab"[number // 2 % 2]
        save(tmp_path / split / name / f"{number}.png", np.roll(texture(1, 24), number // 4, axis=0))
    report = check_data(str(tmp_path), OPTIONS)
    assert report.exit_code == 2  # the same pixels under many names
    assert not any(one.kind == "near" for one in report.duplicates)
    assert "under 32 pixels are too alike" in "\n".join(report.notes)
    asked = check_data("digits", OPTIONS, CheckOptions(near="yes"))
    assert kinds(asked)["near-leak"] == "warning"
    assert asked.exit_code == 0


def test_planted_leak_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = check_module.open_data("digits", OPTIONS)
    assert data.test is not None
    assert data.train.images is not None
    assert data.test.images is not None
    data.test.images[5] = data.train.images[17]
    monkeypatch.setattr(check_module, "open_data", lambda *_: data)
    report = check_data("digits", OPTIONS)
    assert report.exit_code == 2
    assert [(one.first, one.second) for one in report.duplicates] == [(data.train.ids[17], data.test.ids[5])]


def test_many_cases_are_cut_in_the_text_only(clean: Path) -> None:
    for number in range(9):
        (clean / "train/dog" / f"bad{number}.png").write_bytes(b"")
    report = check_data(str(clean), OPTIONS)
    assert len(report.unreadable) == 9
    assert "  - and 4 more" in report.lines()


def test_formulas_do_not_reach_a_spreadsheet(tmp_path: Path) -> None:
    row = check_module.Duplicate("exact", "=1+1", "b", "train", "test", "@x", "y")
    check_module.write_pairs((row,), tmp_path / "pairs.csv")
    assert (tmp_path / "pairs.csv").read_text().splitlines()[1] == "exact,'=1+1,b,train,test,'@x,y"


# ---- the parts of the search for duplicates


def test_mirrored_hashes_are_the_same_bits_inverted() -> None:
    _, sideways, upwards, both = mirror_masks()
    for seed in range(5):
        pixels = texture(seed, 64)
        hashed = np.uint64(perceptual_hash(pixels))
        assert np.uint64(perceptual_hash(np.ascontiguousarray(pixels[:, ::-1]))) == hashed ^ sideways
        assert np.uint64(perceptual_hash(np.ascontiguousarray(pixels[::-1]))) == hashed ^ upwards
        assert np.uint64(perceptual_hash(np.ascontiguousarray(pixels[::-1, ::-1]))) == hashed ^ both


def test_candidates_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 1 << 63, 700, dtype=np.uint64)
    hashes[600:] = hashes[:100] ^ (np.uint64(1) << random.integers(0, 63, 100).astype(np.uint64))
    loop = [
        (first, second)
        for first in range(0, 700, 35)
        for second in range(first + 1, 700)
        if any(int(hashes[first] ^ hashes[second] ^ mask).bit_count() <= 20 for mask in mirror_masks())
    ]
    assert [pair for pair in candidates(hashes) if pair[0] % 35 == 0] == loop
    assert len(loop) >= 3


def test_exact_pairs_name_the_first() -> None:
    assert [(pair.first, pair.second) for pair in exact_pairs(["a", "b", "a", "", "", "a"])] == [(0, 2), (0, 5)]


def planted(pixels: NDArray[np.uint8], how: str) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    if how == "resized":
        return np.asarray(image.resize((70, 77), Image.Resampling.BILINEAR))
    if how == "mirrored":
        return np.ascontiguousarray(pixels[:, ::-1])
    if how == "cropped":
        return np.ascontiguousarray(pixels[5:-5, 3:-7])
    return np.clip(pixels * np.array([1.15, 0.95, 0.9]) + 10, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("how", "recall"), [("resized", 0.97), ("mirrored", 0.97), ("recoloured", 0.93), ("cropped", 0.7)]
)
def test_recall_of_near_duplicates_without_false_ones(how: str, recall: float) -> None:
    photographs = [image[row : row + 100, column : column + 100] for image in load_sample_images().images
                   for row in range(0, 400, 100) for column in range(0, 600, 100)]  # fmt: skip
    pictures = [*photographs, *(texture(seed, 100) for seed in range(40))]
    every = [*pictures, *(planted(picture, how) for picture in pictures)]
    hashes = np.array([perceptual_hash(picture) for picture in every], dtype=np.uint64)
    pairs, complete = near_pairs(hashes, lambda index: every[index], set())
    assert complete
    right = {(index, index + len(pictures)) for index in range(len(pictures))}
    found = {(pair.first, pair.second) for pair in pairs}
    assert len(found - right) <= 0.01 * len(found) + 1  # neighbouring pieces of one sky are alike
    assert len(found) >= recall * len(right)


def test_pictures_without_detail_are_not_alike() -> None:
    flat = look(np.full((64, 64), 100, dtype=np.uint8))
    assert not alike(flat, flat)
    some = look(thumbnail(texture(1), 64))
    assert alike(some, some)
    assert not alike(some, look(thumbnail(texture(2), 64)))
