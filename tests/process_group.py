"""Runs jobs on several real processes: reads one JSON job a line, forks its processes, answers when all have ended.

Importing torch takes seconds, so it is done once; the processes are forked before they have any thread. They find each
other as under torchrun, by the environment. A job that takes longer than its limit is killed: a hang is an exit code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

sys.path.append(str(Path(__file__).resolve().parents[1]))  # run as a script, where faults/ is not installed

from evaluated import model_file, samples
from small_network import network

from faults.in_order import add_in_order
from layerwise import distributed, evaluate, hardware, train
from layerwise.data import DataOptions, loader, open_data
from layerwise.evaluation import metrics
from layerwise.models.shapes import cost
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.tasks.classify import Classify
from layerwise.training import preparation
from layerwise.training.optimiser import optimiser_tensors
from layerwise.training.state import Training
from layerwise.training.synchronised import Synchronised

HUNG = 99  # the exit code of a process that had to be killed
COUNTS = (1, 7, 100)
Job = dict[str, Any]


def digest(tensors: dict[str, torch.Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(name.encode() + tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def train_job(job: Job, log: dict[str, Any]) -> None:
    """Trains or resumes; logs the pictures of each step with a sum of their pixels, seeds, and the state at the end."""
    gradients, seed = train.gradients, hardware.seed
    rank = int(os.environ.get("RANK", "0"))
    log |= {"steps": [], "pixels": [], "seeds": []}

    def logged(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        log["steps"].append(batch["index"].tolist())
        log["pixels"].append(batch["image"].double().sum((1, 2, 3)).tolist())
        if job.get("harm") and rank == job.get("harmed", 1):
            HARMS[job["harm"]](training)
        found = gradients(training, batch)
        log["state"] = digest(training.model.state_dict() | optimiser_tensors(training.optimiser))
        log["micro_batch"] = training.position.micro_batch
        return found

    train.gradients = logged
    hardware.seed = lambda device, number: (log["seeds"].append(number), seed(device, number))[1]
    CONTROLS[job.get("control", "")]()
    options = preparation.RunOptions(out=Path(job["run"]), offline=True, confirmed=True)
    if job.get("resume"):
        train.resume(Path(job["run"]), options)
        return
    recipe = preset("digits")
    for setting in [*job["settings"], *(job["by_rank"][rank] if "by_rank" in job else [])]:
        recipe = changed(recipe, [setting])
    train.train(recipe, options)


def evaluate_job(job: Job, log: dict[str, Any]) -> None:
    """Evaluates test sets of several sizes; logs each result, and what a padded share would give."""
    with distributed.joined() as world:
        for count in COUNTS:
            options = evaluate.EvaluateOptions(batch_size=job["batch_size"])
            model, data = model_file(), samples(count)
            result = evaluate.evaluate(model, data, options)
            record = result.to_json()
            log[str(count)] = {key: value for key, value in record.items() if key not in ("hardware", "versions")}
            log[f"evidence {count}"] = result.evidence is not None
            asked = np.arange(count)[world.rank::world.size]
            log[f"asked {count}"] = len(asked)
            padded = np.resize(np.arange(count), -(-count // world.size) * world.size)[world.rank::world.size]
            share = evaluate.answers(model, data, padded, options)
            columns = metrics.scores(share.probabilities, data.labels[share.index])
            table = metrics.confusion_matrix(columns.labels, columns.predicted, len(data.class_names))
            log[f"padded {count}"] = np.sum([np.array(one) for one in world.exchange(table.tolist())], axis=0).tolist()


def words_job(job: Job, log: dict[str, Any]) -> None:
    """The collectives themselves."""
    with distributed.joined() as world, distributed.joined() as inner:
        log["same"] = inner is world
        log["exchange"] = world.exchange({"rank": world.rank, "text": "ä" * 10 * world.rank})
        log["gather"] = [int(part["x"].sum()) for part in world.gather({"x": torch.arange(world.rank + 1)})]
        log["add"] = world.add(world.rank, 0.5)
        log["from_first"] = world.from_first(lambda: f"rank {world.rank}")
        tensors = [torch.full((2, 3), float(world.rank + 1)), torch.tensor(10**12 + world.rank)]
        world.copy_from_first(tensors)
        log["copied"] = [tensor.sum().item() for tensor in tensors]
        network = torch.nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)
        if world.rank:
            for number, parameter in enumerate(network.parameters()):
                parameter.grad = torch.full_like(parameter, 10.0**number)
                parameter.grad[0] += world.rank
        world.add_gradients(network.parameters())
        log["gradients"] = [parameter.grad.tolist() for parameter in network.parameters()]
        started = time.monotonic()
        for _ in range(50):
            world.exchange((0, False))
        log["exchange_ms"] = 20 * (time.monotonic() - started)
        with world.together():
            if world.rank == job.get("fails"):
                raise FileNotFoundError("gone.png")


def synchronised_job(job: Job, log: dict[str, Any]) -> None:
    """A forward and backward pass over `count` pictures in float64; with `mode` all, statistics over all processes."""
    with distributed.joined() as world:
        model = network().double()
        model.get_submodule("head.2").p = 0.0
        drawn = torch.Generator().manual_seed(1)
        images = torch.randn(job["count"], 1, 6, 6, generator=drawn, dtype=torch.float64)
        labels = torch.arange(job["count"]) % 4
        mine, wanted = (part.tensor_split(world.size)[world.rank] for part in (images, labels))
        idle = not len(mine)
        if idle:
            mine, wanted = images.new_ones(1, 1, 6, 6), labels.new_zeros(1)
        synchronised = Synchronised(world, idle) if job["mode"] == "all" else contextlib.nullcontext()
        with synchronised:
            loss = torch.nn.functional.cross_entropy(model(mine), wanted)
        (loss * (0 if idle else len(mine)) / job["count"]).backward()
        world.add_gradients(model.parameters())
        log["gradients"] = torch.cat([one.grad.reshape(-1) for one in model.parameters()]).tolist()
        log["statistics"] = torch.cat([one.reshape(-1).double() for one in model.buffers()]).tolist()


def run_out_of_memory(training: Training) -> None:
    """The loss of this process fits into memory for six pictures at most."""
    loss = Classify.loss

    def scarce(task: Classify, model: torch.nn.Module, batch: dict) -> dict:
        if len(batch["label"]) > 6:
            raise torch.OutOfMemoryError("injected")
        return loss(task, model, batch)

    Classify.loss = scarce


def poison(training: Training) -> None:
    if training.position.step == 1:
        loss = Classify.loss
        Classify.loss = lambda *a: {**loss(*a), "loss": loss(*a)["loss"] * float("nan")}


HARMS: dict[str, Callable[[Training], None]] = {
    "memory": run_out_of_memory,
    "nan": poison,
    "signal": lambda training: os.kill(os.getpid(), signal.SIGTERM) if training.position.step == 2 else None,
    "death": lambda training: os._exit(7) if training.position.step == 1 else None,
}


def fail_on_one() -> None:
    opened = train.open_split

    def failing(*arguments: Any) -> Any:
        if os.environ.get("RANK") == "1":
            raise distributed.InputError("photos: not there", "Why.", "Mend.", ["detail"])
        return opened(*arguments)

    train.open_split = failing


def weigh_shares_alike() -> None:
    """Takes a guard out: each process's mean gradient counts the same, whatever the number of its pictures."""
    gradients, loss = train.gradients, Classify.loss
    whole = [0.0]

    def noting(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        world = training.world
        whole[0] = world.add(len(batch["label"]))[0] / world.size
        return gradients(training, batch)

    def alike(task: Classify, model: torch.nn.Module, batch: dict) -> dict:
        found = loss(task, model, batch)
        return found | {"loss": found["loss"] * (whole[0] / len(batch["label"]))}

    train.gradients, Classify.loss = noting, alike


def augment_by_rank() -> None:
    """Takes a guard out: a picture's random numbers depend on its place in the share."""
    draw = loader.draw
    loader.draw = lambda recipe, epoch, keys: draw(recipe, epoch, np.arange(len(keys)))


def keep_own_statistics() -> None:
    """Takes a guard out: the processes keep the running statistics of their own shares."""
    distributed.World.copy_from_first = lambda self, tensors: None


CONTROLS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "fail on one": fail_on_one,
    "weigh shares alike": weigh_shares_alike,
    "augment by rank": augment_by_rank,
    "keep own statistics": keep_own_statistics,
    "add in order": add_in_order,
}
JOBS: dict[str, Callable[[Job, dict[str, Any]], None]] = {
    "train": train_job, "evaluate": evaluate_job, "words": words_job,
    "synchronised": synchronised_job}


