"""Sources of pictures: layouts, lists, published sets, splits, bad files, fingerprints, the cache; each message."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerwise.data import DataOptions, DataSet, ImageRules, Samples, hold_out, open_data, scan
from layerwise.data.layout import natural, twins
from layerwise.data.splits import divide, parse_split
from layerwise.errors import InputError

OPTIONS = DataOptions()
SPLIT = DataOptions(split="60/20/20")


def picture(file: Path, value: int = 0, size: tuple[int, int] = (10, 8)) -> Path:
    """A grey PNG (whatever the extension) that differs from all others by its corner."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0]), 128, dtype=np.uint8)
    pixels[0, :4] = [value % 256, value // 256 % 256, sum(file.name.encode()) % 256, len(str(file)) % 256]
    Image.fromarray(pixels).save(file, "PNG")
    return file


def folder(root: Path, *files: str) -> Path:
    for number, file in enumerate(files):
        picture(root / file, number)
    return root


def splits(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3) -> Path:
    names = [f"{part}/{name}/{i}.png" for part in ("train", "val", "test") for name in classes for i in range(each)]
    return folder(root, *names)


def fails(where: Path | str, message: str, options: DataOptions = OPTIONS) -> str:
    with pytest.raises(InputError, match=message) as caught:
        open_data(str(where), options)
    return "\n".join([str(caught.value), *caught.value.details])


def notes(data: DataSet) -> str:
    return "\n".join(data.notes)


# ---- folders


def test_train_val_test_with_their_labels(tmp_path: Path) -> None:
    data = open_data(str(splits(tmp_path)), OPTIONS)
    assert data.val is not None
    assert data.test is not None
    assert data.train.class_names == data.val.class_names == data.test.class_names == ("cat", "dog")
    assert data.train.ids == tuple(f"train/{name}/{i}.png" for name in ("cat", "dog") for i in range(3))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for samples in data.splits.values():
        assert samples.images is not None  # small and equal: in memory
        for index, name in enumerate(samples.ids):
            np.testing.assert_array_equal(samples.read(index)[..., 0], np.asarray(Image.open(tmp_path / name)))


@pytest.mark.parametrize(("train", "val", "test"), [
    ("training", "valid", "testing"), ("Train", "validation", "eval"), ("TRAIN", "dev", "test"),
])  # fmt: skip
def test_synonyms_are_accepted_and_said(tmp_path: Path, train: str, val: str, test: str) -> None:
    folder(tmp_path, *(f"{part}/{name}/{i}.png" for part in (train, val, test) for name in "ab" for i in range(2)))
    data = open_data(str(tmp_path), OPTIONS)
    assert list(data.splits) == ["train", "val", "test"]
    assert data.train.ids[0] == f"{train}/a/0.png"
    for found, split in ((train, "train"), (val, "val"), (test, "test")):
        assert (f"folder {found!r} is used as {split}" in notes(data)) == (found != split)


def test_single_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    folder(tmp_path, *(f"{name}/{i}.png" for name in ("10", "2", "x") for i in range(10)))
    message = fails(tmp_path, "has no train, val and test")
    assert "--split 80/10/10" in message
    data = open_data(str(tmp_path), SPLIT)
    assert data.train.class_names == ("2", "10", "x")
    assert "classes in natural order: 2, 10, x" in notes(data)
    assert "split 60/20/20 with seed 0, by class: 18 train, 6 val, 6 test" in notes(data)
    assert [part.class_counts for part in data.splits.values()] == [(6, 6, 6), (2, 2, 2), (2, 2, 2)]
    ids = [name for part in data.splits.values() for name in part.ids]
    assert len(ids) == len(set(ids)) == 30
    again = open_data(str(tmp_path), SPLIT)
    assert again.train.ids == data.train.ids
    assert open_data(str(tmp_path), DataOptions(split="60/20/20", seed=1)).train.ids != data.train.ids


def test_train_only_asks_for_a_split_and_own_splits_refuse_one(tmp_path: Path) -> None:
    folder(tmp_path / "a", *(f"train/{name}/{i}.png" for name in "xy" for i in range(5)))
    assert "--split" in fails(tmp_path / "a", "has train only")
    assert len(open_data(str(tmp_path / "a"), SPLIT).train) == 6
    assert "Leave --split out" in fails(splits(tmp_path / "b"), "can't be given for", SPLIT)
    folder(tmp_path / "c", "val/x/1.png", "val/y/1.png", "test/x/1.png")
    fails(tmp_path / "c", "has no train folder")
    folder(tmp_path / "d", "train/x/1.png", "train/y/2.png", "val/x/1.png", "valid/x/1.png")
    fails(tmp_path / "d", "valid: there is another folder for val")
    folder(tmp_path / "e", "train/x/1.png", "train/y/2.png", "train/val/x/1.png", "test/x/1.png")
    fails(tmp_path / "e", "train/val looks like a split inside of a split")


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    folder(tmp_path, *(f"{name}/{i}.png" for name in ("train", "car") for i in range(5)))
    assert open_data(str(tmp_path), SPLIT).train.class_names == ("car", "train")


def test_class_in_val_only_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    folder(splits(tmp_path), "val/dogs/1.png", "test/Cat/1.png", "test/zebra/1.png")
    message = fails(tmp_path, "is not laid out as expected")
    assert "val: class 'dogs' is not in train, did you mean 'dog'?" in message
    assert "test: class 'Cat' is not in train, which has 'cat' (another spelling of it?)" in message
    assert "test: class 'zebra' is not in train" in message


def test_class_in_train_only_and_empty_class_are_noted_and_labels_stay(tmp_path: Path) -> None:
    root = splits(tmp_path, ("ant", "bee", "cow"))
    before = open_data(str(root), OPTIONS)
    for file in (root / "val" / "bee").iterdir():
        file.unlink()
    (root / "train" / "dodo").mkdir()
    after = open_data(str(root), OPTIONS)
    assert "0 images in val for 1 of 3 classes: bee" in notes(after)
    assert "no picture in class folder 'dodo'" in notes(after)
    assert "0 images" not in notes(before)
    assert after.val is not None
    assert after.train.class_names == before.train.class_names
    assert [(name, label) for name, label in zip(after.val.ids, after.val.labels, strict=True)] == [
        (f"val/{name}/{i}.png", label) for name, label in (("ant", 0), ("cow", 2)) for i in range(3)
    ]


def test_twins_are_reported(tmp_path: Path) -> None:
    accent = "caf\u00e9"
    names = ("Cat", "cat", "ice cream", "ice_cream", accent, unicodedata.normalize("NFD", accent), "dog")
    folder(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(3)))
    text = notes(open_data(str(tmp_path), SPLIT))
    assert text.count("are probably one class") == 3
    assert "'Cat' and 'cat'" in text
    assert twins(["cat", "dog", "catdog"]) == []


