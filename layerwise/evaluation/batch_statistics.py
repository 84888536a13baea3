"""Batch normalisation at test: the running averages a network was saved with, against other statistics.

`examine` compares the error in evaluation mode with the error when each batch is normalised by itself: a large gap says
that the running averages are not those of the weights. `recalibrate` replaces them by the statistics of a large batch
taken after training, as the authors of the ResNets did (the README of their models: "BN statistics are computed on a
sufficiently large batch after training, not by moving averages").
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions, countable, forward
from layerwise.evaluation.metrics import Integers, mcnemar, wilson
from layerwise.modelfile import ModelFile, tensors_sha256
from layerwise.models.network import Network
from layerwise.randomness import permutation

SMALLEST_BATCH = 16
LARGE_GAP = 0.02  # of the error; a smaller one is usual, for statistics of a batch are noisy
TEMPERATURE = "calibration"  # what jobs/calibration.py calls it in the provenance


@dataclass(frozen=True)
class Finding:
    """Errors (fractions) with 95 % intervals in the two modes, on the same pictures, and the paired test's p."""

    layers: int
    samples: int
    batch_size: int
    error_running: float
    error_batch: float
    interval_running: tuple[float, float]
    interval_batch: tuple[float, float]
    p: float

    @property
    def gap(self) -> float:
        """How much lower the error is with the batches' own statistics."""
        return self.error_running - self.error_batch

    @property
    def suspicious(self) -> bool:
        """Whether the running averages are worse by more than 2 points and beyond the noise."""
        return self.gap > LARGE_GAP and self.p < 0.05

    def lines(self) -> list[str]:
        """The finding for people."""
        lines = [
            f"{self.layers} batch normalisations, {self.samples} pictures, batches of {self.batch_size}",
            f"error with the running averages  {100 * self.error_running:.2f} %  (evaluation mode)",
            f"error with each batch's own      {100 * self.error_batch:.2f} %",
        ]
        if self.suspicious:
            return [*lines, f"the running averages cost {100 * self.gap:.2f} points: recalibrate them on training "
                            "pictures"]
        return [*lines, "no sign that the running averages are wrong"]

    def to_json(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        return asdict(self) | {"gap": self.gap, "suspicious": self.suspicious}


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch normalisations of a network by name, without those of auxiliary heads: no test goes through them."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and not name.startswith("auxiliary.")}


def examine(found: ModelFile, samples: Samples, batch_size: int = 256) -> Finding:
    """Compares evaluation mode with batch statistics, on all samples in a fixed shuffled order.

    The order is shuffled since a batch of one class has other statistics than the data. Raises InputError where the
    network has no batch normalisation, or there are fewer than 16 pictures.
    """
    network = _copied(found, len(samples))
    order = _order(found, samples)
    labels = _labels(found, samples)
    parts = _parts(order, batch_size)
    wrong: dict[bool, list[Any]] = {False: [], True: []}
    for own in (False, True):
        network.eval()
        for module in batch_norms(network).values():
            module.train(own)
        for part in parts:
            wrong[own].append(_logits(network, found, samples, part).argmax(axis=1) != labels[samples.labels[part]])
    running, batch = (np.concatenate(wrong[own]) for own in (False, True))
    total = len(order)
    intervals = [wilson(int(each.sum()), total) or (0.0, 1.0) for each in (running, batch)]
    p = mcnemar(int((running & ~batch).sum()), int((batch & ~running).sum()))
    return Finding(len(batch_norms(network)), total, max(map(len, parts)), float(running.mean()), float(batch.mean()),
                   intervals[0], intervals[1], p)


def recalibrate(found: ModelFile, samples: Samples, images: int = 10_000, batch_size: int = 256) -> ModelFile:
    """The same model file with the running averages replaced by exact statistics over `images` pictures of `samples`.

    `samples` are training pictures, shown as at test. Each layer's mean and (unbiased) variance are those of all its
    inputs over all pictures and positions, in float64, when the layers before it normalise batches of `batch_size` by
    themselves: with one batch it is exactly what training mode computes. Auxiliary heads keep theirs. A temperature is
    not taken along: it was fitted to other answers. Raises InputError as `examine` does.
    """
    network = _copied(found, min(images, len(samples))).eval()
    layers = batch_norms(network)
    order = _order(found, samples)[:images]
    parts = _parts(order, batch_size)
    with _collected(layers) as moments:
        for module in layers.values():
            module.train()
        for part in parts:
            _logits(network, found, samples, part)
    for name, module in layers.items():
        count, mean, squares = moments[name]
        assert module.running_mean is not None
        assert module.running_var is not None
        module.running_mean.copy_(mean)
        module.running_var.copy_(squares / max(1, count - 1))
        if module.num_batches_tracked is not None:
            module.num_batches_tracked.copy_(batches_before(found.model, name))
    network.eval()
    note = {"samples": samples.name, "fingerprint": samples.fingerprint, "images": len(order),
            "batch_size": max(map(len, parts)), "from_sha256": found.sha256}
    kept = {name: value for name, value in found.provenance.items() if name != TEMPERATURE}
    return dataclasses.replace(
        found, model=network, sha256=tensors_sha256(network, found.preprocess), results=[],
        provenance=kept | {"recalibrated_batch_statistics": note},
    )


def batches_before(model: nn.Module, name: str) -> Tensor:
    """How many batches the layer `name` has seen in training: recalibration is no training."""
    seen = batch_norms(model)[name].num_batches_tracked
    return torch.zeros((), dtype=torch.long) if seen is None else seen


@contextmanager
def _collected(layers: dict[str, _BatchNorm]) -> Iterator[dict[str, tuple[int, Tensor, Tensor]]]:
    """Gathers, of each layer's inputs, their number, mean and sum of squared deviations a channel, in float64."""
    moments: dict[str, tuple[int, Tensor, Tensor]] = {}

    def gather(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().double().transpose(0, 1).flatten(1)  # (C, N H W)
            count, mean = values.shape[1], values.mean(1)
            squares = (values - mean[:, None]).square().sum(1)
            if name in moments:  # Chan, Golub and LeVeque 1979: the sums of two parts put together
                before, old_mean, old_squares = moments[name]
                shift, total = mean - old_mean, before + count
                squares = old_squares + squares + shift.square() * (before * count / total)
                mean = old_mean + shift * (count / total)
                count = total
            moments[name] = (count, mean, squares)
        return look

    handles = [module.register_forward_pre_hook(gather(name)) for name, module in layers.items()]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()


def _copied(found: ModelFile, pictures: int) -> Network:
    if not batch_norms(found.model):
        raise InputError(f"{found.path}: this network has no batch normalisation", mend="There is nothing to examine.")
    if pictures < SMALLEST_BATCH:
        raise InputError(f"{pictures} pictures are too few for batch statistics; at least {SMALLEST_BATCH} are needed",
                         mend="Name a larger split.")
    return copy.deepcopy(found.model)


def _order(found: ModelFile, samples: Samples) -> Integers:
    known = countable(found, samples, EvaluateOptions(ignore_unknown=True))
    return known[permutation(0, 0, len(known), "batch statistics")]


def _labels(found: ModelFile, samples: Samples) -> Integers:
    names = found.class_names
    return np.array([names.index(name) if name in names else -1 for name in samples.class_names], np.int64)


def _parts(order: Integers, batch_size: int) -> list[Integers]:
    """Batches of nearly equal size, at most `batch_size`: a small last one would have statistics of its own."""
    return np.array_split(order, -(-len(order) // max(SMALLEST_BATCH, batch_size)))


def _logits(network: nn.Module, found: ModelFile, samples: Samples, part: Integers) -> np.ndarray[Any, Any]:
    pictures = np.stack([found.preprocess.place(samples.read(int(index))) for index in part])
    return forward(network, found, pictures, next(network.parameters()).device)
