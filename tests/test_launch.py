"""`--processes N`: one that dies, fails or freezes ends all in time; restarts are few and said; nobody is left behind.

Most of it with processes that import no torch; the whole command stands at the end, and in faults/processes.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from layerwise.cli import main
from layerwise.errors import MachineError
from layerwise.jobs import launch as launcher
from layerwise.jobs.launch import launch

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="this system can't start processes so")

BEGIN = """
import os, signal, sys, time
from pathlib import Path
from layerwise import heartbeat
heartbeat.EVERY = 0.1
heartbeat.begin()
rank, place, again = int(os.environ["RANK"]), Path(sys.argv[1]), sys.argv[2:] == ["again"]
(place / f"pid-{rank}").write_text(str(os.getpid()))
def run(name="run"):
    (place / name).mkdir(exist_ok=True)
    (place / name / "run.json").write_text("{}")
    heartbeat.tell("run", str(place / name))
"""


class Ranks:
    """Starts `code` in place of the command; counts how often."""

    def __init__(self, code: str, begin: str = BEGIN) -> None:
        self.code, self.words = begin + code, list[list[str]]()

    def __call__(self, words: Sequence[str], environment: Mapping[str, str], said: Path) -> int:
        self.words.append([*words])
        actions = [] if environment["RANK"] == "0" else [(os.POSIX_SPAWN_OPEN, 2, str(said), os.O_WRONLY | os.O_CREAT,
                                                          0o600)]
        return os.posix_spawn(sys.executable, [sys.executable, "-c", self.code, *words], environment,
                              file_actions=actions, setpgroup=0)


def launched(code: str, place: Path) -> tuple[int, list[list[str]]]:
    ranks = Ranks(code)
    return launch(2, [str(place)], lambda run: [str(run.parent), "again"], ranks), ranks.words


def gone(place: Path, seconds: float = 5.0) -> bool:
    """Whether all processes have ended within `seconds`."""
    pids = [int(path.read_text()) for path in place.glob("pid-*")]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and launcher.activity(pid)[0] != "Z"]:
            return True
        time.sleep(0.05)
    return False


def test_all_end_well_once(tmp_path: Path) -> None:
    code, words = launched("heartbeat.tell('done')", tmp_path)
    assert code == 0
    assert len(words) == 2


@pytest.mark.parametrize("victim", [0, 1])
def test_a_death_by_a_signal_starts_all_again(victim: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, words = launched(f"""
run()
if again:
    (place / f"why-{{rank}}").write_text(heartbeat.restarted())
elif rank == {victim}:
    os.kill(os.getpid(), signal.SIGKILL)
else:
    time.sleep(60)
""", tmp_path)
    assert code == 0
    assert words == [[str(tmp_path)]] * 2 + [[str(tmp_path), "again"]] * 2
    why = f"process {victim} was killed by SIGKILL"
    assert f"{why}: all 2 start again from the beginning (restart 1 of 3 without" in capsys.readouterr().err
    assert (tmp_path / "why-0").read_text() == why
    assert gone(tmp_path)


def test_a_run_without_a_record_begins_again(tmp_path: Path) -> None:
    code, words = launched("""
if os.environ["LAYERWISE_RESTARTED"]:
    sys.exit((place / "run").exists())
(place / "run").mkdir(exist_ok=True)
(place / "run/metrics.jsonl").touch()
heartbeat.tell("made", str(place / "run"))
if rank == 0:
    os.kill(os.getpid(), signal.SIGKILL)
""", tmp_path)
    assert (code, words) == (0, [[str(tmp_path)]] * 4)


def test_a_directory_that_nobody_made_is_left_alone(tmp_path: Path) -> None:
    """Such as the one above all runs, resumed by mistake."""
    code, words = launched("""
(place / "other").mkdir(exist_ok=True)
(place / "other/run.json").write_text("{}")
heartbeat.tell("run", str(place))
if not os.environ["LAYERWISE_RESTARTED"]:
    os.kill(os.getpid(), signal.SIGKILL)
