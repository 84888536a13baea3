"""What the training loop costs: its images a second against the same network in a bare loop, and their ratio.

    python benchmarks/loop.py [--steps 60] [--rounds 5] [--save FILE]

The command's side is `layerwise.train.loop` itself, with the recipe `fast` as `layerwise train` runs it: the order of
the samples, augmentation, the check for non-finite numbers, records, and the checkpoint at the end of the round. The
bare side is the dozen lines of `bare_round`: the same network, batch, precision, memory format and threads, torch's
own SGD, over normalised tensors that lie in memory (on the device). Both start from a fresh network in every round;
the sides alternate in one process, each first in every other round, after an untimed round, so that what slows the
machine slows both.

Exit status 4 where the median ratio is below 0.95, the project's limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from layerwise import hardware, models
from layerwise.data.preprocess import Preprocess, fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.errors import InputError, LayerwiseError, MachineError
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.presets import preset
from layerwise.signals import Signals
from layerwise.train import loop
from layerwise.training.preparation import RunOptions, open_split
from layerwise.training.state import assemble

LIMIT = 0.95
PICTURES = 60_000


def made_up_data(name: str) -> DataSet:
    """Noise in Fashion-MNIST's shape, for machines without it: 60,000 pictures of 28x28x1 in ten classes."""
    noise = np.random.default_rng(0)
    samples = Samples(
        name="train", class_names=tuple(str(label) for label in range(10)),
        labels=noise.integers(0, 10, PICTURES), ids=tuple(f"made-up/{index}" for index in range(PICTURES)),
        images=noise.integers(0, 256, (PICTURES, 28, 28, 1), dtype=np.uint8),
    )
    return DataSet(name=name, train=samples, val=None, test=None, notes=(), licence="none: noise")


def synchronise(recipe: Recipe) -> None:
    """Waits for the device: an accelerator's calls return before its work is done."""
    if recipe.device.startswith("cuda"):
        torch.cuda.synchronize()
    elif recipe.device == "mps":
        torch.mps.synchronize()


def command_round(recipe: Recipe, data: DataSet, preprocess: Preprocess) -> float:
    """Images a second of the training command's loop, over `recipe.duration` steps."""
    with tempfile.TemporaryDirectory() as place:
        training = assemble(Path(place), recipe, data, preprocess, None)
        synchronise(recipe)
        started = time.perf_counter()
        with Signals() as signals:
            loop(training, signals, RunOptions(quiet=True))
        synchronise(recipe)
        seconds = time.perf_counter() - started
        if signals.received is not None:
            raise KeyboardInterrupt
        return training.position.samples / seconds


def bare_round(recipe: Recipe, images: Tensor, labels: Tensor) -> float:
    """Images a second of the bare loop over `images` (N, C, H, W) and `labels` (N), in batches of the recipe."""
    torch.manual_seed(recipe.seed)
    model = models.build(recipe.network, num_classes=10, in_channels=images.shape[1])
    model.to(images.device, memory_format=hardware.memory_format(recipe))
    model.train()
    forward = torch.compile(model) if recipe.compile == "yes" else model
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=recipe.momentum, nesterov=recipe.nesterov,
                                weight_decay=recipe.weight_decay)
    synchronise(recipe)
    started = time.perf_counter()
    for image, label in zip(images.split(recipe.batch_size), labels.split(recipe.batch_size), strict=True):
        optimiser.zero_grad(set_to_none=True)
        with hardware.autocast(recipe):
            loss = cross_entropy(forward(image).float(), label)
        loss.backward()
        optimiser.step()
    synchronise(recipe)
    return len(images) / (time.perf_counter() - started)


def measure(recipe: Recipe, data: DataSet, rounds: int) -> dict[str, Any]:
    """Alternates the two sides, `rounds` times after an untimed round; returns all that is printed."""
    preprocess = fit_preprocess(data.train, recipe)
    recipe = dataclasses.replace(recipe, channels=preprocess.channels, input_size=preprocess.size)
    device = hardware.prepare(recipe)
    count = int(recipe.duration) * recipe.batch_size
    if count > len(data.train):
        raise InputError(f"--steps: {int(recipe.duration)} batches of {recipe.batch_size} are more than the "
                         f"{len(data.train)} pictures", mend=f"At most {len(data.train) // recipe.batch_size}.")
    pictures = np.stack([preprocess.place(data.train.read(index)) for index in range(count)])
    images = preprocess.normalise(torch.from_numpy(pictures).to(device))
    images = images.contiguous(memory_format=hardware.memory_format(recipe))
    labels = torch.from_numpy(data.train.labels[:count]).to(device)

    pairs: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        if number % 2:
            pair = command_round(recipe, data, preprocess), bare_round(recipe, images, labels)
        else:
            pair = bare_round(recipe, images, labels), command_round(recipe, data, preprocess)
            pair = pair[::-1]
        if number:
            pairs.append(pair)
            print(f"round {number}: command {pair[0]:8.0f} images/s, bare {pair[1]:8.0f} images/s, "
                  f"ratio {pair[0] / pair[1]:.3f}", flush=True)
    ratios = [command / bare for command, bare in pairs]
    return {
        "benchmark": "loop", "network": recipe.network, "data": data.name, "batch_size": recipe.batch_size,
        "steps": int(recipe.duration), "rounds": rounds,
        "command_images_per_second": statistics.median(command for command, _ in pairs),
        "bare_images_per_second": statistics.median(bare for _, bare in pairs),
        "ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios),
        "hardware": hardware.describe(recipe), "versions": hardware.versions(), "recipe_hash": recipe.hash,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=60, help="batches a round (default 60)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each side (default 5)")
    parser.add_argument("--data-dir", type=Path, default=None, help="where Fashion-MNIST is looked for first")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="FIELD=VALUE",
                        help="change a field of the recipe, for both sides")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)
    if options.steps < 5 or options.rounds < 1:
        parser.error("--steps must be at least 5 and --rounds at least 1")

    steps = options.steps
    recipe = changed(preset("fast"), [
        "unit=iterations", f"duration={steps}", f"evaluate_every={steps}", f"warmup_length={steps // 5}",
        "validation=0", *options.settings])
    recipe = hardware.resolve(recipe)
    check(recipe)
    try:
        data = open_split(recipe, RunOptions(data_dir=options.data_dir, offline=True, quiet=True))
    except (InputError, MachineError) as error:
        print(f"{recipe.data} is not on this machine ({error.what}); noise of the same shape instead")
        data = made_up_data("noise in the shape of fashion-mnist")

    found = measure(recipe, data, options.rounds)
    machine = found["hardware"]
    print(f"machine: {machine['cpu']}, {machine['threads']} threads, {machine['device']}, {machine['precision']}, "
          f"{machine['memory_format']}, torch {found['versions']['torch']}")
    print(f"{found['network']} on {found['data']}, batches of {found['batch_size']}, {steps} steps a round, medians of "
          f"{options.rounds} rounds: command {found['command_images_per_second']:.0f} images/s, "
          f"bare {found['bare_images_per_second']:.0f} images/s")
    print(f"ratio {found['ratio']:.3f} ({found['ratio_least']:.3f} to {found['ratio_most']:.3f}), limit {LIMIT}")
    print(f"summary: loop {found['network']} | {found['ratio']:.2f} | {LIMIT:g} | "
          f"{'ok' if found['ratio'] >= LIMIT else 'not'}")
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if found["ratio"] >= LIMIT else 4


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LayerwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