def test_junk_is_ignored_and_listed(tmp_path: Path) -> None:
    root = splits(tmp_path)
    for junk in (".DS_Store", "Thumbs.db", "train/cat/.DS_Store", "train/cat/notes.txt", "train/._x"):
        (root / junk).write_bytes(b"\0\0\0\1Bud1")
    folder(root, "runs/a/1.png", "train/.hidden/1.png", "train/cat/.thumbs/2.png")
    (root / "train/dog/one.heic").write_bytes(b"\0\0\0\x18ftypheic")
    data = open_data(str(root), OPTIONS)
    assert len(data.train) == 6
    assert data.train.class_names == ("cat", "dog")
    text = notes(data)
    for word in (".DS_Store", "runs/", ".hidden/", ".thumbs/", ".txt", "not supported: 1 .heic"):
        assert word in text, word


def test_extension_is_no_condition_content_is(tmp_path: Path) -> None:
    root = splits(tmp_path)
    picture(root / "train/cat/noextension", 7)
    picture(root / "train/cat/wrong.jpg", 8)
    data = open_data(str(root), OPTIONS)
    assert len(data.train) == 8
    assert "1 files have the extension of another format" in notes(data)


def test_nothing_to_find(tmp_path: Path) -> None:
    fails(tmp_path, "holds no supported picture: found nothing, 0 supported")
    for i in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{i}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert "Accepted are JPEG, PNG" in fails(tmp_path, r"found 3 \.heic, 0 supported")
    flat = folder(tmp_path / "flat", "1.png", "2.png")
    fails(flat, "2 pictures lie directly in the folder: their classes are unknown")
    one = folder(tmp_path / "one", "cat/1.png", "cat/2.png")
    fails(one, "has one class only: 'cat'")