""", tmp_path)
    assert (code, words) == (0, [[str(tmp_path)]] * 4)
    assert (tmp_path / "other" / "run.json").exists()


def test_restarts_without_a_new_checkpoint_are_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MachineError, match="was killed by SIGSEGV, 4 times without a new checkpoint") as found:
        launched("run(); os.kill(os.getpid(), signal.SIGSEGV)", tmp_path)
    assert found.value.mend == f"Then: layerwise resume {tmp_path / 'run'} --processes 2"
    assert "(restart 3 of 3 without a new checkpoint)" in capsys.readouterr().err


def test_a_new_checkpoint_gives_new_restarts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, words = launched("""
run()
checkpoints = place / "run/checkpoints"
checkpoints.mkdir(exist_ok=True)
if rank == 0:
    count = len(list(checkpoints.iterdir()))
    (checkpoints / f"{count:012d}").mkdir()
    if count < 5:
        os.kill(os.getpid(), signal.SIGKILL)
""", tmp_path)
    assert (code, len(words)) == (0, 12)
    said = capsys.readouterr().err
    assert said.count("(restart 1 of 3") == 5
    assert f"start again from the last checkpoint of {tmp_path / 'run'}" in said


@pytest.mark.parametrize(("failing", "shown"), [(0, False), (1, True)])
def test_an_error_of_one_ends_all_and_starts_nothing_again(
    failing: int, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "GRACE", 0.3)
    started = time.monotonic()
    code, words = launched(f"""
if rank == {failing}:
    raise ValueError("a fault of the program")
time.sleep(60)
""", tmp_path)
    assert (code, len(words)) == (1, 2)
    assert time.monotonic() - started < 20
    said = capsys.readouterr().err
    assert ("process 1 ended with status 1:\nTraceback" in said) is shown  # the first one speaks for itself
    assert ("ValueError: a fault of the program" in said) is shown
    assert gone(tmp_path)


def test_who_sleeps_is_asked_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GRACE", 0.3)
    told: list[str] = []
    monkeypatch.setattr(launcher, "_show", lambda attempt: told.append(attempt.processes[1].said.read_text()))
    launched("""
def asleep():
    time.sleep(60)
if rank == 0:
    time.sleep(0.5)
    sys.exit(3)
asleep()
""", tmp_path)
    assert "in asleep" in told[0]


def test_who_only_lost_another_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = launched("sys.stderr.write('process 1 of 2: lost the others'); sys.exit(rank and 3 or 2)", tmp_path)
    assert code == 3
    assert "lost the others" not in capsys.readouterr().err


def test_one_that_is_frozen_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(launcher, "FROZEN", 1.0)
    code, words = launched("""
run()
if not again:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)
""", tmp_path)
    assert (code, len(words)) == (0, 4)
    assert "process 1 was frozen: no sign of life and no work for 1 seconds" in capsys.readouterr().err


def test_the_control_work_without_a_sign_of_life_is_no_freeze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "FROZEN", 2.0)  # in less a busy host may give a process no time at all
    code, words = launched("""
