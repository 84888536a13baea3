"""Training steps of five networks: the command's own loop against what a user types, and against the best by hand.

    python benchmarks/training.py [--rounds 3] [--seconds 6] [--networks resnet18 ...] [--batch 16] [--save FILE]

*plain* is a bare eager loop, NCHW, fp32, the C library's default allocator; *best* is the fastest of memory format x
allocator by hand over the same bare loop, with bf16 where the processor has it, compiled too with --compile. Both take
their pictures from one tensor in memory, so that the command's side alone pays for order, augmentation, records and the
checks. Each round of each side is a fresh process; sides take turns. Beside the images a second of the clock stand
those of the processor's time: where other work shares the machine only these can be compared.
The roofline is a product of two 2048x2048 matrices, measured in the same
run; the share counts 6 operations a multiply-add.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from layerwise import allocator, hardware, models
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.models.shapes import cost
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.signals import Signals
from layerwise.train import loop
from layerwise.training.memory import activation_bytes
from layerwise.training.preparation import RunOptions
from layerwise.training.state import assemble

NETWORKS = {"resnet50": (3, 224, 16), "resnet18": (3, 224, 16), "resnet20": (3, 32, 128), "lenet5": (1, 32, 128),
            "airnet_narrow": (1, 28, 1024), "airnet": (3, 32, 1024)}
SLOW = ("airnet",)  # 0.7 TFLOP a step: only where it is asked for
BY_HAND = ("contiguous kept", "channels-last default", "channels-last kept")


def recipe_of(network: str, batch: int, threads: int) -> Recipe:
    """The recipe `fast` on this network, its machine's fields as `layerwise train` resolves them."""
    channels, side, _ = NETWORKS[network]
    recipe = changed(preset("fast"), [f"network={network}", f"batch_size={batch}", f"threads={threads}", "validation=0",
                                      f"input_size={side}", f"channels={channels}", "unit=iterations",
                                      "checkpoint_seconds=100000"])
    return hardware.resolve(recipe)


def rates(count: int, run: Callable[[], int]) -> dict[str, float]:
    """Images a second of `run`, which returns its steps of `count` pictures, by the clock and the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    images = run() * count
    return {"clock": images / (time.perf_counter() - clock), "processor": images / (time.process_time() - processor)}


def command_side(network: str, batch: int, threads: int, steps: int) -> dict[str, float]:
    """The training command's loop with its defaults, on noise."""
    channels, side, _ = NETWORKS[network]
    count, noise = batch * max(2, min(steps, 8)), np.random.default_rng(0)
    samples = Samples(name="train", class_names=tuple(map(str, range(10))), labels=noise.integers(0, 10, count),
                      ids=tuple(map(str, range(count))),
                      images=noise.integers(0, 256, (count, side, side, channels), dtype=np.uint8))
    data = DataSet(name="noise", train=samples, val=None, test=None, notes=(), licence="none: noise")
    recipe = dataclasses.replace(recipe_of(network, batch, threads), duration=steps, evaluate_every=steps,
                                 warmup_length=0)
    preprocess = fit_preprocess(samples, recipe)

    def run(training: Any) -> int:
        with Signals() as signals:
            loop(training, signals, RunOptions(quiet=True))
        return int(training.position.step)

    with tempfile.TemporaryDirectory() as place:
        for name, length in (("first", 2), ("timed", steps)):
            (Path(place) / name).mkdir()
            timed = dataclasses.replace(recipe, duration=length)
            training = assemble(Path(place) / name, timed, data, preprocess, None)
            with allocator.kept_buffers(activation_bytes(training), "cpu"):
                found = rates(batch, lambda one=training: run(one))  # type: ignore[misc]
    return found


def bare_side(side: str, network: str, batch: int, threads: int, steps: int) -> dict[str, float]:
    """A bare loop; `side` names memory format and allocator."""
    torch.set_num_threads(threads)
    channels, size, _ = NETWORKS[network]
    layout = torch.channels_last if "channels-last" in side else torch.contiguous_format
    model = models.build(network, num_classes=10, in_channels=channels)
    model.to(memory_format=layout)  # type: ignore[call-overload]
    model.train()
    forward = torch.compile(model) if "compiled" in side else model
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randn(batch, channels, size, size).contiguous(memory_format=layout)
    labels = torch.randint(10, (batch,))

    def run(count: int) -> int:
        for _ in range(count):
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled="bf16" in side):
                loss = cross_entropy(forward(images), labels)
            loss.backward()
            optimiser.step()
        return count

    with allocator.kept_buffers(1 << 40 if "kept" in side else 0):
        run(2)
        return rates(batch, lambda: run(steps))


