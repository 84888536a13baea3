"""Virtual workers: the same weights to the last bit on 1, 2 or 4 processes.

The global batch is a fixed number of micro-batches, each with batch normalisation's statistics of its own, as the
ResNet paper's 8 processors had 32 pictures each. Floating-point sums depend on their order, so gradients are added in
one order, a binary tree over the workers; a process that has a power of two of neighbouring workers adds up a whole
branch, and the branches are joined on every process in the same way. Dropout's masks belong to the worker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerwise import hardware
from layerwise.errors import InputError, MachineError
from layerwise.randomness import derived_seed
from layerwise.training.failure import pictures_of_all
from layerwise.training.optimiser import clip_gradients
from layerwise.training.running_statistics import put_back
from layerwise.training.state import Training


class Tree:
    """Adds vectors one after the other as a binary tree over their places would: ((0 1) (2 3)) ((4 5) ...).

    None takes the place of a vector that is not there: what it is joined with stays as it is. At most log2 of the
    number of vectors are held.
    """

    def __init__(self) -> None:
        self._branches: list[tuple[int, Tensor | None]] = []  # (height, sum), heights falling

    def add(self, vector: Tensor | None) -> None:
        """The next vector; it may be changed in place."""
        height = 0
        while self._branches and self._branches[-1][0] == height:
            vector = _joined(self._branches.pop()[1], vector)
            height += 1
        self._branches.append((height, vector))

    def total(self) -> Tensor | None:
        """The sum; incomplete branches are joined from the right."""
        total: Tensor | None = None
        for _, branch in reversed(self._branches):
            total = _joined(branch, total)
        return total


def _joined(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left.add_(right)


def require_divisible(workers: int, processes: int) -> None:
    """Raise InputError where `processes` can't each have a whole branch of the tree over `workers`."""
    share, rest = divmod(workers, processes)
    if processes > 1 and (rest or share & (share - 1) or not share):
        fitting = [count for count in range(1, workers + 1)
                   if count == 1 or (workers % count == 0 and (workers // count) & (workers // count - 1) == 0)]
        raise InputError(f"virtual_workers={workers} can't be shared by {processes} processes",
                         "Each process has the same number of neighbouring workers, a power of two.",
                         f"Start {' or '.join(map(str, fitting))} processes, or set virtual_workers to another number.")


def exact_gradients(training: Training, batch: dict[str, Any]) -> dict[str, float]:
    """Sums the gradients of the global batch over the virtual workers, in an order that no number of processes changes.

    `batch` names the worker of each picture. Returns what `train.gradients` returns; the gradients lie in the
    parameters, and the running statistics become the mean of the workers', or stay where a number is not finite.
    Raises MachineError on all processes where a worker's part does not fit into the memory of one.
    """
    model, world, recipe = training.model, training.world, training.recipe
    learned = [one for one in model.parameters() if one.requires_grad]
    moving = [one for one in model.buffers() if one.is_floating_point()]
    before = [one.clone() for one in moving]
    counted = [(one, one.clone()) for one in model.buffers() if not one.is_floating_point()]
    whole = pictures_of_all(training, batch)
    each = recipe.virtual_workers // world.size
    gradients, statistics = Tree(), Tree()
    told: list[tuple[float, float]] = []
    scarcity: RuntimeError | None = None
    try:
        for worker in range(world.rank * each, (world.rank + 1) * each):
            rows = (batch["worker"] == worker).nonzero().flatten()
            if not len(rows):
                gradients.add(None)
                statistics.add(None)
                continue
            put_back(moving, before)
            for one, value in counted:  # a batch is one batch, whatever the number of workers
                one.copy_(value)
            hardware.seed(training.device, derived_seed(recipe.seed, "step", training.position.step, "worker", worker))
            told.append(_part(training, batch, rows, whole))
            gradients.add(_flat([one.grad if one.grad is not None else torch.zeros_like(one) for one in learned]))
            statistics.add(_flat(moving) if moving else None)
    except RuntimeError as error:
        if not hardware.memory_ran_out(error):
            raise
        scarcity = error
    used, scarce = world.add(len(told), float(scarcity is not None))
    if scarce:
        most = math.ceil(whole / recipe.virtual_workers)
        raise MachineError(f"step {training.position.step}: a virtual worker's {most} pictures do not fit into memory",
                           "The division of the batch is part of an exact run, so it is not changed on the way.",
                           f"Start again with more virtual_workers (now {recipe.virtual_workers}), or a smaller "
                           "batch_size, network or input_size.") from scarcity
    _spread(_over_processes(training, gradients), [_gradient(one) for one in learned])
    world.copy_from_first([one for one, _ in counted])  # another's share may be empty
    if moving and (mean := _over_processes(training, statistics)) is not None:
        _spread(mean.div_(used), moving)
    every = [row for rows in world.exchange(told) for row in rows]
    unread, samples = world.add(len(batch["bad"]), len(batch["label"]))
    norm = float(clip_gradients(list(model.parameters()), recipe.clip_norm))
    sums = {"loss": math.fsum(row[0] for row in every), "errors": math.fsum(row[1] for row in every),
            "samples": samples, "unread": unread, "norm": norm}
    if not all(math.isfinite(value) for value in sums.values()):
        put_back(moving, before)
        for one, value in counted:
            one.copy_(value)
    return sums


def _part(training: Training, batch: dict[str, Any], rows: Tensor, whole: int) -> tuple[float, float]:
    """The pass over one worker's pictures; returns its summed loss and its errors."""
    recipe = training.recipe
    training.optimiser.zero_grad(set_to_none=True)
    micro = {name: value[rows].to(training.device, non_blocking=True)
             for name, value in batch.items() if isinstance(value, Tensor)}
    micro["image"] = micro["image"].contiguous(memory_format=hardware.memory_format(recipe))
    with hardware.autocast(recipe):
        losses = training.task.loss(training.forward, micro)
    (losses["loss"] * (len(rows) / whole)).backward()
    return float(losses["loss"].detach()) * len(rows), float(losses.get("errors", 0))


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _over_processes(training: Training, tree: Tree) -> Tensor | None:
    """The sum over all processes, the same bits on each: their branches are joined in the order of the ranks."""
    whole = Tree()
    for branch in training.world.vectors(tree.total(), training.device):
        whole.add(branch)
    return whole.total()


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([one.detach().reshape(-1) for one in tensors])


@torch.no_grad()
def _spread(flat: Tensor | None, tensors: Sequence[Tensor]) -> None:
    assert flat is not None, "a batch has a picture"
    for one, part in zip(tensors, flat.split([one.numel() for one in tensors]), strict=True):
        one.copy_(part.view(one.shape))
