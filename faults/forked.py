"""A process that has imported Layerwise and forks a child for each job, so that a job costs a fork and not an import.

`serve` is its loop and `Server` its client. Standard input: one job a line, as JSON. Standard output: `pid N` when the
child runs, `exit N` when it ended (minus the signal's number where one ended it).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import scipy.special  # noqa: F401  here once, not in each job that draws: there a sixth of its processor time
import torch

from layerwise.models.shapes import cost

ROOT = Path(__file__).resolve().parents[1]


class Server:
    """A module of this folder that calls `serve`: starts jobs, tells their process, waits for their exit."""

    def __init__(self, module: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen([sys.executable, "-W", "error", "-m", f"faults.{module}"], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
                                        env=os.environ | (environment or {}))

    def start(self, job: object) -> int:
        """Starts a job, a dataclass or a dictionary; returns its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job, default=asdict) + "\n")  # type: ignore[arg-type]
        return self._answer("pid")

    def wait(self) -> int:
        """Waits for the job's end; returns its exit code, or minus the signal that ended it."""
        return self._answer("exit")

    def _answer(self, word: str) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == [word], f"the fork server said {line}"
        return int(line[1])

    def do(self, job: object) -> int:
        """A job from its start to its end."""
        self.start(job)
        return self.wait()

    def kill(self, pid: int, number: int = signal.SIGKILL) -> int:
        """Sends a signal, where the job has not ended by itself; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return self.wait()

    def close(self) -> None:
        """Ends the server."""
        self.process.communicate()


@functools.cache
def server(module: str = "fork_server") -> Server:
    """The one server of a module in this process: to start it costs more than most of its jobs."""
    one = Server(module)
    atexit.register(one.close)
    return one


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[Server]:
    """Another fork server, with variables of its own, ended at the end."""
    one = Server("fork_server", environment)
    try:
        yield one
    finally:
        one.close()


def serve(child: Callable[[dict[str, Any]], int]) -> None:
    """Serves jobs until standard input ends; a child's exit status is what `child` returns, or its error's."""
    torch.set_num_threads(1)
    # Imports everything that a job imports; runs no backward pass, whose threads a fork would lose.
    cost("resnet20", (3, 32, 32))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(status(lambda: child(json.loads(line))))  # noqa: B023  called at once
        print(f"pid {pid}", flush=True)
        _, ended = os.waitpid(pid, 0)
        print(f"exit {os.waitstatus_to_exitcode(ended)}", flush=True)


def status(work: Callable[[], int]) -> int:
    """What `work` returns, or the exit status of its error, which is told."""
    try:
        return work()
    except BaseException as error:
        traceback.print_exc()
        return int(getattr(error, "exit_code", 1))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
