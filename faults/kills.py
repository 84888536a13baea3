"""A1: a thousand SIGKILLs, one result; A1c: each part of the state that a resumption leaves out is noticed.

One run is killed 25 times and more, at random instants and inside what matters most, and resumed each time; its end
must be that of the run that nobody killed, byte for byte. 40 configurations stand for all that a training can hold.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from faults.forked import server
from faults.goal import Control, Goal, Outcome
from faults.jobs import (
    Job,
    differing,
    digests,
    processor_seconds,
    until_first_generation,
    write_pictures,
)
from layerwise import checkpoint, rundir

KILLS = 25  # of a run, at least
BASE = ("network=smallest", "channels=1", "input_size=8", "batch_size=12", "duration=8", "evaluate_every=0.6",
        "checkpoint_seconds=0.02", "validation=0", "learning_rate=0.1")
CHOICES = {
    "workers": {"0": (), "1": (), "2": ()},
    "average": {"no": (), "yes": ("ema=0.9",)},
    "accumulation": {"1": (), "3": ("micro_batch=4",)},
    "precision": {"fp32": ("precision=fp32",), "bf16": ("precision=bf16",)},
    "optimiser": {"sgd": (), "adamw": ("nesterov=no", "optimiser=adamw", "learning_rate=0.01")},
    "schedule": {"cosine": ("warmup_length=1.0", "warmup=steps", "schedule=cosine"),
                 "plateau": ("warmup=none", "warmup_length=0", "schedule=plateau", "plateau_patience=0.7",
                             "plateau_drops=9", "plateau_threshold=0.01"),
                 "one-cycle": ("warmup_length=1.0",)},
    "mixup": {"no": (), "yes": ("mixup=0.4",)},
}
# Inside what a run is killed on purpose: point of fork_server.py, when, at most which call of it.
INSIDE = (("file written", "midst", 3), ("renamed", "before", 2), ("renamed", "after", 2), ("removed", "before", 1),
          ("synced", "after", 9), ("line written", "midst", 2), ("line written", "after", 2),
          ("validation", "before", 1), ("in validation", "before", 1), ("validation", "after", 1),
          ("epoch boundary", "before", 2), ("epoch boundary", "after", 2), ("rate set", "after", 3),
          ("step taken", "before", 3), ("step taken", "after", 3), ("record replaced", "before", 1),
          ("record replaced", "after", 1))
WITH_AVERAGE = (("average updated", "before", 3), ("in the average", "after", 4), ("average updated", "after", 3))
WITH_WORKERS = (("worker started", "after", 2), ("picture made", "before", 20))
WITH_BEST = (("best copied", "before", 1), ("best copied", "after", 1))
AT_THE_END = (("model written", "before", 1), ("model replaced", "before", 1), ("model written", "after", 1))


@dataclass(frozen=True)
class Configuration:
    """One of the 40: what it is made of, and whether the best weights are kept."""

    name: str
    settings: tuple[str, ...]
    workers: int
    average: bool
    best: bool

    def points(self) -> list[tuple[str, str, int]]:
        """Inside what it can be killed."""
        return [*INSIDE, *(WITH_AVERAGE if self.average else ()), *(WITH_WORKERS if self.workers else ()),
                *(WITH_BEST if self.best else ())]


def configurations(count: int = 40) -> list[Configuration]:
    """`count` of the 288, drawn once for all; every pair of choices is among 40."""
    chosen = random.Random(2).sample(list(itertools.product(*CHOICES.values())), count)
    found = []
    for number, values in enumerate(chosen):
        settings = [*BASE, "select=best" if number % 2 else "select=last"]
        for choices, value in zip(CHOICES.values(), values, strict=True):
            settings += choices[value]  # type: ignore[index]
        workers, average = int(values[0]), values[1] == "yes"
        words = ", ".join(f"{name} {value}" for name, value in zip(CHOICES, values, strict=True))
        found.append(Configuration(words, tuple(settings), workers, average, number % 2 == 1))
    return sorted(found, key=lambda one: -(one.average + one.best + one.workers))


def job_of(configuration: Configuration, folder: Path, run: Path) -> Job:
    """The whole training of a configuration, on the pictures in `folder`: in memory, or as files for its threads."""
    files = configuration.workers > 0
    data = folder / ("files" if files else "memory")
    if not data.exists():
        write_pictures(data, equal=not files)
    settings = (f"data={data}", *configuration.settings, *(("resize=squash",) if files else ()))
    return Job("train", str(run), settings, workers=configuration.workers)


class Victim:
    """A run that is killed again and again. `kills` counts what a SIGKILL ended, `runs` how often it began."""

    def __init__(self, whole: Job, run: Path, guard: str = "") -> None:
        self.server, self.whole, self.run, self.guard = server(), whole, run, guard
        self.kills, self.runs = 0, 1
        self.violations: list[str] = []

    @property
    def finished(self) -> bool:
        record = self.run / "run.json"
        return record.exists() and json.loads(record.read_text("utf-8"))["state"] == "finished"

    def job(self, kill: tuple[str, str, int] | None = None) -> Job:
        """What is done next: the beginning, or, where there is something to resume, that."""
        begun = (self.run / "run.json").exists()
        if not begun and self.run.exists():  # killed before there was a run: it is refused, and starts again
            shutil.rmtree(self.run)
        job = replace(self.whole, run=str(self.run), kill=kill)
        return replace(job, action="resume", settings=(), guard=self.guard) if begun else job

    def after(self, seconds: float) -> None:
        """Goes on, killed from outside after it had so many seconds of the processor."""
        pid = self.server.start(self.job())
        while (had := processor_seconds(pid)) is not None and had < seconds:
            time.sleep(0.001)
        self._count(self.server.kill(pid), f"after {seconds:.3f} s")

    def inside(self, point: tuple[str, str, int]) -> None:
        """Goes on, killed at a point."""
        self._count(self.server.do(self.job(point)), f"at {point}")

    def stop(self, number: int, code: int) -> None:
        """Goes on, asked to stop in its first step: it finishes the step, saves and leaves with the signal's code."""
        log = str(self.run.with_suffix(".log"))  # for what it says on its way out
        found = self.server.do(replace(self.job(("rate set", "before", 1)), signal=number, log=log))
        state = json.loads((self.run / "run.json").read_text("utf-8"))["state"]
        if (found, state) != (code, "interrupted"):
            self.violations.append(f"signal {number}: exit code {found}, the run is {state}")

    def _count(self, code: int, where: str) -> None:
        if code == -signal.SIGKILL:
            self.kills += 1
        elif code != 0:
            self.violations.append(f"{where}: exit code {code}")

    def end(self) -> None:
        """Goes on to the end, whatever was killed before."""
        if not self.finished and (code := self.server.do(self.job())) != 0:
            self.violations.append(f"resumed to the end: exit code {code}")