def test_sub_sub_folders_get_a_guess(tmp_path: Path) -> None:
    splits(tmp_path / "a" / "photos")
    assert f"Did you mean {str(tmp_path / 'a' / 'photos')!r}, which has" in fails(tmp_path / "a", "sub-sub-folders")
    folder(tmp_path / "b", "photos/cat/1.png", "photos/dog/1.png")
    assert "with the classes cat, dog?" in fails(tmp_path / "b", "only in sub-sub-folders")
    folder(tmp_path / "c", "pets/cat/1.png", "cars/van/1.png")
    assert "Move the class folders up" in fails(tmp_path / "c", "only in sub-sub-folders")
    folder(tmp_path / "d", *(f"{name}/{i}.png" for name in "ab" for i in range(5)), "a/more/9.png")
    assert len(open_data(str(tmp_path / "d"), DataOptions(split="80/10/10")).train) == 9  # the control: some lie deeper


def test_symbolic_links_that_lead_back_end(tmp_path: Path) -> None:
    root = splits(tmp_path)
    os.symlink(root / "train", root / "train" / "cat" / "loop")
    os.symlink(root / "train" / "dog", root / "train" / "dog" / "self")
    data = open_data(str(root), OPTIONS)
    assert len(data.train) == 6
    assert "a link that leads back" in notes(data)


def test_wrong_paths(tmp_path: Path) -> None:
    splits(tmp_path / "photos")
    (tmp_path / "photos.yaml").write_text("train: x\n")
    assert "did you mean the folder" in fails(tmp_path / "photos.yaml", "photos.yaml' is a file")
    fails(tmp_path / "phots", "there is no data at .*did you mean 'photos'")
    fails("fashion_mnist", "did you mean 'fashion-mnist'")
    with pytest.raises(InputError, match="bad_images='ignore' is not a rule"):
        open_data("digits", DataOptions(bad_images="ignore"))


# ---- bad files


def test_bad_pictures_stop_or_are_skipped(tmp_path: Path) -> None:
    root = splits(tmp_path)
    (root / "train/cat/0.png").write_bytes(b"")
    (root / "val/dog/1.png").write_bytes((root / "val/dog/1.png").read_bytes()[:-20])
    (root / "test/dog/2.png").write_bytes(b"<html>404</html>")
    message = fails(root, "3 of 18 pictures in .* can't be opened")
    assert "train/cat/0.png' is empty (0 bytes)" in message
    assert "val/dog/1.png' is truncated" in message
    assert "test/dog/2.png' is an HTML page" in message
    data = open_data(str(root), DataOptions(bad_images="skip"))
    assert [len(part) for part in data.splits.values()] == [5, 5, 5]
    assert "train/cat/0.png" not in data.train.ids
    assert "3 of 18 pictures can't be opened and were left out" in notes(data)
    assert data.doubts == ("3 of 18 pictures can't be opened and were left out",)
    assert "val/dog/1.png' is truncated" in notes(data)
    for file in root.rglob("*.png"):
        file.write_bytes(b"")
    fails(root, "18 of 18 pictures", DataOptions(bad_images="skip"))


