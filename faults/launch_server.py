"""The launchers of processes.py, each in a forked process; their own processes are forked too.

The launcher is the command's own (`jobs.launch`); in place of new interpreters it forks its processes, which write down
what each step trained on and harm themselves, or the launcher, at the instants that the job says.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from faults.forked import serve, status
from faults.in_order import add_in_order
from layerwise import heartbeat, randomness, train
from layerwise.data import DataOptions, loader, open_data, order
from layerwise.jobs import launch
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training.preparation import RunOptions
from layerwise.training.state import Training

Job = dict[str, Any]


def change_an_order() -> None:
    """Takes a guard out: after a restart process 1 goes through its share in another order."""
    share = order.Place.share

    def turned(place: order.Place, batch: np.ndarray) -> np.ndarray:
        found = share(place, batch)
        return found[::-1] if place.rank == 1 and heartbeat.restarted() else found

    order.Place.share = turned  # type: ignore[method-assign]


def carry_a_generator() -> None:
    """Takes a guard out: random numbers follow from how many were drawn before, which a restart does not restore."""
    bits, drawn = randomness.random_bits, [0]

    def carried(seed: int, *arguments: Any, **named: Any) -> np.ndarray:
        drawn[0] += 1
        return bits(seed + drawn[0], *arguments, **named)

    randomness.random_bits = carried


def no_signs_of_life() -> None:
    """Takes a guard out: the launcher does not miss them."""
    launch.FROZEN = float("inf")


def outlive() -> None:
    """Takes a guard out: a process does not notice that its launcher is gone."""
    heartbeat.begin = lambda: None


CONTROLS: dict[str, Callable[[], None]] = {
    "": lambda: None, "order": change_an_order, "generator": carry_a_generator, "sum": add_in_order,
    "silence": no_signs_of_life, "outlive": outlive,
}


def harmed(job: Job, training: Training, folder: Path) -> None:
    """Does what the job has for this process and step, each harm once in all attempts, a moment into the step."""
    for number, (rank, step, delay, name, whom) in enumerate(job["harms"]):
        mark = folder / f"harm-{number}"
        if rank != training.world.rank or step != training.position.step or mark.exists():
            continue
        victim = os.getppid() if whom == "launcher" else os.getpid()

        def strike(mark: Path = mark, victim: int = victim, name: str = name) -> None:
            mark.write_text(str(time.monotonic()))
            os.kill(victim, getattr(signal, name))

        if delay:
            threading.Timer(delay, strike).start()
        else:
            strike()
        if whom == "launcher":
            time.sleep(30)  # its end has to come from outside


def work(job: Job, words: Sequence[str], folder: Path, rank: int) -> int:
    """One process of an attempt: trains or resumes as `words` say; returns its exit status."""
    heartbeat.begin()
    loader.cores = lambda: int(job["threads"])
    gradients = train.gradients

    def logged(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        harmed(job, training, folder)
        line = json.dumps([training.position.step, training.world.rank, batch["index"].tolist()]) + "\n"
        with (folder / "ledger.jsonl").open("a") as file:
            file.write(line)
        return gradients(training, batch)

    train.gradients = logged
    options = RunOptions(out=Path(words[1]), quiet=True, offline=True, confirmed=True)
    if words[0] == "train":
        train.train(changed(preset("digits"), job["settings"]), options)
    else:
        if rank == 0:
            heartbeat.tell("run", words[1])
        train.resume(Path(words[1]), options)
    return 0


def launched(job: Job) -> int:
    """The launcher of a job, in a process of its own; returns its exit status."""
    folder, attempts = Path(job["folder"]), [0]
    os.dup2(os.open(folder / "launcher.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    CONTROLS[job["control"]]()  # for the launcher and for all that it starts

    def forked(words: Sequence[str], environment: Mapping[str, str], said: Path) -> int:
        rank, pipe = int(environment["RANK"]), int(environment[heartbeat.PIPE])
        attempts[0] += rank == 0
        if rank == 0:
            (folder / f"start-{attempts[0]}").write_text(str(time.monotonic()))
        pid = os.fork()
        if pid:
            (folder / f"pid-{attempts[0]}-{rank}").write_text(str(pid))
            return pid
        code = 1
        with contextlib.suppress(BaseException):
            os.setpgid(0, 0)
            os.environ.clear()
            os.environ.update(environment)
            output = os.open(folder / f"said-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.closerange(3, pipe)
            os.closerange(pipe + 1, 256)
            for number in launch.HEARD:
                signal.signal(number, signal.SIG_DFL)
            code = status(lambda: work(job, words, folder, rank))
        os._exit(code)

    return launch.launch(job["size"], job["words"], lambda run: ["resume", str(run)], forked)


if __name__ == "__main__":
    open_data("digits", DataOptions(offline=True))  # imports what it needs, once
    assert torch.distributed.is_available()
    serve(launched)
