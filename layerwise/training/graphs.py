"""The forward and backward pass of a micro-batch; of small networks on CUDA it is recorded once and replayed.

A small network's step is hundreds of kernels that each take less time than the call that starts them. A CUDA graph
starts them all in one call. What it reads and writes stays where it was recorded: pictures and labels are copied into
buffers of its own, gradients appear in the same tensors each time. The first replay is compared with an ordinary pass;
where the two differ, or the recording fails, the run goes on without it, with a note that says why.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from layerwise import hardware
from layerwise.models.shapes import cost
from layerwise.training.running_statistics import put_back
from layerwise.training.state import Recorded, Training, note

# Multiply-adds of a step above which kernels take longer than their calls; computed from peak rates, not measured.
SMALL = 10**12
BEFORE = 3  # ordinary steps before the recording: libraries choose their kernels in the first ones
SAME = 1e-3  # of the gradient's largest value: what rounding in another order may change


def why_not(training: Training) -> str:
    """Why passes are not recorded, "" where they are: a small network on CUDA whose passes are all alike."""
    recipe, preprocess = training.recipe, training.preprocess
    if training.device.type != "cuda":
        return f"the device is {training.device.type}"
    if training.world.size > 1:
        return "several processes train together"
    if training.position.micro_batch < recipe.batch_size:
        return "a step has several micro-batches"
    if recipe.recompute != "none":
        return "activations are computed again"
    if recipe.freeze or recipe.unfreeze_at:
        return "which layers learn is not the whole network"
    if any(isinstance(module, _DropoutNd) and module.p > 0 for module in training.model.modules()):
        return "dropout draws new masks in each step"
    shape = (preprocess.channels, preprocess.size, preprocess.size)
    step = 3 * cost(training.model, shape).multiply_adds * recipe.batch_size
    return f"a step of {step:.1g} multiply-adds is not small" if step > SMALL else ""


def passed(training: Training, batch: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Adds `share` times the gradient of the batch's mean loss to the parameters' gradients; returns the losses.

    They are overwritten by the next call: read them before it.
    """
    replay = training.replay
    if replay.reason is None:
        replay.reason = why_not(training)
    # Only a whole batch is replayed: the last one of an epoch may be smaller.
    if replay.reason or share != 1 or len(batch["label"]) != training.recipe.batch_size:
        return _ordinary(training, batch, share)
    replay.steps += 1
    if replay.steps <= BEFORE:
        return _ordinary(training, batch, share)
    if replay.recorded is None:
        return _begin(training, batch)
    return _replayed(training, replay.recorded, batch)


def _ordinary(training: Training, batch: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    with hardware.autocast(training.recipe):
        losses = training.task.loss(training.forward, batch)
    (losses["loss"] * share).backward()
    return losses


def _begin(training: Training, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Records and compares; the step itself is the ordinary one."""
    replay, model = training.replay, training.model
    buffers = list(model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    try:
        recorded = record(training, batch)
        for slope in recorded.slopes:  # a graph that computes nothing would leave what stands there
            if slope is not None:
                slope.zero_()
        _replayed(training, recorded, batch)
        slopes = [None if slope is None else slope.clone() for slope in recorded.slopes]
    except RuntimeError as error:
        slopes, recorded = [], None
        replay.reason = f"the recording failed ({str(error).splitlines()[0]})"
    put_back(buffers, kept)
    model.zero_grad(set_to_none=True)
    losses = _ordinary(training, batch, 1.0)
    if recorded is not None:
        if alike(slopes, [parameter.grad for parameter in model.parameters()]):
            replay.recorded = recorded
        else:
            replay.reason = "a recorded step had another gradient"
    if replay.reason:
        note(training, f"steps are not replayed as a CUDA graph: {replay.reason}")
    return losses


def record(training: Training, batch: dict[str, Tensor]) -> Recorded:
    """The pass over a copy of `batch`, recorded; statistics and gradients of the network are changed by it."""
    static = {name: value.clone(memory_format=torch.preserve_format) for name, value in batch.items()}
    side = torch.cuda.Stream(training.device)
    side.wait_stream(torch.cuda.current_stream(training.device))
    with torch.cuda.stream(side):  # once outside the recording, on its stream, as torch asks for
        training.model.zero_grad(set_to_none=True)
        _ordinary(training, static, 1.0)
    torch.cuda.current_stream(training.device).wait_stream(side)
    training.model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):  # its own would be of the process's first device
        losses = _ordinary(training, static, 1.0)
    return Recorded(graph, static, {name: value.detach() for name, value in losses.items()},
                    [parameter.grad for parameter in training.model.parameters()])


def _replayed(training: Training, recorded: Recorded, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, value in recorded.batch.items():
        value.copy_(batch[name], non_blocking=True)
    recorded.graph.replay()
    _give(training.model, recorded.slopes)
    return recorded.losses


def _give(model: nn.Module, slopes: list[Tensor | None]) -> None:
    for parameter, slope in zip(model.parameters(), slopes, strict=True):
        parameter.grad = slope


def alike(ours: list[Tensor | None], theirs: list[Tensor | None]) -> bool:
    """Whether two gradients are the same up to rounding, measured by the largest number of each tensor."""
    for one, other in zip(ours, theirs, strict=True):
        if (one is None) != (other is None):
            return False
        if one is not None and other is not None:
            largest = float(other.abs().max())
            if not float((one - other).abs().max()) <= SAME * max(largest, 1e-6):
                return False
    return True
