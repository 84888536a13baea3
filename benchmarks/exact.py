"""What the exact mode costs: a step with virtual workers against the same recipe's step without, and their ratio.

    python benchmarks/exact.py [--networks lenet5 resnet20 resnet18] [--rounds 5] [--save FILE]

Both sides are the training command's loop, over noise in memory, on one process and in one thread, as an exact run
computes. They alternate, each first in every other round, after an untimed one; counted is the processor's time, which
other work on the machine changes little. What one thread costs where several cores would serve one process is no part
of it: an exact run uses them with --processes; nor is the checkpoint at the end, for in a run there is one a minute.
The banner of an exact run reads results/benchmarks/exact.json: saved there, the ratios are told on the machine on which
they were measured. There is no limit to miss: the price is to be known.
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
from unittest import mock

import numpy as np

import layerwise.train as command
from layerwise import hardware
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.exact import made_exact
from layerwise.recipes.presets import preset
from layerwise.signals import Signals
from layerwise.training.preparation import RunOptions
from layerwise.training.state import assemble

STEPS = 3
# Network: side of its pictures, channels, batch.
SIZES = {"lenet5": (32, 1, 128), "resnet20": (32, 3, 128), "resnet18": (64, 3, 32)}


def noise(size: int, channels: int, count: int) -> DataSet:
    """Pictures of noise in ten classes."""
    drawn = np.random.default_rng(0)
    samples = Samples(
        name="train", class_names=tuple(str(label) for label in range(10)), labels=drawn.integers(0, 10, count),
        ids=tuple(f"made-up/{index}" for index in range(count)),
        images=drawn.integers(0, 256, (count, size, size, channels), dtype=np.uint8))
    return DataSet(name="noise", train=samples, val=None, test=None, notes=(), licence="none: noise")


def step_seconds(recipe: Recipe, data: DataSet) -> float:
    """Seconds of the processor that a step of the loop takes."""
    preprocess = fit_preprocess(data.train, recipe)
    recipe = dataclasses.replace(recipe, channels=preprocess.channels, input_size=preprocess.size)
    with tempfile.TemporaryDirectory() as place:
        training = assemble(Path(place), recipe, data, preprocess, None)
        started = time.process_time()
        with Signals() as signals, mock.patch.object(command, "save"):
            command.loop(training, signals, RunOptions(quiet=True))
        if signals.received is not None:
            raise KeyboardInterrupt
        return (time.process_time() - started) / training.position.step


def measure(network: str, rounds: int) -> dict[str, Any]:
    """The row of a network: seconds of a step of both sides, and their ratio."""
    size, channels, batch = SIZES[network]
    data = noise(size, channels, STEPS * batch)
    plain = changed(preset("fast"), [
        f"network={network}", "data=noise", f"batch_size={batch}", "unit=iterations", f"duration={STEPS}",
        f"evaluate_every={STEPS}", "warmup_length=1", "validation=0", "threads=1", "device=cpu",
        f"input_size={size}", f"channels={channels}"])
    sides = [hardware.resolve(made_exact(plain)), hardware.resolve(plain)]
    for side in sides:
        check(side)
    pairs = []
    for number in range(rounds + 1):
        order = (0, 1) if number % 2 else (1, 0)
        taken = {place: step_seconds(sides[place], data) for place in order}
        if number:
            pairs.append((taken[0], taken[1]))
    ratios = [exact / other for exact, other in pairs]
    return {"network": network, "batch_size": batch, "size": size, "virtual_workers": sides[0].virtual_workers,
            "exact_seconds": statistics.median(one for one, _ in pairs),
            "plain_seconds": statistics.median(other for _, other in pairs),
            "ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each side (default 5)")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE",
                        help="write the result as JSON; the banner reads results/benchmarks/exact.json")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    machine, rows = hardware.cpu_name(), []
    print(f"machine: {machine}, one thread")
    for network in options.networks:
        row = measure(network, options.rounds)
        rows.append(row)
        print(f"{network}, batches of {row['batch_size']} at {row['size']}, {row['virtual_workers']} virtual workers: "
              f"{row['exact_seconds']:.3f} s a step against {row['plain_seconds']:.3f} s; ratio {row['ratio']:.3f} "
              f"({row['ratio_least']:.3f} to {row['ratio_most']:.3f})", flush=True)
        print(f"summary: exact {network} | {row['ratio']:.2f} | none | ok")
    if options.save is not None:
        found = {"benchmark": "exact", "machine": machine, "rounds": options.rounds,
                 "ratios": ", ".join(f"{row['network']} {row['ratio']:.2f}" for row in rows), "rows": rows,
                 "versions": hardware.versions()}
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
