"""Every goal of the fault suite in turn, with its negative controls, and the table in results/faults.md.

    python faults/all.py [--only A1 B3 ...] [--trials-share 0.1] [--list]

What was found of a goal is kept in results/faults/ID.json, with the machine and the revision, and the table is made
from these files; a goal that has none stands there as not run. With a share below 1 nothing is kept. Exit status 4
where a goal missed its bar or a control was not caught.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

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
    *gradients.GOALS, *parity.GOALS, *laws.GOALS,
)
# Goals that RELIABILITY has and nothing here tries, and why.
NOT_BUILT: dict[str, str] = {
    "E4": "mutation testing: a mutant costs the tests of its module, so 500 of them take hours of a core",
}
RESULTS = ROOT / "results" / "faults"
TABLE = ROOT / "results" / "faults.md"


@dataclass(frozen=True)
class Row:
    """A goal's line of the table; `controls` are name and whether it was caught."""

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


def attempted(goal: Goal, share: float = 1.0) -> Row:
    """Tries a goal and its controls. An exception of an attempt is a violation, told with its last lines."""
    started = time.monotonic()
    outcome = _safely(lambda folder: goal.attempt(max(1, round(goal.trials * share)), folder))
    caught = [(control.name, bool(_controlled(control).violations)) for control in goal.controls]
    versions = hardware.versions()
    return Row(
        goal.id, goal.title, goal.bar, outcome.trials, list(outcome.violations), caught,
        round(time.monotonic() - started, 1), outcome.notes,
        len(outcome.violations) <= goal.allowed and all(found for _, found in caught),
        hardware.machine(), versions["code"],
        datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def _safely(attempt: object) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="layerwise-faults-", ignore_cleanup_errors=True) as folder:
        try:
            return attempt(Path(folder))  # type: ignore[operator]
        except Exception:
            return Outcome(0, (traceback.format_exc(limit=-3),), "the attempt itself failed")


def _controlled(control: Control) -> Outcome:
    """A control that fails as a program is not caught: it must have run and found something."""
    found = _safely(control.attempt)
    return found if found.trials else Outcome(0)


def line(row: Row) -> str:
    """A row in words."""
    controls = ", ".join(f"{name}: {'caught' if caught else 'NOT CAUGHT'}" for name, caught in row.controls)
    return (f"{row.id}  {row.title}: {row.trials:,} trials, {len(row.violations)} violations, {row.seconds:.0f} s,"
            f" {'met' if row.met else 'NOT MET'}" + (f"; {controls}" if controls else ""))


def table(rows: Sequence[Row]) -> str:
    """The page results/faults.md."""
    text = ["# Faults", "", "Made by `make faults`; each row is one whole run of its goal, from `results/faults/`.", "",
            "| goal | what | trials | violations | time | bar | controls | revision | notes |",
            "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        controls = "; ".join(f"{name}: {'caught' if caught else '**not caught**'}" for name, caught in row.controls)
        bar = f"{row.bar}: {'met' if row.met else '**not met**'}"
        cells = (row.id, row.title, f"{row.trials:,}", str(len(row.violations)), f"{row.seconds:.0f} s", bar,
                 controls or "-", row.revision, row.notes or "-")
        text.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    told = {row.id for row in rows}
    text += [f"| {goal.id} | {goal.title} | - | - | - | {goal.bar}: not run | - | - | {goal.needs() or '-'} |"
             for goal in GOALS if goal.id not in told]
    text += [f"| {name} | - | - | - | - | not built | - | - | {why} |" for name, why in NOT_BUILT.items()]
    machines = sorted({f"{row.machine} ({row.when})" for row in rows})
    return "\n".join([*text, "", f"Machines: {'; '.join(machines) or '-'}.", ""])


def kept() -> list[Row]:
    """The rows on disk, in the order of `GOALS`."""
    files = {path.stem: path for path in RESULTS.glob("*.json")}
    rows = [json.loads(files[goal.id].read_text("utf-8")) for goal in GOALS if goal.id in files]
    return [Row(**row | {"controls": [tuple(one) for one in row["controls"]]}) for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the goals; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="GOAL", default=[], help="these goals, by their letters")
    parser.add_argument("--trials-share", type=float, default=1.0, help="this part of each goal's trials")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    options = parser.parse_args(arguments)
    names = [goal.id for goal in GOALS]
    if unknown := sorted(set(options.only) - set(names)):
        parser.error(f"--only: no such goal: {', '.join(unknown)}; they are {', '.join(names)}")
    missed = False
    for goal in GOALS:
        if options.only and goal.id not in options.only:
            continue
        if options.list:
            print(f"{goal.id}  {goal.title}: {goal.trials:,} trials; {goal.bar}")
            continue
        if why := goal.needs():
            print(f"{goal.id}  {goal.title}: left out: {why}", flush=True)
            continue
        row = attempted(goal, options.trials_share)
        missed |= not row.met
        print(line(row), flush=True)
        for violation in row.violations[:10]:
            print(f"    {violation.strip()}", flush=True)
        if options.trials_share >= 1:
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{goal.id}.json").write_text(json.dumps(asdict(row), indent=1) + "\n", "utf-8")
            TABLE.write_text(table(kept()), "utf-8")
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
