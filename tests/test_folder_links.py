"""Symbolic links in a folder of pictures: those that lead to themselves are named, the others are followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerwise.cli import main
from layerwise.data import DataOptions, open_data
from tests.test_data import fails, splits


def test_a_link_that_leads_to_itself_is_named_and_stops_nothing_else(tmp_path: Path,
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    root = splits(tmp_path)
    for name in ("train/again", "train/.hidden", "train/cat/.hidden", "train/cat/notes"):  # no picture by their names
        os.symlink(Path(name).name, root / name)
    os.symlink("0.png", root / "train/cat/copy.png")
    assert len(open_data(str(root), DataOptions()).train) == 7  # the control: another link is a picture
    os.symlink("loop.jpg", root / "train/cat/loop.jpg")
    assert "train/cat/loop.jpg' can't be read: Too many levels" in fails(root, "1 of 20 pictures in .* can't be opened")
    assert main(["check", str(root)]) == 2
    assert "train/cat/loop.jpg' can't be read" in capsys.readouterr().out
    assert len(open_data(str(root), DataOptions(bad_images="skip")).train) == 7
