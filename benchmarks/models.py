"""Networks against plain transcriptions: forward and backward of a batch, and the time to build a network.

    python benchmarks/models.py [--batch 4] [--size 224] [--rounds 9] [--network NAME ...] [--save FILE]

Both sides have the same batch, memory format, precision and threads; they take turns in one process, after an untimed
round. The network is as `layerwise train` prepares it: activations overwrite their input where nothing else reads it.
The allocator keeps its buffers, for both, as it does in training.
transcriptions.py holds the plain side. Its ratio to a second copy of itself is measured as well: the median of
what that is off 1 is the noise. Building is the median of three times with random weights, at the paper's own size.

Exit status 4 where a network's median ratio is below 1 by more than that noise, or one takes 0.5 s or more to build.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transcriptions import TRANSCRIPTIONS

from layerwise import hardware, models
from layerwise.allocator import kept_buffers
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training.in_place import overwrite_inputs

LONGEST_BUILD = 0.5


def step(model: nn.Module, images: Tensor, labels: Tensor, autocast: Callable[[], Any]) -> float:
    """Seconds for a forward and a backward pass of one batch."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    with autocast():
        loss = cross_entropy(model(images).float(), labels)
    loss.backward()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(name: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The median seconds of both sides, the ratio (transcription / network, above 1 is faster) and its noise."""
    recipe = hardware.resolve(changed(preset("fast"), [f"network={name}", f"threads={options.threads}"]))
    layout = hardware.memory_format(recipe)
    sides = {"network": models.build(name), "transcription": TRANSCRIPTIONS[name](), "again": TRANSCRIPTIONS[name]()}
    for side in sides.values():
        side.to(device, memory_format=layout).train()
    overwrite_inputs(sides["network"])  # as `layerwise train` does
    assert len({sum(p.numel() for p in side.parameters() if p.requires_grad) - extra(side)
                for side in sides.values()}) == 1, "the two sides are not the same network"
    images = torch.randn(options.batch, 3, options.size, options.size, device=device).contiguous(memory_format=layout)
    labels = torch.arange(options.batch, device=device)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(options.rounds + 1):
        names = list(sides)
        for side in names[number % 3:] + names[: number % 3]:  # each goes first as often as the others
            seconds = step(sides[side], images, labels, lambda: hardware.autocast(recipe))
            if number:
                times[side].append(seconds)
    medians = {side: statistics.median(values) for side, values in times.items()}
    pairs = list(zip(times["transcription"], times["network"], times["again"], strict=True))
    return {
        "network_seconds": medians["network"], "transcription_seconds": medians["transcription"],
        "ratio": statistics.median(plain / own for plain, own, _ in pairs),
        "noise": statistics.median(abs(plain / again - 1) for plain, _, again in pairs),
        "images_per_second": options.batch / medians["network"],
    }


def extra(model: nn.Module) -> int:
    """Parameters of auxiliary heads, which the plain side does not have."""
    return sum(p.numel() for name, p in model.named_parameters() if name.startswith("auxiliary."))


def building(name: str, rounds: int) -> float:
    """The median seconds to build a network with random weights."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        models.build(name)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="pictures a step (default 4)")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures (default 224)")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each side (default 9)")
    parser.add_argument("--threads", type=int, default=0, help="threads of both sides; 0: as training chooses them")
    parser.add_argument("--network", action="append", choices=list(TRANSCRIPTIONS), help="only these")
    parser.add_argument("--build-all", action="store_true", help="also time the building of every network")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)

    recipe = hardware.resolve(changed(preset("fast"), [f"threads={options.threads}"]))
    device = hardware.prepare(recipe)
    rows, failed = {}, []
    for name in options.network or TRANSCRIPTIONS:
        with kept_buffers(device=device.type):
            row = compare(name, options, device)
        row["build_seconds"] = building(name, 3)
        rows[name] = row
        slow = row["ratio"] < 1 - row["noise"] or row["build_seconds"] >= LONGEST_BUILD
        failed += [name] * slow
        print(f"{name:18} ratio {row['ratio']:.3f} (noise {row['noise']:.3f}), {row['images_per_second']:.1f} images/s,"
              f" built in {row['build_seconds']:.2f} s{'  <- beyond its limit' if slow else ''}", flush=True)
        print(f"summary: network {name} | {row['ratio']:.3f} | {1 - row['noise']:.3f} | {'not' if slow else 'ok'}",
              flush=True)
    builds = {name: building(name, 3) for name in models.names()} if options.build_all else {}
    if builds:
        longest = max(builds, key=lambda name: builds[name])
        print(f"building: longest of {len(builds)}: {longest}, {builds[longest]:.2f} s")
        failed += [name for name, seconds in builds.items() if seconds >= LONGEST_BUILD and name not in failed]
    described = hardware.describe(recipe)
    print(f"machine: {described['cpu']}, {described['threads']} threads, {described['device']}, "
          f"{described['precision']}, {described['memory_format']}, torch {hardware.versions()['torch']}")
    if options.save is not None:
        options.save.write_text(json.dumps({
            "benchmark": "models", "batch_size": options.batch, "size": options.size, "rounds": options.rounds,
            "networks": rows, "build_seconds": builds, "hardware": described, "versions": hardware.versions(),
        }, indent=2) + "\n", "utf-8")
    return 4 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
