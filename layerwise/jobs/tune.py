"""`layerwise tune`: what is fastest on this machine for a recipe, and what fits, measured in about a minute.

It begins with what a training would choose by itself, the micro-batch as large as fits. Then one after another is
varied and the fastest kept: memory format, precision, allocator, compiler, micro-batch; what was set is left as it is.
What is timed is the training's own step on noise of the recipe's input size; the validation is timed with the winner.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from layerwise import hardware, models
from layerwise.allocator import kept_buffers, left_alone
from layerwise.data.order import Place
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.errors import InputError, nearest
from layerwise.jobs.recipe_choice import applied, find, for_training, raise_together
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import PRESETS
from layerwise.train import gradients
from layerwise.training.fused import can_fuse
from layerwise.training.memory import activation_bytes
from layerwise.training.probe import MARGIN, available_memory, needed, validation_batch
from layerwise.training.state import Training, assemble

CLASSES = 10
NOISE = "noise"  # in place of data and of a model to start from
COMPILES = 40.0  # seconds that are kept for the compiler on a CPU; with half of them left it is tried
PARTS = 9  # measurements into which the other seconds are divided
TOO_LARGE = "does not fit into memory"
ALONE = "MALLOC_TOP_PAD_=131072"  # glibc's own value: nothing is changed but that a training finds it chosen


@dataclass(frozen=True)
class Row:
    """One measurement: the settings, training images a second (None: `problem` says why), what a step needs beyond
    the weights. `allocator`: "kept" freed buffers, or the "system"'s."""

    settings: dict[str, str]
    allocator: str
    images_per_second: float | None
    need_bytes: int | None
    problem: str = ""


