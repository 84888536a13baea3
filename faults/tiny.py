"""Whole trainings in a few hundredths of a second: a network of two layers on 40 made-up pictures of 8 x 8.

What is replaced is only what has no part in the goals: the search for data, the count of the network's operations, the
prediction of memory, the banner. Loop, optimiser, average, checkpoints, records and resumption are the real ones.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import nn

from layerwise import hardware, models, train
from layerwise.data.source import DataSet, Samples
from layerwise.models.network import Network
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.training import preparation
from layerwise.training.preparation import RunOptions

SETTINGS = [
    "network=lenet5", "resize=none", "input_size=8", "threads=1", "precision=fp32", "unit=iterations", "duration=8",
    "evaluate_every=4", "schedule=constant", "warmup=none", "warmup_length=0", "batch_size=8", "reference_batch=8",
    "label_smoothing=0", "ema=0.9", "clip_norm=0", "validation=8", "select=last", "learning_rate=0.05",
    "checkpoint_seconds=0.000001", "device=cpu", "memory_format=contiguous", "compile=no", "micro_batch=8",
    "weight_decay=0.001", "seed=3",
]


def recipe(*settings: str) -> Recipe:
    """The recipe of these trainings; it says lenet5, and `tiny` builds its own network."""
    return changed(changed(preset("digits"), SETTINGS), settings)


def build(name: str, num_classes: int, in_channels: int) -> Network:
    """A convolution, batch normalisation and an fc layer: about 300 numbers."""
    model = Network({"conv1": nn.Conv2d(in_channels, 4, 3, 2, 1, bias=False), "bn1": nn.BatchNorm2d(4),
                     "relu1": nn.ReLU()}, {"flatten": nn.Flatten(), "fc": nn.Linear(64, num_classes)})
    model.architecture = {"name": name, "arguments": {"num_classes": num_classes, "in_channels": in_channels}}
    return model


@functools.cache
def data() -> DataSet:
    """40 pictures for training and 8 for validation, in 4 classes that differ in brightness."""
    draw = np.random.default_rng(5)
    labels = np.arange(48) % 4
    images = (draw.integers(0, 100, (48, 8, 8, 1)) + 50 * labels[:, None, None, None]).astype(np.uint8)
    names = ("a", "b", "c", "d")

    def part(name: str, rows: slice) -> Samples:
        return Samples(name=name, images=images[rows], labels=labels[rows].astype(np.int64), class_names=names,
                       ids=tuple(f"{name}-{row}" for row in range(len(labels[rows]))))

    return DataSet(name="tiny", train=part("train", slice(40)), val=part("val", slice(40, 48)), test=None)


@contextlib.contextmanager
def tiny() -> Iterator[None]:
    """Within it `train.train` and `train.resume` train the tiny network on the tiny data."""
    nothing = contextlib.nullcontext()
    versions = hardware.versions()
    cost = SimpleNamespace(parameters=0, multiply_adds=0, rows=())
    replaced: list[tuple[Any, str, Any]] = [
        (train, "open_split", lambda *_: data()), (train, "check_input", lambda *_: []),
        (train, "watched", lambda *_: nothing), (train, "banner", lambda *_: []),
        (train, "probe_micro_batch", lambda *_, **__: ""), (train, "validation_batch", lambda *_: 8),
        (preparation, "cost", lambda *_: cost), (hardware, "versions", lambda: versions),
        (models, "build", build),
    ]
    with contextlib.ExitStack() as stack:
        for place, name, value in replaced:
            stack.enter_context(mock.patch.object(place, name, value))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def begin(run: Path, chosen: Recipe) -> Path:
    """Trains in a new directory."""
    return train.train(chosen, RunOptions(out=run, quiet=True, offline=True, confirmed=True))


def go_on(run: Path) -> Path:
    """Resumes."""
    return train.resume(run, RunOptions(quiet=True, offline=True))


def digest(run: Path) -> str:
    """Of what the training made: the tensors of the model file (its header may hold notes) and the record."""
    made = hashlib.sha256((run / "metrics.jsonl").read_bytes())
    for name, tensor in sorted(load_tensors((run / "model.safetensors").read_bytes()).items()):
        made.update(name.encode() + tensor.numpy().tobytes())
    return made.hexdigest()
