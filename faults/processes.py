"""Losing a process: goals F1 to F4, and A5, the same bits on any number of processes, changed in mid-epoch.

Real processes under the launcher of `layerwise train --processes N`, harmed by real signals at drawn instants; the
oracle is equality of bytes with a run that nothing happened to (launch_server.py runs them).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.forked import server
from faults.goal import Control, Goal, Outcome
from layerwise.jobs.launch import activity

# Three batches of 48 and one of 3, which leaves a process without a picture; two epochs, eight steps.
STEPS = 8
PLAIN = ("network=lenet5", "resize=squash", "input_size=32", "threads=1", "precision=fp32", "unit=epochs", "duration=2",
         "evaluate_every=2", "schedule=constant", "warmup=none", "warmup_length=0", "batch_size=48", "validation=1291",
         "mixup=0.2", "ema=0.9", "checkpoint_seconds=0.001")
EXACT = (*PLAIN[3:], "network=resnet20", "virtual_workers=4", "crop=resized", "pad=0")
DETECTED = 10.0  # seconds from a SIGSTOP to the new start
ORPHANED = 5.0  # seconds that a process may outlive its launcher

Harm = tuple[int, int, float, str, str]  # rank, step, seconds into the step, signal, "process" or "launcher"


def launched(folder: Path, size: int, words: Sequence[str], settings: Sequence[str],
             **more: Any) -> tuple[int, list[int]]:
    """Exit status of a launcher, and the ids of all processes that it started."""
    folder.mkdir(exist_ok=True)
    status = server("launch_server").do({"folder": str(folder), "size": size, "words": words, "settings": settings,
                                         "harms": [], "control": "", "threads": 1} | more)
    return status, [int(path.read_text()) for path in folder.glob("pid-*")]


def digest(run: Path) -> str:
    """Of everything that must be the same: model, metrics, and every file of the last checkpoint."""
    last = max((run / "checkpoints").glob("[0-9]*"))
    total = hashlib.sha256()
    for file in (run / "model.safetensors", run / "metrics.jsonl", *sorted(last.iterdir())):
        total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Told:
    """What a run that nothing happened to came to: its digest, and the pictures of each step."""

    digest: str
    ledger: dict[int, list[int]]


def ledger(folders: Sequence[Path]) -> tuple[dict[int, list[int]], list[str]]:
    """The pictures of each step in the order of the processes, and which process saw a step twice."""
    found: dict[tuple[int, int], list[int]] = {}
    twice = []
    for folder in folders:
        for line in (folder / "ledger.jsonl").read_text().splitlines():
            step, rank, rows = json.loads(line)
            twice += [f"step {step} of process {rank} came twice"] if (step, rank) in found else []
            found[step, rank] = rows
    steps: dict[int, list[int]] = {}
    for step, rank in sorted(found):
        steps.setdefault(step, []).extend(found[step, rank])
    return steps, twice


@functools.cache
def unharmed(settings: tuple[str, ...], size: int) -> Told:
    """The run that the others are compared with."""
    with tempfile.TemporaryDirectory(prefix="layerwise-faults-") as place:
        folder = Path(place) / "logs"
        status, _ = launched(folder, size, ["train", f"{place}/run"], settings)
        assert status == 0, (folder / "said-0.txt").read_text()
        return Told(digest(Path(place) / "run"), ledger([folder])[0])


def said(folder: Path) -> str:
    """The last line of the launcher and of the first process, for a violation."""
    texts = [(folder / name).read_text().strip() for name in ("launcher.txt", "said-0.txt") if (folder / name).exists()]
    return " / ".join(text.splitlines()[-1] for text in texts if text)


def compared(folder: Path, run: Path, status: int, settings: tuple[str, ...], size: int) -> list[str]:
    """What differs from the run that nothing happened to."""
    if status != 0:
        return [f"{folder.name}: ended with status {status}: {said(folder)}"]
    return [] if digest(run) == unharmed(settings, size).digest else [f"{folder.name}: other bytes in the end"]


def drawn(number: int, count: int, ranks: Sequence[int], name: str) -> list[Harm]:
    """`count` harms at drawn steps, one a step, each a drawn moment into it."""
    chance = random.Random(number)
    steps = sorted(chance.sample(range(STEPS - 1), count))
    return [(rank, step, chance.uniform(0.0001, 0.02), name, "process")
            for rank, step in zip(chance.sample([*ranks], count), steps, strict=True)]


def starts(folder: Path) -> list[float]:
    """When each attempt began."""
    return [float((folder / f"start-{number + 1}").read_text()) for number in range(len(list(folder.glob("start-*"))))]


def _harmed(folder: Path) -> set[int]:
    """The attempts in which a harm was done."""
    begun = starts(folder)
    return {sum(one < float(mark.read_text()) for one in begun) for mark in folder.glob("harm-*")}


def kills(trials: int, folder: Path, control: str = "") -> Outcome:
    """F1: `trials` SIGKILLs, as many of process 0 as of process 1, up to six in a run."""
    victims = [trial % 2 for trial in range(trials)]
    violations, needless = [], 0
    for number, first in enumerate(range(0, trials, 6)):
        own = victims[first:first + 6]
        place, run = folder / f"kills-{number}", folder / f"run-{number}"
        status, _ = launched(place, 2, ["train", str(run)], PLAIN, control=control,
                                 harms=drawn(number, len(own), own, "SIGKILL"))
        violations += compared(place, run, status, PLAIN, 2)
        struck = len(list(place.glob("harm-*")))
        needless += len(starts(place)) - 1 - len(_harmed(place))
        if struck != len(own):
            violations.append(f"{place.name}: {struck} of {len(own)} kills took place")
    if needless:
        violations.append(f"{needless} needless restarts")
    return Outcome(trials, tuple(violations), f"{needless} needless restarts")


def freezes(trials: int, folder: Path, control: str = "") -> Outcome:
    """F2: `trials` SIGSTOPs of a process, up to five in a run; each is found in time."""
    violations, waited = [], []
    for number, first in enumerate(range(0, trials, 5)):
        count = min(5, trials - first)
        place, run = folder / f"freezes-{number}", folder / f"run-{number}"
        watch = _watched(place) if control else None
        status, _ = launched(place, 2, ["train", str(run)], PLAIN, control=control,
                                 harms=drawn(100 + number, count, [trial % 2 for trial in range(count)], "SIGSTOP"))
        if watch is not None:
            watch.wait()
        violations += compared(place, run, status, PLAIN, 2)
        begun = starts(place)
        for mark in place.glob("harm-*"):
            struck = float(mark.read_text())
            found = next((one - struck for one in begun if one > struck), float("inf"))
            waited.append(found)
            if found > DETECTED:
                violations.append(f"{place.name}: found after {found:.1f} s")
    return Outcome(trials, tuple(violations), f"longest {max(waited, default=0):.1f} s from signal to new start")


def _watched(place: Path) -> subprocess.Popen[bytes]:
    """Ends every process of a trial in which nobody else does, after the time in which a freeze must be found."""
    script = f"""
