"""ImageNet as it is handed out: each layout on a tiny tree in its exact format; labels, counts, what is missing."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from layerwise.cli import main
from layerwise.data import DataOptions, open_data
from layerwise.data.check import check_data
from layerwise.data.imagenet import EDITIONS, Edition, half, looks_like_imagenet, read_imagenet
from layerwise.data.imagenet_truth import read_truth
from layerwise.data.layout import Layout
from layerwise.data.opening import find_layout
from layerwise.data.place import place_of
from layerwise.data.shards_write import pack
from layerwise.errors import InputError
from tests.packed_photos import reindex

SYNSETS = ("n01440764", "n01443537", "n02102040")
NUMBERS = {"n01440764": 2, "n01443537": 3, "n02102040": 1}  # the kit's: not the order of the names
EACH = 4
TRUTH = ["n02102040", "n01440764", "n01443537", "n01440764", "n02102040"]
TINY = Edition("ILSVRC-2012", 3, {"train": 12, "val": 5}, "2012")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the real counts are to the real data, these are to the tiny trees."""
    monkeypatch.setitem(EDITIONS, "imagenet", TINY)
    counts = {"train": 12, "val": 5, "test": 5}
    monkeypatch.setitem(EDITIONS, "imagenet-2010", Edition("ILSVRC-2010", 3, counts, "2010"))
    monkeypatch.setitem(EDITIONS, "imagenet-fall2009", Edition("ImageNet Fall 2009", 3, {}))


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def training() -> dict[str, dict[str, bytes]]:
    return {synset: {f"{synset}_{10 * number + 6}.JPEG": jpeg(100 * at + number) for number in range(EACH)}
            for at, synset in enumerate(SYNSETS)}


def flat(split: str = "val", year: str = "2012", truth: list[str] = TRUTH) -> dict[str, bytes]:
    return {f"ILSVRC{year}_{split}_{at:08d}.JPEG": jpeg(1000 + at + 50 * (split == "test"))
            for at in range(1, len(truth) + 1)}


