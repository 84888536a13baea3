"""A GPU: ResNet-50 training at 224 in bf16 against timm's own benchmark script, and seconds to 94 % on Fashion-MNIST.

    python benchmarks/gpu.py [--device auto] [--batch N] [--steps N] [--rounds 3] [--timm FILE] [--peak TFLOPS]
                             [--seeds 0 1 2] [--save FILE]

The command's side is the loop of `layerwise train resnet50` with the recipe `fast`, on noise, without the checkpoint at
its end, as in training.py. The other is timm's `benchmark.py`, which lies in timm's repository and not in its package:
--timm says where; timm must be importable. It steps over one batch that stays on the device. Sides take turns, each in
a fresh process. The share of the peak is that of the fastest product of matrices in the same precision and run, and
with --peak of what the card's maker prints; a step counts 6 operations for a multiply-add of the network.

Seconds to 94 % are `layerwise train airnet` itself from the shell to the report, for each seed, with `SETTINGS` on the
recipe `speed-run`; the accuracy is that of the test split, read once at the end. That this length suffices is not known
yet: the recipe's own narrower network had 94.1 % of held-out pictures after 12 epochs.

Without a GPU all this runs on the processor: in fp32 where that has no arithmetic in bf16, batches of 4, one step, and
the seconds only where --seeds asks for them (about an hour a seed on two cores). Exit status 4 where a seed misses
94 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peaks import step_costs
from seconds import our_run
from training import IMAGENET, MOST_STEPS, Case, command_side

from layerwise import hardware
from layerwise.recipe import changed
from layerwise.recipes.presets import preset

NETWORK, SIDE = "resnet50", 224
TARGET = 0.94
WIDE, SETTINGS = "airnet", ("duration=12", "warmup_length=3")  # of the recipe speed-run, which has 5 epochs for 93 %
# (side of the matrices, products, pictures of a step, timed steps) on a GPU and on a processor
ON_GPU, ON_CPU = (8192, 20, 256, 40), (1024, 3, 4, 1)
MARK = "--result"  # stands before the JSON that timm's script prints


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, precision: str, side: int, count: int) -> float:
    """Operations a second of the fastest of `count` products of matrices, after one that is not counted."""
    left = torch.rand(side, side, dtype=torch.bfloat16 if precision == "bf16" else torch.float32, device=device)
    fastest = 0.0
    for number in range(count + 1):
        synchronise(device)
        started = time.perf_counter()
        left @ left
        synchronise(device)
        fastest = max(fastest, number and 2 * side**3 / (time.perf_counter() - started))
    return fastest


def timm_rate(printed: str) -> float:
    """Pictures a second from what timm's script printed; ValueError where it says none."""
    _, found, told = printed.rpartition(MARK)
    try:
        return float(json.loads(told)["train_samples_per_sec"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"timm's script told no rate: {(told if found else printed).strip()[-500:]}") from None


def timm_side(script: Path, options: argparse.Namespace) -> float:
    """Pictures a second of timm's script in a process of its own."""
    precision = "amp_bfloat16" if options.precision == "bf16" else "float32"
    words = [sys.executable, str(script), "--model", NETWORK, "--bench", "train", "--precision", precision,
             "--channels-last", "--device", options.device, "--batch-size", str(options.batch), "--img-size", str(SIDE),
             "--num-warm-iter", str(min(10, options.steps)), "--num-bench-iter", str(max(5, options.steps))]
    return timm_rate(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def fresh(side: str, options: argparse.Namespace) -> float:
    """One side of ours in a process of its own."""
    words = [sys.executable, __file__, "--side", side, "--device", options.device, "--batch", str(options.batch),
             "--steps", str(options.steps), "--threads", str(options.threads)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def one_side(options: argparse.Namespace, defaults: tuple[int, int, int, int]) -> float:
    """What a process of `fresh` measures."""
    if options.side == "peak":
        return peak(torch.device(options.device), options.precision, *defaults[:2])
    case = Case(3, SIDE, options.batch, 0, 0, 0, IMAGENET)
    settings = (f"device={options.device}", f"precision={options.precision}")
    return command_side(NETWORK, case, options, settings)["clock"]


def training_rates(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second of both sides in turns, their ratio, and the shares of the peaks."""
    highest = fresh("peak", options)
    ours, theirs = list[float](), list[float]()
    for _ in range(options.rounds):
        ours.append(fresh("command", options))
        if options.timm is not None:
            theirs.append(timm_side(options.timm, options))
    rate = statistics.median(ours)
    done = rate * step_costs(NETWORK, (3, SIDE, SIDE))[0]
    found: dict[str, Any] = {
        "pictures a second": f"{rate:.1f} ({min(ours):.1f} to {max(ours):.1f})",
        f"fastest product of {options.precision} matrices": f"{highest / 1e12:.2f} TFLOP/s",
        "share of that": f"{100 * done / highest:.0f} %"}
    if options.peak:
        found["share of the printed peak"] = f"{100 * done / (options.peak * 1e12):.0f} % of {options.peak:g} TFLOP/s"
    row = f"summary: {NETWORK} in {options.precision}, to timm's script"
    if theirs:
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        found["timm's script, pictures a second"] = (
            f"{statistics.median(theirs):.1f} ({min(theirs):.1f} to {max(theirs):.1f})")
        found["ratio to timm's script"] = (
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"{row} | {statistics.median(ratios):.2f} | none | ok")
    else:
        print(f"{row} | - | none | left out: --timm FILE says where it is")
    return found


def seconds_needed(options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Seconds and accuracy of each seed, and whether all reach the target."""
    runs = []
    with tempfile.TemporaryDirectory() as place:
        for seed in options.seeds:
            settings = (*SETTINGS, f"device={options.device}", f"threads={options.threads}")
            runs.append(our_run(seed, Path(place), settings, WIDE))
            print(json.dumps(runs[-1]), flush=True)
    reached = all(one["accuracy"] >= TARGET for one in runs)
    clock = [one["clock"] for one in runs]
    told = f"{statistics.median(clock):.1f} ({min(clock):.1f} to {max(clock):.1f})"
    print(f"summary: seconds to {100 * TARGET:.0f} % on Fashion-MNIST | {told} | none | {'ok' if reached else 'not'}")
    accuracies = ", ".join(f"{100 * one['accuracy']:.2f} %" for one in runs)
    found = {f"seconds to {100 * TARGET:.0f} %": told, "test accuracy": accuracies,
             "network of the seconds": WIDE, "its settings": list(SETTINGS)}
    return found, reached


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="auto", help="as the recipe's field device")
    parser.add_argument("--batch", type=int, default=0, help="pictures of a step (256; without a GPU 4)")
    parser.add_argument("--steps", type=int, default=0, help="timed steps of each side in each round (40; 1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=hardware.cores())
    parser.add_argument("--timm", type=Path, default=None, metavar="FILE", help="benchmark.py of timm's repository")
    parser.add_argument("--peak", type=float, default=0.0, metavar="TFLOPS", help="bf16, dense, as the maker prints it")
    parser.add_argument("--seeds", type=int, nargs="*", default=None, help="of the seconds (0 1 2; without a GPU none)")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE")
    parser.add_argument("--side", choices=("command", "peak"), default=None, help="for the benchmark itself")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or min(options.batch, options.peak) < 0 or not 0 <= options.steps <= MOST_STEPS:
        parser.error("--rounds must be at least 1, --batch and --peak not negative, "
                     f"--steps from 0 to {MOST_STEPS}")
    if options.timm is not None and not options.timm.is_file():
        parser.error(f"--timm {options.timm}: there is no such file; it is benchmark.py of timm's repository")
    recipe = hardware.resolve(changed(preset("fast"), [f"device={options.device}", f"network={NETWORK}"]))
    options.device, options.precision = recipe.device, recipe.precision
    on_gpu = options.device != "cpu"
    defaults = ON_GPU if on_gpu else ON_CPU
    options.batch, options.steps = options.batch or defaults[2], options.steps or defaults[3]
    if options.seeds is None:
        options.seeds = [0, 1, 2] if on_gpu else []
    if options.side:
        print(one_side(options, defaults))
        return 0
    if not on_gpu:
        print("torch sees no GPU: this is the processor; it says nothing of one")
    asked = {name: getattr(options, name) for name in ("precision", "batch", "steps", "rounds")}
    found: dict[str, Any] = {"benchmark": "gpu", **asked, **training_rates(options)}
    reached = True
    if options.seeds:
        times, reached = seconds_needed(options)
        found |= times
    else:
        print(f"summary: seconds to {100 * TARGET:.0f} % on Fashion-MNIST | - | none | left out: no --seeds")
    found |= {"hardware": hardware.describe(recipe), "versions": hardware.versions()}
    for name, value in found.items():
        print(f"{name}: {value}")
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if reached else 4


if __name__ == "__main__":
    sys.exit(main())
