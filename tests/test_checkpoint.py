"""Generations: written whole or not at all, verified, found by looking."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from layerwise import checkpoint
from layerwise.errors import InputError, MachineError


def write(directory: Path, position: int) -> Path:
    tensors = {"a": torch.arange(6.0).reshape(2, 3) + position, "b": torch.tensor(position)}
    return checkpoint.write(directory, position, tensors, {"position": position, "error": 0.1})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written = write(tmp_path, 7)
    read = checkpoint.read(written)
    assert torch.equal(read.tensors["a"], torch.arange(6.0).reshape(2, 3) + 7)
    assert read.state == {"position": 7, "error": 0.1}


def test_channels_last_tensors_keep_their_values(tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    read = checkpoint.read(checkpoint.write(tmp_path, 1, {"t": tensor}, {}))
    assert torch.equal(read.tensors["t"], tensor)


def test_two_generations_are_kept_and_the_newest_is_found_by_looking(tmp_path: Path) -> None:
    for position in (1, 2, 30):
        write(tmp_path, position)
    assert [entry.name for entry in checkpoint.generations(tmp_path)] == [f"{2:012d}", f"{30:012d}"]
    newest, problems = checkpoint.newest(tmp_path)
    assert newest is not None
    assert (newest.state["position"], problems) == (30, ())


def test_none_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nothing") == (None, ())


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_generation_is_named_and_the_one_before_is_taken(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path, 1)
    file = write(tmp_path, 2) / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 16
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes({"flip": bytes(data), "truncate": bytes(data[:-3]), "empty": b""}[damage])
    newest, problems = checkpoint.newest(tmp_path)
    assert newest is not None
    assert newest.state["position"] == 1
    assert len(problems) == 1
    assert f"{2:012d}" in problems[0]


def test_a_longer_file_is_not_called_truncated(tmp_path: Path) -> None:
    file = write(tmp_path, 2) / "weights.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"xx")
    with pytest.raises(InputError, match=f"altered, {size + 2} of {size} bytes"):
        checkpoint.read(file.parent)


def test_each_flipped_bit_of_the_tensors_is_found(tmp_path: Path) -> None:
    file = write(tmp_path, 2) / "weights.safetensors"
    data = file.read_bytes()
    for place in range(0, 8 * len(data), 7):
        altered = bytearray(data)
        altered[place // 8] ^= 1 << place % 8
        file.write_bytes(bytes(altered))
        with pytest.raises(InputError, match="SHA-256"):
            checkpoint.read(file.parent)


def test_without_the_digest_the_flip_would_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the guard taken out, the damaged tensor is read as if it were right."""
    file = write(tmp_path, 2) / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    expected = json.loads((file.parent / "manifest.json").read_text())["files"]

    class Blind:
        def __init__(self, content: bytes) -> None:
            self.name = "state.json" if content.startswith(b"{") else "weights.safetensors"

        def hexdigest(self) -> str:
            return str(expected[self.name]["sha256"])

    file.write_bytes(bytes(data))
    manifest = json.loads((file.parent / "manifest.json").read_text())
    monkeypatch.setattr(checkpoint, "_manifest", lambda generation: manifest)
    monkeypatch.setattr(checkpoint.hashlib, "sha256", Blind)
    tensors = checkpoint.read(file.parent).tensors
    right = torch.arange(6.0).reshape(2, 3) + 2
    assert not (torch.equal(tensors["a"], right) and torch.equal(tensors["b"], torch.tensor(2)))


@pytest.mark.parametrize("call", range(12))
def test_an_error_at_the_kth_write_leaves_the_generation_before(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)
    calls = 0

    def failing(function):  # type: ignore[no-untyped-def]
        def wrapped(*arguments, **named):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == call + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **named)
        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(os.fsync))
        patched.setattr(os, "rename", failing(os.rename))
        patched.setattr(checkpoint.os, "open", failing(os.open))
        failed = False
        try:
            write(tmp_path, 2)
        except OSError as error:
            failed = error.errno == errno.ENOSPC
    newest, problems = checkpoint.newest(tmp_path)
    assert failed == (calls > call)
    assert newest is not None
    assert newest.state["position"] in ((1, 2) if failed else (2,))
    assert problems == ()
    write(tmp_path, 3)
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".writing-000000000009").mkdir()
    (tmp_path / ".removing-000000000001").mkdir()
    write(tmp_path, 10)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{10:012d}"]


