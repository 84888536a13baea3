"""Shards: reading them is reading the folder; damage is named; remote ones are read in ranges."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import layerwise
from layerwise.cli import main
from layerwise.data import DataOptions, ImageRules, open_data, scan
from layerwise.data import pieces as pieces_module
from layerwise.data import shards as shards_module
from layerwise.data.check import check_data
from layerwise.data.order import epoch_order
from layerwise.data.pieces import Slice, read_range
from layerwise.data.place import place_of, placed
from layerwise.data.shards_write import PackOptions
from layerwise.errors import InputError, MachineError
from layerwise.recipes.presets import preset
from tests.packed_photos import alter, opened, packed, paint, reindex, same


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return paint(tmp_path)



@pytest.mark.parametrize("options", [PackOptions(), PackOptions(per_shard=1), PackOptions(per_shard=4)])
def test_shards_are_the_folder(photos: Path, tmp_path: Path, options: PackOptions) -> None:
    packed(photos, tmp_path / "shards", options)
    data, folder = opened(tmp_path / "shards"), opened(photos)
    same(folder, data)
    found = [note for note in data.notes if not note.startswith("read from ")]
    assert sorted(found) == sorted(folder.notes)
    recipe = preset("fast")
    for epoch in (0, 1):
        assert epoch_order(data.train, recipe, epoch).tolist() == epoch_order(folder.train, recipe, epoch).tolist()


def test_what_was_noted_when_packing_is_said_once(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (photos / split / "cat").rename(photos / split / "10")
        (photos / split / "dog").rename(photos / split / "2")
    packed(photos, tmp_path / "shards")
    assert json.loads((tmp_path / "shards" / "index.json").read_text())["notes"] == ["classes in natural order: 2, 10"]
    assert list(opened(tmp_path / "shards").notes).count("classes in natural order: 2, 10") == 1


def test_another_order_of_the_shards_changes_nothing_but_positions_do(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "shards")
    reindex(tmp_path / "shards", lambda index: index["shards"].reverse())
    same(opened(photos), opened(tmp_path / "shards"))

    def swap(index: dict[str, Any]) -> None:
        column = next(shard for shard in index["shards"] if shard["split"] == "train")["position"]
        column[0], column[1] = column[1], column[0]

    reindex(tmp_path / "shards", swap)
    assert opened(tmp_path / "shards").fingerprint != opened(photos).fingerprint


def test_shards_without_splits_are_split_as_their_folder_is(photos: Path, tmp_path: Path) -> None:
    packed(photos / "train", tmp_path / "shards")
    same(opened(photos / "train", "50/25/25"), opened(tmp_path / "shards", "50/25/25"))
    with pytest.raises(InputError, match="has no train, val and test"):
        opened(tmp_path / "shards")


def test_shards_can_be_packed_again(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "first", PackOptions(per_shard=2))
    packed(tmp_path / "first", tmp_path / "second")
    packed(photos, tmp_path / "direct")
    for file in (tmp_path / "direct").glob("*.tar"):
        assert (tmp_path / "second" / file.name).read_bytes() == file.read_bytes()
    same(opened(photos), opened(tmp_path / "second"))


def test_other_rules_are_applied_to_shards_too(tmp_path: Path) -> None:
    """What pack found was found with EXIF applied; without it the pictures are looked at again."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (100, 70), (number, 0, len(name + str(number)))).save(
                tmp_path / "photos" / name / f"{number}.jpg", exif=exif)
    packed(tmp_path / "photos", tmp_path / "shards")
    for exif_rule, shape in (("apply", (100, 70, 3)), ("ignore", (70, 100, 3))):
        for place in ("photos", "shards"):
            data = open_data(str(tmp_path / place), DataOptions(split="50/25/25", exif=exif_rule))
            assert data.train.read(0).shape == shape
    with pytest.raises(InputError, match="8 of 8 pictures"):
        open_data(str(tmp_path / "shards"), DataOptions(split="50/25/25", max_pixels=100))


