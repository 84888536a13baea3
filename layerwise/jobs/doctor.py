"""`layerwise doctor`: one block about this machine for a bug report; `doctor bn RUN` about batch normalisation."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from layerwise import hardware, modelfile
from layerwise.errors import InputError, nearest
from layerwise.evaluation import batch_statistics
from layerwise.jobs.assessment import Question, asked_samples
from layerwise.recipes.presets import preset


@dataclass(frozen=True)
class Findings:
    """What was found, as JSON values and as lines for people."""

    values: dict[str, Any]
    lines: tuple[str, ...]


def examine(topic: str, run: str, question: Question, recalibrated: Path | None) -> Findings:
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
    return batch_normalisation(run, question, recalibrated)


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
    values: dict[str, Any] = {"versions": hardware.versions(), "hardware": hardware.describe(recipe),
                              "devices": devices,
                              "bf16_on_cpu": hardware.cpu_computes_bf16(), "environment": variables}
    parts = [values[part] for part in ("versions", "hardware", "environment")]
    flat = [f"{key}: {value}" for part in parts for key, value in part.items()]
    flat.append(f"devices: {', '.join(devices)}")
    return Findings(values, ("```", *flat, "```"))


def batch_normalisation(run: str, question: Question, recalibrated: Path | None) -> Findings:
    """The error of `run` with its running averages and with each batch's own statistics, on validation pictures.

    With `recalibrated` a model file with averages taken over training pictures is written there. Raises InputError
    where that exists, or the network has no batch normalisation.
    """
    if recalibrated is not None and recalibrated.exists():
        raise InputError(f"{recalibrated}: exists", "Nothing is written over.", "Choose another name.")
    found = modelfile.read(run)
    samples = asked_samples(question, found)
    seen = batch_statistics.examine(found, samples)
    values, lines = seen.to_json() | {"split": samples.name}, seen.lines()
    if recalibrated is not None:
        training = asked_samples(dataclasses.replace(question, data="", on="train"), found)
        modelfile.write(recalibrated, batch_statistics.recalibrate(found, training))
        lines.append(f"recalibrated on {len(training):,} pictures of {training.name}: {recalibrated}")
        values["recalibrated"] = str(recalibrated)
    elif seen.suspicious:
        lines.append(f"layerwise doctor bn {run} --recalibrate NEW.safetensors")
    return Findings(values, tuple(lines))