def one_run(configuration: Configuration, kills: int, folder: Path, guard: str = "") -> Victim:
    """A run and its unkilled twin: `kills` kills, its last one where the model file is written, then its end."""
    numbers = random.Random(configuration.name)
    whole = job_of(configuration, folder, folder / "whole")
    begins, code = until_first_generation(whole)
    if code:
        raise AssertionError(f"{configuration.name}: the run that nobody kills ends with exit code {code}")
    expected = digests(folder / "whole")
    victim = Victim(whole, folder / "killed", guard)
    points = configuration.points()
    numbers.shuffle(points)
    for turn in itertools.count():
        if victim.violations or victim.kills >= kills - 1 or turn > 4 * kills:
            break
        if victim.finished:  # the machine was faster than thought: the same again
            victim.violations += [f"killed run: {name} differs" for name in differing(victim.run, expected)]
            shutil.rmtree(victim.run)
            victim.runs += 1
        if turn in (2, 3):
            victim.stop(*((signal.SIGTERM, 143) if turn == 2 else (signal.SIGINT, 130)))
        if turn % 2:
            point, when, most = points[turn // 2 % len(points)]
            victim.inside((point, when, numbers.randint(1, most)))
        else:
            victim.after(numbers.uniform(0, 1.2 * begins))
    if not victim.finished:
        victim.inside(numbers.choice(AT_THE_END))
    victim.end()
    if victim.kills < kills and not victim.violations:
        victim.violations.append(f"only {victim.kills} of {kills} kills came before the run's end")
    victim.violations += [f"{name} differs" for name in differing(victim.run, expected)]
    victim.violations = [f"{configuration.name}: {text}" for text in victim.violations]
    shutil.rmtree(folder / "whole")
    shutil.rmtree(folder / "killed")
    return victim


def kills(trials: int, folder: Path) -> Outcome:
    """Of 41 trials one is a cold kill of the real command, the others are of forked trainings."""
    cold = trials // 41
    chosen = configurations()[: max(1, (trials - cold) // KILLS)]
    violations, counted, again = [], 0, 0
    for number, configuration in enumerate(chosen):
        share = (trials - cold) * (number + 1) // len(chosen) - (trials - cold) * number // len(chosen)
        victim = one_run(configuration, share, folder)
        counted += victim.kills
        violations += victim.violations
        again += victim.runs > 1
    if cold:
        found = cold_kills(cold, folder)
        counted += found.trials
        violations += found.violations
    notes = f"{len(chosen)} configurations; {cold} cold kills of the command; {again} runs ended before their last kill"
    return Outcome(counted, tuple(violations), notes)


def guard_out(guard: str, folder: Path) -> Outcome:
    """A run killed a few times with a guard taken out of each resumption."""
    victim = one_run(configurations()[0], 6, folder, guard)
    return Outcome(victim.kills, tuple(victim.violations))


def command(*words: str) -> list[str]:
    """The real command line, in a process of its own."""
    return [sys.executable, "-m", "layerwise", "--offline", *words]


def cold_kills(trials: int, folder: Path) -> Outcome:
    """kill -9 of `layerwise train` and `layerwise resume`, each started cold, at random instants of one run."""
    numbers = random.Random(9)
    settings = ("network=lenet5", "input_size=32", "resize=squash", "crop=none", "pad=0", "duration=3",
                "warmup_length=1", "validation=0.1", "evaluate_every=0.5", "ema=0.9", "select=best",
                "checkpoint_seconds=0.05", "precision=fp32")
    sets = [word for setting in settings for word in ("--set", setting)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "MPLBACKEND": "agg",
                                "PYTHONPATH": str(Path(__file__).resolve().parents[1])}

    def start(run: Path) -> subprocess.Popen[bytes]:
        words = ["resume", str(run)] if (run / "run.json").exists() else [
            "train", "lenet5", "digits", "--recipe", "digits", "--out", str(run), *sets]
        return subprocess.Popen(command(*words), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
        """Kills a process once it had so many seconds of the processor; its exit code."""
        while process.poll() is None and (processor_seconds(process.pid) or 0) < seconds:
            time.sleep(0.005)
        process.kill()
        return process.wait()

    whole, killed, violations, done, runs = folder / "whole", folder / "killed", list[str](), 0, 1
    process, begins = start(whole), 0.0
    while process.poll() is None and not list((whole / "checkpoints").glob("[0-9]*")):
        begins = processor_seconds(process.pid) or begins
        time.sleep(0.005)
    _, told = process.communicate()
    expected = results_of(whole)
    if process.returncode:
        return Outcome(0, (f"the run that nobody kills: {told.decode()}",))
    while done < trials and not violations:
        if (killed / "model.safetensors").exists():
            violations += _finished_cold(killed, start, expected)
            shutil.rmtree(killed)
            runs += 1
        if not (killed / "run.json").exists() and killed.exists():
            shutil.rmtree(killed)
        code = ended(start(killed), numbers.uniform(0.2, 1.2) * begins)
        done += code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL):
            violations.append(f"cold: exit code {code}")
    violations += _finished_cold(killed, start, expected)
    return Outcome(done, tuple(violations), f"{runs} runs")


def _finished_cold(run: Path, start: Callable[[Path], subprocess.Popen[bytes]], expected: dict[str, str]) -> list[str]:
    """Resumes a run to its end, test included; what differs from the whole one."""
    if not list(run.glob("evaluations/*/result.json")):
        process = start(run)
        _, told = process.communicate()
        if process.returncode:
            return [f"cold, resumed to the end: {told.decode()[-500:]}"]
    return [f"cold: {name} differs" for name in differing(run, expected, results_of)]


def results_of(run: Path) -> dict[str, str]:
    """As `digests`, with the test's result, but for the run's own name in it."""
    tests = run.glob("evaluations/*/result.json")
    return digests(run) | {str(file.relative_to(run)): file.read_text("utf-8").replace(str(run), "RUN")
                           for file in tests}


SCARCE = (*(setting for setting in BASE if not setting.startswith(("batch_size", "duration", "evaluate", "learning"))),
          "checkpoint_seconds=1e-9", "batch_size=3", "duration=3", "evaluate_every=0.2", "ema=0.9", "select=best",
          "precision=fp32", "schedule=plateau", "plateau_patience=0.5", "plateau_drops=2", "warmup=training-error",
          "warmup_length=0", "learning_rate=0.001", "warmup_rate=0.0005", "warmup_error=1.0", "resize=squash")
SCENES = {"sgd": SCARCE, "adamw": (*(one for one in SCARCE if one != "select=best"), "nesterov=no", "optimiser=adamw")}
# What of the state matters in the second scene alone: adamw's, and a count that each step takes from the network again.
ONLY_ADAMW = ("optimiser/", "average/*num_batches_tracked")
# Where the run is killed whose resumption forgets: shortly before its end; before a line of its record is in a
# checkpoint; in its warm-up; when all steps are done. A part must be missed at one of them.
INSTANTS = (("saved", "after", 35), ("line written", "after", 18), ("saved", "after", 9),
            ("model written", "before", 1))
PARTS = 42  # of the state, as counted by `omissions`
# Not state: it says which recipe the state belongs to.
IDENTITY = {"recipe"}
RECOVERED = ("position.went_back", "position.left_out")  # empty in a training without non-finite numbers: goal B7's
# Taken out of the whole run, not of its resumption.
THROUGHOUT = ("random numbers", "torch's generator")


def parts_of(run: Path) -> list[str]:
    """Every part of the newest generation: the leaves of its JSON, and its tensors by their kind."""
    generation, _ = checkpoint.newest(run / rundir.CHECKPOINTS)
    assert generation is not None
    parts = []
    for name, value in generation.state.items():
        if name not in IDENTITY:
            parts += [f"{name}.{leaf}" for leaf in value] if isinstance(value, dict) else [name]
    kinds = [(name.split("/")[0], name.replace("/", ".").split(".")[-1]) for name in generation.tensors]
    return parts + [f"{group}/*{kind}" for group, kind in dict.fromkeys(kinds)]


def omissions(trials: int, folder: Path, only: str | None = None) -> Outcome:
    """Each part of the state left out of a resumption, in turn: about `trials` of them, spread, or `only` one."""
    violations, tried = [], 0
    data = write_pictures(folder / "data", equal=False)
    alike = (data / "val" / "class-0" / "000.png").read_bytes()
    for file in (data / "val").rglob("*.png"):  # so that the validation error stays what it is
        file.write_bytes(alike)
    for scene, settings in SCENES.items():
        job = Job("train", "", (f"data={data}", *settings), workers=2, scarce=True)
        stage = Stage(job, folder / scene)
        parts = [*parts_of(stage.killed(0, "")), "metrics.cut", *THROUGHOUT]
        parts = [part for part in parts if part not in RECOVERED]
        apart = {part for part in parts if part.startswith(ONLY_ADAMW)}
        if scene == "adamw":
            parts = sorted(apart)
        else:
            parts = [part for part in parts if part not in apart or part.startswith("optimiser/")]
        if only is not None:
            parts = [only] if scene == "sgd" else []
        for part in parts[:: max(1, PARTS // trials)]:
            tried += 1
            if not stage.missed(part):
                violations.append(f"{scene}: nothing is noticed when {part or 'nothing'} is left out")
    return Outcome(tried, tuple(violations), "parts of the state: every leaf of state.json, every kind of tensor, the "
                   "cut of the record, the two sources of random numbers")


class Stage:
    """A training, the same killed at each of the instants, and what its end must be; each made when it is asked for."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.server, self.job, self.folder = server(), job, folder

    def whole(self, guard: str) -> dict[str, str]:
        run = self.folder / f"whole {guard}"
        if not run.exists():
            code = self.server.do(replace(self.job, run=str(run), guard=guard))
            assert code == 0, f"the run that nobody kills ends with exit code {code}"
        return digests(run)

    def killed(self, instant: int, guard: str) -> Path:
        run = self.folder / f"killed {instant} {guard}"
        if not run.exists():
            code = self.server.do(replace(self.job, run=str(run), guard=guard, kill=INSTANTS[instant]))
            assert code == -signal.SIGKILL, f"{INSTANTS[instant]} is never reached: exit code {code}"
        return run

    def missed(self, part: str) -> bool:
        """Whether the end differs when `part` is not restored; a resumption that fails is noticed too."""
        throughout = part if part in THROUGHOUT else ""
        for instant in range(len(INSTANTS)):
            run = self.folder / "resumed"
            shutil.copytree(self.killed(instant, throughout), run)
            code = self.server.do(replace(self.job, action="resume", run=str(run), settings=(), guard=part,
                                          log=str(self.folder / "log")))
            found = code != 0 or bool(differing(run, self.whole(throughout)))
            shutil.rmtree(run)
            if found:
                return True
        return False


GOALS = (
    Goal("A1", "a thousand kills, one result", "every byte as in the run that nobody killed, after each of 1,025 kills",
         1025, 25, kills, (Control("momentum not restored", lambda folder: guard_out("optimiser/*", folder)),)),
    Goal("A1c", "each part of the state is missed when it is left out", "every omission is noticed", PARTS, 10,
         omissions, (Control("nothing left out", lambda folder: omissions(1, folder, "")),)),
)
