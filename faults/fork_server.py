"""The trainings of jobs.py, each in a forked process, with a fault in it or a guard taken out.

A job is a `jobs.Job`; what it says on standard output and error goes to its `log`. The code's revision is asked of git
once, for all jobs.
"""

from __future__ import annotations

import fnmatch
import locale
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from faults.forked import serve
from layerwise import checkpoint, hardware, modelfile, models, randomness, rundir, train
from layerwise.data import loader
from layerwise.models.network import Network, Paper
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.tasks import classify
from layerwise.training import average
from layerwise.training import state as training

NETWORK = "smallest"


def smallest(num_classes: int = 10, in_channels: int = 1) -> Network:
    """A network of 500 parameters with all that has a state: batch normalisation, dropout; made for kills, not art."""
    conv = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.MaxPool2d(2))
    return Network({"conv1": conv, "conv2": nn.Conv2d(4, 4, 3, padding=1)},
                   {"flat": nn.Flatten(), "drop": nn.Dropout(0.3), "fc": nn.Linear(64, num_classes)})


# Where a child may be told to kill itself: what is called, and by what name.
POINTS: dict[str, tuple[Any, str]] = {
    "file written": (checkpoint, "write_durably"),
    "renamed": (os, "rename"),
    "removed": (shutil, "rmtree"),
    "record replaced": (os, "replace"),
    "saved": (train, "save"),
    "line written": (rundir.Lines, "write"),
    "synced": (os, "fsync"),
    "validation": (classify.Classify, "evaluate"),
    "in validation": (classify, "confusion_matrix"),
    "epoch boundary": (train, "epoch_order"),
    "average updated": (average.Average, "update"),
    "in the average": (average, "_all"),
    "rate set": (train, "set_rate"),
    "step taken": (torch.optim.Optimizer, "profile_hook_step"),
    "worker started": (threading.Thread, "start"),
    "picture made": (loader, "augment_picture"),
    "best copied": (training.Training, "current"),
    "model written": (modelfile, "write"),
    "model replaced": (modelfile, "replace_durably"),
}


def kill_at(point: str, when: str, call: int, number: int) -> None:
    """The child sends itself a signal at the `call`-th call of a point: before it, after it, or in its midst.

    In the midst means with half a file or half a line written. A signal that it hears lets it go on.
    """
    if point == "step taken":
        return _kill_at_step(when, call)
    owner, name = POINTS[point]
    function, calls = getattr(owner, name), [0]

    def deadly(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] != call:
            return function(*arguments, **named)
        if when == "midst":
            _half(point, arguments)
        elif when == "after":
            function(*arguments, **named)
        os.kill(os.getpid(), number)
        return function(*arguments, **named)

    setattr(owner, name, deadly)