def child(job: Job, rank: int, folder: Path) -> int:
    """One process: its log goes to log-<rank>.json, what it says to said-<rank>.txt; returns its exit code."""
    said = os.open(folder / f"said-{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    log: dict[str, Any] = {}
    code = 0
    try:
        JOBS[job["job"]](job, log)
    except BaseException as error:
        log["error"] = str(error)
        code = getattr(error, "exit_code", 1)
        if not hasattr(error, "exit_code"):
            traceback.print_exc()
    (folder / f"log-{rank}.json").write_text(json.dumps(log))
    sys.stderr.flush()
    return code


def run(job: Job) -> list[int]:
    """Forks the processes of a job; returns their exit codes."""
    folder, size = Path(job["folder"]), job["size"]
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            if size > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
                               "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            code = 1
            with contextlib.suppress(BaseException):
                code = child(job, rank, folder)
            os._exit(code)
        pids.append(pid)
    return list(waited(pids, time.monotonic() + job["limit"]))


def waited(pids: list[int], deadline: float) -> Iterator[int]:
    for pid in pids:
        done, status = os.waitpid(pid, os.WNOHANG)
        while not done and time.monotonic() < deadline:
            time.sleep(0.01)
            done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            yield os.waitstatus_to_exitcode(status)
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        yield HUNG


def main() -> None:
    """Serves jobs until standard input ends."""
    torch.set_num_threads(1)
    # Imports everything that a job imports; runs no backward pass, whose threads a fork would lose.
    open_data("digits", DataOptions(offline=True))
    cost("resnet20", (3, 32, 32))
    assert dataclasses.is_dataclass(distributed.World)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
