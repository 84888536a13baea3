"""virtual_workers: the same run on 1, 2 or 4 real processes has the same weights to the bit.

A number that changes in the middle is goals F4 and A5 of the fault suite. The controls leave the field
out, or add the gradients in the order of the processes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerwise import rundir
from layerwise.errors import InputError
from layerwise.recipe import changed, check
from layerwise.recipes.presets import preset
from tests.processes import Processes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork a process")

# Three batches of 48 and one of 3, which leaves a worker of four without a picture.
SETTINGS = ["precision=fp32", "unit=epochs", "duration=1", "evaluate_every=1", "schedule=constant", "warmup=none",
            "warmup_length=0", "batch_size=48", "validation=1291", "network=resnet20", "ema=0.9", "mixup=0.2",
            "clip_norm=1"]
EXACT = [*SETTINGS, "virtual_workers=4"]


@pytest.fixture(scope="module")
def trained(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("exact")
    states = {}
    for size in (1, 2, 4):
        logs = processes.train(folder / str(size), size, EXACT)
        states[size] = {log["state"] for log in logs}
    assert len(set.union(*states.values())) == 1  # weights, statistics and momentum, on every process
    return {size: folder / str(size) for size in states}


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl", "recipe.json")}


def test_any_number_of_processes_gives_the_same_files(trained: dict[int, Path]) -> None:
    assert files(trained[1]) == files(trained[2]) == files(trained[4])
    assert rundir.read_recipe(trained[4]).threads == 1
    assert rundir.read_recipe(trained[4]).micro_batch == 12


def test_the_control_without_virtual_workers(processes: Processes, tmp_path: Path) -> None:
    states = [processes.train(tmp_path / str(size), size, [*SETTINGS, "threads=1", "micro_batch=12"])[0]["state"]
              for size in (1, 4)]
    assert states[0] != states[1]


def test_the_control_with_gradients_in_the_order_of_the_processes(processes: Processes, tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for size, run in enumerate(runs, 1):
        processes.train(run, size, EXACT, control="add in order")
    assert files(runs[0])["model.safetensors"] != files(runs[1])["model.safetensors"]


def test_memory_that_runs_out_ends_all_processes_and_names_the_field(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "logs", 2, "train", run=str(tmp_path / "run"), settings=EXACT, harm="memory")
    assert codes == [3, 3]
    for log in logs:
        assert log["error"].startswith("step 0: a virtual worker's 12 pictures do not fit into memory\n")
        assert "Start again with more virtual_workers (now 4)" in log["error"]


def test_processes_that_do_not_divide_the_workers_are_refused(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "logs", 3, "train", run=str(tmp_path / "run"), settings=EXACT)
    assert 0 not in codes
    assert "virtual_workers=4 can't be shared by 3 processes" in logs[0]["error"]


def test_a_network_without_statistics_is_exact_too(processes: Processes, tmp_path: Path) -> None:
    settings = [*(one for one in EXACT if "network" not in one), "network=lenet5", "resize=squash", "input_size=32"]
    one, two = (processes.train(tmp_path / str(size), size, settings)[0]["state"] for size in (1, 2))
    assert one == two


@pytest.mark.parametrize(("settings", "problem"), [
    (["virtual_workers=4", "batch_norm=all"], "batch_norm=all with virtual_workers=4: a worker has its own statistics"),
    (["batch_norm=all", "compile=yes"], "batch_norm=all with compile=yes: the sums over the processes"),
    (["batch_norm=all", "recompute=blocks"], "batch_norm=all with recompute=blocks: what is computed again"),
    (["virtual_workers=40"], "virtual_workers=40 with batch_size=48: each needs at least two pictures"),
    (["virtual_workers=4", "micro_batch=16"], "micro_batch=16 with virtual_workers=4: a worker's part of the batch is"),
    (["virtual_workers=4", "deterministic=False"], "virtual_workers with deterministic=False"),
])  # fmt: skip
def test_contradictions(settings: list[str], problem: str) -> None:
    with pytest.raises(InputError, match="recipe 'digits'") as found:
        check(changed(preset("digits"), [*SETTINGS, *settings]))
    assert any(problem in detail for detail in found.value.details)
