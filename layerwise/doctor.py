"""`layerwise doctor`: one block about this machine for a bug report; `doctor bn RUN` about batch normalisation.

A network whose running statistics are off answers badly in evaluation mode and well with the batch's own statistics.
The gap between the two errors on the same pictures shows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerwise import hardware, modelfile
from layerwise.data import DataOptions, open_data
from layerwise.data.loader import plain_batches
from layerwise.data.source import Samples
from layerwise.errors import InputError, nearest
from layerwise.presets import preset

GAP = 0.02
BATCH = 128


@dataclass(frozen=True)
class Findings:
    """What was found, as JSON values and as lines for people."""

    values: dict[str, Any]
    lines: tuple[str, ...]


def examine(topic: str, run: str, data: str, options: DataOptions) -> Findings:
    """The machine's block for topic "", the batch normalisation of `run` for "bn".

    Raises InputError for another topic or a missing run.
    """
    if topic == "":
        return machine()
    if topic != "bn":
        raise InputError(f"doctor {topic!r}: no such topic{nearest(topic, ['bn'])}",
                         mend="Use `layerwise doctor` or `layerwise doctor bn RUN`.")
    if not run:
        raise InputError("doctor bn: no run given", mend="Use `layerwise doctor bn RUN`.")
    return batch_normalisation(run, data, options)


def machine() -> Findings:
    """Versions, processor, devices, threads and the choices that a run would make here."""
    recipe = hardware.resolve(preset("fast"))
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    variables = {name: os.environ[name] for name in
                 ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LAYERWISE_DATA") if name in os.environ}
    values = {"versions": hardware.versions(), "hardware": hardware.describe(recipe), "devices": devices,
              "bf16_on_cpu": hardware.cpu_computes_bf16(), "environment": variables}  # fmt: skip
    flat = [f"{key}: {value}" for part in ("versions", "hardware", "environment") for key, value in values[part].items()]
    flat.append(f"devices: {', '.join(devices)}")
    return Findings(values, ("```", *flat, "```"))


def batch_normalisation(run: str, data: str, options: DataOptions) -> Findings:
    """The error of `run` with running statistics and with those of batches of 128, on its validation or test split."""
    found = modelfile.read(run)
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in found.model.modules()):
        raise InputError(f"{run}: its network has no batch normalisation", "There is nothing to compare.")
    name = data or (found.recipe.data if found.recipe else "")
    if not name:
        raise InputError(f"{run}: does not say what it was trained on", mend="Name pictures with --data.")
    dataset = open_data(name, options)
    samples = dataset.val or dataset.test or dataset.train
    wrong = [class_name for class_name in samples.class_names if class_name not in found.class_names]
    if wrong:
        raise InputError(f"{name}: classes that {run} does not know", mend="Name other pictures with --data.",
                         details=wrong)  # fmt: skip
    running = error_of(found, samples)
    with batch_statistics(found.model):
        batch = error_of(found, samples)
    gap = running - batch
    lines = [f"{len(samples)} pictures of the {samples.name} split of {name}",
             f"error with running statistics (as used): {100 * running:.2f} %",
             f"error with the statistics of batches of {BATCH}: {100 * batch:.2f} %"]  # fmt: skip
    lines.append(f"the running statistics are off by {100 * gap:.2f} points: train longer, with a larger batch_size, or "
                 "look for pictures that are unlike the training set" if gap > GAP else
                 "the running statistics are sound: the difference is no larger than 2 points")  # fmt: skip
    return Findings({"samples": len(samples), "split": samples.name, "error_running_statistics": running,
                     "error_batch_statistics": batch, "gap": gap, "sound": gap <= GAP}, tuple(lines))  # fmt: skip


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch normalisation by the batch's own statistics in between; the running ones stay as they are."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    counts = [layer.num_batches_tracked.clone() if layer.num_batches_tracked is not None else None for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in zip(layers, momenta, counts, strict=True):
            layer.momentum = momentum
            if count is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
            layer.eval()


def error_of(found: modelfile.ModelFile, samples: Samples) -> float:
    """The error (0 to 1) on `samples`, in an order that mixes the classes of a batch."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).numpy()
    mixed = samples.subset(order, samples.name)
    mine = torch.tensor([found.class_names.index(name) for name in samples.class_names])
    wrong = seen = 0
    with torch.inference_mode():
        for batch in plain_batches(mixed, found.preprocess, BATCH):
            if len(batch["label"]) == 1 and len(samples) > 1:
                continue  # one picture has no statistics of its own
            seen += len(batch["label"])
            answers = found.model(batch["image"]).argmax(1)
            wrong += int((answers != mine[batch["label"]]).sum())
    return wrong / max(1, seen)


def data_options(data_dir: Path | None, offline: bool) -> DataOptions:
    """The options of opening data, from the command line's."""
    return DataOptions(data_dir=data_dir, offline=offline)
