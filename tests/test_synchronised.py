"""batch_norm=all: several processes compute what one does with the whole batch; the control has its own pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.processes import Processes
from tests.test_distributed import EPOCHS, LENET, ROUNDING, SETTINGS, furthest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork a process")


@pytest.mark.parametrize(("size", "count"), [(2, 11), (3, 2)])
def test_synchronised_statistics_are_those_of_one_process_with_the_whole_batch(
    size: int, count: int, processes: Processes, tmp_path: Path
) -> None:
    def answers(name: str, size: int, mode: str) -> list[torch.Tensor]:
        codes, logs = processes.run(tmp_path / name, size, "synchronised", mode=mode, count=count)
        assert codes == [0] * size, logs
        assert len({str(log["statistics"]) for log in logs}) == 1 or mode != "all"
        return [torch.tensor(logs[0][what], dtype=torch.float64) for what in ("gradients", "statistics")]

    whole = answers("whole", 1, "torch")  # torch's own batch normalisation
    for one, other in zip(answers("all", size, "all"), whole, strict=True):
        assert float((one - other).abs().max()) < 1e-12
    if count > size:  # the control: each process over its own pictures
        for one, other in zip(answers("own", size, "torch"), whole, strict=True):
            assert float((one - other).abs().max()) > 1e-3


@pytest.mark.skipif(not os.environ.get("LAYERWISE_ALL_PROCESSES"), reason="LAYERWISE_ALL_PROCESSES=1 runs it")
def test_batch_norm_all_trains_as_one_process_with_the_whole_batch(processes: Processes, tmp_path: Path) -> None:
    settings = [*SETTINGS, "duration=1", "evaluate_every=1"]
    processes.train(tmp_path / "one", 1, settings)
    logs = processes.train(tmp_path / "two", 2, [*settings, "batch_norm=all"])
    assert len({log["state"] for log in logs}) == 1
    assert furthest(tmp_path / "one", tmp_path / "two") < ROUNDING
    last = processes.train(tmp_path / "last", 4, [*EPOCHS, "network=resnet20", "resize=none", "input_size=0",
                                                  "duration=1", "evaluate_every=1", "batch_norm=all", "warmup=none",
                                                  "warmup_length=0"])
    assert len({log["state"] for log in last}) == 1  # its last batch of 3 leaves one without a picture


def test_memory_that_runs_out_with_batch_norm_all_names_the_field(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "logs", 2, "train", run=str(tmp_path / "run"), harm="memory",
                                settings=[*LENET, "batch_norm=all"])
    assert codes == [3, 3]
    assert logs[1]["error"].startswith("step 0: 24 pictures at a time do not fit into memory\n")
    assert "Start again with a smaller micro_batch." in logs[1]["error"]
