"""The memory of a training: its peak is predicted before the first step, measured while it runs, told beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from layerwise import allocator, rundir
from layerwise.models.shapes import cost
from layerwise.training.probe import needed, rough_bound
from layerwise.training.state import Training

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # written to clear_refs, it sets the kernel's peak back to what the process has now
SMALL = 64 << 20  # a bound below this is told as it is: walking through the network would take longer than a step
# What a first step loads that is no tensor: generated kernels, stacks of threads. 29 to 57 MB were measured.
LIBRARIES = 40 << 20
COMPILER = 92 << 20  # torch's, once it has worked: ResNet-20's peak was 0.68 GiB with compile=norm, 0.59 without


@dataclass(frozen=True)
class Account:
    """Bytes at the peak: the resident memory of the whole process on a CPU, what torch allocated on a GPU.

    None where the network can't be walked through, or the system does not tell.
    """

    device: str
    predicted: int | None
    peak: int | None = None

    def line(self) -> str:
        """For the end of the run."""
        if self.peak is None:
            return "memory: this system does not tell the peak"
        told = "was not predicted" if self.predicted is None else f"{_gib(self.predicted)} were predicted"
        return f"memory at its peak: {_gib(self.peak)}; {told}"


def activation_bytes(training: Training) -> int | None:
    """Bytes of the layers' outputs for a micro-batch in fp32: what a step's buffers are in the order of.

    None where blocks are computed again. ResNet-20 on 48 pictures of 96x96 then took 0.64 GiB, and 0.98 with buffers
    that stay (1.24 without recomputation): more than half of what is saved.
    """
    if training.recipe.recompute != "none":
        return None
    preprocess = training.preprocess
    rows = cost(training.model, (preprocess.channels, preprocess.size, preprocess.size)).rows
    return sum(math.prod(row.output) for row in rows) * 4 * training.position.micro_batch


def predict(training: Training) -> int | None:
    """The bytes that the process (on a GPU: torch) will have at the peak of the training."""
    bound = rough_bound(training)
    need = None if bound < SMALL else needed(training, training.position.micro_batch)
    if bound >= SMALL and need is None:
        return None
    grown = bound if need is None else need.peak
    if training.device.type == "cuda":
        return int(torch.cuda.memory_allocated(training.device)) + grown
    held = _told("VmRSS")
    loaded = LIBRARIES + (COMPILER if training.recipe.compile != "no" else 0)
    return None if held is None else held + grown + loaded


def peak(device: torch.device) -> int | None:
    """The most bytes since `reset_peak`."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else _told("VmHWM")


def reset_peak(device: torch.device) -> None:
    """Begins to count anew. Where the kernel does not let us, the peak is that of the process since its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return


@contextmanager
def watched(training: Training, tell: Callable[[str], None]) -> Iterator[None]:
    """Keeps the allocator's buffers for the training within it, says so, and accounts for the memory of the run.

    The account is written into run.json by the first process.
    """
    predicted = predict(training)
    reset_peak(training.device)
    with allocator.kept_buffers(activation_bytes(training), training.device.type) as done:
        told = "can't be predicted for this network" if predicted is None else f"about {_gib(predicted)} at its peak"
        first = " of the first process" if training.world.size > 1 else ""
        tell(f"{done}; memory{first} {told}")
        try:
            yield
        finally:
            account = Account(training.device.type, predicted, peak(training.device))
            if training.world.first:
                rundir.update_run(training.run, {"memory": asdict(account)})
            tell(account.line())


def _told(name: str) -> int | None:
    """A line of the kernel's account of this process, in bytes."""
    try:
        lines = STATUS.read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
