"""Every goal of the fault suite in turn, with its negative controls, and the table in results/faults.md.

    python faults/all.py [--only A1 B3 ...] [--trials-share 0.1] [--list]

Each goal is tried in a process of its own, one a core at a time. What was found of a goal is kept in
results/faults/ID.json, with the machine and the revision, and the table is made from these files; a goal that has none
stands there as not run. With a share below 1 nothing is kept. Exit status 4 where a goal missed its bar or a control
was not caught.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from faults import (  # noqa: E402  after the path, so that the file runs as a script
    accounts,
    bombs,
    calls,
    checkpoints,
    files,
    folders,
    gradients,
    kills,
    laws,
    leaks,
    limits,
    loader_threads,
    loading,
    mutants,
    mutated,
    nonfinite,
    parity,
    pictures,
    processes,
    repeats,
    reports,
    scenes,
    wheel,
)
from faults.goal import Control, Goal, Outcome  # noqa: E402
from layerwise import hardware  # noqa: E402

GOALS: tuple[Goal, ...] = (
    *kills.GOALS, *limits.GOALS, *loader_threads.GOALS, *repeats.GOALS,
    *checkpoints.GOALS, *calls.GOALS, *nonfinite.GOALS,
    *pictures.GOALS, *accounts.GOALS, *bombs.GOALS, *scenes.GOALS, *folders.GOALS, *leaks.GOALS,
    *loading.GOALS, *mutated.GOALS, *files.GOALS, *reports.GOALS, *wheel.GOALS,
    *processes.GOALS,
    *gradients.GOALS, *parity.GOALS, *laws.GOALS, *mutants.GOALS,
)
RESULTS = ROOT / "results" / "faults"
TABLE = ROOT / "results" / "faults.md"
LONGEST = 500  # letters of a row's notes


@dataclass(frozen=True)
class Row:
    """A goal's line of the table; `controls` are name and whether it was caught.

    `seconds` are the clock's, on a machine that may have been busy; `processor` are those it had of the processor, with
    all processes that it started (0: not known).
    """

    id: str
    title: str
    bar: str
    trials: int
    violations: list[str]
    controls: list[tuple[str, bool]]
    seconds: float
    notes: str
    met: bool
    machine: str
    revision: str
    when: str
    processor: float = 0.0


def attempted(goal: Goal, share: float = 1.0) -> Row:
    """Tries a goal and its controls. An exception of an attempt is a violation, told with its last lines."""
    started = time.monotonic()
    outcome = _safely(lambda folder: goal.attempt(max(1, round(goal.trials * share)), folder))
    caught = [(control.name, bool(_controlled(control).violations)) for control in goal.controls]
    return judged(goal, outcome, caught, time.monotonic() - started)


def judged(goal: Goal, outcome: Outcome, caught: list[tuple[str, bool]], seconds: float) -> Row:
    """What came of a goal, by its bar; one of which nothing was tried doesn't meet it."""
    met = outcome.trials > 0 and len(outcome.violations) <= goal.allowed and all(found for _, found in caught)
    return Row(goal.id, goal.title, goal.bar, outcome.trials, list(outcome.violations), caught, round(seconds, 1),
               outcome.notes, met, hardware.machine(), hardware.versions()["code"],
               datetime.now(UTC).strftime("%Y-%m-%d"))


@contextmanager
def place() -> Iterator[Path]:
    """A folder for an attempt, in memory where the system has one: a killed process loses nothing that it wrote.

    What a machine loses with its power is goal A2's. An fsync of a disk costs more than all else of a small training.
    """
    memory = Path("/dev/shm")
    fits = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
    with tempfile.TemporaryDirectory(prefix="layerwise-faults-", dir=memory if fits else None,
                                     ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _safely(attempt: Callable[[Path], Outcome]) -> Outcome:
    with place() as folder:
        try:
            return attempt(folder)
        except Exception:
            return Outcome(0, (traceback.format_exc(limit=-3),), "the attempt itself failed")


def _controlled(control: Control) -> Outcome:
    """A control that fails as a program is not caught: it must have run and found something."""
    found = _safely(control.attempt)
    return found if found.trials else Outcome(0)


def apart(goal: Goal, share: float) -> Row:
    """Tries a goal in a process of its own, whose end is the end of no other goal."""
    command = [sys.executable, __file__, "--only", goal.id, "--trials-share", str(share), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}) as child:
        assert child.stdout is not None
        told = child.stdout.read().splitlines()[-1:]
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode or not told:
        return judged(goal, Outcome(0, (f"its process ended with {child.returncode}",)), [], 0.0)
    return replace(row_of(json.loads(told[0])), processor=round(used.ru_utime + used.ru_stime, 1))


