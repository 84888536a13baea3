"""When the numbers of a step, its loss, errors and gradient norm, are read from the device: at once, or once a line.

Reading waits until the device has done all that it was asked for; then it stands idle until more is asked of it. So
on a GPU they stay there, and are read together when a line of the record is due, or whatever else they decide on. A
step whose numbers are not finite is then found too late, with others on top of it. So the state before the first of
them is kept on the device: the training goes back to it and through the same steps again, each of them read before its
weights change, and what is done about such a step (failure.py) is what is done everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from layerwise.checkpoint import Generation
from layerwise.training.state import Training, checkpoint_size, restore, snapshot
from layerwise.training.synchronised import own_gradients

FEWEST = 8  # steps between two lines: for less the copy of the state costs as much as reading
PART = 0.02  # of the device's memory that this copy may take, so that none is missing for the pictures


def why_read(training: Training) -> str:
    """Why the numbers of each step are read before the next, "" where they may wait."""
    recipe = training.recipe
    if training.device.type != "cuda":
        return f"the device is {training.device.type}, where reading costs nothing"
    if training.world.size > 1 or own_gradients(recipe):
        return "several processes or workers tell each other what they found"
    if recipe.non_finite == "skip":
        return "the whole state is looked at before each step"
    if recipe.warmup == "training-error":
        return "the errors of each step may end the warm-up"
    if recipe.unfreeze_at:
        return "which layers learn changes on the way"
    if checkpoint_size(training) > PART * torch.cuda.mem_get_info(training.device)[1]:
        return "a copy of the state would take memory that the pictures need"
    return ""


def deferred(training: Training, together: int) -> bool:
    """Whether the coming step's numbers are read later, with those of about `together` steps."""
    pending = training.pending
    if pending.reason is None:
        pending.reason = why_read(training)
    if pending.reason or together < FEWEST or training.position.step < pending.until:
        return False
    if pending.kept is None:
        training.position.metrics_bytes = training.metrics.size()
        tensors, state = snapshot(training)
        copies = {name: tensor if name.startswith("best/") else tensor.clone() for name, tensor in tensors.items()}
        pending.kept = Generation(training.run, copies, state)
    return True


def totals(numbers: Sequence[float], sizes: Sequence[int]) -> dict[str, float]:
    """A step's summed `loss`, its `errors` and `norm` from what the device has: loss, errors, loss, errors, ..., norm.

    `sizes` are the pictures of its micro-batches, whose mean losses these are.
    """
    *counted, norm = numbers
    return {"norm": norm, "loss": sum((loss * size for loss, size in zip(counted[::2], sizes, strict=True)), 0.0),
            "errors": float(sum(counted[1::2]))}


def count(training: Training, sums: dict[str, float]) -> None:
    """Adds a step that was taken to what the next line will tell, and shows its error to the schedule."""
    position = training.position
    position.window_loss += sums["loss"]
    position.window_errors += int(sums["errors"])
    position.window_samples += int(sums["samples"])
    if training.recipe.mixup == 0:
        training.schedule.observe_training_error(position.samples, sums["errors"] / max(1, sums["samples"]))


def settled(training: Training) -> bool:
    """Reads what is unread, and counts it. False where a number is not finite: the training is back before these steps.
    """
    pending = training.pending
    steps, kept, pending.steps, pending.kept = pending.steps, pending.kept, [], None
    if not steps or kept is None:
        return True
    numbers = torch.cat([each for each, _, _ in steps]).tolist()
    found = []
    for each, sizes, known in steps:
        found.append(known | totals(numbers[: len(each)], sizes))
        del numbers[: len(each)]
    if not all(math.isfinite(value) for sums in found for value in sums.values()):
        pending.until = training.position.step
        restore(training, kept)
        return False
    for sums in found:
        count(training, sums)
    return True
