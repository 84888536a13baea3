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
from tests.test_imagenet import nested, put, training


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