heartbeat.EVERY = 60
end = time.monotonic() + 3
while time.monotonic() < end: pass
""", tmp_path)
    assert (code, len(words)) == (0, 2)


def test_a_signal_to_the_launcher_reaches_all_and_starts_nothing_again(tmp_path: Path) -> None:
    def stop() -> None:
        while not ((tmp_path / "ready-0").exists() and (tmp_path / "ready-1").exists()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    code, words = launched("""
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
(place / f"ready-{rank}").touch()
time.sleep(60)
""", tmp_path)
    assert (code, len(words)) == (143, 2)


def test_a_signal_while_they_are_started_reaches_all(tmp_path: Path) -> None:
    class Stopped(Ranks):
        def __call__(self, words: Sequence[str], environment: Mapping[str, str], said: Path) -> int:
            if environment["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(words, environment, said)

    ranks = Stopped("time.sleep(3)")
    assert launch(2, [str(tmp_path)], lambda run: [], ranks) == 143
    assert len(ranks.words) == 2


@pytest.mark.parametrize("stopped", [True, False])
def test_a_signal_between_two_attempts_starts_nothing_again_and_reaches_no_stranger(
    stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All were reaped by then: their numbers may be those of others. The control has no signal."""
    sent, usable = list[tuple[int, int]](), launcher._usable

    def late(*arguments: Any) -> tuple[Path | None, str]:
        with monkeypatch.context() as patched:
            patched.setattr(os, "kill", lambda *call: sent.append(call))
            if stopped:
                signal.raise_signal(signal.SIGTERM)
        return usable(*arguments)

    monkeypatch.setattr(launcher, "_usable", late)
    code, words = launched("""
run()
if not again:
    rank or os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
""", tmp_path)
    assert (code, len(words), sent) == ((143, 2, []) if stopped else (0, 4, []))


def test_a_death_behind_the_end_is_no_failure(tmp_path: Path) -> None:
    code, words = launched("heartbeat.tell('done'); rank and os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert (code, len(words)) == (0, 2)
    with pytest.raises(MachineError, match="process 0 died when the run was complete"):
        launched("run(); heartbeat.tell('done'); rank or os.kill(os.getpid(), signal.SIGKILL)", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("guard", ["", "heartbeat.PR_SET_PDEATHSIG = 0", "never"])
def test_nobody_outlives_a_launcher_that_is_killed(guard: str, tmp_path: Path) -> None:
    """The guards one by one: the kernel's signal, the pipe that nobody reads; and the control without both."""
    begin = BEGIN.replace("heartbeat.begin()", "" if guard == "never" else f"{guard}\nheartbeat.begin()")
    code = "(place / f'ready-{rank}').touch(); time.sleep(20)"
    script = f"""
from layerwise.jobs.launch import launch
from tests.test_launch import Ranks
launch(2, [{str(tmp_path)!r}], lambda run: [], Ranks({code!r}, {begin!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent.parent)
    while len(list(tmp_path.glob("ready-*"))) < 2:
        time.sleep(0.05)
    process.kill()
    process.wait()
    found = gone(tmp_path, 1.5 if guard == "never" else 5)
    for path in tmp_path.glob("pid-*"):
        if not found:
            os.kill(int(path.read_text()), signal.SIGKILL)
    assert found is (guard != "never")


def test_not_under_torchrun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["resume", "nowhere", "--processes", "2"]) == 2
    assert "--processes 2 under torchrun: only one of them starts processes" in capsys.readouterr().err


def test_a_system_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_spawn")
    with pytest.raises(MachineError, match="--processes: this system can't start them"):
        launch(2, [], lambda run: [])


@pytest.mark.skipif(not os.environ.get("LAYERWISE_ALL_PROCESSES"),
                    reason="half a minute; LAYERWISE_ALL_PROCESSES=1 runs it, and goal F1 does the same")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command_survives_the_loss_of_the_first_process(tmp_path: Path) -> None:
    """`layerwise train --processes 2`, cold: process 0 is killed behind its first checkpoint."""
    settings = ["network=lenet5", "duration=1", "warmup_length=0.5", "resize=squash", "input_size=32", "precision=fp32",
                "virtual_workers=2", "checkpoint_seconds=0.1", "evaluate_every=1"]
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "layerwise", "train", "lenet5", "digits", "--recipe", "digits", "--offline", "--json",
         "--processes", "2", "--out", str(run), *(word for one in settings for word in ("--set", one))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((run / "checkpoints").glob("[0-9]*")):
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "process 0 was killed by SIGKILL: all 2 start again from the last checkpoint of" in err
    assert json.loads(out)["evaluations"][0]["samples"] == 359
    assert "started again: process 0 was killed by SIGKILL" in json.loads((run / "run.json").read_text())["notes"]