@dataclass(frozen=True)
class TuneReport:
    """All rows, the fastest that fits, the images a second of the validation, and the machine.

    `notes` say what was not tried, and what of the fastest changes more than the speed.
    """

    recipe: str
    network: str
    input: tuple[int, int, int]
    batch_size: int
    chosen: tuple[str, ...]
    rows: tuple[Row, ...]
    best: Row
    validation_images_per_second: float
    free_bytes: int | None
    seconds: float
    hardware: dict[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return asdict(self) | {"set": self.settings()}

    def settings(self) -> list[str]:
        """What to paste behind `layerwise train`: what was given, and the fastest."""
        return [f"--set {setting}" for setting in self.chosen]


def tune(name: str, settings: Sequence[str] = (), seconds: float = 60.0) -> TuneReport:
    """Measures for about `seconds` what is fastest for `name`: a network, a preset, a recipe's file or a run.

    Raises InputError for what is none of them, and where nothing could be measured.
    """
    if not 1 <= seconds <= 3600:
        raise InputError(f"--seconds {seconds:g}: must be from 1 to 3600")
    recipe = dataclasses.replace(_chosen(name, settings), start_from="")
    given = {setting.partition("=")[0].strip(): setting for setting in settings}
    fixed = {field for field in ("precision", "memory_format", "compile", "micro_batch")
             if field in given and getattr(recipe, field) not in ("auto", 0)}
    if recipe.virtual_workers or recipe.batch_norm == "all":  # neither is compiled
        fixed.add("compile")
    if recipe.virtual_workers:  # the parts of the batch are the recipe's
        fixed.add("micro_batch")
    bench = _Bench(hardware.resolve(recipe), seconds, "compile" not in fixed)
    notes: list[str] = []
    compiled = recipe.compile if "compile" in given and recipe.compile != "auto" else "no"
    own = best = bench.fitting(fixed, compiled)
    for field, values in bench.choices().items():
        for value in values if field not in fixed else ():
            if value != own.settings[field]:
                best = _faster(best, bench.measure(best.settings | {field: value}))
    if best.allocator == "kept":
        best = _faster(best, bench.measure(best.settings, keep=False))
    if "compile" not in fixed:
        # What takes the compiler less comes first.
        for value in ("norm", "yes") if can_fuse(bench.with_settings(best.settings)) else ("yes",):
            if bench.device.type != "cuda" and bench.left() <= COMPILES / 2:
                notes.append(f"compile={value} was not tried, the compiler takes about {COMPILES:g} s: "
                             f"--seconds {bench.spent() + 2 * COMPILES:.0f}")
                break
            best = _faster(best, bench.measure(best.settings | {"compile": value}, best.allocator == "kept"))
    for micro in () if "micro_batch" in fixed else _parts(int(best.settings["micro_batch"])):
        if bench.left() <= 0:
            notes.append(f"micro-batches of {micro} and less were not tried for want of time")
            break
        best = _faster(best, bench.measure(best.settings | {"micro_batch": str(micro)}, best.allocator == "kept"))
    if best.images_per_second is None:
        raise InputError(f"{name}: no step could be measured", details=sorted({row.problem for row in bench.rows}))
    # A training takes the whole batch, or what fits of it, by itself.
    whole = recipe.virtual_workers or int(best.settings["micro_batch"]) == recipe.batch_size
    chosen = [f"{field}={value}" for field, value in best.settings.items() if not (whole and field == "micro_batch")]
    for field in best.settings:
        given.pop(field, None)
    return TuneReport(recipe.name, recipe.network, bench.shape, recipe.batch_size, (*given.values(), *chosen),
                      tuple(bench.rows), best, bench.validation(best), bench.free,
                      round(bench.spent(), 1), hardware.describe(bench.with_settings(best.settings)),
                      (*notes, *bench.warnings(best)))


def _chosen(name: str, settings: Sequence[str]) -> Recipe:
    """The checked recipe: for a network the one that `layerwise train NETWORK FOLDER` takes."""
    if name in models.names():
        return for_training(name, NOISE, "", settings)
    if name not in PRESETS and not Path(name).exists():
        near = nearest(name, [*models.names(), *PRESETS])
        raise InputError(f"{name!r}: no network, preset, recipe's file or run{near}",
                         mend="`layerwise models` and `layerwise recipe` list the names.")
    recipe = find(name)
    started = recipe.start_from or (NOISE if recipe.slow or recipe.freeze else "")  # no step depends on the weights
    recipe, problems = applied(dataclasses.replace(recipe, data=recipe.data or NOISE, start_from=started), settings)
    raise_together(problems)
    return recipe


def _parts(micro: int) -> list[int]:
    """A half and a quarter of the micro-batch, rounded up as a training halves it."""
    return sorted({math.ceil(micro / part) for part in (2, 4)} - {micro}, reverse=True)


def _faster(one: Row, other: Row) -> Row:
    return one if (one.images_per_second or 0) >= (other.images_per_second or 0) else other


class _Bench:
    """Noise in the shape of the recipe's pictures, and the clock."""

    def __init__(self, recipe: Recipe, seconds: float, compiles: bool) -> None:
        channels, *_, side = models.published_input(recipe.network)
        side, channels = recipe.input_size or side, recipe.channels or channels
        self.recipe = dataclasses.replace(recipe, input_size=side, channels=channels)
        self.shape, self.device = (channels, side, side), torch.device(recipe.device)
        self.rows: list[Row] = []
        self.free = available_memory(self.device)  # once: torch keeps a GPU's memory from one row to the next
        self._started, self._seconds = time.perf_counter(), seconds
        kept = COMPILES if compiles and self.device.type == "cpu" else 0.0
        self._each = max(seconds / 30, (seconds - kept) / PARTS)
        count = max(2, recipe.batch_size)
        noise = np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)
        samples = Samples(name="train", class_names=tuple(map(str, range(CLASSES))),
                          labels=np.arange(count) % CLASSES, ids=tuple(map(str, range(count))), images=noise)
        shown = samples.subset(np.arange(max(256, count)) % count, "val")  # the most that a validation batch has
        self._data = DataSet(name=NOISE, train=samples, val=shown, test=None, notes=(), licence="none: noise")
        self._preprocess = fit_preprocess(samples, dataclasses.replace(self.recipe, resize="none"))

    def spent(self) -> float:
        return time.perf_counter() - self._started

    def left(self) -> float:
        return self._seconds - self.spent()

    def with_settings(self, settings: dict[str, str]) -> Recipe:
        return changed(self.recipe, [f"{key}={value}" for key, value in settings.items()])

    def choices(self) -> dict[str, tuple[str, ...]]:
        """What is varied for its speed alone."""
        bf16 = self.device.type == "cuda" or (self.device.type == "cpu" and hardware.cpu_computes_bf16())
        return {"memory_format": ("contiguous", "channels-last"), "precision": ("fp32", "bf16") if bf16 else ()}

    def fitting(self, fixed: Collection[str], compiled: str) -> Row:
        """What a training chooses by itself, not compiled unless asked; smaller micro-batches, where they are not among
        the `fixed` fields, until one fits."""
        own = self.recipe
        settings = {"precision": own.precision, "memory_format": own.memory_format,
                    "compile": compiled, "micro_batch": str(own.micro_batch)}
        row = self.measure(settings)
        while "micro_batch" not in fixed and row.problem == TOO_LARGE and (smaller := _parts(own.micro_batch)):
            own = dataclasses.replace(own, micro_batch=smaller[0])
            row = self.measure(settings | {"micro_batch": str(smaller[0])})
        return row

    def measure(self, settings: dict[str, str], keep: bool = True) -> Row:
        """The rate of training steps, with the allocator as a training has it or (`keep` False) as the system has it;
        the row is kept."""
        row = self._measured(settings, keep)
        self.rows.append(row)
        return row

    def _measured(self, settings: dict[str, str], keep: bool) -> Row:
        with tempfile.TemporaryDirectory() as place:
            training = self._training(Path(place), settings)
            activations = activation_bytes(training) if keep else 0
            allocator = "system" if self.device.type != "cpu" or left_alone(activations) else "kept"
            need = needed(training, training.position.micro_batch)
            peak = None if need is None else need.peak
            if peak is not None and self.free is not None and peak > self.free * (1 - MARGIN):
                return Row(settings, allocator, None, peak, TOO_LARGE)
            batch = self._batch(training, self.recipe.batch_size)
            training.model.train()
            with kept_buffers(activations, training.device.type):
                try:
                    times = self._times(lambda: self._step(training, batch))
                except (RuntimeError, ValueError) as error:  # torch's, of one picture's 1x1 maps: no statistics
                    return Row(settings, allocator, None, peak, str(error).splitlines()[0][:120])
            if training.position.micro_batch < int(settings["micro_batch"]):  # halved, as memory ran out
                return Row(settings, allocator, None, peak, TOO_LARGE)
            return Row(settings, allocator, self.recipe.batch_size / statistics.median(times), peak)

    def validation(self, row: Row) -> float:
        """Images a second of the validation's forward pass."""
        with tempfile.TemporaryDirectory() as place:
            training = self._training(Path(place), row.settings)
            batch = self._batch(training, validation_batch(training))["image"]
            model = training.model.eval()
            activations = activation_bytes(training) if row.allocator == "kept" else 0
            with (kept_buffers(activations, training.device.type), torch.inference_mode(),
                  hardware.autocast(training.recipe)):
                times = self._times(lambda: model(batch))
            return len(batch) / statistics.median(times)

    def warnings(self, row: Row) -> list[str]:
        """What has to be said of the fastest."""
        told, micro = [], int(row.settings["micro_batch"])
        with tempfile.TemporaryDirectory() as place:
            training = self._training(Path(place), row.settings)
            if micro < self.recipe.batch_size and any(isinstance(one, _BatchNorm) for one in training.model.modules()):
                told.append(f"micro_batch={micro} changes what is learned: batch normalisation takes its statistics "
                            f"over those {micro} pictures, not over the batch of {self.recipe.batch_size}")
            if self.device.type == "cpu" and row.allocator == "system" and not left_alone(activation_bytes(training)):
                told.append(f"a training keeps freed buffers; put {ALONE} before the command to leave the allocator "
                            "as the system has it")
        return told

    def _training(self, place: Path, settings: dict[str, str]) -> Training:
        return assemble(place, self.with_settings(settings), self._data, self._preprocess, None)

    def _batch(self, training: Training, count: int) -> dict[str, Any]:
        recipe = self.recipe
        images = torch.rand(count, *self.shape).to(training.device)
        batch = {"image": images.contiguous(memory_format=hardware.memory_format(training.recipe)),
                 "label": torch.arange(count) % CLASSES, "index": torch.arange(count), "bad": []}
        if recipe.mixup > 0:
            batch |= {"label_b": torch.arange(count) % CLASSES, "weight": torch.ones(count)}
        if recipe.virtual_workers:
            batch["worker"] = torch.from_numpy(Place(0, workers=recipe.virtual_workers).worker(np.arange(count)))
        return batch

    def _step(self, training: Training, batch: dict[str, Any]) -> None:
        gradients(training, batch)
        training.optimiser.step()

    def _times(self, run: Any) -> list[float]:
        """Seconds of calls after one that is not counted: at least two, one where that already took too long."""
        started = time.perf_counter()
        self._call(run)
        least = 2 if time.perf_counter() - started < self._each else 1
        end = time.perf_counter() + self._each
        times: list[float] = []
        while len(times) < least or (time.perf_counter() < end and len(times) < 200):
            started = time.perf_counter()
            self._call(run)
            times.append(time.perf_counter() - started)
        return times

    def _call(self, run: Any) -> None:
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
