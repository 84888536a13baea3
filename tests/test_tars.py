"""Tars that are read in place: members by their offsets, tars of tars, archives that are not whole."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from layerwise.data import tars
from layerwise.data.pieces import Slice
from layerwise.data.tars import members
from layerwise.errors import InputError
from tests.test_imagenet import nested, put, tar, training

SECOND = 512 + 1024  # where the header of the second file lies


def test_members_of_tars_of_tars_by_their_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(tmp_path, {"ILSVRC2012_img_train.tar": nested()}) / "ILSVRC2012_img_train.tar"
    os.utime(file, (1e9, 1e9))
    monkeypatch.setattr("layerwise.data.shards.RECENT_NS", -1)
    found = members(file)
    inside = {f"{synset}.tar/{name}": data for synset, files in training().items() for name, data in files.items()}
    assert {one.name: Slice(str(file), one.offset, one.size, one.name).read_bytes() for one in found} == inside

    def never(*arguments: object) -> None:
        raise AssertionError("the archive was read again")

    with monkeypatch.context() as patch:
        patch.setattr(tars, "_walk", never)
        assert members(file) == found
        os.utime(file, (2e9, 2e9))
        with pytest.raises(AssertionError, match="read again"):
            members(file)


@pytest.mark.parametrize("damage", ["cut", "rubbish", "compressed", "absent"])
def test_archives_that_are_not_whole(tmp_path: Path, damage: str) -> None:
    whole = nested()
    data = {"cut": whole[: len(whole) * 2 // 3], "rubbish": b"x" * 5000, "compressed": gzip.compress(whole)}.get(damage)
    if data:
        put(tmp_path, {"a.tar": data})
    with pytest.raises(InputError, match="can't be read" if damage == "absent" else "not a whole, uncompressed tar"):
        members(tmp_path / "a.tar")


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("damage", ["checksum", "cut", ""])
def test_a_header_that_is_no_header_is_not_the_end(tmp_path: Path, damage: str, inside: bool) -> None:
    """tarfile ends there without a word: the pictures behind it would be missing, and be remembered as missing."""
    whole = tar({f"{name}.jpg": name.encode() * 700 for name in "abc"})
    data = bytearray(whole[:SECOND] if damage == "cut" else whole)
    if damage == "checksum":
        data[SECOND + 148] ^= 1
    found = tar({"first.tar": bytes(data), "second.tar": whole}) if inside else bytes(data)
    file = put(tmp_path, {"a.tar": found}) / "a.tar"
    if not damage:
        assert len(members(file)) == (6 if inside else 3)  # the control
        return
    with pytest.raises(InputError, match=r"not a whole, uncompressed tar: at byte .* neither a header nor") as caught:
        members(file)
    assert f"at byte {SECOND + 512 * inside:,} " in str(caught.value)
