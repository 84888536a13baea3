"""A run's metrics as TensorBoard's event files: the same numbers, read back by TensorBoard itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from layerwise import rundir
from layerwise.errors import MachineError
from layerwise.report.tensorboard import write_events
from tests.synthetic_run import make_run


def whole_run(where: Path) -> Path:
    make_run(where / "run")
    return where / "run"


def test_it_reads_back_what_the_metrics_say(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = whole_run(tmp_path)
    for _ in range(2):  # the second time replaces the first
        events = write_events(run)
    read = EventAccumulator(str(events))
    read.Reload()
    lines = [line for line in rundir.read_lines(run / "metrics.jsonl") if line["kind"] == "val"]
    scalars = read.Scalars("error/val")
    assert [scalar.step for scalar in scalars] == [line["step"] for line in lines]
    assert [scalar.value for scalar in scalars] == pytest.approx([line["error"] for line in lines])


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MachineError, match=r"(?s)not installed.*checkout.* -c constraints.txt '\.\[tensorboard\]'"):
        write_events(whole_run(tmp_path))
