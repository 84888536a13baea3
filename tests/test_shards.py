"""Shards: what pack writes, byte for byte; interrupted packs; training on shards is training on the folder."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import layerwise
from layerwise.cli import main
from layerwise.data import ImageRules, shards_write
from layerwise.data.loader import training_batches
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.shards_write import PackOptions, parse_size
from layerwise.errors import InputError, MachineError
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from tests.packed_photos import COUNTS, alter, opened, packed, paint

ROOT = Path(__file__).parent.parent


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return paint(tmp_path)



def test_tar_reads_what_was_packed_byte_for_byte(photos: Path, tmp_path: Path) -> None:
    done = packed(photos, tmp_path / "shards")
    assert done.pictures == {split: 2 * count for split, count in COUNTS.items()}
    seen, sizes = {}, []
    for file in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(file) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        keys = [name.split(".")[0] for name in members]
        assert keys == sorted(keys, key=keys.index)  # the members of a key stand together
        sizes.append(len(set(keys)))
        for key in dict.fromkeys(keys):
            told = json.loads(members[f"{key}.json"])
            (kind,) = {name.split(".")[1] for name in members if name.startswith(f"{key}.")} - {"cls", "json"}
            data = members[f"{key}.{kind}"]
            assert Image.open(io.BytesIO(data)).format == {"jpg": "JPEG", "png": "PNG"}[kind]
            assert members[f"{key}.cls"] == str(told["label"]).encode()
            assert told["class"] == ("cat", "dog")[told["label"]] == told["id"].split("/")[1]
            seen[told["id"]] = data
    assert seen == {path.relative_to(photos).as_posix(): path.read_bytes() for path in photos.rglob("*.*")}
    assert max(sizes) == 3
    assert sorted(file.name for file in (tmp_path / "shards").iterdir() if file.suffix != ".tar") == [
        "SHA256SUMS", "index.json"]
    assert not list(tmp_path.glob(".*"))


def test_packing_twice_gives_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    for name in "ab":
        packed(photos, tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / name).read_bytes() for name in files] == [
        (tmp_path / "b" / name).read_bytes() for name in files]


def test_a_shard_holds_at_most_its_size_but_for_one_larger_picture(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "one", PackOptions(shard_bytes=1))
    assert len(list((tmp_path / "one").glob("*.tar"))) == 2 * sum(COUNTS.values())
    packed(photos, tmp_path / "some", PackOptions(shard_bytes=20_000))
    for shard in json.loads((tmp_path / "some" / "index.json").read_text())["shards"]:
        assert sum(shard["size"]) <= 20_000
    packed(photos, tmp_path / "all")
    packed(photos, tmp_path / "large", PackOptions())
    assert len(list((tmp_path / "large").glob("*.tar"))) == 3


def test_resize_makes_larger_pictures_smaller_and_leaves_the_others(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "small", PackOptions(short_side=42))
    data, before = opened(tmp_path / "small"), opened(photos)
    assert any("made smaller: short side 42" in note for note in data.notes)
    assert not any("made smaller" in note for note in before.notes)
    for index, name in enumerate(before.train.ids):
        old, new = before.train.read(index), data.train.read(index)
        assert min(new.shape[:2]) == min(42, old.shape[0])
        if old.shape[0] <= 42:
            np.testing.assert_array_equal(old, new)
        assert data.train.ids[index] == name


def test_of_a_long_picture_nothing_is_cut_away(photos: Path, tmp_path: Path) -> None:
    """2000 x 50 pixels, red on the left and blue on the right: more than 20 times as long as high."""
    pixels = np.zeros((50, 2000, 3), np.uint8)
    pixels[:, :1000, 0] = pixels[:, 1000:, 2] = 255
    Image.fromarray(pixels).save(photos / "train" / "cat" / "long.png")
    packed(photos, tmp_path / "small", PackOptions(short_side=32))
    data = opened(tmp_path / "small").train
    small = data.read(data.ids.index("train/cat/long.png"))
    assert small.shape == (32, 1280, 3)
    assert (small[:, :635] == (255, 0, 0)).all()
    assert (small[:, 645:] == (0, 0, 255)).all()


@pytest.mark.parametrize(("text", "size"), [("256MB", 256_000_000), ("1GiB", 1 << 30), ("5", 5), ("1.5 kb", 1500)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "0", "5 apples", "-1MB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)


def test_nothing_is_overwritten_and_bad_pictures_are_not_packed(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists, and nothing is overwritten"):
        packed(photos, photos)
    with pytest.raises(InputError, match="there is no directory"):
        packed(photos, tmp_path / "no" / "shards")
    (photos / "train" / "cat" / "9.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="1 of 25 pictures can't be opened, so nothing was packed") as caught:
        packed(photos, tmp_path / "shards")
    assert "9.jpg" in caught.value.details[0]
    assert not list(tmp_path.glob("*shards*"))


def test_a_picture_that_changes_while_it_is_packed_is_named(photos: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    scan = shards_write.scan_files

    def late(paths: object, rules: ImageRules, progress: object = None) -> object:
        found = scan(paths, rules)  # type: ignore[arg-type]
        (photos / "train" / "cat" / "1.jpg").write_bytes((photos / "train" / "dog" / "1.jpg").read_bytes())
        return found

    monkeypatch.setattr(shards_write, "scan_files", late)
    with pytest.raises(InputError, match=r"1\.jpg' changed while it was packed"):
        packed(photos, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from layerwise.data import shards_write
from layerwise.data.opening import find_layout
made = []
whole = shards_write._shard
def one(*arguments):
    if len(made) == 4:
        (arguments[0]).write_bytes(b"half a shard")
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(1)
    return whole(*arguments)
shards_write._shard = one
shards_write.pack(find_layout(sys.argv[1]), Path(sys.argv[2]), shards_write.PackOptions(per_shard=3))
"""


