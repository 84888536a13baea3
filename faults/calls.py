"""A4: the k-th write, fsync, rename, open or mkdir of a training fails, for every k, as SQLite's tests do it."""

from __future__ import annotations

import builtins
import contextlib
import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest import mock

from faults import tiny
from faults.goal import Control, Goal, Outcome
from layerwise import checkpoint, rundir
from layerwise.cli import as_known
from layerwise.errors import LayerwiseError

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EINTR)
LIMITS = (200, 700, 1500, 3000, 4000)  # bytes a file may have
CLEAR = (2, 3)  # bad input, the machine can't
STEPS = "duration=4"


@dataclass
class Calls:
    """Counts the calls below `root`; the one with the number `fails` raises the error `number`."""

    root: Path
    fails: int = -1
    number: int = 0
    made: list[str] = field(default_factory=list)

    def call(self, name: str, path: Path) -> None:
        """Counts one. Calls that know a path say it in their error, as the system's do."""
        if path != self.root and self.root not in path.parents:
            return
        self.made.append(f"{name} {path.relative_to(self.root)}")
        if len(self.made) - 1 == self.fails:
            known = () if name in ("write", "fsync") else (str(path),)
            raise OSError(self.number, os.strerror(self.number), *known)

    @property
    def failed(self) -> str:
        """The call that failed."""
        return self.made[self.fails] if 0 <= self.fails < len(self.made) else ""


