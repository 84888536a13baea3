"""A7: the loader's workers may die or hang.

Layerwise loads with threads, and has no worker processes. A thread can't be killed or stopped alone: SIGKILL ends the
whole process, SIGSTOP stops it. So the goal means here: a SIGKILL sent while a thread has a picture in hand, and then
a resumption; a thread that fails with whatever error; a thread that hangs, or all that take a file; and the process
stopped and continued. The run ends byte-identical by itself, or with an error that names the picture and then, resumed,
byte-identical; no stall is longer than 5 seconds, but where no thread gets an answer from a file (60 seconds).
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

from faults.forked import server
from faults.goal import Control, Goal, Outcome
from faults.jobs import LIMIT, Job, differing, digests, processor_seconds, write_pictures
from layerwise.data import loader, workers

SETTINGS = ("network=smallest", "channels=1", "input_size=8", "batch_size=12", "duration=3", "evaluate_every=1",
            "checkpoint_seconds=0.02", "validation=0", "learning_rate=0.1", "warmup_length=1.0", "resize=squash",
            "precision=fp32", "ema=0.9")
PICTURES = 150  # that are augmented in the whole run: 180, but some batches are ahead of it
SOON = (0.5, 1.0)  # seconds for the loader's STALLED and LONGEST, so that a trial costs no minute
FAILURES = ("memory", "error", "exit", "library", "thread")
KINDS = ("killed", "failed", "stopped", "killed", "hung")
HUNG = ("sleep", "sleep", "all sleep")


def within(job: Job, limit: float = LIMIT) -> int:
    """Does a job; one that has not ended after `limit` seconds is killed, which its exit code tells."""
    pid = server().start(job)
    watch = threading.Timer(limit, os.kill, (pid, signal.SIGKILL))
    watch.start()
    code = server().wait()
    watch.cancel()
    return code


def stopped(job: Job, at: float, seconds: float) -> int | None:
    """Does a job that is stopped once it had `at` seconds of the processor, and goes on later.

    None where it had ended before it could be stopped.
    """
    pid = server().start(job)
    while (had := processor_seconds(pid)) is not None and had < at:
        time.sleep(0.001)
    try:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        server().wait()
        return None
    return server().wait()


def threads(trials: int, folder: Path) -> Outcome:
    """Each trial is a run of its own with one fault in it; the kinds take turns."""
    numbers, violations, counts = random.Random(7), list[str](), dict[str, int]()
    if loader.STALLED + 2 * workers.TICK > 5:
        violations.append("a hung thread is replaced after more than 5 s")
    job = Job("train", str(folder / "whole"), (f"data={write_pictures(folder / 'data', equal=False)}", *SETTINGS),
              workers=2)
    if code := within(job):
        return Outcome(0, (f"the run without a fault: exit code {code}",))
    whole, run = digests(folder / "whole"), folder / "run"
    failures, hung = itertools.cycle(FAILURES), itertools.cycle(HUNG)
    for trial in range(trials):
        kind, picture, log = KINDS[trial % len(KINDS)], numbers.randint(1, PICTURES), folder / "log"
        faulty, expected, words = replace(job, run=str(run), log=str(log)), 0, ""
        if kind == "killed":
            code, expected = within(replace(faulty, kill=("picture made", "before", picture))), -signal.SIGKILL
        elif kind == "failed":
            code, expected = within(replace(faulty, falter=(next(failures), picture, 0))), 3
            words = "a thread failed while it made this picture"
        elif kind == "stopped":
            at = numbers.uniform(0, 0.5)
            while (ended := stopped(faulty, at, 0.3)) is None:
                at /= 2
                shutil.rmtree(run, ignore_errors=True)
            code = ended
        else:
            how, patience = next(hung), SOON if trial > len(KINDS) else None  # once with the loader's own patience
            code = within(replace(faulty, falter=(how, picture, 3600), patience=patience))
            expected, words = (3, "seconds without a picture") if how != "sleep" else (0, "")
        counts[kind] = counts.get(kind, 0) + 1
        violations += _judged(f"{kind} at {picture}", job, run, (code, expected, words), whole)
    return Outcome(trials, tuple(violations), "threads only, there are no worker processes: " + ", ".join(
        f"{count} {kind}" for kind, count in counts.items()))


def _judged(name: str, job: Job, run: Path, found: tuple[int, int, str], whole: dict[str, str]) -> list[str]:
    """What is wrong with a run that ended with an exit code where another, and words of an error, are expected."""
    code, expected, words = found
    log = run.with_name("log")
    said = log.read_text("utf-8") if log.exists() else ""
    if code != expected or words not in said:
        problems = [f"{name}: exit code {code}, expected {expected}: {said[-300:]}"]
    else:
        begun = (run / "run.json").exists()
        if code and (again := within(replace(job, action="resume" if begun else "train", run=str(run),
                                             settings=() if begun else job.settings))):
            problems = [f"{name}: resumed, exit code {again}"]
        else:
            problems = [f"{name}: {what} differs" for what in differing(run, whole)]
    log.unlink(missing_ok=True)
    shutil.rmtree(run, ignore_errors=True)
    return problems


def not_replaced(folder: Path) -> Outcome:
    """A hung thread that nobody replaces."""
    job = Job("train", str(folder / "run"), (f"data={write_pictures(folder / 'data', equal=False)}", *SETTINGS),
              workers=2, falter=("sleep", 40, 3600), patience=(1e9, 1e9))
    code = within(job, 5 + 2 * loader.STALLED)
    state = json.loads((folder / "run" / "run.json").read_text("utf-8"))["state"]
    return Outcome(1, (f"exit code {code}, the run is {state}",) if code else ())


GOALS = (
    Goal("A7", "the loader's threads may fail, hang or be stopped",
         "the run ends byte-identical, or with an error that names the picture and byte-identical once resumed", 250, 7,
         threads, (Control("hung thread not replaced", not_replaced),)),
)
