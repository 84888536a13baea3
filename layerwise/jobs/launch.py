"""Several processes on this machine, started, watched and started again: `layerwise train ... --processes N`.

The processes run the command that torchrun would run in them. This launcher stands instead of torch's elastic agent,
which knows no signs of life of its own, restarts after every error alike, leaves orphans when it is killed, and keeps
one store for all attempts, at whose host (process 0) the next attempt fails. Here each attempt has a new store, a file.

A process that dies by a signal, or gives no sign of life, ends all at once, and all start again from the last
checkpoint; at most RESTARTS times without a new checkpoint in between. A process that ends with an error ends all too,
within GRACE seconds, and nothing starts again: the error would come again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from layerwise import heartbeat
from layerwise.console import note
from layerwise.errors import MachineError
from layerwise.signals import HEARD

FROZEN = 6.0  # seconds without a sign of life and without work after which a process counts as frozen
SILENT = 60.0  # the same where it waits for a disk or a processor, or where the system does not tell
GRACE = 10.0  # seconds in which the others end by themselves after an error of one
RESTARTS = 3
MACHINE = MachineError.exit_code  # what a process that lost the others ends with
LOST = "lost the others"

Start = Callable[[Sequence[str], Mapping[str, str], Path], int]


def spawned(words: Sequence[str], environment: Mapping[str, str], said: Path) -> int:
    """Starts `layerwise WORDS` in a process group of its own, so that Ctrl-C reaches it once, through the launcher.

    What all but the first process print goes to `said`. Returns the process's id.
    """
    quiet = [] if environment["RANK"] == "0" else [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(said), os.O_WRONLY | os.O_CREAT, 0o600)]
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), *quiet]
    return os.posix_spawn(sys.executable, [sys.executable, "-m", "layerwise", *words], environment,
                          file_actions=actions, setpgroup=0)


@dataclass
class Process:
    """One process of an attempt: how it is heard, when it was last, and how it ended (None: it runs)."""

    pid: int
    pipe: int
    said: Path
    heard: float
    worked: float = 0.0  # seconds of processor time at `heard`
    code: int | None = None
    reaped: bool = False  # from here on its number may be another process's
    done: bool = False
    unread: bytes = b""

    def end(self, number: int) -> None:
        """Sends it a signal, where it still runs."""
        if not self.reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass
class Attempt:
    """All processes, from a start to their end; `run` is the run's directory once they have told it."""

    processes: list[Process] = field(default_factory=list)
    run: Path | None = None
    made: bool = False  # whether they made that directory
    frozen: int | None = None  # the process that gave no sign of life

    def look(self, seconds: float) -> None:
        """Reads what they tell for `seconds` at most, and notes who ended and who is frozen."""
        before = time.monotonic()
        heard = {one.pipe: one for one in self.processes if one.code is None}
        for pipe in select.select(list(heard), [], [], seconds)[0]:
            self._read(heard[pipe])
        now = time.monotonic()
        for rank, one in enumerate(self.processes):
            if one.code is not None:
                continue
            pid, status = os.waitpid(one.pid, os.WNOHANG)
            if pid:
                one.code, one.reaped = os.waitstatus_to_exitcode(status), True
                self._read(one)
            elif now - before > seconds + 1:  # this launcher itself was stopped for a while
                one.heard = now
            elif now - one.heard > FROZEN:
                state, worked = activity(one.pid)
                if state not in "Tt" and worked > one.worked + 0.05:  # it works, without a moment for its sign
                    one.heard, one.worked = now, worked
                elif state in "RD?" and now - one.heard <= SILENT:
                    continue
                elif one.done and rank:
                    one.end(signal.SIGKILL)  # all is written, it only has to go
                else:
                    self.frozen = rank

    def _read(self, one: Process) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(one.pipe, 65536):
                one.unread += data
                one.heard, one.worked = time.monotonic(), activity(one.pid)[1]
        *lines, one.unread = one.unread.split(b"\n")
        for word, _, text in (line.partition(b" ") for line in lines):
            one.done |= word == b"done"
            if word in (b"run", b"made"):
                self.run, self.made = Path(json.loads(text)), word == b"made"

    def send(self, number: int) -> None:
        """Sends a signal to all that still run."""
        for one in self.processes:
            one.end(number)

    @property
    def running(self) -> bool:
        """Whether any process still runs."""
        return any(one.code is None for one in self.processes)

    @property
    def killed(self) -> list[int]:
        """The processes that a signal ended before all was written."""
        return [rank for rank, one in enumerate(self.processes)
                if one.code is not None and one.code < 0 and not (one.done and rank)]

    @property
    def failed(self) -> list[int]:
        """The processes that ended with an error."""
        return [rank for rank, one in enumerate(self.processes) if one.code is not None and one.code > 0]

    @property
    def crashed(self) -> bool:
        """Whether a signal or a freeze ended it; an error of the program, which would come again, counts first."""
        own = [rank for rank in self.failed if self.processes[rank].code != MACHINE]
        return self.frozen is not None or bool(self.killed and not own)

    def wait(self, until: float) -> None:
        """Looks until all have ended, or it is `until`."""
        while self.running and (left := until - time.monotonic()) > 0:
            self.look(min(0.1, left))

    def close(self) -> None:
        """Ends whoever still runs, at once."""
        for one in self.processes:
            one.end(signal.SIGKILL)
            if not one.reaped:
                os.waitpid(one.pid, 0)
                one.reaped = True
            os.close(one.pipe)