def test_the_same_position_is_written_again(tmp_path: Path) -> None:
    write(tmp_path, 4)
    write(tmp_path, 4)
    assert checkpoint.newest(tmp_path)[1] == ()


def test_too_little_room_is_said_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="MB free, a checkpoint needs"):
        checkpoint.require_space(tmp_path, 1 << 60)
    checkpoint.require_space(tmp_path, 1)


def test_a_newer_format_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "FORMAT", 99)
        written = write(tmp_path, 4)
    with pytest.raises(InputError, match="newer version"):
        checkpoint.read(written)


@pytest.mark.parametrize("change", [{"position": 5}, {"format": 0}, {"more": 1}, {"files": {}}])
def test_a_manifest_that_was_altered_is_named(tmp_path: Path, change: dict) -> None:
    file = write(tmp_path, 4) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change, sort_keys=True))
    with pytest.raises(InputError, match=r"manifest\.json: .* so its content was altered"):
        checkpoint.read(file.parent)


def test_a_manifest_of_an_earlier_version_has_no_digest_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, 4) / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["sha256"]
    file.write_text(json.dumps(manifest, sort_keys=True))
    assert checkpoint.read(file.parent).state["position"] == 4
    file.write_text(json.dumps(manifest | {"position": 5}, sort_keys=True))
    with pytest.raises(InputError, match="altered"):
        checkpoint.read(file.parent)


def test_a_sound_generation_of_the_same_position_is_not_written_over(tmp_path: Path) -> None:
    first = checkpoint.write(tmp_path, 4, {"a": torch.zeros(3)}, {"notes": []})
    made = first.stat().st_ino
    assert checkpoint.write(tmp_path, 4, {"a": torch.zeros(3)}, {"notes": []}) == first
    assert first.stat().st_ino == made
    second = checkpoint.write(tmp_path, 4, {"a": torch.zeros(3)}, {"notes": ["more"]})
    assert (second.name, first.exists()) == (f"{4:012d}-02", True)
    found = checkpoint.newest(tmp_path)[0]
    assert found is not None
    assert found.state == {"notes": ["more"]}
    (second / "state.json").write_text("{}")  # a damaged one is
    assert checkpoint.write(tmp_path, 4, {"a": torch.ones(3)}, {"notes": []}) == second
    assert checkpoint.newest(tmp_path)[1] == ()


def test_what_stands_is_not_removed_for_damaged_ones_that_claim_to_be_newer(tmp_path: Path) -> None:
    for position in (7, 8):
        (write(tmp_path, position) / "state.json").unlink()
    for position in (1, 2):
        assert checkpoint.read(write(tmp_path, position)).state["position"] == position
    assert [one.name for one in checkpoint.generations(tmp_path)] == [f"{1:012d}", f"{2:012d}"]


def test_an_old_generation_that_cannot_be_removed_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for position in (1, 2):
        write(tmp_path, position)

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.shutil, "rmtree", refuse)
        with pytest.raises(checkpoint.LeftOverError, match="input/output"):
            write(tmp_path, 3)
    assert checkpoint.newest(tmp_path)[1] == ()
    write(tmp_path, 4)
    assert not list(tmp_path.glob(".*"))


def test_an_error_names_the_file_of_a_call_that_knows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="weights"):
        checkpoint.write_durably(tmp_path / "weights", b"")
    with pytest.raises(OSError, match=tmp_path.name):
        checkpoint.fsync_directory(tmp_path)


