"""`layerwise reproduce` as real processes: killed and started again, two at once, several that work together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.made_up_experiment import NAME

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and locks of POSIX")
ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = (NAME, "--seeds", "1", "--yes", "--offline")
LIMIT = 120.0

SLOW = pytest.mark.skipif(not os.environ.get("LAYERWISE_ALL_PROCESSES"),
                          reason="half a minute each; LAYERWISE_ALL_PROCESSES=1 runs them")


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.made_up_experiment", str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def until(process: subprocess.Popen[str], found: Callable[[], object]) -> None:
    """Waits until `found` finds something; the process may not have ended before."""
    started = time.monotonic()
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - started < LIMIT
        time.sleep(0.01)


def kept(folder: Path) -> dict[str, Any]:
    """The one result in `folder`, without what depends on the time."""
    (file,) = folder.glob("results/measured/resnet20-*/metrics.json")
    return json.loads(file.read_text()) | {"seconds": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a process that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = ended(start(folder, *ARGUMENTS))
    assert code == 0, err
    assert "SMALL SCALE, not the paper's experiment: digits, 30 steps" in out
    return kept(folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@SLOW
def test_a_stopped_row_goes_on_to_the_same_result(number: int, code: int, tmp_path: Path,
                                                  whole: dict[str, Any]) -> None:
    process = start(tmp_path, *ARGUMENTS)
    until(process, lambda: list(tmp_path.glob("runs/reproduce/*/checkpoints/[0-9]*")))
    process.send_signal(number)
    status, _, err = ended(process)
    assert status == code, err
    assert not list(tmp_path.glob("results/measured/*"))
    if number == signal.SIGTERM:
        assert f"Continue with the same command: layerwise reproduce {NAME} --scale small --yes" in err
    status, _, err = ended(start(tmp_path, *ARGUMENTS))
    assert status == 0, err
    assert "resuming" in err
    assert kept(tmp_path) == whole, "weights, curve and numbers are those of a run that nobody stopped"


@SLOW
def test_two_processes_do_not_train_the_same_row(tmp_path: Path) -> None:
    first = start(tmp_path, *ARGUMENTS)
    until(first, lambda: list(tmp_path.glob("runs/reproduce/*/run.json")))
    first.send_signal(signal.SIGSTOP)
    try:
        code, out, err = ended(start(tmp_path, *ARGUMENTS))
        assert code == 0, err
        assert f"another process is at it: deep, seed 0: process {first.pid} trains resnet20-" in out
        assert not list(tmp_path.glob("results/measured/*"))
    finally:
        first.send_signal(signal.SIGCONT)
    assert ended(first)[0] == 0
    kept(tmp_path)


@SLOW
def test_several_processes_together(tmp_path: Path, whole: dict[str, Any]) -> None:
    """As torchrun starts them: one trains, tests and keeps with the other's help; the table comes once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = [start(tmp_path, *ARGUMENTS, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
                   MASTER_ADDR="127.0.0.1", MASTER_PORT=port) for rank in range(2)]
    ends = [ended(process) for process in group]
    assert [code for code, *_ in ends] == [0, 0], ends
    assert "SMALL SCALE" in ends[0][1]
    assert ends[1][1] == ""
    found = kept(tmp_path)
    assert (found["samples"], found["data"]) == (whole["samples"], whole["data"])
    environment = json.loads(next(tmp_path.glob("results/measured/*/environment.json")).read_text())
    assert environment["hardware"]["processes"] == 2