def test_a_killed_pack_goes_on_and_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "whole")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(photos), str(tmp_path / "shards")],
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "shards").exists()
    assert (tmp_path / ".shards.packing").is_dir()
    assert packed(photos, tmp_path / "shards").resumed == 4
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "shards" / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "shards").iterdir())) == len(list((tmp_path / "whole").iterdir()))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("change", ["options", "pictures", "damage"])
def test_what_is_left_of_another_pack_is_not_used(photos: Path, tmp_path: Path, change: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(photos), str(tmp_path / "shards")],
                   env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    per_shard = 3
    if change == "options":
        per_shard = 2
    elif change == "pictures":
        Image.new("RGB", (50, 50), "red").save(photos / "train" / "cat" / "1.jpg")
    else:
        alter(tmp_path / ".shards.packing" / "train-000001.tar", 700)
    done = packed(photos, tmp_path / "shards", PackOptions(per_shard=per_shard))
    assert done.resumed == (3 if change == "damage" else 0)
    packed(photos, tmp_path / "whole", PackOptions(per_shard=per_shard))
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "shards" / file.name).read_bytes() == file.read_bytes()


def test_two_packs_to_one_place(photos: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".shards.packing").mkdir()
    with open(tmp_path / ".shards.packing" / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match="another process is packing to it"):
            packed(photos, tmp_path / "shards")
    assert packed(photos, tmp_path / "shards").shards


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are told by Linux alone")
def test_without_locks_no_file_is_open_when_the_folder_gets_its_name(photos: Path, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows renames no folder with an open file in it, and has no fcntl."""
    rename = os.rename

    def as_windows(old: Path, new: Path) -> None:
        if any(os.path.realpath(f"/proc/self/fd/{one}").startswith(f"{old}/") for one in os.listdir("/proc/self/fd")):
            raise PermissionError(13, "Access is denied", str(old))
        rename(old, new)

    monkeypatch.setattr(shards_write.os, "rename", as_windows)
    with pytest.raises(PermissionError):  # the control: the lock of other systems is such a file
        packed(photos, tmp_path / "shards")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert packed(photos, tmp_path / "shards").shards
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "shards" / "lock").exists()


# ---- training


def trained(data: Path, out: Path) -> dict[str, bytes]:
    """The weights after two epochs of resnet20, as bytes."""
    small = {"input_size": 16, "resize_to": 16, "duration": 2, "warmup_length": 1, "batch_size": 4, "threads": 1,
             "learning_rate": 0.05, "device": "cpu", "protocol": "single"}
    words = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", "resnet20", str(data), *words, "--out", str(out)]) == 0
    state = layerwise.load(out).model.state_dict()
    return {name: value.numpy().tobytes() for name, value in state.items()}


def test_training_on_shards_is_training_on_the_folder(photos: Path, tmp_path: Path) -> None:
    """Byte for byte; other shards change nothing, one other picture changes the weights (the control)."""
    packed(photos, tmp_path / "shards")
    packed(photos, tmp_path / "others", PackOptions(per_shard=1))
    weights = trained(photos, tmp_path / "run-folder")
    assert trained(tmp_path / "shards", tmp_path / "run-shards") == weights
    assert trained(tmp_path / "others", tmp_path / "run-others") == weights
    Image.new("RGB", (60, 60), "red").save(photos / "train" / "cat" / "1.jpg")
    packed(photos, tmp_path / "altered")
    assert trained(tmp_path / "altered", tmp_path / "run-altered") != weights


def test_batches_of_shards_are_the_folders_and_go_on_inside_an_epoch(photos: Path, tmp_path: Path) -> None:
    """Random crops of pictures that are decoded when they are needed; from the middle as from the start."""
    packed(photos, tmp_path / "shards")
    recipe = changed(preset("fine-tune"), ["batch_size=4", "input_size=32", "resize_to=36"])
    sets = [opened(place).train for place in (photos, tmp_path / "shards")]
    assert sets[1].paths is not None
    epochs: list[list[bytes]] = []
    for samples, epoch, start in ((sets[0], 1, 0), (sets[1], 1, 0), (sets[1], 1, 2), (sets[1], 2, 0)):
        preprocess = fit_preprocess(samples, recipe)
        batches = training_batches(samples, recipe, preprocess, epoch, start)
        epochs.append([batch["image"].numpy().tobytes() + batch["index"].numpy().tobytes() for batch in batches])
    folder, shards, resumed, next_epoch = epochs
    assert shards == folder
    assert resumed == folder[2:]
    assert next_epoch != shards


def test_the_command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(photos), "--to", str(tmp_path / "shards"), "--per-shard", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == {"train": 14, "val": 6, "test": 4}
    assert told["shards"] == len(list((tmp_path / "shards").glob("*.tar"))) == 6
    assert told["resumed_shards"] == 0
    assert main(["pack", str(photos), "--to", str(tmp_path / "more")]) == 0
    seen = capsys.readouterr()
    assert seen.out.strip() == str(tmp_path / "more")
    assert "14 train, 6 val, 4 test pictures in 3 shards" in seen.err
    large = ["pack", str(photos), "--to", str(tmp_path / "large"), "--max-pixels"]
    assert main([*large, "3000"]) == 2  # 40 x 70 pixels and more
    assert "train with --set max_pixels=3220, pack with --max-pixels 3220" in capsys.readouterr().err
    assert main([*large, "3220"]) == 0
    capsys.readouterr()
    assert main(["pack", str(photos / "val"), "--to", str(tmp_path / "one")]) == 0
    assert re.search(r"^6 pictures in 1 shard, 0\.\d MB$", capsys.readouterr().err, re.MULTILINE)
