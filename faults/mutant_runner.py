"""A process that has imported what is slow to import and forks a child for each mutant, which its module's tests judge.

    python mutant_runner.py FOLDER

FOLDER holds `tree` (a copy of the package and its tests) and `jobs.json`; `results.json` is written there. First the
tests run once on the modules as they are, under coverage: they must pass, and say which test reaches which line.
A mutant is then written into the tree in place of its module, so that processes which the tests start have it too, and
is judged by the tests that reach its statement, those of a file in the order of their time, until one fails. Some
mutants are tried at once, each in a tree of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import math
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _pytest.assertion.rewrite
import coverage
import hypothesis.extra.numpy
import numpy
import PIL.Image
import pytest
import safetensors.torch
import scipy.ndimage
import scipy.stats
import simplejpeg
import sklearn.datasets
import torch._dynamo
import torch._inductor
import torch.distributed
import torch.nn.functional

# What layerwise and its tests import, imported once: nothing of layerwise itself, whose modules each child has anew.
PRELOADED = (_pytest.assertion.rewrite, hypothesis.extra.numpy, numpy, PIL.Image, safetensors.torch, scipy.ndimage,
             scipy.stats, simplejpeg, sklearn.datasets, torch._dynamo, torch._inductor, torch.distributed,
             torch.nn.functional)

NO_TESTS = int(pytest.ExitCode.NO_TESTS_COLLECTED)
BROKEN = 70  # the child failed, not a test of it
PATIENCE, TIMES = 10, 4  # seconds of a processor that a mutant has, and how many times the tests' own time besides
LONGEST, WAITS = 70.0, 8  # the same on the clock, where it waits: above the loader's own patience
PER_CORE = 2  # so many at a time, as some mutants wait
MEMORY = 4 << 30  # bytes that a mutant may take


class Chosen:
    """Of the collected tests only these, in this order; keeps the name of the first that fails."""

    def __init__(self, names: Sequence[str], failed: Path) -> None:
        self.order, self.failed = {name: at for at, name in enumerate(names)}, failed

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(chosen, key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.write_text(report.nodeid)


class Reached:
    """The seconds of each test, and the tests that reach each line of some modules; "" stands for the import."""

    def __init__(self, tree: Path, modules: Sequence[str]) -> None:
        self.files, self.seconds = {module: str(tree / module) for module in modules}, dict[str, float]()
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=list(self.files.values()))
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        started = time.monotonic()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - started
            self.coverage.switch_context("")

    def found(self) -> dict[str, Any]:
        """What was found, for JSON."""
        self.coverage.stop()
        data = self.coverage.get_data()
        return {"seconds": self.seconds,
                "lines": {module: data.contexts_by_lineno(file) for module, file in self.files.items()}}


def tested(tree: Path, files: Sequence[str], plugin: object, *more: str) -> int:
    """Runs tests of a tree in this process, which has imported nothing of it yet; pytest's exit status."""
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    spec = importlib.util.find_spec("layerwise")
    assert spec is not None
    assert str(spec.origin).startswith(str(tree)), spec.origin
    quiet = ("-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")  # hypothesis is loaded
    return int(pytest.main([*files, *quiet, f"--basetemp={tree / 'tmp'}", *more], [plugin]))