import contextlib, os, signal, time
from pathlib import Path
place = Path({str(place)!r})
while not list(place.glob("harm-*")):
    time.sleep(0.05)
time.sleep({DETECTED})
for path in place.glob("pid-*"):
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(path.read_text()), signal.SIGKILL)
"""
    return subprocess.Popen([sys.executable, "-c", script])


def launchers(trials: int, folder: Path, control: str = "") -> Outcome:
    """F3: `trials` SIGKILLs of the launcher; nobody outlives it, and the same command goes on to the same bytes."""
    violations, longest = [], 0.0
    for trial in range(trials):
        chance = random.Random(200 + trial)
        place, run = folder / f"launcher-{trial}", folder / f"run-{trial}"
        begin: Harm = (0, 1, 0.0, "SIGTERM", "process")  # a run to resume: stopped behind its second step
        harm: Harm = (chance.randrange(2), chance.randrange(2, STEPS), chance.uniform(0, 0.02), "SIGKILL", "launcher")
        launched(place, 2, ["train", str(run)], PLAIN, harms=[begin])
        (place / "harm-0").unlink()
        status, pids = launched(place, 2, ["resume", str(run)], PLAIN, harms=[harm], control=control)
        killed = time.monotonic()
        if status != -signal.SIGKILL:
            violations.append(f"{place.name}: the launcher ended with status {status}: {said(place)}")
        left = _left(pids)
        while left and time.monotonic() - killed < ORPHANED:
            time.sleep(0.02)
            left = _left(pids)
        longest = max(longest, time.monotonic() - killed)
        violations += [f"{place.name}: process {pid} outlived it by {ORPHANED:g} s" for pid in left]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        status, _ = launched(place, 2, ["resume", str(run)], PLAIN, harms=[harm])
        violations += compared(place, run, status, PLAIN, 2)
    return Outcome(trials, tuple(violations), "the command is layerwise resume RUN; last process gone after "
                                              f"{longest:.2f} s")


def _left(pids: Sequence[int]) -> list[int]:
    """Those that still run; one that ended and waits for its parent does not."""
    return [pid for pid in pids if activity(pid)[0] not in "Z?"]


def changing(number: int, folder: Path, sizes: Sequence[int], control: str = "") -> list[str]:
    """One run on `sizes` processes in turn, changed at drawn steps, each time with other threads of the loader."""
    chance = random.Random(number)
    stops = sorted(chance.sample(range(STEPS - 1), len(sizes) - 1))
    run, places = folder / f"run-{number}", []
    violations = []
    for turn, size in enumerate(sizes):
        places.append(folder / f"change-{number}-{turn}")
        harms: list[Harm] = [(chance.randrange(size), step, 0.0, "SIGTERM", "process") for step in stops[turn:turn + 1]]
        status, _ = launched(places[-1], size, ["resume" if turn else "train", str(run)], EXACT, harms=harms,
                                 control=control, threads=chance.randint(1, 3))
        if status != (143 if harms else 0):
            return [f"{places[-1].name}: status {status}: {said(places[-1])}"]
    steps, twice = ledger(places)
    violations += twice
    if steps != unharmed(EXACT, 1).ledger:
        violations.append(f"change-{number}: other pictures, or in another order")
    return violations + compared(places[-1], run, 0, EXACT, 1)


def shrinking(trials: int, folder: Path, control: str = "") -> Outcome:
    """F4: 2 processes, then 1, then 2 again, changed at drawn steps."""
    violations = [text for trial in range(trials) for text in changing(300 + trial, folder, (2, 1, 2), control)]
    return Outcome(trials, tuple(violations), "virtual_workers=4; both changes at drawn steps of eight")


def elastic(trials: int, folder: Path, control: str = "") -> Outcome:
    """A5: `trials` changes of the number of processes (1, 2, 4) and of the loader's threads (1 to 3), five in a run."""
    violations = []
    for number, first in enumerate(range(0, trials, 5)):
        chance = random.Random(400 + number)
        sizes = [chance.choice((1, 2, 4)) for _ in range(min(5, trials - first) + 1)]
        violations += changing(400 + number, folder, sizes, control)
    return Outcome(trials, tuple(violations), "the loader has threads, here 1 to 3, where the goal says workers")


GOALS = (
    Goal("F1", "a process is killed", "identical, 0 needless restarts", 30, 2, kills, (
        Control("a process's order changed", lambda folder: kills(1, folder, "order")),
        Control("a generator not restored", lambda folder: kills(1, folder, "generator")))),
    Goal("F2", "a process is frozen", "found in 10 s, identical", 10, 1, freezes, (
        Control("silence is not missed", lambda folder: freezes(1, folder, "silence")),)),
    Goal("F3", "the launcher is killed", "no orphan after 5 s, the same command ends identical", 10, 1, launchers, (
        Control("a process does not look for its launcher", lambda folder: launchers(1, folder, "outlive")),)),
    Goal("F4", "2, 1 and 2 processes in mid-epoch", "ledger exact, identical to the bit", 10, 1, shrinking, (
        Control("sums in the order of the processes", lambda folder: shrinking(1, folder, "sum")),)),
    Goal("A5", "any number of processes and threads", "identical to the bit", 50, 2, elastic, (
        Control("sums in the order of the processes", lambda folder: elastic(2, folder, "sum")),)),
)
