"""`layerwise tune`: what is fastest on this machine for a network, and what fits, measured in about a minute.

One after another is varied and the fastest kept: precision, memory format, allocator, compiler, micro-batch. What
is timed is the training's own step on noise of the network's input size; the validation is timed with the winner.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerwise import hardware, models
from layerwise.allocator import kept_buffers
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.errors import InputError
from layerwise.jobs.recipe_choice import changed_recipe
from layerwise.recipe import Recipe, changed
from layerwise.train import gradients
from layerwise.training.memory import activation_bytes
from layerwise.training.probe import MARGIN, available_memory, needed, validation_batch
from layerwise.training.state import Training, assemble

CLASSES = 10
COMPILES = 40.0  # seconds of the budget that must be left on a CPU before the compiler is tried
PARTS = 9  # measurements into which the seconds are divided


@dataclass(frozen=True)
class Row:
    """One measurement: the settings, training images a second (None: `problem` says why), what a step needs."""

    settings: dict[str, str]
    allocator: str
    images_per_second: float | None
    need_bytes: int | None
    problem: str = ""


@dataclass(frozen=True)
class TuneReport:
    """All rows, the fastest that fits, the images a second of the validation, and the machine."""

    network: str
    input: tuple[int, int, int]
    batch_size: int
    rows: tuple[Row, ...]
    best: Row
    validation_images_per_second: float
    free_bytes: int | None
    seconds: float
    hardware: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return asdict(self) | {"set": self.settings()}

    def settings(self) -> list[str]:
        """What to paste behind `layerwise train`."""
        return [f"--set {name}={value}" for name, value in self.best.settings.items()]


def tune(name: str, settings: tuple[str, ...] = (), seconds: float = 60.0) -> TuneReport:
    """Measures for about `seconds` what is fastest for `name`: a network, a preset, a recipe's file or a run.

    Raises InputError for what is none of them, and where nothing could be measured.
    """
    if not 1 <= seconds <= 3600:
        raise InputError(f"--seconds {seconds:g}: must be from 1 to 3600")
    recipe = changed_recipe("fast", [f"network={name}", *settings]) if name in models.names() else changed_recipe(
        name, list(settings))
    bench = _Bench(hardware.resolve(dataclasses.replace(recipe, start_from="", freeze=(), slow=(), unfreeze_at=0)),
                   seconds)
    device = torch.device(bench.recipe.device)
    trials: list[tuple[str, list[str]]] = [("memory_format", ["contiguous", "channels-last"])]
    if device.type == "cuda" or hardware.cpu_computes_bf16():
        trials.append(("precision", ["fp32", "bf16"]))
    chosen = {"precision": "fp32", "memory_format": "contiguous", "compile": "no",
              "micro_batch": str(bench.recipe.batch_size)}
    best = bench.measure(chosen, "kept")
    for field, values in trials:
        for value in values:
            if value != best.settings[field]:
                best = _faster(best, bench.measure(best.settings | {field: value}, "kept"))
    if device.type == "cpu":
        best = _faster(best, bench.measure(best.settings, "system"))
    for part in (2, 4):
        micro = max(1, bench.recipe.batch_size // part)
        best = _faster(best, bench.measure(best.settings | {"micro_batch": str(micro)}, best.allocator))
    if device.type == "cuda" or bench.left() > COMPILES:
        best = _faster(best, bench.measure(best.settings | {"compile": "yes"}, best.allocator))
    if best.images_per_second is None:
        raise InputError(f"{name}: no step could be measured", details=sorted({row.problem for row in bench.rows}))
    return TuneReport(bench.recipe.network, bench.shape, bench.recipe.batch_size, tuple(bench.rows), best,
                      bench.validation(best), available_memory(device), round(bench.spent(), 1),
                      hardware.describe(changed(bench.recipe, [f"{key}={value}" for key, value in
                                                               best.settings.items()])))


def _faster(one: Row, other: Row) -> Row:
    return one if (one.images_per_second or 0) >= (other.images_per_second or 0) else other


class _Bench:
    """Noise in the shape of the recipe's pictures, and the clock."""

    def __init__(self, recipe: Recipe, seconds: float) -> None:
        channels, *_, side = models.published_input(recipe.network)
        side, channels = recipe.input_size or side, recipe.channels or channels
        self.recipe = dataclasses.replace(recipe, input_size=side, channels=channels)
        self.shape = (channels, side, side)
        self.rows: list[Row] = []
        self._started, self._seconds = time.perf_counter(), seconds
        count = max(2, recipe.batch_size)
        noise = np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)
        samples = Samples(name="train", class_names=tuple(map(str, range(CLASSES))),
                          labels=np.arange(count) % CLASSES, ids=tuple(map(str, range(count))), images=noise)
        self._data = DataSet(name="noise", train=samples, val=samples, test=None, notes=(), licence="none: noise")

    def spent(self) -> float:
        return time.perf_counter() - self._started

    def left(self) -> float:
        return self._seconds - self.spent()

    def measure(self, settings: dict[str, str], allocator: str) -> Row:
        """The rate of training steps; the row is kept."""
        row = self._measured(settings, allocator)
        self.rows.append(row)
        return row

    def _measured(self, settings: dict[str, str], allocator: str) -> Row:
        with tempfile.TemporaryDirectory() as place:
            training = self._training(Path(place), settings)
            need = needed(training, training.position.micro_batch)
            free = available_memory(training.device)
            peak = None if need is None else need.peak
            if peak is not None and free is not None and peak > free * (1 - MARGIN):
                return Row(settings, allocator, None, peak, "does not fit into memory")
            batch = self._batch(training)
            training.model.train()
            with kept_buffers(activation_bytes(training) if allocator == "kept" else 0, training.device.type):
                try:
                    times = self._times(lambda: self._step(training, batch), training.device)
                except RuntimeError as error:
                    return Row(settings, allocator, None, peak, str(error).splitlines()[0][:120])
            return Row(settings, allocator, self.recipe.batch_size / statistics.median(times), peak)

    def validation(self, row: Row) -> float:
        """Images a second of the validation's forward pass."""
        with tempfile.TemporaryDirectory() as place:
            training = self._training(Path(place), row.settings)
            batch = self._batch(training)["image"][: validation_batch(training)]
            model = training.model.eval()
            with torch.inference_mode(), hardware.autocast(training.recipe):
                times = self._times(lambda: model(batch), training.device)
            return len(batch) / statistics.median(times)

    def _training(self, place: Path, settings: dict[str, str]) -> Training:
        recipe = changed(self.recipe, [f"{key}={value}" for key, value in settings.items()])
        preprocess = fit_preprocess(self._data.train, recipe)
        return assemble(place, recipe, self._data, preprocess, None)

    def _batch(self, training: Training) -> dict[str, Any]:
        count = self.recipe.batch_size
        images = torch.rand(count, *self.shape).to(training.device)
        return {"image": images.contiguous(memory_format=hardware.memory_format(training.recipe)),
                "label": torch.arange(count) % CLASSES, "index": torch.arange(count), "bad": []} | (
                    {"label_b": torch.arange(count) % CLASSES, "weight": torch.ones(count)}
                    if self.recipe.mixup > 0 else {})

    def _step(self, training: Training, batch: dict[str, Any]) -> None:
        gradients(training, batch)
        training.optimiser.step()

    def _times(self, run: Any, device: torch.device) -> list[float]:
        """Seconds of calls after one that is not counted: at least two, for a part of the whole time."""
        run()
        end = time.perf_counter() + self._seconds / PARTS
        times: list[float] = []
        while len(times) < 2 or (time.perf_counter() < end and len(times) < 200):
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
        return times