class _File:
    """A file open for writing whose writes are counted."""

    def __init__(self, calls: Calls, file: Any, path: Path) -> None:
        self.calls, self.file, self.path = calls, file, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> int:
        try:
            self.calls.call("write", self.path)
        except OSError:
            self.file.write(content[: len(content) // 2])  # a write that fails may have written a part
            raise
        return cast(int, self.file.write(content))


@contextlib.contextmanager
def failing(root: Path, fails: int = -1, number: int = 0) -> Iterator[Calls]:
    """Within it one call of this process below `root` fails."""
    calls = Calls(root, fails, number)
    handles: dict[int, Path] = {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename", "replace", "mkdir")}
    real_open = builtins.open

    def open_(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return real_open(file, mode, *arguments, **named)
        calls.call("open", Path(file))
        stream = real_open(file, mode, *arguments, **named)
        handles[stream.fileno()] = Path(file)
        return _File(calls, stream, Path(file))

    def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is None:
            calls.call("open", Path(path))
        handle = cast(int, real["open"](path, flags, mode, dir_fd=dir_fd))
        handles[handle] = Path(os.fsdecode(path))
        return handle

    def fsync(handle: int) -> None:
        calls.call("fsync", handles[handle])
        real["fsync"](handle)

    def two(name: str) -> Callable[[Any, Any], None]:
        def move(source: Any, target: Any) -> None:
            calls.call(name, Path(target))
            real[name](source, target)
        return move

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        calls.call("mkdir", Path(path))
        real["mkdir"](path, mode, dir_fd=dir_fd)

    patches: dict[str, Any] = {"open": os_open, "fsync": fsync, "rename": two("rename"), "replace": two("replace"),
                               "mkdir": mkdir}
    with contextlib.ExitStack() as stack:
        for name, function in patches.items():
            stack.enter_context(mock.patch.object(os, name, function))
        stack.enter_context(mock.patch.object(builtins, "open", open_))
        yield calls


def failing_calls(trials: int, folder: Path, limits: tuple[int, ...] = LIMITS) -> Outcome:
    """A4: `trials` of the (call, error) pairs of a training of 4 steps that saves after each, evenly; 0: all.

    After each: exit status 2 or 3 with a message that names a path, or 0 with a note; no generation damaged, and the
    newest is the last that was written or a newer one; a resumption ends with the hash of the undisturbed run.
    """
    problems, early, tried = list[str](), 0, 0
    with tiny.tiny():
        recipe = tiny.recipe(STEPS)
        with failing(folder) as calls:
            whole = tiny.digest(tiny.begin(folder / "whole", recipe))
        points = [(at, number) for at in range(len(calls.made)) for number in ERRORS]
        for at, number in points if trials >= len(points) else points[:: -(-len(points) // trials)]:
            run = folder / "run"
            with written(run) as last, failing(folder, at, number) as calls:
                error = raised(lambda run=run: tiny.begin(run, recipe))  # type: ignore[misc]
            told = f"{errno.errorcode[number]} at call {at} ({calls.failed})"
            tried += 1
            begun, found = _judged(run, error, last, whole)
            early += not begun
            problems += [f"{told}: {problem}" for problem in found]
            shutil.rmtree(run, ignore_errors=True)
        for limit in limits:
            tried += 1
            problems += [f"files of {limit} bytes: {problem}" for problem in _limited(folder / "limited", limit, whole)]
            shutil.rmtree(folder / "limited", ignore_errors=True)
    return Outcome(tried, tuple(problems), f"{len(calls.made)} calls x {len(ERRORS)} errors, {len(limits)} limits on "
                                           f"the size of files; {early} before there was a run to resume")


@contextlib.contextmanager
def written(run: Path) -> Iterator[list[str]]:
    """The names of the generations of `run` whose writing ended well, as they come."""
    names: list[str] = []
    write = checkpoint.write

    def told(directory: Path, *arguments: Any) -> Path:
        final = write(directory, *arguments)
        names.append(final.name)
        return final

    with mock.patch.object(checkpoint, "write", told):
        yield names


def raised(action: Callable[[], object]) -> LayerwiseError | None:
    """What the command line would tell of the action, None where it ended well."""
    try:
        action()
    except Exception as error:
        return as_known(error, [])
    return None


def _judged(run: Path, error: LayerwiseError | None, last: list[str], whole: str) -> tuple[bool, list[str]]:
    """Whether the run had begun, and what is wrong with it."""
    problems = []
    if error is not None and error.exit_code not in CLEAR:
        problems.append(f"exit status {error.exit_code}: {error.what}")
    if error is not None and str(run.parent) not in str(error):
        problems.append(f"the message names no path: {error.what}")
    generations = checkpoint.generations(run / rundir.CHECKPOINTS)
    for generation in generations:
        if damage := raised(lambda one=generation: checkpoint.read(one)):  # type: ignore[misc]
            problems.append(f"damaged: {damage.what}")
    if last and (not generations or generations[-1].name < last[-1]):
        problems.append(f"generation {last[-1]} was written and is gone")
    if not (run / rundir.RUN).exists():
        return False, [*problems, *([] if error else ["nothing was said, and there is no run"])]
    if unread := raised(lambda: rundir.read_run(run)):
        return True, [*problems, unread.what]
    if error is None and not rundir.read_run(run)["notes"]:
        problems.append("nothing was said")
    if rundir.read_run(run)["state"] != "finished" and (again := raised(lambda: tiny.go_on(run))):
        return True, [*problems, f"could not be resumed: {again}"]
    ends: list[str] = []
    if unread := raised(lambda: ends.append(tiny.digest(run))):
        problems.append(f"the end can't be read: {unread.what}")
    elif ends != [whole]:
        problems.append("the end is another one")
    return True, problems


def _limited(run: Path, limit: int, whole: str) -> list[str]:
    """A child process whose files may have `limit` bytes, as a quota or `ulimit -f` sets it."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with written(run) as last:
                error = raised(lambda: tiny.begin(run, tiny.recipe(STEPS)))
            os.write(tell, json.dumps({"what": str(error) if error else "", "last": last}).encode())
            status = error.exit_code if error else 0
        os._exit(status)
    os.close(tell)
    with open(told, "rb") as stream:
        said = json.loads(stream.read() or b"{}")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not said:
        return [f"the child ended with {status} and said nothing"]
    error = LayerwiseError(said["what"]) if status else None
    if error:
        error.exit_code = status
    return _judged(run, error, said["last"], whole)[1]


def _swallowed(folder: Path) -> Outcome:
    """The guard taken out: what fails while a file is made durable is passed over."""
    write = checkpoint.write_durably

    def careless(path: Path, data: bytes) -> None:
        with contextlib.suppress(OSError):
            write(path, data)

    with mock.patch.object(checkpoint, "write_durably", careless):
        return failing_calls(25, folder, ())


def _written_over(folder: Path) -> Outcome:
    """The guard taken out: run.json and the model file are written in place."""
    with mock.patch.object(rundir, "replace_durably", checkpoint.write_durably):
        return failing_calls(60, folder, ())


A4 = Goal(
    "A4", "an error at any call loses nothing", "0 violations", 700, 40,
    lambda trials, folder: failing_calls(trials, folder, LIMITS if trials >= 500 else LIMITS[2:4]),
    (Control("an error swallowed", _swallowed), Control("records written over", _written_over)),
    needs=lambda: "" if hasattr(os, "fork") else "this system can't fork a process",
)
GOALS = (A4,)
