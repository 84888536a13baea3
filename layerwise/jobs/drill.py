"""`layerwise drill`: disturbs a shortened training on this machine, with these data and this recipe, and resumes it.

The training runs once undisturbed, and then again in processes of its own that are killed at random instants, meet a
limit on the size of files, lose a process that prepares pictures, or one of two that train together. Each is resumed
and must end byte-identical to the undisturbed one; else what differs is said. The receipt is kept as JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from layerwise import checkpoint, hardware, rundir
from layerwise.data.place import placed
from layerwise.errors import InputError, LayerwiseError, MachineError, ToleranceError
from layerwise.experiments.scales import differences, shortened
from layerwise.jobs.differing import MODEL, differing
from layerwise.recipe import Recipe
from layerwise.train import resume, train
from layerwise.training.preparation import RunOptions

RECEIPT = "drill.json"
EACH_STEP = 0.001  # seconds between checkpoints: so that a kill may come at any of them
LIMIT = 3600.0  # seconds after which a training counts as hung
END = 120.0  # seconds within which the others must end after one of them was lost
TRIES = 20  # for an instant before the end: what is too late is tried again
POLL = 0.002


@dataclass(frozen=True)
class Plan:
    """What is drilled: a recipe, how many steps and kills, where data are looked for, which disturbances, and the
    program of a child."""

    recipe: Recipe
    steps: int = 12
    kills: int = 3
    seed: int = 0
    data_dir: Path | None = None
    offline: bool = False
    drills: tuple[str, ...] = ("killed", "quota", "worker", "rank")
    program: tuple[str, ...] = (sys.executable, "-m", "layerwise.jobs.drill")

    @cached_property
    def short(self) -> Recipe:
        """The recipe in so many steps, with a checkpoint after each and all else as it stands."""
        recipe = self.recipe
        short = shortened(recipe, self.steps, recipe.data, 0)
        return dataclasses.replace(short, split=recipe.split, validation=recipe.validation,
                                   evaluate_every=max(1, self.steps // 2), checkpoint_seconds=EACH_STEP)


@dataclass
class Finding:
    """One disturbance: what was done (with instants and exit codes), and what differs, or why it was left out."""

    name: str
    done: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    left_out: str = ""

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return "left out" if self.left_out else "differs" if self.differs else "bit-identical"


@dataclass(frozen=True)
class Receipt:
    """What a drill found, with all that says what it holds for."""

    contents: dict[str, Any]

    def lines(self) -> list[str]:
        """The receipt in words."""
        told = self.contents
        lines = [f"drilled: {told['network']} on {told['data']}, {told['steps']} steps instead of the whole training"]
        for one in told["drills"]:
            lines.append(f"{one['name']}: {one['verdict']}" + (f" ({one['left_out']})" if one["left_out"] else ""))
            lines += [f"  {text}" for text in [*one["done"], *one["differs"]]]
        return [*lines, f"machine: {told['machine']['cores']} cores, {told['machine']['cpu']}; code {told['revision']}"]


def plan_of(run: Path) -> Recipe:
    """The recipe of a run, with its data where they lie. Raises InputError where `run` is none."""
    return placed(rundir.read_recipe(run), rundir.read_run(run))


def drill(plan: Plan, out: Path) -> Receipt:
    """Disturbs the shortened training in every way and writes the receipt `out`/drill.json.

    Raises InputError for a plan that holds nothing, MachineError where the undisturbed training fails, ToleranceError
    where a disturbed one differs; the runs are kept then.
    """
    if plan.steps < 3 or plan.kills < 1:
        raise InputError(f"drill: {plan.steps} steps and {plan.kills} kills", "A kill must fall between two steps.",
                         "Ask for at least 3 steps and 1 kill.")
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="drill-", dir=out))
    try:
        (work / rundir.RECIPE).write_text(plan.short.to_json(), "utf-8")
        found = list(_disturbed(plan, work))
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    recipe = rundir.read_recipe(work / "whole")
    contents = {
        "when": rundir.now(), "network": recipe.network, "data": recipe.data, "steps": plan.steps, "seed": plan.seed,
        "recipe": plan.recipe.hash, "drilled_recipe": recipe.hash, "shortened": list(differences(plan.recipe, recipe)),
        "revision": hardware.versions()["code"], "versions": hardware.versions(),
        "machine": hardware.describe(recipe),
        "drills": [dataclasses.asdict(one) | {"verdict": one.verdict} for one in found],
    }
    rundir.write_json(out / RECEIPT, contents)
    receipt = Receipt(contents)
    if wrong := [f"{one.name}: {text}" for one in found for text in one.differs]:
        raise ToleranceError(f"drill: a resumed training is not the undisturbed one ({out / RECEIPT})",
                             f"The runs are kept in {work}.", "Report it with the receipt.", wrong)
    shutil.rmtree(work)
    return receipt


def _disturbed(plan: Plan, work: Path) -> Iterator[Finding]:
    chance = random.Random(plan.seed)
    whole = Trainings(plan, work, "whole")
    begun = time.monotonic()
    whole.start("train")
    whole.until(rundir.RUN)
    started = time.monotonic()
    whole.ended("train")
    steps, whole_time = time.monotonic() - started, time.monotonic() - begun
    ways = {
        "killed": lambda: _killed(Trainings(plan, work, "killed"), whole.run, chance, (steps, whole_time)),
        "quota": lambda: _quota(Trainings(plan, work, "quota"), whole.run),
        "worker": lambda: _worker(Trainings(plan, work, "worker"), whole.run),
        "rank": lambda: _rank(plan, work, chance),
    }
    yield from (ways[name]() for name in plan.drills)


@dataclass
class Trainings:
    """The processes that train one run, alone or `size` together."""

    plan: Plan
    work: Path
    name: str
    size: int = 1
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.work / self.name

    @property
    def log(self) -> Path:
        """What the processes said."""
        return self.work / f"{self.name}.log"

    def start(self, action: str, limit: int = 0) -> None:
        """Starts to train or to resume; `limit` is the largest file that may be written, in bytes."""
        job = {"action": action, "run": str(self.run), "recipe": str(self.work / rundir.RECIPE), "limit": limit,
               "data_dir": str(self.plan.data_dir or ""), "offline": self.plan.offline}
        place = {}
        if self.size > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                place = {"WORLD_SIZE": str(self.size), "LOCAL_WORLD_SIZE": str(self.size),
                         "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        with self.log.open("ab") as log:
            self.processes = [subprocess.Popen([*self.plan.program, json.dumps(job)], stdout=log, stderr=log, env={
                **os.environ, **place, **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if place else {})})
                for rank in range(self.size)]

    def wait(self, seconds: float = LIMIT) -> list[int | None]:
        """The exit codes; None of a process that did not end in time and was killed."""
        codes: list[int | None] = []
        deadline = time.monotonic() + seconds
        for process in self.processes:
            try:
                codes.append(process.wait(max(0.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                codes.append(None)
        return codes

    def finish(self, action: str) -> None:
        """Trains or resumes to the end. Raises MachineError with the last line that was said where that fails."""
        self.start(action)
        self.ended(action)

    def ended(self, action: str) -> None:
        """Waits for the end of what was started. Raises MachineError as `finish`."""
        codes = self.wait()
        if any(codes):
            raise MachineError(f"drill: the {self.name} training could not {action} (exit status {codes})",
                               self.last_words(), "Train it without the drill first.")

    def last_words(self) -> str:
        """The last line that the processes said."""
        said = self.log.read_text("utf-8", "replace").strip().splitlines() if self.log.exists() else []
        return said[-1][:300] if said else ""

    def until(self, path: str) -> bool:
        """Waits until something of the run exists (a pattern); False where the processes ended before."""
        while not list(self.run.glob(path)):
            if all(process.poll() is not None for process in self.processes):
                return False
            time.sleep(POLL)
        return True

    def kill(self, rank: int = 0) -> bool:
        """Kills a process; False where it had ended before."""
        self.processes[rank].kill()
        return self.processes[rank].wait() == -signal.SIGKILL

    def begin_and_lose(self, after: str, seconds: float = 0.0, rank: int = 0) -> None:
        """Starts anew and kills a process `seconds` behind the instant at which `after` exists.

        Raises MachineError where it is always over before.
        """
        for _ in range(TRIES):
            shutil.rmtree(self.run, ignore_errors=True)
            self.start("train")
            if self.until(after):
                time.sleep(seconds)
                if self.kill(rank):
                    return
            self.wait()
            seconds *= 0.7
        raise MachineError(f"drill: the training was over before it could be killed, {TRIES} times",
                           self.last_words(), "Ask for more steps with --steps N.")


def _killed(one: Trainings, whole: Path, chance: random.Random, seconds: tuple[float, float]) -> Finding:
    """Kills at random instants, again and again the same run, then lets it end.

    `seconds` are those of the steps and those of the whole process: a resumption may die before its first step too.
    """
    found = Finding("killed")
    after = chance.uniform(0, 0.7) * seconds[0]
    one.begin_and_lose(rundir.RUN, after)
    found.done.append(f"SIGKILL about {after:.2f} s into the training, at step {_step(one.run)}")
    while len(found.done) < one.plan.kills and not (one.run / MODEL).exists():
        one.start("resume")
        after = chance.uniform(0, seconds[1])
        time.sleep(after)
        if not one.kill():
            break
        found.done.append(f"SIGKILL {after:.2f} s after the resumption began, at step {_step(one.run)}")
    if len(found.done) < one.plan.kills:
        found.done.append("the training was over before the next kill")
    return _ended(one, whole, found)


def _quota(one: Trainings, whole: Path) -> Finding:
    """Resumes under a limit of file sizes that no checkpoint keeps; the one before must stand."""
    if os.name != "posix":
        return Finding("quota", left_out="this system has no limit on the size of files")
    found = Finding("quota")
    largest = max(file.stat().st_size for file in checkpoint.generations(whole / rundir.CHECKPOINTS)[-1].iterdir())
    one.begin_and_lose(f"{rundir.CHECKPOINTS}/[0-9]*")
    before = _step(one.run)
    one.start("resume", largest // 2)
    codes = one.wait()
    found.done.append(f"files above {largest // 2:,} bytes refused at step {before}: exit status {codes[0]},"
                      f" \"{one.last_words()}\"")
    if (now := _step(one.run)) < before:
        found.differs.append(f"the checkpoint of step {before} was lost, that of step {now} is left")
    return _ended(one, whole, found)


def _worker(one: Trainings, whole: Path) -> Finding:
    """Kills a process that prepares pictures for the training, where there is one."""
    found = Finding("worker")
    one.start("train")
    helpers: list[int] = []
    while one.processes[0].poll() is None and not helpers:
        if (one.run / rundir.RUN).exists():
            helpers = _children(one.processes[0].pid)
        time.sleep(POLL)
    for helper in helpers[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(helper, signal.SIGKILL)
            found.done.append(f"SIGKILL of process {helper}, one of {len(helpers)} that the training had started")
    one.wait()
    if not found.done:
        found.left_out = "no process prepares pictures here: threads of the training itself do"
        return found
    return _ended(one, whole, found)


def _rank(plan: Plan, work: Path, chance: random.Random) -> Finding:
    """Kills one of two processes that train together; the other must end by itself, and both go on."""
    found = Finding("rank")
    device = hardware.resolve(plan.short).device
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        found.left_out = "this torch has no torch.distributed with gloo"
    elif plan.short.batch_size < 2:
        found.left_out = "a batch of one picture has no second share"
    elif device != "cpu" and torch.cuda.device_count() < 2:
        found.left_out = f"two processes need two devices; there is one {device}"
    if found.left_out:
        return found
    whole, one = (Trainings(plan, work, name, size=2) for name in ("whole of 2", "rank"))
    whole.start("train")
    whole.until(rundir.RUN)
    started = time.monotonic()
    whole.ended("train")
    rank, after = chance.randrange(2), chance.uniform(0, 0.7) * (time.monotonic() - started)
    one.begin_and_lose(rundir.RUN, after, rank)
    lost = time.monotonic()
    code = one.wait(END)[1 - rank]
    found.done.append(f"SIGKILL of process {rank} of 2 at step {_step(one.run)}; the other ended with {code}"
                      f" after {time.monotonic() - lost:.1f} s")
    if code is None:
        found.differs.append(f"the other process did not end within {END:.0f} s")
    return _ended(one, whole.run, found)


def _ended(one: Trainings, whole: Path, found: Finding) -> Finding:
    """Lets the run end, and compares it."""
    try:
        if not (one.run / MODEL).exists():
            one.finish("resume")
        found.differs += differing(whole, one.run)
    except MachineError as error:
        found.differs.append(f"{error.what}: {error.why}")
    return found


def _step(run: Path) -> int:
    """The step of the newest sound checkpoint, 0 where there is none."""
    newest, _ = checkpoint.newest(run / rundir.CHECKPOINTS)
    return int(newest.state["position"]["step"]) if newest else 0


def _children(pid: int) -> list[int]:
    """The processes that a process has started, where the system tells."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def child(text: str) -> int:
    """What a process of a drill does: trains or resumes as the job `text` (JSON) says; returns its exit status."""
    job = json.loads(text)
    if job["limit"]:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    options = RunOptions(data_dir=Path(job["data_dir"]) if job["data_dir"] else None, offline=job["offline"],
                         confirmed=True)
    try:
        if job["action"] == "resume":
            resume(Path(job["run"]), options)
        else:
            recipe = Recipe.from_json(Path(job["recipe"]).read_text("utf-8"), job["recipe"])
            train(recipe, dataclasses.replace(options, out=Path(job["run"])))
    except LayerwiseError as error:
        print(error.what, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return MachineError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(child(sys.argv[1]))
