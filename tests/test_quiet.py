"""benchmarks/quiet.py: what counts as elsewhere, and that only it decides what is measured again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import quiet

# user nice system idle iowait irq softirq steal guest guest_nice, in hundredths of a second
BEFORE = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 10 20 5000 7 3 2 40 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 1 2 3\n"
AFTER = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 180 10 30 5100 9 3 2 50 0 0\ncpu1 99 0 0 0 0 0 0 0 0 0\nintr 4 5 6\n"


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One core, and a clock that goes on by two seconds each time that it is read."""
    stat, clock = tmp_path / "stat", iter(range(0, 100, 2))
    monkeypatch.setattr(quiet, "STAT", stat)
    monkeypatch.setattr(quiet.os, "sched_getaffinity", lambda process: {0}, raising=False)
    monkeypatch.setattr(quiet.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(quiet.time, "perf_counter", lambda: next(clock))
    stat.write_text(BEFORE)
    return stat


@pytest.mark.parametrize(("own", "share"), [(0.8, 0.1), (0.0, 0.5), (1.0, 0.0), (2.0, 0.0)])
def test_the_share_of_others_and_of_other_machines(watched: Path, own: float, share: float) -> None:
    """0.8 s of programs, 0.1 s of the system and 0.1 s stolen in two seconds of a core; waiting and idling is none."""
    used = iter((5.0, 5.0 + own))
    watch = quiet.Watch(lambda: next(used))
    watched.write_text(AFTER)
    assert watch.spent() == pytest.approx((2.0, own, share))


def test_it_is_not_known_where_the_kernel_does_not_tell(watched: Path) -> None:
    watched.unlink()
    *_, share = quiet.Watch().spent()
    assert math.isnan(share)
    assert quiet.most_of([0.1, share]) is None
    assert quiet.in_words(None) == "what went elsewhere is not known"
    assert quiet.quietest(lambda: share, lambda one: one, 3) is share  # nothing is gained by trying again


@pytest.mark.parametrize(("shares", "tries", "kept", "asked"), [
    ([0.05, 0.0], 5, 0, 1),  # good enough at once
    ([0.3, 0.2, 0.04, 0.0], 5, 2, 3),
    ([0.3, 0.1, 0.2], 3, 1, 3),  # the least of all that may be tried
    ([0.3, 0.0], 1, 0, 1),
])
def test_it_is_tried_again_until_the_cores_are_ours(
    shares: list[float], tries: int, kept: int, asked: int
) -> None:
    """Whatever comes out: here the results fall as the tries go on, and rise."""
    for results in (range(9), range(9, 0, -1)):
        measured = iter(zip(results, shares, strict=False))
        found = quiet.quietest(lambda measured=measured: next(measured),  # type: ignore[misc]
                               lambda one: one[1], tries)
        assert found == (results[kept], shares[kept])
        assert len(list(measured)) == len(shares) - asked


def test_the_most_of_several() -> None:
    assert quiet.in_words(quiet.most_of([0.01, 0.123, 0.0])) == "at most 12 % of the cores elsewhere"