def peak_flops(threads: int) -> dict[str, float]:
    """Operations a second of a product of matrices, by the clock and by the processor's time."""
    torch.set_num_threads(threads)
    left = torch.rand(2048, 2048)
    found = [rates(1, lambda: len([left @ left])) for _ in range(8)][2:]
    return {key: 2 * 2048**3 * max(one[key] for one in found) for key in ("clock", "processor")}


def case(side: str, network: str, batch: int, threads: int, steps: int) -> dict[str, float]:
    """One side in this process."""
    if side == "peak":
        return peak_flops(threads)
    return command_side(network, batch, threads, steps) if side == "command" else bare_side(
        side, network, batch, threads, steps)


def fresh(side: str, network: str, options: argparse.Namespace, steps: int) -> dict[str, float]:
    """One side in a process of its own."""
    words = [sys.executable, __file__, "--case", side, network, str(options.batch or NETWORKS[network][2]),
             str(options.threads), str(steps)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(network: str, options: argparse.Namespace) -> dict[str, Any]:
    """All sides of one network in turns; medians, ranges, ratios, share of the roofline."""
    batch = options.batch or NETWORKS[network][2]
    first = fresh("contiguous default", network, options, 2)
    steps = max(2, round(options.seconds * first["clock"] / batch))
    sides = ["peak", "command", "contiguous default", *BY_HAND]
    sides += ["channels-last kept bf16"] * hardware.cpu_computes_bf16()
    sides += ["channels-last kept compiled"] * options.compile
    all_rounds = [{side: fresh(side, network, options, steps) for side in (sides if turn % 2 else sides[::-1])}
                  for turn in range(options.rounds)]
    channels, side_, _ = NETWORKS[network]
    operations = 6 * cost(models.build(network, num_classes=10, in_channels=channels),
                          (channels, side_, side_)).multiply_adds
    found: dict[str, Any] = {"batch": batch, "steps": steps}
    for clock in ("clock", "processor"):
        middle = {side: statistics.median(one[side][clock] for one in all_rounds) for side in sides}
        best = max((side for side in sides[2:]), key=lambda side: middle[side])
        ratios = [one["command"][clock] / one["contiguous default"][clock] for one in all_rounds]
        found[clock] = {
            "images_per_second": {side: round(middle[side], 2) for side in sides[1:]}, "best": best,
            "ratio_to_plain": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
            "ratio_to_best": statistics.median(one["command"][clock] / one[best][clock] for one in all_rounds),
            "share_of_roofline": middle["command"] * operations / middle["peak"],
            "peak_gflops": middle["peak"] / 1e9}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS),
                        default=[name for name in NETWORKS if name not in SLOW])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each side in each round")
    parser.add_argument("--batch", type=int, default=0, help="pictures (0: 16 at 224, 128 below, 1,024 of airnet)")
    parser.add_argument("--threads", type=int, default=hardware.cores())
    parser.add_argument("--compile", action="store_true", help="try torch.compile by hand as well (minutes)")
    parser.add_argument("--note", default="", help="kept in the file, as: the machine was busy")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE")
    parser.add_argument("--case", nargs=5, default=None, help="one side in this process, for the benchmark itself")
    options = parser.parse_args(arguments)
    if options.case:
        side, network, *numbers = options.case
        print(json.dumps(case(side, network, *map(int, numbers))))
        return 0
    found: dict[str, Any] = {"benchmark": "training", "rounds": options.rounds, "threads": options.threads,
                             "note": options.note or "nothing said of other work on the machine"}
    for network in options.networks:
        one = measure(network, options)
        for clock in ("clock", "processor"):
            part = one[clock]
            text = (f"{part['ratio_to_plain']:.2f} of plain ({part['least']:.2f} to {part['most']:.2f}), "
                    f"{part['ratio_to_best']:.2f} of best by hand ({part['best']}), "
                    f"{part['images_per_second']['command']:.1f} images/s, "
                    f"{100 * part['share_of_roofline']:.0f} % of {part['peak_gflops']:.0f} GFLOP/s")
            found[f"{network} batch {one['batch']}, by {clock}"] = text
            print(f"{network} batch {one['batch']}, by the {clock}: {text}", flush=True)
        found[f"{network}_measured"] = one
    found |= {"hardware": hardware.describe(recipe_of("lenet5", 128, options.threads)), "versions": hardware.versions()}
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
