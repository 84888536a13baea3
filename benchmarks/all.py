"""All benchmarks in turn, each in a fresh process, and at the end one table: benchmark, ratio, limit, ok or not.

    python benchmarks/all.py [--only training startup ...] [--minutes 20]

What a benchmark prints is passed through as it comes. One that misses its limit, fails or takes too long does not stop
the others. A benchmark tells its rows of the table with lines of the form

    summary: WHAT | RATIO | LIMIT | ok

where anything but "ok" at the end (or "left out: REASON") counts as missed; for one that prints none its exit status
decides, and the ratio is the last that it printed. Exit status 4 where anything was missed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MINUTES = 20.0


@dataclass(frozen=True)
class Run:
    """A benchmark's file, its arguments, and the seconds that it may take."""

    file: str
    arguments: tuple[str, ...]
    seconds: float


# The seconds are bounds, longer than two quiet cores should need; whatever they take, all end with the 20 minutes.
# training.py comes last: it tells each network as it is done, so what a slow machine leaves no time for is one of them.
RUNS = (
    Run("startup.py", ("--rounds", "3"), 90),
    Run("loop.py", ("--steps", "12", "--rounds", "3"), 150),
    Run("memory.py", ("--networks", "resnet50"), 360),  # 310 where the processor has no bf16
    Run("folder_memory.py", (), 180),
    Run("loading.py", ("--rounds", "3", "--pictures", "128"), 150),
    Run("exact.py", ("--networks", "lenet5", "resnet20", "--rounds", "3"), 90),
    Run("models.py", ("--rounds", "3", "--batch", "2"), 240),
    Run("explain.py", (), 260),  # 180 are its limit, and it trains a network first
    Run("seconds.py", ("--seeds", "0", "--steps", "1"), 420),
    Run("training.py", ("--rounds", "2", "--seconds", "1"), 600),
)
NO_BENCHMARKS = ("all.py", "peaks.py", "quiet.py", "transcriptions.py")
ABSENT = "needs weights and photographs that are not in this repository"
LEFT_OUT = {"gpu.py": "for a machine with a GPU, by itself", "photographs.py": ABSENT, "on_the_object.py": ABSENT}


@dataclass(frozen=True)
class Row:
    """A line of the table. `verdict` is "ok", "not", or says why there is none."""

    what: str
    ratio: str
    limit: str
    verdict: str

    @property
    def missed(self) -> bool:
        """Whether it ends the whole with 4: what was left out for a reason does not."""
        return self.verdict != "ok" and not self.verdict.startswith("left out")


def rows_of(name: str, lines: Sequence[str], status: int, late: bool) -> list[Row]:
    """The rows of a benchmark that printed `lines` and ended with `status`; `late`: it was stopped."""
    rows = [Row(*(part.strip() for part in line.removeprefix("summary:").split("|")))
            for line in lines if line.startswith("summary:") and line.count("|") == 3]
    if late:
        return [*rows, Row(name, "-", "-", "not: it took too long and was stopped")]
    if status not in (0, 4):
        return [*rows, Row(name, "-", "-", f"not: it failed with status {status}")]
    if rows:  # a miss that no row tells is still a miss
        told = status == 0 or any(row.missed for row in rows)
        return rows if told else [*rows, Row(name, "-", "-", "not")]
    ratios = re.findall(r"ratio\D{0,20}(\d+(?:\.\d+)?)", "\n".join(lines))
    return [Row(name, ratios[-1] if ratios else "-", "in its file", "not" if status else "ok")]


def carried_out(run: Run, seconds: float) -> tuple[list[str], int, bool]:
    """Runs a benchmark and passes its lines on; the lines, the status, and whether it had to be stopped."""
    words = [sys.executable, str(HERE / run.file), *run.arguments]
    late, lines = threading.Event(), []
    # A session of its own, so that the processes which it starts end with it.
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip("\n"))
            status = process.wait()
        except KeyboardInterrupt:
            stop()
            raise
        finally:
            timer.cancel()
    return lines, status, late.is_set()


def table(rows: Sequence[Row]) -> str:
    """The rows as columns."""
    cells = [("benchmark", "ratio", "limit", ""), *((row.what, row.ratio, row.limit, row.verdict) for row in rows)]
    widths = [max(len(cell[column]) for cell in cells) for column in range(3)]
    lines = ("  ".join([*(text.ljust(width) for text, width in zip(cell, widths, strict=False)), cell[3]])
             for cell in cells)
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these, by their file's name")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the longest that all may take together")
    options = parser.parse_args(arguments)
    names = [run.file.removesuffix(".py") for run in RUNS]
    if unknown := sorted(set(options.only) - set(names)):
        parser.error(f"--only: no such benchmark: {', '.join(unknown)}; they are {', '.join(names)}")
    end = time.monotonic() + 60 * options.minutes
    rows: list[Row] = []
    for run in RUNS:
        name = run.file.removesuffix(".py")
        if options.only and name not in options.only:
            continue
        started = time.monotonic()
        left = end - started
        if left < 1:
            rows.append(Row(name, "-", "-", f"not: no time was left of {options.minutes:g} minutes"))
            continue
        print(f"\n== {run.file} {' '.join(run.arguments)}", flush=True)
        lines, status, late = carried_out(run, min(run.seconds, left))
        rows += rows_of(name, lines, status, late)
        print(f"== {time.monotonic() - started:.0f} s, status {status}", flush=True)
    if not options.only:
        known = {run.file for run in RUNS} | set(NO_BENCHMARKS)
        for file in sorted(path.name for path in HERE.glob("*.py") if path.name not in known):
            rows.append(Row(file.removesuffix(".py"), "-", "-",
                            f"left out: {LEFT_OUT.get(file, 'not in the list of all.py')}"))
    print(f"\n{table(rows)}")
    return 4 if any(row.missed for row in rows) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