def forked(work: Callable[[], int], log: Path) -> int:
    """A child that does `work` in a session of its own and exits with what it returns; its process id."""
    if child := os.fork():
        return child
    status = BROKEN
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def reach(folder: Path, modules: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    """What the tests reach in their modules. RuntimeError where one of them fails."""
    tree, log, result = folder / "tree", folder / "reach.log", folder / "reach.json"

    def work() -> int:
        plugin = Reached(tree, modules)
        status = tested(tree, files, plugin)
        result.write_text(json.dumps(plugin.found()))
        return status

    _, status = os.waitpid(forked(work, log), 0)
    if status:
        raise RuntimeError(f"{files}: tests fail on the modules as they are:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(result.read_text()) | {"files": files}
    return found


def judges(found: dict[str, Any], module: str, first: int, last: int) -> list[str]:
    """The tests that reach one of the lines, in the order of the files and of their time; all for what is imported."""
    names = {name for line in range(first, last + 1) for name in found["lines"][module].get(str(line), ())}
    if "" in names:
        names = set(found["seconds"])
    return sorted(names, key=lambda name: (found["files"].index(name.partition("::")[0]), found["seconds"][name]))


class Slot:
    """A tree in which one mutant after the other is tried."""

    def __init__(self, folder: Path, number: int) -> None:
        self.tree, self.log = folder / f"tree-{number}", folder / f"log-{number}"
        self.failed = folder / f"failed-{number}"
        shutil.copytree(folder / "tree", self.tree)
        self.child, self.job, self.until, self.started = 0, dict[str, Any](), 0.0, 0.0

    def start(self, job: dict[str, Any], names: Sequence[str], seconds: float) -> None:
        """Writes the mutant and has its tests run."""
        path = self.tree / job["module"]
        self.original, self.job, self.started = path.read_bytes(), job, time.monotonic()
        path.write_text(job["code"], "utf-8")
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        self.failed.unlink(missing_ok=True)

        def work() -> int:
            sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE + TIMES * math.ceil(seconds),) * 2)
            files = dict.fromkeys(name.partition("::")[0] for name in names)
            return tested(self.tree, list(files), Chosen(names, self.failed), "-x")

        self.child = forked(work, self.log)
        self.until = self.started + LONGEST + WAITS * seconds

    def ended(self) -> dict[str, Any] | None:
        """What came of the mutant; None while it is being tried. One that takes too long is killed."""
        child, status = os.waitpid(self.child, os.WNOHANG)
        if not child and time.monotonic() < self.until:
            return None
        with contextlib.suppress(ProcessLookupError):  # and what its tests started and left
            os.killpg(self.child, signal.SIGKILL)
        if not child:
            os.waitpid(self.child, 0)
        self.child = 0
        (self.tree / self.job["module"]).write_bytes(self.original)
        code = os.waitstatus_to_exitcode(status) if child else None
        if code == BROKEN:
            raise RuntimeError(self.log.read_text()[-3000:])
        by = self.failed.read_text() if self.failed.exists() else "time" if code is None else f"status {code}"
        killed = code not in (0, NO_TESTS)
        return {"number": self.job["number"], "killed": killed, "by": by if killed else "",
                "seconds": round(time.monotonic() - self.started, 2)}


def main(folder: Path) -> None:
    """Tries the jobs of a folder."""
    gc.freeze()  # a child need not look through them
    jobs = json.loads((folder / "jobs.json").read_text("utf-8"))
    found = {module: known for modules, files in jobs["groups"].values()
             for known in [reach(folder, modules, files)] for module in modules}
    count = min(PER_CORE * len(os.sched_getaffinity(0)), len(jobs["mutants"]))
    slots = [Slot(folder, number) for number in range(count)]
    waiting, results = list(reversed(jobs["mutants"])), []
    while waiting or any(slot.child for slot in slots):
        for slot in slots:
            if slot.child and (one := slot.ended()):
                results.append(one)
                with (folder / "progress.jsonl").open("a") as stream:
                    stream.write(json.dumps(one) + "\n")
            if not slot.child and waiting:
                job = waiting.pop()
                known = found[job["module"]]
                names = judges(known, job["module"], job["first"], job["last"])
                if names:
                    slot.start(job, names, sum(known["seconds"][name] for name in names))
                else:
                    results.append({"number": job["number"], "killed": False, "by": "", "seconds": 0.0})
        time.sleep(0.01)
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    os.environ["COVERAGE_CORE"] = "ctrace"  # the core that knows contexts, on every Python
    main(Path(sys.argv[1]))
