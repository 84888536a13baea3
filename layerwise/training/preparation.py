"""What stands before the first step: options, data with the held-out part, the record of the run, the banner."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwise import checkpoint, console, hardware, rundir
from layerwise.data import DataOptions, hold_out, open_data
from layerwise.data.order import draw_rates
from layerwise.data.place import place_of
from layerwise.data.source import DataSet
from layerwise.distributed import World
from layerwise.errors import InputError, amount
from layerwise.models.shapes import cost
from layerwise.recipe import Recipe
from layerwise.recipes.exact import price
from layerwise.training.optimiser import describe_groups
from layerwise.training.state import Training, class_counts
from layerwise.training.virtual_workers import require_divisible


@dataclass(frozen=True)
class RunOptions:
    """What is not of the recipe: places, permissions and how much is said."""

    out: Path | None = None
    data_dir: Path | None = None
    offline: bool = False
    quiet: bool = False
    confirmed: bool = False
    accept_data_change: bool = False
    settings: tuple[str, ...] = ()


def say(options: RunOptions, line: str) -> None:
    """Tells the reader a line, unless the run is quiet."""
    if not options.quiet:
        console.note(line)


def heard(options: RunOptions, world: World) -> RunOptions:
    """The options of a process among several: the first alone speaks."""
    return options if world.first else dataclasses.replace(options, quiet=True)


def threaded(recipe: Recipe, world: World) -> Recipe:
    """Several processes share the cores where the recipe leaves the number of threads open."""
    shared = world.size > 1 and recipe.threads == 0 and not recipe.virtual_workers
    return dataclasses.replace(recipe, threads=max(1, hardware.cores() // world.size)) if shared else recipe


def handshake(world: World, recipe: Recipe, data: DataSet, generation: checkpoint.Generation | None = None) -> None:
    """Raises InputError where processes differ in recipe, code, data or checkpoint; called before the first step."""
    if world.size == 1:
        return
    if recipe.virtual_workers:
        require_divisible(recipe.virtual_workers, world.size)
    told = world.exchange({
        "recipe": recipe.hash[:12], "code": hardware.versions()["code"],
        "checkpoint": generation.directory.name if generation else "none",
        **{f"data of {name}": text[:12] for name, text in fingerprints(data).items()},
    })
    problems = [f"process {rank}: {name} is {one.get(name, 'none')}, process 0 has {told[0].get(name, 'none')}"
                for rank, one in enumerate(told) for name in sorted({*one, *told[0]})
                if one.get(name) != told[0].get(name)]
    if problems:
        raise InputError(f"the {world.size} processes were not started alike", "Each would train another network.",
                         "Start all with the same command, code and data.", problems)


def open_split(recipe: Recipe, options: RunOptions) -> DataSet:
    """Opens the recipe's data; holds out validation pictures where it has no such split and the recipe wants one."""
    data = open_data(recipe.data, DataOptions(
        options.data_dir, recipe.split, recipe.seed, options.offline, recipe.exif, recipe.max_pixels,
        recipe.bad_images))
    for line in data.notes:
        say(options, line)
    if data.val is None and recipe.validation > 0:
        train_part, val_part = hold_out(data.train, recipe.validation, recipe.seed)
        data = dataclasses.replace(data, train=train_part, val=val_part)
    return data


def record_of(training: Training, data: DataSet, doubts: list[str]) -> dict[str, Any]:
    """The record run.json at the start: versions, hardware, data with fingerprint and counts, network with cost."""
    recipe, preprocess = training.recipe, training.preprocess
    counted = cost(training.model, (preprocess.channels, preprocess.size, preprocess.size))
    counts = {part: 0 if samples is None else len(samples)
              for part, samples in (("train", data.train), ("val", data.val), ("test", data.test))}
    return {
        "format": rundir.FORMAT, "name": training.run.name, "started": rundir.now(), "state": "running",
        "finished": None, "seconds": 0.0, "versions": hardware.versions(),
        "hardware": hardware.describe(recipe) | {"processes": training.world.size},
        "data": {"name": data.name, "place": place_of(recipe.data), "fingerprint": fingerprints(data), "counts": counts,
                 "class_names": list(data.train.class_names), "class_counts": class_counts(data.train).tolist(),
                 "notes": list(data.notes)},
        "model": {"name": recipe.network, "parameters": counted.parameters, "multiply_adds": counted.multiply_adds,
                  "input": [preprocess.channels, preprocess.size, preprocess.size]},
        "branches": [], "notes": [*doubts, *data.doubts],
    }


def fingerprints(data: DataSet) -> dict[str, str]:
    """The fingerprint of each split, by its name."""
    parts = {"train": data.train, "val": data.val, "test": data.test}
    return {name: samples.fingerprint for name, samples in parts.items() if samples is not None}


def banner(training: Training) -> list[str]:
    """What is about to happen, in numbers: network, data, batch, rate, updates, groups of parameters, machine."""
    recipe, schedule = training.recipe, training.schedule
    total = schedule.total_samples
    size = training.world.size
    share = math.ceil(recipe.batch_size / size)
    micro = min(training.position.micro_batch, share)
    held = "none" if training.val is None else f"{len(training.val)}"
    lines = [
        f"{recipe.network}, {sum(p.numel() for p in training.model.parameters()):,} parameters, on {recipe.data}: "
        f"{len(training.train)} pictures in {len(training.train.class_names)} classes, {held} held out for validation",
        f"global batch {recipe.batch_size} = {size} process{'es' if size > 1 else ''} x "
        f"{'at most ' if share % micro else ''}{micro} x accumulate "
        f"{math.ceil(share / micro)}; "
        f"learning rate {recipe.learning_rate:g} x {schedule.batch}/{recipe.reference_batch} = "
        f"{recipe.learning_rate * schedule.scale:g}; "
        f"{total / len(training.train):.4g} epochs = {schedule.steps_at(total)} updates",
        f"{recipe.device}, {amount(recipe.threads, 'threads')}, {recipe.precision}, {recipe.memory_format}, "
        f"seed {recipe.seed}, {'deterministic' if recipe.deterministic else 'not deterministic'}; "
        f"recipe {recipe.hash[:12]}",
    ]
    if recipe.precision == "bf16" and not hardware.computes_bf16(training.device):
        lines.append("this processor has no bf16: it is emulated, slower than fp32 and in more memory; "
                     "--set precision=fp32")
    if recipe.compile == "norm":
        lines.append("compile=norm: batch normalisation is compiled with what follows it; the first step on a machine "
                     "waits for the compiler, a minute or two")
    if recipe.virtual_workers:
        lines.append(f"exact: {recipe.virtual_workers} virtual workers, {amount(recipe.threads, 'threads')} "
                     f"a process; {price(recipe.network, hardware.cpu_name())}")
    if recipe.batch_size > len(training.train):
        lines.append(f"{len(training.train)} pictures are fewer than the global batch: each batch holds all of them")
    counts = class_counts(training.train)
    if training.imbalanced or recipe.balance != "none":
        rates = draw_rates(training.train, recipe)
        lines.append(f"pictures a class: {counts.min()} to {counts.max()}; balance={recipe.balance}: a class gets "
                     f"{100 * rates.min():.2g} to {100 * rates.max():.2g} % of the draws"
                     + ("; more than 10 to 1, so weights are selected by macro-F1" if training.imbalanced else ""))
    if recipe.freeze or recipe.slow:
        lines += describe_groups(training.groups, schedule.rate(0))
    return lines
