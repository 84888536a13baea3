"""Several real processes on this machine (gloo): a number does not depend on how many there are, and nobody waits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layerwise import distributed, rundir, train
from layerwise.errors import InputError, MachineError
from layerwise.modelfile import read
from layerwise.randomness import derived_seed
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training.preparation import RunOptions, open_split
from tests.processes import Processes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork a process")

SETTINGS = ["threads=1", "precision=fp32", "unit=iterations", "duration=3", "evaluate_every=3", "schedule=constant",
            "warmup=none", "warmup_length=0", "batch_size=48", "label_smoothing=0", "ema=0", "validation=1291"]
LENET = [*SETTINGS, "network=lenet5", "resize=squash", "input_size=32"]
# Of the 1438 training pictures all but 147 are held out: three batches of 48, one of 3 that leaves a process nothing.
PICTURES, STEPS = 147, 4
EPOCHS = [*LENET, "unit=epochs", "duration=2", "evaluate_every=2", "warmup=steps", "warmup_length=1.5"]
# Sums of the same float32 numbers in another order differ by some 2**-24 of their size, 6e-8; with weights of size 0.1
# and eight steps at a rate below 0.1 the differences stay below 1e-6. Shares that weigh wrongly are off by 1e-4.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def trained(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[dict]]]:
    """Two epochs on one process with accumulation 4, and on four, and the control in which shares weigh the same."""
    folder = tmp_path_factory.mktemp("trained")
    wanted = {"one": (1, ["micro_batch=12"], ""), "four": (4, [], ""), "control": (4, [], "weigh shares alike")}
    return {name: (folder / name, processes.train(folder / name, size, [*EPOCHS, *more], control=control))
            for name, (size, more, control) in wanted.items()}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in read(run).model.state_dict().items()}


def furthest(one: Path, other: Path) -> float:
    theirs = weights(other)
    return max(float((value - theirs[name]).abs().max()) for name, value in weights(one).items())


def said(folder: Path, rank: int = 0) -> str:
    return (folder / f"said-{rank}.txt").read_text()


# Need 9: each picture is counted once


@pytest.fixture(scope="module")
def evaluations(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("evaluated")
    found = {}
    for size in (1, 2, 3, 4):
        codes, found[size] = processes.run(folder / str(size), size, "evaluate", batch_size=1)
        assert codes == [0] * size, found[size]
    return found


@pytest.mark.parametrize("count", [1, 7, 100])
def test_a_result_does_not_depend_on_the_number_of_processes(
    evaluations: dict[int, list[dict[str, Any]]], count: int
) -> None:
    alone = evaluations[1][0][str(count)]
    assert alone["samples"] == count
    assert np.sum(alone["confusion"]) == count
    for logs in evaluations.values():
        assert [log[str(count)] for log in logs] == [alone] * len(logs)  # every process has it, to the last bit
        assert [log[f"evidence {count}"] for log in logs] == [True, *[False] * (len(logs) - 1)]
    assert [log["asked 1"] for log in evaluations[4]] == [1, 0, 0, 0]  # processes without a picture were there


def test_padded_shares_would_give_another_matrix(evaluations: dict[int, list[dict[str, Any]]]) -> None:
    """The negative control: shares made equally long by repeating pictures."""
    alone = evaluations[1][0]["7"]["confusion"]
    assert evaluations[1][0]["padded 7"] == alone
    for size in (2, 3, 4):
        assert np.sum(evaluations[size][0]["padded 7"]) > 7
        assert evaluations[size][0]["padded 7"] != alone


# Need 7: batch, rate and schedule do not depend on the number of processes


def test_the_rate_is_the_same_function_of_the_samples(trained: dict[str, tuple[Path, list[dict]]]) -> None:
    curves = {name: [(line["samples"], line["step"], line["learning_rate"], line["kind"])
                     for line in rundir.read_lines(run / "metrics.jsonl")] for name, (run, _) in trained.items()}
    assert curves["one"] == curves["four"]
    assert len({rate for _, _, rate, _ in curves["one"]}) > 5  # a curve, not a constant
    losses = [[line["loss"] for line in rundir.read_lines(trained[name][0] / "metrics.jsonl")]
              for name in ("one", "four")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    errors = [[line["error"] for line in rundir.read_lines(trained[name][0] / "metrics.jsonl")]
              for name in ("one", "four")]
    assert errors[0] == errors[1]


def test_the_weights_agree_to_rounding(trained: dict[str, tuple[Path, list[dict]]]) -> None:
    assert furthest(trained["one"][0], trained["four"][0]) < ROUNDING
    assert furthest(trained["one"][0], trained["control"][0]) > 100 * ROUNDING  # by the batches of 3 on 4 processes


def test_each_picture_reaches_one_step(trained: dict[str, tuple[Path, list[dict]]]) -> None:
    alone = trained["one"][1][0]["steps"]
    logs = trained["four"][1]
    assert len(alone) == 2 * STEPS
    together = [[row for log in logs for row in log["steps"][step]] for step in range(2 * STEPS)]
    assert together == alone  # contiguous shares, in the order of one process
    for epoch in (together[:STEPS], together[STEPS:]):
        assert sorted(row for step in epoch for row in step) == list(range(PICTURES))
    assert [len(log["steps"][STEPS - 1]) for log in logs] == [1, 1, 1, 0]
    assert [len(log["steps"][0]) for log in logs] == [12] * 4


def test_all_processes_hold_the_same_state(trained: dict[str, tuple[Path, list[dict]]]) -> None:
    assert len({log["state"] for log in trained["four"][1]}) == 1
    assert trained["four"][1][0]["state"] != trained["one"][1][0]["state"]


def test_random_numbers_of_a_step_differ_by_process_and_come_again(
    processes: Processes, trained: dict[str, tuple[Path, list[dict]]], tmp_path: Path
) -> None:
    seeds = [log["seeds"][-2 * STEPS:] for log in trained["four"][1]]
    assert seeds[0] == trained["one"][1][0]["seeds"][-2 * STEPS:]
    assert seeds[0][0] == derived_seed(0, "step", 0)
    assert len({seed for one in seeds for seed in one}) == 4 * 2 * STEPS
    again = processes.train(tmp_path / "again", 4, EPOCHS)
    assert [log["seeds"][-2 * STEPS:] for log in again] == seeds
    models = [run / "model.safetensors" for run in (tmp_path / "again", trained["four"][0])]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_the_banner_and_the_record_say_how_many(trained: dict[str, tuple[Path, list[dict]]]) -> None:
    run = trained["four"][0]
    folder = run.with_name("four of 4")
    assert "global batch 48 = 4 processes x 12 x accumulate 1; learning rate" in said(folder)
    assert "global batch 48 = 1 process x 12 x accumulate 4; learning rate" in said(run.with_name("one of 1"))
    assert "; memory of the first process about" in said(folder)
    assert "; memory about" in said(run.with_name("one of 1"))
    assert [said(folder, rank) for rank in (1, 2, 3)] == [""] * 3
    assert rundir.read_run(run)["hardware"]["processes"] == 4
    assert sorted(path.name for path in run.parent.iterdir() if path.is_dir() and " " not in path.name) == [
        "control", "four", "one"]


def test_batch_statistics_are_of_each_process_and_the_running_ones_of_the_first(
    processes: Processes, tmp_path: Path
) -> None:
    # One step: in pictures of 8x8 some channels hardly vary, so the next one may multiply the rounding a thousandfold.
    settings = [*SETTINGS, "duration=1", "evaluate_every=1"]
    one = processes.train(tmp_path / "one", 1, [*settings, "micro_batch=12"])
    four = processes.train(tmp_path / "four", 4, settings)
    processes.train(tmp_path / "large", 1, settings)
    ours, theirs, others = (weights(tmp_path / name) for name in ("one", "four", "large"))
    learnt = [name for name in ours if "running" not in name and "num_batches" not in name]
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in learnt) < ROUNDING
    # The control: with statistics over 48 pictures instead of 12 the weights are others.
    assert max(float((ours[name] - others[name]).abs().max()) for name in learnt) > 100 * ROUNDING
    assert theirs["features.conv1.bn.num_batches_tracked"] == 1  # the micro-batch of the first process, not all four
    assert ours["features.conv1.bn.num_batches_tracked"] == 4
    assert len({log["state"] for log in four}) == 1
    control = processes.train(tmp_path / "control", 4, settings, control="keep own statistics")
    assert len({log["state"] for log in control}) == 4
    assert one[0]["steps"][0] == [row for log in four for row in log["steps"][0]]


# Need 10: random numbers belong to the picture


def pixels(logs: list[dict[str, Any]]) -> dict[int, float]:
    return {row: total for log in logs for rows, totals in zip(log["steps"], log["pixels"], strict=True)
            for row, total in zip(rows, totals, strict=True)}


def test_a_picture_is_augmented_alike_on_one_process_and_on_two(processes: Processes, tmp_path: Path) -> None:
    one = pixels(processes.train(tmp_path / "one", 1, SETTINGS))
    two = pixels(processes.train(tmp_path / "two", 2, SETTINGS))
    assert one == two
    control = pixels(processes.train(tmp_path / "control", 2, SETTINGS, control="augment by rank"))
    assert control != one


# Starting, stopping, going on


def test_processes_that_were_started_differently_are_refused(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "logs", 3, "train", run=str(tmp_path / "run"), settings=LENET,
                                by_rank=[[], ["learning_rate=0.3"], ["validation=1290"]])
    assert codes == [2, 2, 2]
    for log in logs:
        assert log["error"].startswith("the 3 processes were not started alike\n")
        assert "  - process 1: recipe is " in log["error"]
        assert "  - process 2: data of train is " in log["error"]
        assert "process 1: data" not in log["error"]
    assert not (tmp_path / "run").exists()


def test_an_error_of_one_process_is_everyones(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "logs", 3, "train", run=str(tmp_path / "run"), settings=LENET,
                                control="fail on one")
    assert codes == [2, 2, 2]
    assert [log["error"] for log in logs] == ["process 1: photos: not there\n  - detail\nWhy.\nMend.",
                                              "photos: not there\n  - detail\nWhy.\nMend.",
                                              "process 1: photos: not there\n  - detail\nWhy.\nMend."]
    assert not (tmp_path / "run").exists()


def test_a_directory_that_exists_ends_all(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").write_text("mine")
    codes, logs = processes.run(tmp_path / "logs", 2, "train", run=str(tmp_path / "run"), settings=LENET)
    assert codes == [2, 2]
    assert all("exists and is not empty" in log["error"] for log in logs)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_a_signal_to_one_stops_all_and_any_number_goes_on(processes: Processes, tmp_path: Path) -> None:
    settings = [*LENET, "duration=5", "evaluate_every=5"]
    whole = processes.train(tmp_path / "whole", 2, settings)
    codes, logs = processes.run(tmp_path / "logs", 2, "train", run=str(tmp_path / "stopped"), settings=settings,
                                harm="signal")
    assert codes == [143, 143]
    assert [len(log["steps"]) for log in logs] == [3, 3]
    assert all("stopped at step 3 with everything saved" in log["error"] for log in logs)
    order = [[row for log in whole for row in log["steps"][step]] for step in range(5)]
    for size in (1, 2):
        run = tmp_path / f"on {size}"
        shutil.copytree(tmp_path / "stopped", run)
        rest = processes.train(run, size, [], resume=True)
        assert [[row for log in rest for row in log["steps"][step]] for step in range(2)] == order[3:]
        assert furthest(run, tmp_path / "whole") < (ROUNDING if size != 2 else 1e-30)
        notes = rundir.read_run(run)["notes"]
        assert (f"not bit-exact: processes was 2, is {size}" in notes) == (size != 2)
        assert rundir.read_run(run)["state"] == "finished"


def test_memory_that_runs_out_on_one_halves_the_micro_batch_on_all(processes: Processes, tmp_path: Path) -> None:
    small = processes.train(tmp_path / "small", 2, [*LENET, "micro_batch=6"])
    scarce = processes.train(tmp_path / "scarce", 2, LENET, harm="memory")
    assert [log["micro_batch"] for log in scarce] == [6, 6]
    assert [log["state"] for log in scarce] == [log["state"] for log in small]
    assert any("micro-batches of 6" in text for text in rundir.read_run(tmp_path / "scarce")["notes"])


def test_a_non_finite_number_on_one_stops_all_before_the_step(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "logs", 2, "train", run=str(tmp_path / "run"), settings=LENET, harm="nan")
    assert codes == [4, 4]
    assert all(log["error"].startswith("step 1: the loss is nan") for log in logs)
    bundle = json.loads((tmp_path / "run/failures/step-1/failure.json").read_text())
    assert bundle["indices"] == [row for log in logs for row in log["steps"][1]]
    assert len(bundle["pictures"]) == 48


def test_a_process_that_dies_ends_the_others(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "logs", 3, "train", run=str(tmp_path / "run"), settings=LENET, harm="death")
    assert codes == [3, 7, 3]
    assert logs[0]["error"].startswith("process 0 of 3: lost the others (")
    assert "Start all of them again; a run goes on with layerwise resume." in logs[2]["error"]
    assert rundir.read_run(tmp_path / "run")["state"] == "failed"


# The collectives


def test_words_arrays_and_errors_travel(processes: Processes, tmp_path: Path) -> None:
    codes, logs = processes.run(tmp_path / "words", 3, "words", fails=2)
    assert codes == [1, 1, 1]
    assert [log["error"] for log in logs] == ["process 2: FileNotFoundError: gone.png"] * 2 + ["gone.png"]
    assert all(log["same"] for log in logs)
    assert logs[1]["exchange"] == [{"rank": rank, "text": "ä" * 10 * rank} for rank in range(3)]
    assert [log["gather"] for log in logs] == [[0, 1, 3], [], []]
    assert [log["add"] for log in logs] == [[3, 1.5]] * 3
    assert [log["from_first"] for log in logs] == ["rank 0"] * 3
    assert [log["copied"] for log in logs] == [[6.0, 10**12]] * 3
    gradients = [[torch.tensor(one) for one in log["gradients"]] for log in logs]
    weight, bias = gradients[0]
    assert torch.equal(bias, torch.tensor([23.0, 20.0]))
    assert torch.equal(weight, torch.stack([torch.full((2, 3, 3), 5.0), torch.full((2, 3, 3), 2.0)]))
    assert all(torch.equal(a, b) for other in gradients for a, b in zip(other, gradients[0], strict=True))


def test_one_process_calls_nothing_of_torch_distributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object, **named: object) -> None:
        raise AssertionError("a process that is alone talked to others")

    for name in ("init_process_group", "destroy_process_group", "all_gather", "all_reduce", "broadcast", "gather"):
        monkeypatch.setattr(torch.distributed, name, forbidden)
    options = RunOptions(out=tmp_path / "run", quiet=True, offline=True, confirmed=True)
    done = train.train(changed(preset("digits"), LENET), options)
    assert rundir.read_run(done)["hardware"]["processes"] == 1
    with pytest.raises(AssertionError, match="talked to others"):  # the control: two would
        distributed.World(0, 2).exchange("hello")


@pytest.mark.parametrize("variables", [
    {"WORLD_SIZE": "2", "RANK": "2"}, {"WORLD_SIZE": "two", "RANK": "0"}, {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_WORLD_SIZE": "2"},
])
def test_an_environment_that_does_not_hold_together_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"WORLD_SIZE=.* not those of one machine") as error, distributed.joined():
        pass
    assert "torchrun --nproc-per-node N -m layerwise" in str(error.value)


def test_others_that_do_not_come_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(MachineError, match="process 1 of 2: lost the others"), distributed.joined():
        pass


def test_each_process_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.World(1, 2).device("cuda:0") == torch.device("cuda:1")
    assert distributed.World(1, 2).device("cpu") == torch.device("cpu")
    assert distributed.World().device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(MachineError, match="3 processes on cuda: 2 CUDA devices are here"):
        distributed.World(0, 3).device("cuda:0")


def test_a_batch_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    done = train.train(changed(preset("digits"), LENET),
                       RunOptions(out=tmp_path / "run", quiet=True, offline=True, confirmed=True))
    chosen = rundir.read_recipe(done)
    data = open_split(chosen, RunOptions(quiet=True, offline=True))
    (tmp_path / "again").mkdir()
    state = train.assemble(tmp_path / "again", chosen, data, *train.read_input(done))
    empty = {"image": torch.zeros(0, 1, 32, 32), "label": torch.zeros(0, dtype=torch.int64), "bad": ["a.png"]}
    with pytest.raises(InputError, match="step 0: none of the batch's pictures can be read any more"):
        train.gradients(state, empty)


# The command


@pytest.mark.skipif(not os.environ.get("LAYERWISE_ALL_PROCESSES"), reason="LAYERWISE_ALL_PROCESSES=1 runs it")
def test_torchrun_makes_one_run_with_a_report(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("torchrun")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "torch.distributed.run"]
    short = [word for setting in ("duration=1", "evaluate_every=1", "warmup_length=0.2", "threads=1")
             for word in ("--set", setting)]
    done = subprocess.run(
        [*start, "--standalone", "--nproc-per-node", "2", "-m", "layerwise", "train", "resnet20", "digits",
         "--recipe", "digits", "--json", *short],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "global batch 64 = 2 processes x 32 x accumulate 1" in done.stderr
    assert done.stderr.count("global batch") == 1
    summary = json.loads(done.stdout)  # one document: the first process alone prints
    assert summary["evaluations"][0]["samples"] == 359
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-resnet20-seed0"]
    run = tmp_path / "runs/digits-resnet20-seed0"
    assert "2 processes" not in (run / "recipe.json").read_text()
    assert {"report.html", "model.safetensors", "run.json"} <= {path.name for path in run.iterdir()}
    predictions = (run / "evaluations/test-single/predictions.csv").read_text().splitlines()
    assert len({line.split(",")[0] for line in predictions[1:]}) == 359
