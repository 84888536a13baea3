"""One process at a time: a lock is one process's until it ends, and a run is trained and tested by one process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from layerwise import heartbeat, rundir, train
from layerwise.cli import main
from layerwise.errors import InputError
from layerwise.jobs import main_job
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.running_lock import locked
from layerwise.training.preparation import RunOptions

fcntl = pytest.importorskip("fcntl", reason="locks of POSIX")
ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys, time
from pathlib import Path
from layerwise.running_lock import locked
with locked(Path(sys.argv[1])) as pid:
    print(pid, flush=True)
    time.sleep(600)
"""
RECIPE = changed(preset("digits"), [
    "threads=1", "precision=fp32", "unit=iterations", "duration=2", "evaluate_every=2", "schedule=constant",
    "warmup=none", "warmup_length=0", "batch_size=48", "network=lenet5", "resize=squash", "input_size=32",
    "protocol=single"])  # fmt: skip
QUIET = RunOptions(quiet=True, offline=True, confirmed=True)


@contextmanager
def held_by_another(path: Path) -> Iterator[int]:
    """The number of another process, which holds the lock inside and is killed behind it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True,
                          env=environment) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "0\n"
        try:
            yield one.pid
        finally:
            one.kill()


def holder(path: Path) -> int:
    """Who holds a lock, 0 where nobody does."""
    with locked(path) as pid:
        return pid


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file() and path.name != rundir.LOCK}


def test_a_lock_is_one_process_s_and_a_dead_one_s_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "row.lock"
    with held_by_another(path) as other:
        assert holder(path) == other
    assert path.read_text() == f"{other}\n", "it was left behind"
    with locked(path) as pid:
        assert pid == 0
        assert path.read_text() == f"{os.getpid()}\n"
        assert holder(path) == os.getpid(), "within a process too"
    assert path.read_text() == ""


def test_a_lock_file_that_nobody_holds_stops_nobody(tmp_path: Path) -> None:
    """Also where its number belongs to a living process, such as this one's parent."""
    (tmp_path / "row.lock").write_text(f"{os.getppid()}\n")
    assert holder(tmp_path / "row.lock") == 0


def test_where_the_file_system_has_no_locks_everyone_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert holder(tmp_path / "row.lock") == 0


def test_a_run_that_another_process_trains_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = main_job.train(RECIPE, replace(QUIET, out=tmp_path / "run"))
    before = contents(run)
    (run / "evaluations").rename(tmp_path / "kept")  # so that its test is left to do
    with held_by_another(run / rundir.LOCK) as pid:
        for words in (["--extend", "1"], []):
            assert main(["resume", str(run), *words]) == 2
            assert f"{run}: process {pid} is at work on it\n" in capsys.readouterr().err
        (tmp_path / "kept").rename(run / "evaluations")
        assert contents(run) == before
    assert main(["resume", str(run), "--extend", "1"]) == 0  # the control: that process was killed
    assert contents(run) != before


def test_who_has_not_told_its_number_is_another_process(tmp_path: Path) -> None:
    run = train.train(RECIPE, replace(QUIET, out=tmp_path / "run"))
    with held_by_another(run / rundir.LOCK):
        (run / rundir.LOCK).write_text("")
        with pytest.raises(InputError, match=r"run: another process is at work on it\n.*\nWait until it ends"):
            train.resume(run, replace(QUIET, settings=("duration=3",)))


def test_a_run_is_held_while_it_is_trained_resumed_and_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def asking(function):
        def asked(*arguments):
            seen.append(holder(tmp_path / "run" / rundir.LOCK))
            return function(*arguments)
        return asked

    monkeypatch.setattr(train, "loop", asking(train.loop))
    monkeypatch.setattr(train, "restore", asking(train.restore))
    monkeypatch.setattr(main_job, "evaluate", asking(main_job.evaluate))
    run = main_job.train(RECIPE, replace(QUIET, out=tmp_path / "run"))
    assert seen == [os.getpid()] * 2
    main_job.resume(run, replace(QUIET, settings=("duration=3",)))
    assert seen == [os.getpid()] * 5
    assert holder(run / rundir.LOCK) == 0


def test_where_there_is_no_run_no_lock_is_left_and_the_launcher_told_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(heartbeat, "tell", lambda word, *text: told.append(word))
    for settings in ((), ("duration=3",)):
        for resume in (main_job.resume, train.resume):
            with pytest.raises(InputError, match="Name a directory that layerwise train made"):
                resume(tmp_path, replace(QUIET, settings=settings))
    assert (told, list(tmp_path.iterdir())) == ([], [])
    run = train.train(RECIPE, replace(QUIET, out=tmp_path / "run"))  # the control
    main_job.resume(run, QUIET)
    assert told == ["made", "run"]