def test_large_or_unequal_pictures_stay_files(tmp_path: Path) -> None:
    root = splits(tmp_path)
    picture(root / "test/cat/0.png", 1, (11, 8))
    data = open_data(str(root), OPTIONS)
    assert data.train.images is None
    assert data.train.paths is not None
    assert data.train.read(0).shape == (8, 10, 1)


def test_scans_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(scan, "RECENT_NS", 0)
    files = [picture(tmp_path / "data" / f"{i}.png", i) for i in range(4)]
    opened: list[Path] = []
    real = scan.open_image
    monkeypatch.setattr(scan, "open_image", lambda path, *rest: (opened.append(path), real(path, *rest))[1])
    first = scan.scan_files(files, ImageRules())
    assert len(opened) == 4
    assert scan.scan_files(files, ImageRules()) == first
    assert len(opened) == 4
    files[2].write_bytes(b"")
    changed = scan.scan_files(files, ImageRules())
    assert opened[4:] == [files[2]]
    assert "empty" in changed[2].error
    assert len(scan.scan_files(files, ImageRules(exif="ignore"))) == 4
    assert len(opened) == 9  # other rules, other findings
    for file in (tmp_path / "cache" / "scan").iterdir():
        file.write_text('{"x": [1]}' if file.stat().st_size % 2 else "garbage")
    assert scan.scan_files(files, ImageRules()) == changed
    monkeypatch.setattr(scan, "cache_folder", lambda: tmp_path / "data" / "0.png" / "no")  # can't be made
    assert scan.scan_files(files, ImageRules()) == changed


def test_findings_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{i:02d}.png", i) for i in range(2 * scan.PART + 3)]
    files.insert(9, tmp_path / "missing.png")
    files = files[::-1]
    told: list[tuple[int, int]] = []
    found = scan.scan_files(files, ImageRules(), 3, lambda done, total: told.append((done, total)))
    assert found == [scan.scan_one(file, ImageRules()) for file in files]
    assert len({one.sha256 for one in found}) == len(files)  # else the order could not show
    assert told == [(len(files), len(files))]


@pytest.mark.parametrize(("size", "threads"), [(scan.SMALL - 1, 1), (scan.SMALL, 2)])
def test_small_files_are_scanned_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int,
                                               threads: int) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(size))
    asked: list[int] = []
    real = scan.ThreadPoolExecutor
    monkeypatch.setattr(scan, "ThreadPoolExecutor", lambda count: (asked.append(count), real(count))[1])
    monkeypatch.setattr(scan, "cores", lambda: 2)
    scan.scan_files([tmp_path / "a.jpg"], ImageRules())
    scan.scan_files([tmp_path / "a.jpg"], ImageRules(), threads=5)
    assert asked == [threads, 5]


# ---- samples, fingerprints, splits


def arrays(count: int = 40, classes: int = 4) -> Samples:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    names = tuple("abcdefgh"[:classes])
    return Samples("train", names, np.arange(count) % classes, tuple(f"x/{i}" for i in range(count)), images)