def test_a_generation_on_a_broken_disk_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    broken = write(tmp_path, 2) / "state.json"
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == broken:
            raise OSError(errno.EIO, "input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    found, problems = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.state["position"] == 1
    assert problems == (f"{broken}: can't be read (input/output error)",)


def test_replacing_a_file_keeps_the_old_one_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    checkpoint.replace_durably(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="input/output"):
        checkpoint.replace_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_room_for_a_tenth_more_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [0]
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    for free[0], size in ((22, 20), (1100, 1000 - 1)):
        checkpoint.require_space(tmp_path, size)
    free[0] = 21_000_000
    with pytest.raises(MachineError, match=r"21 MB free, a checkpoint needs 22 MB"):
        checkpoint.require_space(tmp_path, 20_000_000)


def test_a_number_that_is_not_finite_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.write(tmp_path, 1, {}, {"loss": float("nan")})
    assert checkpoint.generations(tmp_path) == []


def test_the_order_of_the_state_is_no_difference(tmp_path: Path) -> None:
    first = checkpoint.write(tmp_path, 1, {}, {"b": 1, "a": 2})
    assert checkpoint.write(tmp_path, 1, {}, {"a": 2, "b": 1}) == first
    for name in ("state.json", "manifest.json"):
        text = (first / name).read_text()
        assert text == json.dumps(json.loads(text), sort_keys=True), name
    rest = json.loads((first / "manifest.json").read_text())
    digest = rest.pop("sha256")
    assert digest == hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def test_each_state_of_the_same_position_stands_behind_the_one_before(tmp_path: Path) -> None:
    written = [checkpoint.write(tmp_path, 4, {}, {"notes": [number]}) for number in range(4)]
    assert [one.name for one in written] == [f"{4:012d}", *(f"{4:012d}-{number:02d}" for number in (2, 3, 4))]
    assert checkpoint.read(written[-1]).directory == written[-1]
    assert [one.name for one in checkpoint.generations(tmp_path)] == [f"{4:012d}-03", f"{4:012d}-04"]
    again = checkpoint.write(tmp_path, 4, {}, {"notes": [2]})  # as the one before the last: it is the newest again
    assert checkpoint.newest(tmp_path)[0] == checkpoint.read(again)
    assert again.name == f"{4:012d}-05"


def test_what_can_not_be_cleared_hides_no_error_and_stops_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".writing-000000000009").mkdir()

    def stuck(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.EBUSY, "device or resource busy")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(checkpoint.shutil, "rmtree", stuck)
    assert checkpoint.read(write(tmp_path, 1)).state["position"] == 1
    monkeypatch.setattr(checkpoint, "write_durably", full)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path, 2)


def test_a_directory_that_another_process_makes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "made" and exists(path))
    (tmp_path / "made").mkdir()
    checkpoint.make_durably(tmp_path / "made")
    with pytest.raises(FileExistsError):  # the control: as it would be without care
        (tmp_path / "made").mkdir()


def test_new_directories_are_made_durable_and_old_ones_are_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(checkpoint, "fsync_directory", synced.append)
    checkpoint.make_durably(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]
    for number, again in ((1, True), (2, False)):  # one that stands, but had no generation yet, may not be durable
        synced.clear()
        write(tmp_path / "a" / "b", number)
        assert (tmp_path / "a" in synced) == again


def test_a_failed_save_leaves_nothing_and_a_short_file_is_called_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, 1) / "weights.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"truncated at {size - 1} of {size} bytes"):
        checkpoint.read(file.parent)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(checkpoint, "write_durably", full)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{1:012d}"]


def test_the_format_on_disk_is_the_first_and_its_manifest_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, 1) / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest.pop("sha256")
    assert manifest["format"] == 1
    file.write_text(json.dumps(dict(reversed(manifest.items()))))
    with pytest.raises(InputError, match="altered"):
        checkpoint.read(file.parent)
    file.write_text(json.dumps(manifest))
    assert checkpoint.read(file.parent).state["position"] == 1
