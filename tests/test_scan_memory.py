"""What the scan remembers of a file: never a reading that failed, nor a file that changed while others were read."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layerwise.data import ImageRules, scan
from tests.test_data import picture

SECOND = 10**9


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "cache_folder", lambda: tmp_path / "cache")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_reading_that_failed_once_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      failing: int) -> None:
    monkeypatch.setattr(scan, "RECENT_NS", 0)
    good, bad = picture(tmp_path / "good.png"), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:-20])
    opened: list[Path] = []
    whole = Path.open

    def once(self: Path, *arguments: Any, **named: Any) -> Any:
        opened.append(self)
        if self == good and opened.count(good) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return whole(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", once)
    first = scan.scan_files([good, bad], ImageRules())
    assert [opened.count(good), opened.count(bad)] == [1, 1]  # what is judged are the bytes that were hashed
    assert first[0].error == (f"{str(good)!r} can't be read: Input/output error" if failing == 1 else "")
    second = scan.scan_files([good, bad], ImageRules())
    assert second[0].error == ""
    assert second[0].facts is not None
    assert "is truncated" in second[1].error
    assert opened.count(bad) == 1  # the control: what is wrong with the bytes themselves is remembered


def test_a_file_that_changes_during_the_scan_is_looked_at_again(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: the second file changes while the first one is read, which takes a minute."""
    files = [picture(tmp_path / f"{name}.png") for name in "ab"]
    clock = [100 * SECOND]
    stamps = {str(file): [1, 0, 0] for file in files}
    monkeypatch.setattr(scan, "time", SimpleNamespace(time_ns=lambda: clock[0]))
    monkeypatch.setattr(scan, "file_stamp", lambda file: stamps[file])
    opened: list[Path] = []
    whole = scan.open_image

    def slowly(path: Path, *rest: Any) -> Any:
        opened.append(path)
        if opened == files[:1]:
            clock[0] += 60 * SECOND
            stamps[str(files[1])] = [1, clock[0] - SECOND, clock[0] - SECOND]
        return whole(path, *rest)

    monkeypatch.setattr(scan, "open_image", slowly)
    seen: list[list[Path]] = []
    for _ in range(3):
        scan.scan_files(files, ImageRules(), threads=1)
        seen.append(opened[:])
        opened.clear()
        opened.append(tmp_path)  # the first file is slow once
        clock[0] += 10 * SECOND
    assert seen == [files, [tmp_path, files[1]], [tmp_path]]  # what has not changed for long is remembered