def kit(year: str = "2012", test: bool = False) -> dict[str, bytes]:
    """The development kit's data folder: meta.mat with an inner node of the tree behind the classes."""
    rows = [(NUMBERS[synset], synset, f"words of {synset}", "gloss", 0, EACH) for synset in sorted(NUMBERS)]
    rows.append((4, "n99999999", "an inner node", "gloss", 3, 0))
    kinds = [(f"ILSVRC{year}_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "f8"),
             ("num_train_images", "f8")]
    stream = io.BytesIO()
    savemat(stream, {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    lines = "".join(f"{NUMBERS[synset]}\n" for synset in TRUTH).encode()
    files = {"meta.mat": stream.getvalue(), f"ILSVRC{year}_validation_ground_truth.txt": lines}
    return files | ({f"ILSVRC{year}_test_ground_truth.txt": lines} if test else {})


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def solution(truth: list[str] = TRUTH) -> bytes:
    lines = [f"ILSVRC2012_val_{at:08d},{synset} 1 2 30 40 {synset} 5 6 7 8" for at, synset in enumerate(truth, 1)]
    return "\n".join(["ImageId,PredictionString", *reversed(lines)]).encode()


def kit_archive(year: str = "2012", test: bool = False) -> bytes:
    return gzip.compress(tar({f"ILSVRC{year}_devkit_t12/data/{name}": data for name, data in kit(year, test).items()}))


def nested() -> bytes:
    return tar({f"{synset}.tar": tar(files) for synset, files in training().items()})


def folders(prefix: str) -> dict[str, bytes]:
    return {f"{prefix}{synset}/{name}": data for synset, files in training().items() for name, data in files.items()}


LAYOUTS = {
    "official tars": lambda: {"ILSVRC2012_img_train.tar": nested(), "ILSVRC2012_img_val.tar": tar(flat()),
                              "ILSVRC2012_devkit_t12.tar.gz": kit_archive(), "ILSVRC2012_img_test_v10102019.tar": b""},
    "tars, kit unpacked": lambda: {"ILSVRC2012_img_train.tar": nested(), "ILSVRC2012_img_val.tar": tar(flat()),
                                   **{f"ILSVRC2012_devkit_t12/data/{name}": data for name, data in kit().items()}},
    "class tars": lambda: {**{f"train/{synset}.tar": tar(files) for synset, files in training().items()},
                           **{f"val/{name}": data for name, data in flat().items()}, **kit()},
    "folders, flat validation": lambda: {**folders("train/"), **{f"val/{name}": data for name, data in flat().items()},
                                         "LOC_val_solution.csv": solution()},
    "kaggle": lambda: {**folders("ILSVRC/Data/CLS-LOC/train/"), "LOC_val_solution.csv": solution(),
                       **{f"ILSVRC/Data/CLS-LOC/val/{name}": data for name, data in flat().items()},
                       **{f"ILSVRC/Data/CLS-LOC/test/{name}": data for name, data in flat("test").items()}},
    "folders by synset": lambda: {**folders("train/"), **{f"val/{synset}/{name}": data for (name, data), synset
                                                          in zip(flat().items(), TRUTH, strict=True)}},
}


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(file.relative_to(root)): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
            for file in root.rglob("*")}


def told(layout: Layout) -> str:
    return "\n".join(layout.notes)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_layout_is_the_same_data(tmp_path: Path, kind: str) -> None:
    root = put(tmp_path / "data" / "imagenet", LAYOUTS[kind]())
    before = state(tmp_path)
    data = open_data("imagenet", DataOptions(data_dir=tmp_path / "data"))
    assert data.train.class_names == SYNSETS
    assert data.train.ids == tuple(f"train/{synset}/{name}" for synset, files in training().items() for name in files)
    assert data.val is not None
    assert data.val.ids == tuple(f"val/{name}" for name in flat())
    assert [SYNSETS[label] for label in data.val.labels] == TRUTH
    assert data.test is None
    assert data.doubts == ()
    assert any("as many pictures and classes as ILSVRC-2012 has" in note for note in data.notes)
    for samples in data.splits.values():
        for index, name in enumerate(samples.ids):
            raw = {**{f"train/{s}/{n}": d for s, files in training().items() for n, d in files.items()},
                   **{f"val/{n}": d for n, d in flat().items()}}[name]
            np.testing.assert_array_equal(samples.read(index), np.asarray(Image.open(io.BytesIO(raw))))
    other = put(tmp_path / "other" / "imagenet", LAYOUTS["folders by synset"]())
    assert open_data("imagenet", DataOptions(data_dir=other.parent)).fingerprint == data.fingerprint
    shutil.rmtree(other.parent)
    assert state(tmp_path) == before  # nothing was written beside the data
    if kind != "folders by synset":
        assert looks_like_imagenet(root)
        assert open_data(str(root), DataOptions()).fingerprint == data.fingerprint
    if kind == "kaggle":
        assert "left out, 5 test pictures: no file gives their classes" in told(find_layout(str(root)))
        assert open_data(str(root / "ILSVRC"), DataOptions()).fingerprint == data.fingerprint


def test_a_read_only_directory_is_enough(tmp_path: Path) -> None:
    root = put(tmp_path / "imagenet", LAYOUTS["official tars"]())
    root.chmod(0o555)
    assert len(open_data(str(root), DataOptions()).train) == 12
    root.chmod(0o755)


def test_plain_folders_of_synsets_stay_plain(tmp_path: Path) -> None:
    """Ten classes of ImageNet sorted into train and val are an image folder like any other."""
    root = put(tmp_path / "some", LAYOUTS["folders by synset"]())
    assert not looks_like_imagenet(root)
    assert not looks_like_imagenet(tmp_path / "nowhere")
    data = open_data(str(root), DataOptions())
    assert data.doubts == ()
    assert data.val is not None
    assert data.val.ids[0].startswith("val/n01440764/")


# ---- labels


def test_both_truths_agree_with_each_other(tmp_path: Path) -> None:
    put(tmp_path / "a", kit())
    put(tmp_path / "b", {"LOC_val_solution.csv": solution()})
    put(tmp_path / "c", {"ILSVRC2012_devkit_t12.tar.gz": kit_archive()})
    found = [read_truth([tmp_path / name], "2012", "val") for name in "abc"]
    assert all(one is not None and list(one.by_stem) and one.by_stem == found[0].by_stem for one in found if found[0])
    assert found[0] is not None
    assert [found[0].by_stem[f"ILSVRC2012_val_{at:08d}"] for at in range(1, 6)] == TRUTH
    assert found[0].train_counts == dict.fromkeys(SYNSETS, EACH)
    assert read_truth([tmp_path], "2012", "val") is None


def test_another_truth_gives_other_labels(tmp_path: Path) -> None:
    """The negative control: labels are the file's, not anything built in."""
    files = LAYOUTS["folders, flat validation"]() | {"LOC_val_solution.csv": solution(TRUTH[::-1])}
    data = open_data(str(put(tmp_path / "imagenet", files)), DataOptions())
    assert data.val is not None
    assert [SYNSETS[label] for label in data.val.labels] == TRUTH[::-1]


@pytest.mark.parametrize(("drop", "change", "says"), [
    ("LOC_val_solution.csv", {}, "5 validation pictures have no labels"),
    ("", {"LOC_val_solution.csv": solution(TRUTH[:3])}, "2 pictures of val have no label"),
    ("", {"LOC_val_solution.csv": b"ImageId,PredictionString\nx,y"}, "is not the solution of the validation set"),
    ("", {"LOC_val_solution.csv": b""}, "is not the solution of the validation set"),
    ("", {"train/stray.JPEG": jpeg(1)}, "1 training pictures have no synset"),
])  # fmt: skip
def test_what_is_missing_is_said(tmp_path: Path, drop: str, change: dict[str, bytes], says: str) -> None:
    files = LAYOUTS["folders, flat validation"]() | change
    files.pop(drop, None)
    with pytest.raises(InputError, match=says) as caught:
        read_imagenet(put(tmp_path / "data", files))
    if drop:
        assert "ILSVRC2012_devkit_t12.tar.gz" in str(caught.value)
        assert "LOC_val_solution.csv" in str(caught.value)


@pytest.mark.parametrize(("file", "data", "says"), [
    ("meta.mat", b"rubbish", "its meta.mat can't be read"),
    ("ILSVRC2012_validation_ground_truth.txt", b"1\n4\n9\nx\n", "does not fit its meta.mat"),
])
def test_damaged_kits(tmp_path: Path, file: str, data: bytes, says: str) -> None:
    root = put(tmp_path, LAYOUTS["class tars"]() | {file: data})
    with pytest.raises(InputError, match=says) as caught:
        read_imagenet(root)
    if file != "meta.mat":
        assert len(caught.value.details) == 3  # 4 is an inner node, which is no class
    with pytest.raises(InputError, match="is not a whole development kit"):
        read_truth([put(tmp_path / "x", {"ILSVRC2012_devkit_t12.tar.gz": b"rubbish"})], "2012", "val")


def test_labels_may_lie_elsewhere(tmp_path: Path) -> None:
    files = LAYOUTS["official tars"]()
    truth = files.pop("ILSVRC2012_devkit_t12.tar.gz")
    put(tmp_path / "imagenet", files)
    put(tmp_path, {"ILSVRC2012_devkit_t12.tar.gz": truth})
    assert open_data("imagenet", DataOptions(data_dir=tmp_path)).doubts == ()


# ---- counts


def test_check_counts_and_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = put(tmp_path / "imagenet", LAYOUTS["class tars"]())
    assert main(["check", "imagenet", "--data-dir", str(tmp_path)]) == 0
    seen = capsys.readouterr().out
    assert "train: 12 (4 a class)" in seen
    assert "val: 5" in seen
    assert "as many pictures and classes as ILSVRC-2012 has" in seen
    (root / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    files = training()["n01443537"]
    files.pop("n01443537_6.JPEG")
    put(root, {"train/n01443537.tar": tar(files)})
    assert main(["check", "imagenet", "--data-dir", str(tmp_path)]) == 2
    assert "the data are not what was published" in capsys.readouterr().out
    report = check_data("imagenet", DataOptions(data_dir=tmp_path))
    (problem,) = [one for one in report.problems if one.kind == "counts"]
    assert problem.severity == "error"
    assert problem.items == ("11 pictures in train, ILSVRC-2012 has 12", "4 pictures in val, ILSVRC-2012 has 5",
                             "1 classes of train differ from the kit: n01443537 3 of 4")
    by_place = check_data(str(root), DataOptions())
    assert [one.severity for one in by_place.problems if one.kind == "counts"] == ["warning"]
    assert open_data(str(root), DataOptions()).doubts == problem.items


def test_doubts_are_packed_with_the_pictures(tmp_path: Path) -> None:
    files = {name: data for name, data in LAYOUTS["folders, flat validation"]().items() if "n01443537/" not in name}
    layout = find_layout(str(put(tmp_path / "data", files)))
    pack(layout, tmp_path / "shards")
    assert find_layout(str(tmp_path / "shards")).doubts == layout.doubts != ()
    # Shards that were packed before had none; and none are there without any.
    reindex(tmp_path / "shards", lambda index: index.pop("doubts"))
    assert find_layout(str(tmp_path / "shards")).doubts == ()


def test_missing_classes_are_doubts(tmp_path: Path) -> None:
    files = {name: data for name, data in LAYOUTS["folders, flat validation"]().items() if "n01443537/" not in name}
    layout = read_imagenet(put(tmp_path, files))
    assert layout.doubts == ("8 pictures in train, ILSVRC-2012 has 12", "no training pictures of 1 classes: n01443537")
    assert set(layout.doubts) <= set(layout.notes)


def test_the_published_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [(one.classes, one.pictures) for one in EDITIONS.values()] == [
        (1_000, {"train": 1_281_167, "val": 50_000}),
        (1_000, {"train": 1_261_406, "val": 50_000, "test": 150_000}), (10_184, {}), (21_841, {"all": 14_197_122})]


def test_validation_alone_can_be_evaluated_on_but_not_trained_on(tmp_path: Path) -> None:
    put(tmp_path, {"ILSVRC2012_img_val.tar": tar(flat()), "LOC_val_solution.csv": solution()})
    assert list(find_layout(str(tmp_path)).rows) == ["val"]
    with pytest.raises(InputError, match="has no training pictures"):
        open_data(str(tmp_path), DataOptions())


def test_imagenet_that_is_not_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "imagenet", "--data-dir", str(tmp_path)]) == 2
    seen = capsys.readouterr().err
    assert "imagenet: ILSVRC-2012 is not on this machine" in seen
    assert "ILSVRC2012_img_train.tar" in seen
    assert place_of("imagenet") == ""
    with pytest.raises(InputError, match="ImageNet Fall 2009 is not on this machine") as caught:
        find_layout("imagenet-fall2009", tmp_path)
    assert "a tar for each synset" in str(caught.value)
    (tmp_path / "ILSVRC" / "Data" / "CLS-LOC").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no picture of ImageNet"):
        find_layout(str(tmp_path))


# ---- other releases


def test_the_test_labels_of_2010_may_lie_apart_from_the_kit(tmp_path: Path) -> None:
    """As image-net.org hands them out: a text of its own beside the pictures, whose numbers the kit explains."""
    text = kit("2010", True)["ILSVRC2010_test_ground_truth.txt"]
    root = put(tmp_path / "data", folders("train/") | {f"test/{name}": file for name, file in
                                                       flat("test", "2010").items()})
    put(root, {f"val/{name}": file for name, file in flat("val", "2010").items()})
    put(root, {"ILSVRC2010_devkit-1.0.tar.gz": kit_archive("2010")})
    assert open_data(str(root), DataOptions()).test is None
    put(root, {"ILSVRC2010_test_ground_truth.txt": text})
    # Another year's kit, whose numbers mean other classes, comes first by its name.
    put(root, {"A_devkit_t12.tar.gz": kit_archive("2012")})
    data = open_data(str(root), DataOptions())
    assert data.test is not None
    assert [SYNSETS[label] for label in data.test.labels] == TRUTH
    assert any("classes of test from" in note and "test_ground_truth.txt" in note for note in data.notes)
    (root / "ILSVRC2010_devkit-1.0.tar.gz").unlink()
    assert read_truth([root], "2010", "test") is None


@pytest.mark.parametrize("packed", [True, False])
def test_2010_has_a_labelled_test_set(tmp_path: Path, packed: bool) -> None:
    pictures = {split: {f"{split}/{name}": data for name, data in flat(split, "2010").items()}
                for split in ("val", "test")}
    files = {"devkit-1.0.tar.gz": kit_archive("2010", True)}
    if packed:
        files |= {f"ILSVRC2010_images_{split}.tar": tar(inside) for split, inside in pictures.items()}
        files["ILSVRC2010_images_train.tar"] = nested()
    else:
        files |= folders("train/") | pictures["val"] | pictures["test"]
    data = open_data(str(put(tmp_path, files)), DataOptions())
    assert data.test is not None
    assert [SYNSETS[label] for label in data.test.labels] == TRUTH
    assert data.test.ids[0] == "test/ILSVRC2010_test_00000001.JPEG"
    assert data.doubts == ()


@pytest.mark.parametrize("kind", ["tars", "folders"])
def test_fall_releases_are_halved_by_their_ids(tmp_path: Path, kind: str) -> None:
    files = {f"{synset}.tar": tar(inside) for synset, inside in training().items()} if kind == "tars" else folders("")
    data = open_data("imagenet-fall2009", DataOptions(data_dir=put(tmp_path / "imagenet-fall2009", files).parent))
    assert data.test is not None
    assert data.val is None
    assert len(data.train) + len(data.test) == 12
    assert {half(name) for name in data.train.ids} == {"train"}
    assert {half(name) for name in data.test.ids} == {"test"}
    assert open_data(str(tmp_path / "imagenet-fall2009"), DataOptions()).fingerprint == data.fingerprint
    extra = put(tmp_path / "imagenet-fall2009", {"n03000000/n03000000_1.JPEG": jpeg(77)})
    more = find_layout(str(extra))
    kept = {row.id for row in more.rows["train"]}
    assert set(data.train.ids) <= kept  # another class moves no picture


@pytest.mark.parametrize("folder", ["imagenet-fall2011", "downloads"])
def test_fall_2011_may_be_one_tar(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EDITIONS, "imagenet-fall2011", Edition("ImageNet Fall 2011", 3, {"all": 12}))
    root = put(tmp_path / folder, {"fall11_whole.tar": nested()})
    data = open_data(str(root), DataOptions())
    assert (data.name, data.doubts) == ("imagenet-fall2011", ())
    assert {half(name) for name in data.train.ids} == {"train"}
    apart = put(tmp_path / "apart" / "imagenet-fall2011", folders(""))
    assert open_data(str(apart), DataOptions()).fingerprint == data.fingerprint
    if folder != "downloads":
        assert open_data("imagenet-fall2011", DataOptions(data_dir=tmp_path)).fingerprint == data.fingerprint
    (root / "fall11_whole.tar").rename(root / "another.tar")
    assert not looks_like_imagenet(root)


def test_half_is_a_half() -> None:
    count = sum(half(f"n01440764/n01440764_{number}.JPEG") == "test" for number in range(10_000))
    assert abs(count - 5_000) < 250  # five deviations


def test_class_tars_without_a_name_have_no_split(tmp_path: Path) -> None:
    root = put(tmp_path / "mine", {f"{synset}.tar": tar(files) for synset, files in training().items()})
    with pytest.raises(InputError, match="has no train, val and test"):
        open_data(str(root), DataOptions())
    assert len(open_data(str(root), DataOptions(split="50/25/25")).train) == 6
