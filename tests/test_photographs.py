"""benchmarks/photographs.py: what it counts; and, where the files are, EfficientNet-Lite0 on 20 photographs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import photographs

WEIGHTS, FOLDER = "LAYERWISE_LITE0_WEIGHTS", "LAYERWISE_PHOTOGRAPHS"
NAMES = ("cat", "dog", "hen")


def row(path: str, *found: str) -> dict:
    return {"path": path, "predictions": [{"class": name, "probability": 0.5} for name in found]}


def test_labels_stand_in_the_names(tmp_path: Path) -> None:
    for name in ("a_00_2.jpg", "b_1.jpeg", "c.jpg", "d_3.png"):
        (tmp_path / name).touch()
    assert photographs.labels(tmp_path) == {"a_00_2.jpg": 2, "b_1.jpeg": 1}


def test_only_the_first_answer_counts() -> None:
    expected = {"a_2.jpg": 2, "b_1.jpg": 1, "c_0.jpg": 0, "d_0.jpg": 0}
    rows = [row("x/a_2.jpg", "hen", "dog"), row("x/b_1.jpg", "hen", "dog"), row("x/c_0.jpg")]
    assert photographs.count_right(rows, expected, NAMES) == ["a_2.jpg"]
    assert photographs.count_right(rows, expected, NAMES[::-1]) == []  # the control: names in another order


def test_a_folder_without_labels_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no pictures called NAME_LABEL"):
        photographs.main([str(tmp_path / "weights.pth"), str(tmp_path)])


@pytest.mark.skipif(not (os.environ.get(WEIGHTS) and os.environ.get(FOLDER)),
                    reason=f"needs {WEIGHTS}, a file, and {FOLDER}, a folder: benchmarks/photographs.py says which")
def test_nine_tenths_of_the_photographs_are_named_right() -> None:
    assert photographs.main([os.environ[WEIGHTS], os.environ[FOLDER]]) == 0