def _half(point: str, arguments: tuple[Any, ...]) -> None:
    if point == "file written":
        path, data = arguments[0], b"".join(checkpoint.pieces(arguments[1]))
        path.write_bytes(data[: len(data) // 2])
    elif point == "line written":
        with open(arguments[0].path, "ab") as file:
            file.write(b'{"kind": "tra')
    else:
        raise AssertionError(f"{point} has no midst")


def _kill_at_step(when: str, call: int) -> None:
    calls = [0]

    def deadly(*_: object) -> None:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)

    register = register_optimizer_step_pre_hook if when == "before" else register_optimizer_step_post_hook
    register(deadly)


def carry_the_random_state() -> None:
    """Takes a guard out: random numbers depend on how many this process drew, as a carried generator's do."""
    bits, drawn = randomness.random_bits, [0]

    def carried(seed: int, *arguments: Any, **named: Any) -> np.ndarray[Any, Any]:
        drawn[0] += 1
        return bits(seed + drawn[0], *arguments, **named)

    randomness.random_bits = carried


def carry_torchs_generator() -> None:
    """Takes a guard out: torch's generator is seeded once, for the weights, and not for each step."""
    hardware.seed = lambda device, number: None  # what seeds the weights is torch.manual_seed itself


def forget(part: str) -> None:
    """Takes a guard out: a part of a generation is not restored, and is what it is at a training's start.

    `part` is an entry of its JSON ("position.batch"), a pattern of its tensors ("optimiser/*/momentum_buffer"), or
    "metrics.cut".
    """
    restore = training.restore

    def forgetful(state: training.Training, generation: checkpoint.Generation) -> None:
        if part == "metrics.cut":
            state.metrics.cut = lambda size: None  # type: ignore[method-assign]
        elif "/" in part:
            _forget_tensors(part, state, generation)
        else:
            fresh: Any = {"position": vars(state.position), "schedule": state.schedule.state(), "notes": [],
                          "average_count": 0}
            kept: Any = generation.state
            *outer, last = part.split(".")
            for name in outer:
                fresh, kept = fresh[name], kept[name]
            kept[last] = fresh[last]
        restore(state, generation)

    train.restore = forgetful  # type: ignore[attr-defined]


def _forget_tensors(pattern: str, state: training.Training, generation: checkpoint.Generation) -> None:
    fresh = {f"model/{name}": tensor.clone() for name, tensor in state.model.state_dict().items()}
    if state.average:
        fresh |= {f"average/{name}": tensor.clone() for name, tensor in state.average.state_tensors().items()}
    for name in [name for name in generation.tensors if fnmatch.fnmatchcase(name, pattern)]:
        if name in fresh:
            generation.tensors[name] = fresh[name]
        else:
            del generation.tensors[name]


def scarce_and_unreadable() -> None:
    """A machine with room for two pictures at a time, and a file that can't be read: the run notes both."""
    passed, opened = train.passed, loader._opened

    def scarce(state: training.Training, batch: dict[str, torch.Tensor], *rest: Any) -> Any:
        if len(batch["label"]) > 2:
            raise torch.OutOfMemoryError("made up")
        return passed(state, batch, *rest)

    def unreadable(samples: Any, index: Any) -> Any:
        if samples.name == "train" and int(index) == 3:
            raise loader.UnreadableError
        return opened(samples, index)

    train.passed, loader._opened, loader.MOST_BAD = scarce, unreadable, 1.0  # type: ignore[attr-defined]


def falter(how: str, first: int, seconds: float) -> None:
    """From the `first` picture that the loader's threads make on, one (or all, "all ...") goes wrong: `how`."""
    make, made, lock = loader.augment_picture, [0], threading.Lock()
    errors: dict[str, Callable[[], BaseException]] = {
        "memory": lambda: MemoryError("made up"), "error": lambda: RuntimeError("made up"),
        "exit": lambda: SystemExit(0), "library": lambda: ValueError("made up"), "thread": lambda: _Gone("made up")}

    def faltering(*arguments: Any) -> Any:
        with lock:
            made[0] += 1
            number = made[0]
        if number == first or (how.startswith("all ") and number > first):
            if how.removeprefix("all ") == "sleep":
                time.sleep(seconds)
            else:
                raise errors[how.removeprefix("all ")]()
        return make(*arguments)

    loader.augment_picture = faltering  # type: ignore[attr-defined]


class _Gone(BaseException):
    """What nothing expects, as a thread that is ended from outside."""


def take_out(guard: str) -> None:
    """Takes a guard out, by its name; "" none."""
    if guard == "random numbers":
        carry_the_random_state()
    elif guard == "torch's generator":
        carry_torchs_generator()
    elif guard == "hashes":
        seed = randomness.derived_seed
        train.derived_seed = lambda *parts: seed(hash("seed") % 2**31, *parts)  # type: ignore[attr-defined]
    elif guard == "differences":
        train.differences = lambda *_: []  # type: ignore[attr-defined]
    elif guard:
        forget(guard)


def child(job: dict[str, Any]) -> int:
    """Trains or resumes, and returns the exit code."""
    if job["log"]:
        handle = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
    os.environ.update(job["environment"])
    time.tzset()
    locale.setlocale(locale.LC_ALL, "")
    if job["folder"]:
        os.chdir(job["folder"])
    if job["workers"]:
        loader.cores = lambda: job["workers"]  # type: ignore[attr-defined]
    if job["scarce"]:
        scarce_and_unreadable()
    for name, value in job["versions"].items():
        hardware.versions = (lambda now, one: lambda: now() | one)(hardware.versions, {name: value})
    if job["capability"]:
        torch.backends.cpu.get_cpu_capability = lambda: job["capability"]
    if job["patience"]:
        loader.STALLED, loader.LONGEST = job["patience"]
    if job["falter"]:
        falter(*job["falter"])
    take_out(job["guard"])
    if job["kill"]:
        kill_at(*job["kill"], job["signal"])
    run = Path(job["run"])
    options = train.RunOptions(quiet=not job["aloud"], offline=True, confirmed=True,
                               accept_data_change=job["accept_data_change"])
    if job["action"] == "train":
        train.train(_recipe(job["settings"]), train.dataclasses.replace(options, out=run))
    else:
        train.resume(run, train.dataclasses.replace(options, settings=tuple(job["settings"])))
    return 0


def _recipe(settings: list[str]) -> Recipe:
    recipe = preset("digits")
    for setting in settings:
        recipe = changed(recipe, [setting])
    return recipe


def main() -> None:
    """Serves jobs, with the network in the catalogue."""
    models._VARIANTS[NETWORK], models._INPUTS[NETWORK] = smallest, (1, 8, 8)
    models._PAPERS[NETWORK] = Paper("Nobody", 2025, "made for the fault suite", "chain")
    versions = hardware.versions()
    hardware.versions = lambda: dict(versions)
    serve(child)


if __name__ == "__main__":
    main()
