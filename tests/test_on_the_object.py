"""benchmarks/on_the_object.py: what it counts, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import on_the_object
from benchmarks.on_the_object import BOXES, SIDE, hits, inside, lift, middle, table

QUARTER = ((0, 0, 112, 112),)


def spot(row: int, column: int) -> np.ndarray:
    found = np.zeros((SIDE, SIDE))
    found[row, column] = 3.0
    return found


def test_lift_and_hits_by_hand() -> None:
    assert lift(np.ones((SIDE, SIDE)), QUARTER) == pytest.approx(1.0)  # a map that says nothing
    assert lift(spot(0, 0), QUARTER) == pytest.approx(4.0)  # all of it on a quarter of the picture
    assert lift(spot(112, 0), QUARTER) == 0.0
    assert lift(spot(0, 0) + spot(200, 200), QUARTER) == pytest.approx(2.0)
    assert lift(np.zeros((SIDE, SIDE)), QUARTER) == 0.0
    assert hits(spot(111, 111), QUARTER)
    assert not hits(spot(111, 112), QUARTER)
    assert inside((*QUARTER, (0, 0, 224, 56))).mean() == pytest.approx(0.25 + 0.125)  # overlaps count once


def test_the_table_by_hand() -> None:
    boxes = {"a": QUARTER, "b": ((112, 112, 224, 224),)}
    rows = table({"good": {"a": spot(5, 5), "b": spot(200, 200)}, "bad": {"a": spot(200, 5), "b": spot(5, 5)}}, boxes)
    assert rows["good"] == {"lift": 4.0, "lowest": 4.0, "elsewhere": 0.0, "on the object": 1.0, "hits": 1.0}
    assert rows["bad"] == {"lift": 0.0, "lowest": 0.0, "elsewhere": 2.0, "on the object": 0.0, "hits": 0.0}


def test_the_boxes_leave_room_to_be_wrong() -> None:
    for name, boxes in BOXES.items():
        assert all(0 <= top < bottom <= SIDE and 0 <= left < right <= SIDE for top, left, bottom, right in boxes), name
        assert 0.05 < inside(boxes).mean() < 0.55, name
    assert 1 < np.mean([lift(middle(), boxes) for boxes in BOXES.values()]) < 1.5  # what knows nothing of the picture


def test_a_folder_without_the_photographs_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no imagenet_00_243"):
        on_the_object.main([str(tmp_path / "weights.pth"), str(tmp_path)])
