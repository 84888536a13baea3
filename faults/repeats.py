"""E5: the same run again, in other surroundings: hash seed, locale, time zone, folder, threads, neighbours, file order.

Every run is at the same time as another, of another hash seed; which of the two starts first is drawn, and so is the
order in which the pictures' files were written.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from faults.forked import Server, server, serving
from faults.goal import Control, Goal, Outcome
from faults.jobs import Job, differing, digests, write_pictures

SETTINGS = ("network=smallest", "channels=1", "input_size=8", "batch_size=12", "duration=3", "evaluate_every=1",
            "checkpoint_seconds=3600", "validation=0", "learning_rate=0.1", "warmup_length=1.0", "resize=squash",
            "precision=fp32", "ema=0.9", "mixup=0.4", "select=best")
ZONES = ("UTC", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu", "<-12>12")
EACH = 10  # runs of a hash seed


def locales() -> list[str]:
    """The locales of this machine; C and C.UTF-8 are everywhere."""
    try:
        told = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False, timeout=10).stdout.split()
    except OSError:
        told = []
    return told or ["C", "C.UTF-8"]


def repeats(trials: int, folder: Path, guard: str = "") -> Outcome:
    """Runs in pairs, one by this process' fork server and one by another with a hash seed of its own."""
    numbers, known, violations, done, seeds = random.Random(5), locales(), list[str](), 0, 0
    whole: dict[str, str] = {}
    while done < trials:
        seeds += 1
        with serving({"PYTHONHASHSEED": str(numbers.randrange(2**32))}) as other:
            for _ in range(min(EACH, (trials - done + 1) // 2)):
                shutil.rmtree(folder / "data", ignore_errors=True)
                data = write_pictures(folder / "data", equal=False, order=numbers)
                pair = [server(), other]
                numbers.shuffle(pair)
                runs = []
                for one in pair:
                    runs.append(folder / f"run-{done}")
                    job = Job("train", str(runs[-1]), (f"data={data}", *SETTINGS), guard=guard)
                    _start(one, job, numbers, known)
                    done += 1
                for one, run in zip(pair, runs, strict=True):
                    code = one.wait()
                    whole = whole or digests(run)
                    violations += [f"{run.name}: {name} differs (exit code {code})"
                                   for name in differing(run, whole)]
                    shutil.rmtree(run)
    return Outcome(done, tuple(violations), f"{seeds + 1} hash seeds, {len(known)} locales, {len(ZONES)} time zones, "
                   "1 to 4 threads, pairs at the same time, files written in another order")


def _start(one: Server, job: Job, numbers: random.Random, known: list[str]) -> None:
    """Starts a job in surroundings that are drawn."""
    place = Path(job.run).with_name(f"here-{numbers.randrange(10**9)}")
    place.mkdir()
    surroundings = {"LC_ALL": numbers.choice(known), "TZ": numbers.choice(ZONES)}
    one.start(replace(job, environment=surroundings, folder=str(place), workers=numbers.randint(1, 4),
                      versions={"code": "one"}))  # two servers may have asked git before and after a file was saved


GOALS = (
    Goal("E5", "fifty identical runs", "every byte of every run is the same", 50, 4, repeats,
         (Control("a seed that depends on Python's hashes", lambda folder: repeats(2, folder, "hashes")),)),
)
