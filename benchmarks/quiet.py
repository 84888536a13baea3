"""Whether the cores were ours while something was timed, and measuring it again where they weren't.

*Elsewhere* is the share of the cores' time that other programs here and other machines on the same host took, by the
kernel's account (Linux: /proc/stat, user, system and steal), less what this process took itself. A rate by the clock
that was measured meanwhile says as much of them as of what was measured. What is measured again is chosen by that share
alone, never by what came out.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

MOST = 0.05  # elsewhere, of a measurement that is not taken again
STAT = Path("/proc/stat")
Result = TypeVar("Result")


def taken(stat: str, cores: set[int]) -> float:
    """Seconds that these cores have worked for anyone or were stolen, by the text of /proc/stat."""
    ticks = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _, _, interrupts, soft, stolen = map(int, fields[:8])
            ticks += user + nice + system + interrupts + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch:
    """Watches the cores that this process may use, from its making on; `own` tells the processor's seconds of ours."""

    def __init__(self, own: Callable[[], float] = time.process_time) -> None:
        self.own = own
        self.cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self.before = self._now()

    def _now(self) -> tuple[float, float, float]:
        total = taken(STAT.read_text("ascii"), self.cores) if STAT.is_file() else math.nan
        return time.perf_counter(), total, self.own()

    def spent(self) -> tuple[float, float, float]:
        """Seconds by the clock and of ours by the processor since then, and the share (0 to 1) that went elsewhere.

        The share is not a number where the kernel does not tell.
        """
        clock, total, own = (now - then for now, then in zip(self._now(), self.before, strict=True))
        if math.isnan(total) or not self.cores:
            return clock, own, math.nan
        return clock, own, min(1.0, max(0.0, (total - own) / (clock * len(self.cores))))


def quietest(measured: Callable[[], Result], elsewhere: Callable[[Result], float], tries: int) -> Result:
    """The first measurement with at most `MOST` elsewhere, or of `tries` the one with the least."""
    best = measured()
    for _ in range(tries - 1):
        if not elsewhere(best) > MOST:
            break
        best = min(best, measured(), key=elsewhere)
    return best


def most_of(shares: Iterable[float]) -> float | None:
    """The largest share, None where one is not known (JSON has no "not a number")."""
    known = list(shares)
    return None if any(map(math.isnan, known)) else max(known)


def in_words(most: float | None) -> str:
    """What `most_of` found, for a line of the report."""
    return "what went elsewhere is not known" if most is None else f"at most {100 * most:.0f} % of the cores elsewhere"