def rows_of(goals: Sequence[Goal], share: float) -> Iterator[Row]:
    """Each goal's row when it is there; those are begun first that took longest the last time."""
    before = {row.id: row.seconds for row in kept()}
    longest = sorted(goals, key=lambda goal: -before.get(goal.id, math.inf))
    pool = ThreadPoolExecutor(hardware.cores())
    try:
        for done in as_completed([pool.submit(apart, goal, share) for goal in longest]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)  # interrupted, it begins no other goal


def line(row: Row) -> str:
    """A row in words."""
    controls = ", ".join(f"{name}: {'caught' if caught else 'NOT CAUGHT'}" for name, caught in row.controls)
    return (f"{row.id}  {row.title}: {row.trials:,} trials, {len(row.violations)} violations, {took(row)},"
            f" {'met' if row.met else 'NOT MET'}" + (f"; {controls}" if controls else ""))


def took(row: Row) -> str:
    """How long it took."""
    return f"{row.seconds:.0f} s" + (f" (processor {row.processor:.0f} s)" if row.processor else "")


def table(rows: Sequence[Row]) -> str:
    """The page results/faults.md."""
    text = ["# Faults", "", "Made by `make faults`; each row is one whole run of its goal, from `results/faults/`.", "",
            "| goal | what | trials | violations | time | bar | controls | revision | notes |",
            "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        controls = "; ".join(f"{name}: {'caught' if caught else '**not caught**'}" for name, caught in row.controls)
        bar = f"{row.bar}: {'met' if row.met else '**not met**'}"
        cells = (row.id, row.title, f"{row.trials:,}", str(len(row.violations)), took(row), bar,
                 controls or "-", row.revision, noted(row))
        text.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    told = {row.id for row in rows}
    text += [f"| {goal.id} | {goal.title} | - | - | - | {goal.bar}: not run | - | - | {goal.needs() or '-'} |"
             for goal in GOALS if goal.id not in told]
    machines = sorted({f"{row.machine} ({row.when})" for row in rows})
    return "\n".join([*text, "", f"Machines: {'; '.join(machines) or '-'}.", ""])


def noted(row: Row) -> str:
    """A row's notes, as much as a table's cell can hold; the whole is in the row's file."""
    parts = row.notes.split("; ")
    while len("; ".join(parts)) > LONGEST and len(parts) > 1:
        parts.pop()
    rest = "" if "; ".join(parts) == row.notes else f"; more in results/faults/{row.id}.json"
    return ("; ".join(parts) or "-") + rest


def kept() -> list[Row]:
    """The rows on disk, in the order of `GOALS`."""
    files = {path.stem: path for path in RESULTS.glob("*.json")}
    return [row_of(json.loads(files[goal.id].read_text("utf-8"))) for goal in GOALS if goal.id in files]


def row_of(record: dict[str, Any]) -> Row:
    """A row from its JSON."""
    return Row(**record | {"controls": [tuple(one) for one in record["controls"]]})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the goals; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="GOAL", default=[], help="these goals, by their letters")
    parser.add_argument("--trials-share", type=float, default=1.0, help="this part of each goal's trials")
    parser.add_argument("--json", action="store_true", help="try in this process, print the rows as JSON, keep nothing")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    options = parser.parse_args(arguments)
    names = [goal.id for goal in GOALS]
    if unknown := sorted(set(options.only) - set(names)):
        parser.error(f"--only: no such goal: {', '.join(unknown)}; they are {', '.join(names)}")
    goals = [goal for goal in GOALS if not options.only or goal.id in options.only]
    if options.list:
        print("\n".join(f"{goal.id}  {goal.title}: {goal.trials:,} trials; {goal.bar}" for goal in goals))
        return 0
    if options.json:
        print("\n".join(json.dumps(asdict(attempted(goal, options.trials_share))) for goal in goals))
        return 0
    for goal in goals:
        if why := goal.needs():
            print(f"{goal.id}  {goal.title}: left out: {why}", flush=True)
    started, rows = time.monotonic(), list[Row]()
    try:
        for row in rows_of([goal for goal in goals if not goal.needs()], options.trials_share):
            rows.append(row)
            print("\n    ".join([line(row), *(one.strip() for one in row.violations[:10])]), flush=True)
    finally:  # not sooner: with its results written the tree would be another, and a trial that asks git would tell
        if options.trials_share >= 1:
            keep(rows)
    if len(rows) > 1:
        print(f"{len(rows)} goals in {(time.monotonic() - started) / 60:.0f} minutes")
    return 4 if any(not row.met for row in rows) else 0


def keep(rows: Sequence[Row]) -> None:
    """Writes what was found of some goals, and the table of all."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (RESULTS / f"{row.id}.json").write_text(json.dumps(asdict(row), indent=1) + "\n", "utf-8")
    TABLE.write_text(table(kept()), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