def test_fingerprint_sees_content_labels_ids_and_names(tmp_path: Path) -> None:
    base = arrays()
    assert arrays().fingerprint == base.fingerprint
    assert base.images is not None
    changed = base.images.copy()
    changed[3, 1, 1, 0] ^= 1
    others = [
        Samples("train", base.class_names, base.labels, base.ids, changed),
        Samples("train", base.class_names, base.labels[::-1].copy(), base.ids, base.images),
        Samples("train", base.class_names, base.labels, ("y", *base.ids[1:]), base.images),
        Samples("train", (*base.class_names[:-1], "z"), base.labels, base.ids, base.images),
        base.subset(range(39), "train"),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 6
    root = splits(tmp_path)
    picture(root / "test/cat/0.png", 1, (11, 8))
    before = open_data(str(root), OPTIONS)
    by_hand = Samples("train", ("cat", "dog"), before.train.labels, before.train.ids, None, before.train.paths)
    assert by_hand.fingerprint == before.train.fingerprint  # digests known or computed
    picture(root / "train/cat/1.png", 999)
    after = open_data(str(root), OPTIONS)
    assert after.fingerprint != before.fingerprint
    assert after.train.fingerprint != before.train.fingerprint
    assert after.val is not None
    assert before.val is not None
    assert after.val.fingerprint == before.val.fingerprint


def test_samples_refuse_what_does_not_fit() -> None:
    base = arrays()
    labels, ids, images, names = base.labels, base.ids, base.images, base.class_names
    assert images is not None
    bad = labels.copy()
    bad[5] = 4
    bad[7] = -1
    with pytest.raises(InputError, match=r"2 labels of split 'train' are out of range") as caught:
        Samples("train", names, bad, ids, images)
    assert "label 4 of 'x/5'" in str(caught.value)
    assert "labels are 0 to 3" in str(caught.value)
    with pytest.raises(InputError, match="needs either pictures in memory or paths"):
        Samples("train", names, labels, ids)
    with pytest.raises(InputError, match="has 40 pictures, 39 labels and 40 ids"):
        Samples("train", names, labels[1:], ids, images)
    with pytest.raises(InputError, match="They are uint8"):
        Samples("train", names, labels, ids, images.astype(np.float32))
    with pytest.raises(InputError, match="several labels a picture are not supported"):
        Samples("train", names, np.eye(40, dtype=np.int64)[:, :4], ids, images)


@pytest.mark.parametrize("part", [0.1, 0.25, 1, 4, 7, 36])
def test_hold_out_is_stratified_and_a_function_of_seed_and_ids(part: float) -> None:
    samples = arrays()
    train, val = hold_out(samples, part, 3)
    assert len(val) == (part if part >= 1 else round(part * 40))
    assert sorted(train.ids + val.ids) == sorted(samples.ids)
    assert max(val.class_counts) - min(val.class_counts) <= 1
    assert (train.name, val.name) == ("train", "val")
    shuffled = samples.subset(np.random.default_rng(0).permutation(40), "train")
    assert set(hold_out(shuffled, part, 3)[1].ids) == set(val.ids)
    if part < 36:
        assert set(hold_out(samples, part, 4)[1].ids) != set(val.ids)


def test_hold_out_and_split_refuse_nonsense() -> None:
    for part in (0, -1, 2.5, float("nan")):
        with pytest.raises(InputError, match="is not a part"):
            hold_out(arrays(), part, 0)
    for part in (0.001, 37):
        with pytest.raises(InputError, match="would hold out"):
            hold_out(arrays(), part, 0)
    for split in ("80/20", "a/b/c", "80/10/20", "50/60/-10"):
        with pytest.raises(InputError, match="three percentages, train/val/test, that sum to 100"):
            parse_split(split)
    with pytest.raises(InputError, match="leaves nothing to train on"):
        parse_split("0/50/50")
    with pytest.raises(InputError, match="would leave 0 for test"):
        divide(arrays(), "98.9/0/1.1", 0)
    parts = divide(arrays(), "80/0/20", 0)
    assert parts["val"] is None
    assert parts["test"] is not None
    assert parts["test"].class_counts == (2, 2, 2, 2)


def test_split_keeps_one_of_each_class_for_training() -> None:
    labels = np.array([0] * 30 + [1, 2, 2], dtype=np.int64)
    images = np.zeros((33, 2, 2, 1), dtype=np.uint8)
    samples = Samples("all", ("a", "b", "c"), labels, tuple(map(str, range(33))), images)
    parts = divide(samples, "20/40/40", 0)
    assert parts["train"] is not None
    assert min(parts["train"].class_counts) >= 1
    assert sum(len(part) for part in parts.values() if part is not None) == 33


def test_natural_order() -> None:
    names = ["1", "2", "10", "10²", "A", "b", "img9", "img10", "²", "①"]  # the last two are digits, but no decimals
    assert sorted([*names[3:], *names[:3]], key=natural) == names
