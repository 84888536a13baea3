"""Killed at any instant, a resumed run ends byte-identical to the unkilled one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork a process")

SETTINGS = ["duration=2", "batch_size=64", "threads=1", "checkpoint_seconds=0.1", "precision=fp32", "validation=0.5",
            "evaluate_every=0.4", "warmup_length=0.4"]
CONFIGURATIONS = {
    "sgd, average, accumulation, best": ["ema=0.9", "micro_batch=16", "select=best"],
    "adamw, mixup": ["optimiser=adamw", "nesterov=no", "learning_rate=0.002", "mixup=0.4", "network=lenet5",
                     "input_size=32", "resize=squash", "crop=none", "pad=0"],
}
KILLS = 10


class Server:
    """The fork server: starts jobs, tells their process, waits for their exit."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("fork_server.py")
        self.process = subprocess.Popen([sys.executable, "-W", "error", str(script)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)

    def start(self, action: str, run: Path, settings: list[str], control: str = "") -> int:
        assert self.process.stdin is not None
        job = {"action": action, "run": str(run), "settings": settings, "control": control}
        self.process.stdin.write(json.dumps(job) + "\n")
        return self._answer("pid")

    def wait(self) -> int:
        return self._answer("exit")

    def _answer(self, word: str) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == [word], line
        return int(line[1])

    def kill(self, pid: int, number: int = signal.SIGKILL) -> int:
        """Sends a signal, where the job has not ended by itself; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return self.wait()

    def finish(self, action: str, run: Path, settings: list[str], control: str = "") -> None:
        self.start(action, run, settings, control)
        assert self.wait() == 0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server()
    yield one
    assert one.process.stdin is not None
    assert one.process.stdout is not None
    one.process.stdin.close()
    one.process.stdout.close()
    one.process.wait()


def digests(run: Path) -> dict[str, str]:
    """The digest of everything that must be the same: model, metrics, and the last generation's every file."""
    last = max((run / "checkpoints").glob("[0-9]*"))
    files = [run / "model.safetensors", run / "metrics.jsonl", run / "recipe.json", *sorted(last.iterdir())]
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def kill_once(server: Server, run: Path, settings: list[str], after: float) -> bool:
    """Trains, kills the process `after` seconds behind the first checkpoint's possible instant; False if too late."""
    pid = server.start("train", run, settings)
    while not (run / "run.json").exists():
        time.sleep(0.002)
    time.sleep(after)
    return server.kill(pid) == -signal.SIGKILL


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_ten_kills_one_result(server: Server, tmp_path: Path, name: str) -> None:
    settings = [*SETTINGS, *CONFIGURATIONS[name]]
    started = time.monotonic()
    server.finish("train", tmp_path / "whole", settings)
    length = time.monotonic() - started
    whole = digests(tmp_path / "whole")
    instants = random.Random(name)
    kills = 0
    for number in range(3 * KILLS):
        run = tmp_path / f"killed-{number}"
        if not kill_once(server, run, settings, instants.uniform(0, 0.9 * length)):
            continue
        kills += 1
        server.finish("resume", run, settings)
        assert digests(run) == whole
        if kills == KILLS:
            break
    assert kills == KILLS, f"only {kills} of {KILLS} kills came before the run's end"


def test_several_kills_of_one_run(server: Server, tmp_path: Path) -> None:
    settings = [*SETTINGS, *CONFIGURATIONS["sgd, average, accumulation, best"]]
    server.finish("train", tmp_path / "whole", settings)
    run = tmp_path / "killed"
    assert kill_once(server, run, settings, 0.2)
    for _ in range(4):
        pid = server.start("resume", run, settings)
        time.sleep(0.25)
        server.kill(pid)
    if not (run / "model.safetensors").exists():
        server.finish("resume", run, settings)
    assert digests(run) == digests(tmp_path / "whole")


@pytest.mark.parametrize("control", ["random", "position", "model", "statistics", "momentum", "average"])
def test_with_a_part_of_the_state_dropped_the_result_differs(server: Server, tmp_path: Path, control: str) -> None:
    """The negative controls: each part of the state left out of a resumption must be noticed."""
    settings = [*SETTINGS, *CONFIGURATIONS["sgd, average, accumulation, best"]]
    server.finish("train", tmp_path / "whole", settings, "random" if control == "random" else "")
    run = tmp_path / "killed"
    pid = server.start("train", run, settings, "random" if control == "random" else "")
    generation = None
    while generation is None:  # a generation inside an epoch, or the position would have nothing to lose
        inside = [entry for entry in (run / "checkpoints").glob("[0-9]*")
                  if (entry / "state.json").exists()
                  and json.loads((entry / "state.json").read_bytes())["position"]["batch"] > 1]
        generation = inside[0] if inside else None
        time.sleep(0.001)
    assert server.kill(pid) == -signal.SIGKILL
    server.finish("resume", run, settings, control)
    assert digests(run) != digests(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_leaves_with_its_code(
    server: Server, tmp_path: Path, number: int, code: int
) -> None:
    settings = [*SETTINGS, *CONFIGURATIONS["sgd, average, accumulation, best"]]
    server.finish("train", tmp_path / "whole", settings)
    run = tmp_path / "stopped"
    pid = server.start("train", run, settings)
    while not list((run / "checkpoints").glob("[0-9]*")):
        time.sleep(0.002)
    assert server.kill(pid, number) == code
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    server.finish("resume", run, settings)
    assert digests(run) == digests(tmp_path / "whole")
