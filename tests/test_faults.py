"""The fault suite's slice: each goal tried a few times; and that the suite itself can fail.

A run of the tests leaves the controls of the goals, and the goals of LONG, to `make faults`, which always runs them;
LAYERWISE_ALL_FAULTS=1 takes them here too (some three minutes more).
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from faults import all as suite
from faults import gradients
from faults.goal import Control, Goal, Outcome


def fine(trials: int, folder: Path) -> Outcome:
    return Outcome(trials)


def broken(trials: int, folder: Path) -> Outcome:
    return Outcome(trials, ("it broke",))


def failing(folder: Path) -> Outcome:
    raise RuntimeError(folder.name)


ALL = bool(os.environ.get("LAYERWISE_ALL_FAULTS"))
LONG = ("A1c", "A5", "A6", "A7", "B3", "B5", "B6", "C1", "C2", "E3", "E4", "E5", "F2", "F4")  # 4 seconds or more each
LEFT_TO_THE_SUITE = "controls and long goals are left to `make faults`; LAYERWISE_ALL_FAULTS=1 runs them here"
CAUGHT = Control("caught", lambda folder: Outcome(1, ("found",)))
MISSED = Control("missed", lambda folder: Outcome(1))


@pytest.mark.parametrize("goal", [goal for goal in suite.GOALS if goal.slice], ids=lambda goal: goal.id)
def test_the_goal_holds(goal: Goal) -> None:
    if why := goal.needs():
        pytest.skip(why)
    if goal.id in LONG and not ALL:
        pytest.skip(LEFT_TO_THE_SUITE)
    with suite.place() as folder:
        outcome = goal.attempt(goal.slice, folder)
    assert outcome.trials >= 1
    assert len(outcome.violations) <= goal.allowed, outcome.violations[:5]


@pytest.mark.parametrize(("goal", "control"), [(goal, control) for goal in suite.GOALS for control in goal.controls],
                         ids=lambda one: getattr(one, "id", None) or one.name)
def test_the_control_is_caught(goal: Goal, control: Control) -> None:
    if why := goal.needs():
        pytest.skip(why)
    if not ALL:
        pytest.skip(LEFT_TO_THE_SUITE)
    with suite.place() as folder:
        assert control.attempt(folder).violations


def test_every_case_of_the_gradients_computes() -> None:
    for name, make in gradients.CASES.items():  # the slice derives only a few of them
        function, inputs = make()
        found = function.double()(*inputs) if isinstance(function, torch.nn.Module) else function(*inputs)
        assert found.dtype == torch.float64, name


@pytest.mark.parametrize(("attempt", "controls", "met"), [
    (fine, (CAUGHT,), True),
    (broken, (CAUGHT,), False),
    (fine, (CAUGHT, MISSED), False),
    (fine, (Control("fails", failing),), False),  # a control that can't run shows nothing
    (lambda trials, folder: failing(folder), (), False),
])
def test_what_meets_a_bar(attempt: object, controls: tuple[Control, ...], met: bool) -> None:
    goal = Goal("Z9", "made up", "0 violations", 10, 2, attempt, controls)  # type: ignore[arg-type]
    row = suite.attempted(goal, 0.5)
    assert row.met is met
    assert row.trials in (0, 5)


def test_several_goals_are_tried_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goals = [Goal(name, "made up", "none", 3, 1, fine, (CAUGHT,)) for name in ("Z1", "Z2")]
    (tmp_path / "row").write_text(json.dumps(asdict(suite.attempted(goals[0]))))
    child = tmp_path / "python"  # told --only and a goal's name; of Z2 the process dies
    busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    child.write_text(f'#!/bin/sh\n[ "$3" = Z1 ] || kill -SEGV $$\n{busy}; echo "something else"; cat {tmp_path}/row\n')
    child.chmod(0o755)
    monkeypatch.setattr(suite.sys, "executable", str(child))
    rows = {row.id: row for row in suite.rows_of(goals, 1.0)}
    assert replace(rows["Z1"], processor=0.0) == suite.row_of(json.loads((tmp_path / "row").read_text()))
    assert (rows["Z1"].met, rows["Z1"].trials) == (True, 3)
    assert 0 < rows["Z1"].processor < 10
    assert (rows["Z2"].met, rows["Z2"].violations) == (False, ["its process ended with -11"])


def test_an_interrupted_suite_begins_no_other_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def slow(goal: Goal, share: float) -> suite.Row:
        begun.append(goal.id)
        time.sleep(0.5 * (len(begun) - 1))
        return suite.attempted(goal, share)

    monkeypatch.setattr(suite, "apart", slow)
    monkeypatch.setattr(suite.hardware, "cores", lambda: 1)
    rows = suite.rows_of([Goal(name, "made up", "none", 3, 1, fine) for name in ("Z1", "Z2", "Z3")], 1.0)
    next(iter(rows))
    rows.close()
    assert begun == ["Z1", "Z2"]


def test_the_table_and_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    goals = (Goal("Z1", "fine", "none", 3, 1, fine, (CAUGHT,)), Goal("Z2", "broken", "none", 3, 1, broken),
             Goal("Z3", "elsewhere", "none", 3, 1, fine, needs=lambda: "needs two machines"))
    monkeypatch.setattr(suite, "GOALS", goals)
    monkeypatch.setattr(suite, "apart", suite.attempted)
    monkeypatch.setattr(suite, "RESULTS", tmp_path / "faults")
    monkeypatch.setattr(suite, "TABLE", tmp_path / "faults.md")
    assert suite.main(["--only", "Z1"]) == 0
    assert suite.main(["--only", "Z2"]) == 4
    assert suite.main(["--only", "Z3"]) == 0
    text = (tmp_path / "faults.md").read_text("utf-8")
    assert "| Z1 | fine | 3 | 0 |" in text
    assert "| Z2 | broken | 3 | 1 |" in text
    assert "none: **not met**" in text
    assert "needs two machines" in text
    assert "left out: needs two machines" in capsys.readouterr().out
    assert suite.main(["--only", "Z1", "--trials-share", "0.4"]) == 0
    assert text == (tmp_path / "faults.md").read_text("utf-8")  # a part of a run is not kept


def test_long_notes_end_where_a_cell_does() -> None:
    row = suite.judged(Goal("Z1", "fine", "none", 3, 1, fine), fine(3, Path()), [], 1.0)
    short, long = (replace(row, notes="; ".join([f"killed {number}" for number in range(count)])) for count in (2, 99))
    assert suite.noted(short) == "killed 0; killed 1"
    assert suite.noted(long).endswith("; more in results/faults/Z1.json")
    assert len(suite.noted(long)) < suite.LONGEST + 40
    assert suite.noted(replace(row, notes="")) == "-"
