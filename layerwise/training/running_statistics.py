"""The warning that batch normalisation's running averages are not those of the weights, given in the training itself.

A network learns with each batch's own statistics and is tested with running averages of them. Where these two answer
the same validation pictures very differently, the averages are wrong (momentum, too few steps, frozen layers), and so
is every number that follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from layerwise import hardware
from layerwise.data.loader import plain_batches
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluation.metrics import mcnemar
from layerwise.randomness import permutation
from layerwise.training.optimiser import keep_frozen_statistics
from layerwise.training.probe import validation_batch
from layerwise.training.state import Training, note

GAP = 0.1  # of the error: ten points
SIGNIFICANT = 0.05
MOST, LEAST = 512, 16  # validation pictures that are looked at
MARK = "the running averages of batch normalisation"
ONE_VALUE = "Expected more than 1 value per channel when training"  # as torch begins its error


def look_at_running_averages(training: Training) -> str:
    """Notes a large gap at the last validation, and at the one that passes half of the training; returns it, or "".

    The later finding replaces the earlier. Weights, statistics, modes and random state stay as they are.
    """
    recipe, position = training.recipe, training.position
    last = training.schedule.finished(position.samples)
    half = recipe.duration / 2
    if training.val is None or not (last or training.progress - recipe.evaluate_every < half <= training.progress):
        return ""
    training.notes[:] = [text for text in training.notes if MARK not in text]
    errors = errors_both_ways(training)
    if errors is None:
        return ""
    running, own = errors
    gap = float(running.mean() - own.mean())
    if gap <= GAP or mcnemar(int((running & ~own).sum()), int((own & ~running).sum())) >= SIGNIFICANT:
        return ""
    text = (f"step {position.step}: {MARK} cost {100 * gap:.1f} points: validation error {100 * running.mean():.1f} % "
            f"with them, {100 * own.mean():.1f} % with each batch's own statistics ({len(own)} pictures); "
            "look with `layerwise doctor bn RUN`, mend with `layerwise doctor bn RUN --recalibrate NEW.safetensors`")
    note(training, text)
    return text


def errors_both_ways(training: Training) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Whether each of at most 512 validation pictures is answered wrongly: with the running averages, with its batch's.

    None where nothing can differ: no such layer takes its batch's statistics in training, or under 16 pictures.
    """
    val = training.val
    model = training.evaluated()
    modes = {module: module.training for module in model.modules()}
    model.train()
    keep_frozen_statistics(model, training.recipe)
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    buffers = [buffer for layer in layers for buffer in layer.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        model.eval()
        if val is None or not layers or len(val) < LEAST:
            return None
        chosen = val.subset(permutation(0, 0, len(val), "batch statistics")[:MOST], val.name)
        running = _wrong(training, model, chosen)
        for layer in layers:
            layer.train()
        return running, _wrong(training, model, chosen)
    finally:
        with torch.no_grad():
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
        for module, mode in modes.items():
            module.training = mode


def _wrong(training: Training, model: nn.Module, chosen: Samples) -> NDArray[np.bool_]:
    def answered() -> Iterator[NDArray[np.bool_]]:
        # Batches of nearly equal size: a small last one would have statistics of its own.
        parts = math.ceil(len(chosen) / max(LEAST, min(256, validation_batch(training))))
        for batch in plain_batches(chosen, training.preprocess, math.ceil(len(chosen) / parts)):
            if len(batch["label"]) > 1:  # the others could not be read
                image = batch["image"].to(training.device).contiguous(
                    memory_format=hardware.memory_format(training.recipe))
                yield (model(image).argmax(1).cpu() != batch["label"]).numpy()

    with torch.no_grad(), hardware.autocast(training.recipe):
        return np.concatenate([np.zeros(0, bool), *answered()])


@contextmanager
def one_value_told(training: Training) -> Iterator[None]:
    """Within it torch's refusal to normalise one picture with a map of 1x1 is an InputError that says how to go on."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(ONE_VALUE):
            raise
        head = ", or auxiliary_weight=0" if training.recipe.auxiliary_weight else ""
        raise InputError(
            f"{training.run}: step {training.position.step}: batch normalisation met one picture alone, with a map of "
            f"1x1 ({error})",
            "In training its statistics are over all values of a channel, and a single value has no variance.",
            "Set micro_batch=2 or more, a larger batch_size (another one, where an epoch's last batch has one picture) "
            f"or input_size{head}.",
        ) from error


def put_back(tensors: list[Tensor], kept: list[Tensor]) -> None:
    """Overwrites `tensors` with `kept`, their values before; a network without buffers has none."""
    if tensors:
        torch._foreach_copy_(tensors, kept)