def activity(pid: int) -> tuple[str, float]:
    """A process's state (as in /proc: R, S, D, T) and the seconds of processor time it had; "?" and 0 if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "?", 0.0
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _started(size: int, words: Sequence[str], why: str, start: Start) -> Iterator[Attempt]:
    attempt = Attempt()
    with tempfile.TemporaryDirectory(prefix="layerwise-processes-", ignore_cleanup_errors=True) as place:
        try:
            for rank in range(size):
                reader, writer = os.pipe()
                os.set_blocking(reader, False)
                os.set_inheritable(writer, True)
                own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
                       heartbeat.PIPE: writer, heartbeat.LAUNCHER: os.getpid(), heartbeat.STORE: f"{place}/store",
                       heartbeat.RESTARTED: why}
                said = Path(place) / f"said-{rank}.txt"
                pid = start(words, os.environ | {name: str(value) for name, value in own.items()}, said)
                os.close(writer)
                attempt.processes.append(Process(pid, reader, said, time.monotonic()))
            yield attempt
        finally:
            attempt.close()


def launch(size: int, words: Sequence[str], again: Callable[[Path], Sequence[str]], start: Start = spawned) -> int:
    """Runs `words` in `size` processes to their end; returns the exit status of the first one.

    After a death or a freeze they start again with `again(run)`. Raises MachineError where they died more
    than RESTARTS times without a new checkpoint, or where this system has no processes of this kind.
    """
    if not hasattr(os, "posix_spawn"):
        raise MachineError("--processes: this system can't start them", mend="Leave it out: one process trains too.")
    run: Path | None = None
    why, restarts, reached = "", 0, ""
    attempt, stopped = Attempt(), list[int]()

    def forward(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        attempt.send(number)

    before = {number: signal.signal(number, forward) for number in HEARD}
    try:
        while True:
            with _started(size, again(run) if run else words, why, start) as attempt:
                for number in stopped:  # heard while they were being started
                    attempt.send(number)
                _watch(attempt)
                if not attempt.crashed:
                    _show(attempt)
            if not attempt.crashed:
                return max((one.code or 0 for one in attempt.processes), default=0)
            if stopped:
                return 128 + stopped[0]
            if attempt.processes[0].done:
                raise MachineError(f"{attempt.run or run}: process 0 died when the run was complete",
                                   "Only its summary is missing.", "See it with: layerwise report RUN")
            run, now = _usable(attempt.run or run, attempt.made)
            if stopped:  # in the meantime
                return 128 + stopped[0]
            restarts, reached = (1, now) if now != reached else (restarts + 1, now)
            why = _cause(attempt)
            if restarts > RESTARTS:
                raise MachineError(f"{why}, {restarts} times without a new checkpoint",
                                   "Whatever kills it will do so again: lack of memory is the usual reason.",
                                   f"Then: layerwise resume {run} --processes {size}" if run else "")
            place = f"from the last checkpoint of {run}" if now else "from the beginning"
            note(f"{why}: all {size} start again {place} (restart {restarts} of {RESTARTS} without a new checkpoint)")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(attempt: Attempt) -> None:
    """Until all have ended by themselves, or have to be ended because of one."""
    while attempt.running and attempt.frozen is None and not attempt.killed and not attempt.failed:
        attempt.look(0.1)
    if attempt.frozen is not None:
        return
    if attempt.killed and not attempt.failed:
        return attempt.wait(time.monotonic() + 0.3)  # the signal is the cause; the others are ended behind this
    attempt.wait(time.monotonic() + GRACE)
    attempt.send(signal.SIGUSR2)  # who still runs prints where it is
    attempt.wait(time.monotonic() + 1)


def _cause(attempt: Attempt) -> str:
    if attempt.frozen is not None:
        return f"process {attempt.frozen} was frozen: no sign of life and no work for {FROZEN:g} seconds"
    rank = attempt.killed[0]
    return f"process {rank} was killed by {signal.Signals(-(attempt.processes[rank].code or 0)).name}"


def _show(attempt: Attempt) -> None:
    """What others than the first said, where it is not the error that the first one has said already."""
    first = attempt.processes[0].code
    for rank, one in enumerate(attempt.processes[1:], 1):
        text = one.said.read_text("utf-8", "replace").strip() if one.said.exists() else ""
        alike = one.code == first and first != MACHINE
        if one.code and text and not alike and LOST not in text:
            note(f"process {rank} ended with status {one.code}:\n{text}")


def _usable(run: Path | None, made: bool) -> tuple[Path | None, str]:
    """The run, or None where its record was not yet written; its newest checkpoint.

    In the second case what there is goes away, where these processes `made` the directory: any other is somebody's own.
    """
    from layerwise import checkpoint, rundir  # after a death only: they import torch

    if run is None:
        return None, ""
    if not (run / rundir.RUN).is_file():
        if made:
            shutil.rmtree(run, ignore_errors=True)
        return None, ""
    return run, max((one.name for one in checkpoint.generations(run / rundir.CHECKPOINTS)), default="")
