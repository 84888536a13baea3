"""Trainings in processes that can be killed: the jobs of fork_server.py, a folder of pictures, and what must be equal.

The oracle is bytes: the model file, all metrics, the recipe, the list of samples, the last generation's every file, and
what run.json says of the end. Left out is what holds a time: speed.jsonl and the rest of run.json.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from faults.forked import server

LIMIT = 60.0  # seconds after which a job counts as hung


@dataclass(frozen=True)
class Job:
    """What a child does: `action` "train" or "resume", with a fault in it. fork_server.py says what each fault is."""

    action: str
    run: str
    settings: tuple[str, ...] = ()
    kill: tuple[str, str, int] | None = None
    signal: int = signal.SIGKILL
    guard: str = ""
    workers: int = 0
    scarce: bool = False
    falter: tuple[str, int, float] | None = None
    patience: tuple[float, float] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    capability: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    log: str = ""
    aloud: bool = False
    accept_data_change: bool = False


def write_pictures(folder: Path, equal: bool, order: random.Random | None = None) -> Path:
    """60 grey PNGs of patterns in three classes, and 12 for validation; written in an order that is drawn.

    `equal` ones of 8x8 go into memory, others stay files.
    """
    numbers, drawn = np.random.default_rng(0), []
    for part, count in (("train", 60), ("val", 12)):
        for index in range(count):
            kind = index % 3
            height, width = (8, 8) if equal else (8 + index % 3, 9 + index % 2)
            picture = numbers.integers(0, 120, (height, width), np.uint8)
            picture[kind * 2 : kind * 2 + 3] += 100
            drawn.append((folder / part / f"class-{kind}" / f"{index:03d}.png", picture))
    if order is not None:
        order.shuffle(drawn)
    for path, picture in drawn:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


def digests(run: Path) -> dict[str, str]:
    """The digest of everything that must be the same to the byte."""
    last = max((run / "checkpoints").glob("[0-9]*"))
    files = [run / "model.safetensors", run / "metrics.jsonl", run / "recipe.json", *sorted((run / "data").iterdir()),
             *sorted(last.iterdir())]
    found = {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    record = json.loads((run / "run.json").read_text("utf-8"))
    return found | {"run.json": json.dumps([record["state"], record["notes"], record["data"], record["model"]])}


def differing(run: Path, whole: dict[str, str], read: Callable[[Path], dict[str, str]] = digests) -> list[str]:
    """The names of what is not as in the whole run, by what `read` gives of each; a file that is missing is one."""
    try:
        found = read(run)
    except (OSError, ValueError) as error:
        return [str(error)]
    return sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))


def processor_seconds(pid: int) -> float | None:
    """What a process, all its threads, has had of the processor; None once it is gone.

    Instants are counted by it: on a busy machine a clock would run on while the process waits for its turn.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None


def until_first_generation(job: Job) -> tuple[float, int]:
    """Does a job; the processor's seconds until its first checkpoint stood, and its exit code."""
    pid, seconds = server().start(job), 0.0
    while (now := processor_seconds(pid)) is not None:
        seconds = now
        if list((Path(job.run) / "checkpoints").glob("[0-9]*")):
            break
        time.sleep(0.002)
    return seconds, server().wait()