def test_what_the_index_tells_holds_up_to_the_largest_picture(photos: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    packed(photos, tmp_path / "shards", PackOptions(max_pixels=10**9))
    looked: list[object] = []
    whole = scan.scan_one
    monkeypatch.setattr(scan, "scan_one", lambda path, rules: (looked.append(path), whole(path, rules))[1])
    for most in (10**9, 3220):  # 46 x 70 pixels are the largest
        open_data(str(tmp_path / "shards"), DataOptions(max_pixels=most))
    assert looked == []
    with pytest.raises(InputError, match="2 of 24 pictures"):
        open_data(str(tmp_path / "shards"), DataOptions(max_pixels=3219))
    assert len(looked) == 2
    open_data(str(tmp_path / "shards"), DataOptions(exif="ignore"))
    assert len(looked) == 2 + 24


def test_leaks_between_splits_are_told_without_decoding(photos: Path, tmp_path: Path) -> None:
    (photos / "test" / "cat" / "1.jpg").write_bytes((photos / "train" / "cat" / "1.jpg").read_bytes())
    packed(photos, tmp_path / "shards")
    data = opened(tmp_path / "shards")
    assert data.doubts == opened(photos).doubts
    assert "1 of 4 pictures in test are in train too" in data.doubts[0]


# ---- damage


def test_damaged_and_missing_shards_are_named_by_open_and_check(photos: Path, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    packed(photos, tmp_path / "shards")
    assert main(["check", str(tmp_path / "shards")]) == 0
    assert "24 pictures in 2 classes" in capsys.readouterr().out
    alter(tmp_path / "shards" / "train-000001.tar", 3000)
    (tmp_path / "shards" / "test-000000.tar").unlink()
    os.truncate(tmp_path / "shards" / "val-000000.tar", 512)
    with pytest.raises(InputError, match="3 of 9 shards are damaged or missing") as caught:
        opened(tmp_path / "shards")
    told = "\n".join(caught.value.details)
    assert "train-000001.tar: its SHA-256 is not the one in SHA256SUMS, so it was altered" in told
    assert "test-000000.tar: " in told
    assert "No such file" in told
    assert "val-000000.tar: truncated at 512 of " in told
    assert main(["check", str(tmp_path / "shards")]) == 2
    assert "train-000001.tar" in capsys.readouterr().err


def test_the_digest_is_what_finds_damage(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without the comparison the damaged shard opens; its pictures are still refused."""
    packed(photos, tmp_path / "shards")
    index = json.loads((tmp_path / "shards" / "index.json").read_text())["shards"][0]
    alter(tmp_path / "shards" / index["file"], index["offset"][0] + 40)
    monkeypatch.setattr(shards_module, "damage", lambda place, shard, sums: "")
    data = opened(tmp_path / "shards").train
    at = index["position"][0]
    with pytest.raises(InputError, match=r"is damaged: its SHA-256 is not the one in the index"):
        data.read(at)
    data.read(index["position"][1])


def test_a_sound_shard_is_hashed_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(photos, tmp_path / "shards")
    old = time.time() - 100
    for file in (tmp_path / "shards").iterdir():
        os.utime(file, (old, old))
    monkeypatch.setattr(shards_module, "RECENT_NS", 0)
    opened(tmp_path / "shards")
    read: list[str] = []
    whole = shards_module.read_range
    monkeypatch.setattr(shards_module, "read_range", lambda file, *rest: (read.append(file), whole(file, *rest))[1])
    opened(tmp_path / "shards")
    assert read == []
    alter(tmp_path / "shards" / "train-000000.tar", 700)
    with pytest.raises(InputError, match="1 of 9 shards"):
        opened(tmp_path / "shards")
    assert len(read) == 1


def broken_positions(index: dict[str, Any]) -> None:
    index["shards"][0]["position"][0] = 99


def outside(index: dict[str, Any]) -> None:
    index["shards"][0]["offset"][0] = 10**9


@pytest.mark.parametrize(("change", "says"), [
    (lambda index: index.update(format=9), "format 9, known is 1"),
    (lambda index: index.pop("class_names"), "can't be read (KeyError"),
    (lambda index: index.update(shards=[]), "names no shard"),
    (lambda index: index.update(class_names=["cat"]), "labels are not of the 1 classes"),
    (lambda index: index.update(facts=[]), "facts are missing"),
    (lambda index: index.update(facts=[{"evil": 1}]), "can't be read (TypeError"),
    (lambda index: index["shards"][0].update(file="../photos/x.tar"), "is no shard of a split"),
    (lambda index: index["shards"][0].update(split="tset"), "is no shard of a split"),
    (lambda index: index["shards"][0].update(size=[1]), "its columns differ in length"),
    (lambda index: index["shards"][0].update(id=[1, 2, 3]), "can't be read (TypeError"),
    (broken_positions, "positions are missing or there twice"),
    (outside, "pictures lie outside of it"),
])  # fmt: skip
def test_a_nonsensical_index_is_refused(photos: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object],
                                        says: str) -> None:
    packed(photos, tmp_path / "shards")
    reindex(tmp_path / "shards", lambda index: None)
    opened(tmp_path / "shards")  # the control: written anew and unchanged, it is read
    reindex(tmp_path / "shards", change)
    with pytest.raises(InputError, match="does not hold sound shards") as caught:
        opened(tmp_path / "shards")
    assert says in "\n".join(caught.value.details)


def test_an_altered_index_and_sums_that_are_none(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "shards")
    index, sums = tmp_path / "shards" / "index.json", tmp_path / "shards" / "SHA256SUMS"
    text = sums.read_text()
    index.write_text(index.read_text() + " ")
    with pytest.raises(InputError, match="sound") as caught:
        opened(tmp_path / "shards")
    assert "index.json: its SHA-256 is not the one in SHA256SUMS" in caught.value.details[0]
    sums.write_text(text + "x\n")
    with pytest.raises(InputError, match="sound") as caught:
        opened(tmp_path / "shards")
    assert "is not a SHA-256 and the name of a file" in caught.value.details[0]
    sums.write_text("".join(line + "\n" for line in text.splitlines() if "train-000000" not in line))
    reindex(tmp_path / "shards", lambda index: None)
    with pytest.raises(InputError, match="1 of 9 shards") as caught:
        opened(tmp_path / "shards")
    assert "SHA256SUMS does not name it" in caught.value.details[0]


def test_shards_without_their_sums_are_not_taken_for_a_folder(photos: Path, tmp_path: Path) -> None:
    (photos / "index.json").write_text("{}")
    opened(photos)  # the control: a folder of pictures may hold such a file
    packed(photos, tmp_path / "shards")
    (tmp_path / "shards" / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="does not hold sound shards") as caught:
        opened(tmp_path / "shards")
    assert caught.value.details == ("SHA256SUMS is missing: without it, damage could not be told",)


# ---- remote


def upload(directory: Path, name: str) -> str:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for file in directory.iterdir():
        memory.pipe_file(f"/{name}/{file.name}", file.read_bytes())
    return f"memory://{name}"


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_remote_shards_are_the_folder(photos: Path, tmp_path: Path, kind: str) -> None:
    packed(photos, tmp_path / "shards")
    place = upload(tmp_path / "shards", tmp_path.name) if kind == "memory" else f"file://{tmp_path / 'shards'}"
    same(opened(photos), opened(place))
    assert check_data(place, DataOptions()).exit_code == 0
    assert place_of(place) == place
    recipe = layerwise.preset("fast")
    assert placed(replace(recipe, data=place), {"data": {"place": str(photos)}}).data == place


def test_remote_pictures_are_read_in_ranges(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(photos, tmp_path / "shards", PackOptions())
    place = upload(tmp_path / "shards", tmp_path.name)
    data = opened(place).train
    from fsspec.implementations.memory import MemoryFileSystem

    asked: list[int] = []
    whole = MemoryFileSystem.cat_file
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path, start=None, end=None: (
        asked.append(end - start), whole(self, path, start=start, end=end))[1])
    data.read(0)
    assert data.paths is not None
    assert isinstance(data.paths[0], Slice)
    assert asked == [data.paths[0].size]


def test_a_server_without_ranges_or_lengths_is_named(photos: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the pictures, which could be left out as unreadable ones."""
    packed(photos, tmp_path / "shards", PackOptions())
    place = upload(tmp_path / "shards", f"{tmp_path.name}-whole")
    data = opened(place).train
    data.read(0)  # the control: from one with ranges
    from fsspec.implementations.memory import MemoryFileSystem

    whole = MemoryFileSystem.cat_file
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path, start=None, end=None: whole(self, path))
    with pytest.raises(MachineError, match=r"train-000000\.tar.*bytes came where .* were asked for") as caught:
        data.read(0)
    assert "ignores ranges" in str(caught.value)
    opened(place)  # the index and the digests are asked for whole
    monkeypatch.setattr(MemoryFileSystem, "size", lambda self, path: None)
    with pytest.raises(MachineError, match=r"SHA256SUMS.* its server does not tell its length"):
        opened(place)


def test_remote_damage_and_absence(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(photos, tmp_path / "shards")
    with pytest.raises(InputError, match="SHA256SUMS' does not exist") as caught:
        opened("memory://nowhere-at-all")
    assert "layerwise pack FOLDER --to DIR" in str(caught.value)
    with pytest.raises(MachineError, match="can't be asked"):
        opened("nosuchprotocol://x")
    os.truncate(tmp_path / "shards" / "val-000000.tar", 512)
    place = upload(tmp_path / "shards", f"{tmp_path.name}-cut")
    with pytest.raises(InputError, match="1 of 9 shards"):
        opened(place)
    from fsspec.implementations.memory import MemoryFileSystem

    def cut_off(self: object, path: str, start: int, end: int) -> bytes:
        raise ConnectionResetError("reset")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cut_off)
    with pytest.raises(MachineError, match="can't be read: ConnectionResetError: reset"):
        read_range(f"{place}/index.json", 0, 4)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MachineError, match="remote data need the package fsspec"):
        read_range(f"{place}/index.json", 0, 4)


def test_pieces_that_end_too_early(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert Slice(str(tmp_path / "x"), 1, 3, "a.jpg").read_bytes() == b"234"
    with pytest.raises(InputError, match="truncated at 2 of 9 bytes"):
        Slice(str(tmp_path / "x"), 3, 9, "a.jpg").read_bytes()
    with pytest.raises(InputError, match="can't be read: No such file"):
        pieces_module.read_whole(str(tmp_path / "y"))
    with pytest.raises(InputError, match=r"has 5 bytes; the limit is 2"):
        layerwise.data.open_image(Slice(str(tmp_path / "x"), 0, 5, "a.jpg"), ImageRules(max_bytes=2))
