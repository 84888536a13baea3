"""What training takes in memory on a CPU: ResNet-50 by the command against 6 GiB, the deepest networks against 20 GiB.

    python benchmarks/memory.py [--networks resnet50 resnet1202 densenet_bc250_k24] [--batch 128]
                                [--recompute none blocks] [--threads 2] [--save FILE]

resnet50 is `layerwise train resnet50 FOLDER` itself, batch 32 at 224, two steps with validation, test and report, in a
process of its own over a folder of made-up JPEGs; the kernel's account of that process (its largest resident memory) is
what counts. Micro-batch and recomputation are what the command chooses, and are printed.

The others are one step (forward, backward, SGD with momentum) over random 3x32x32 pictures in a process of its own,
which reports its peak resident memory (everything counts: weights, momentum, gradients, torch itself) and its seconds.
Where the machine has not the room, give smaller values of --batch and read off the growth. With --save a file that is
there already keeps its other cases.

Exit status 4 where resnet50, or a case at batch 128 with recompute=blocks, takes more than its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from layerwise import hardware, models, rundir
from layerwise.errors import InputError, LayerwiseError, MachineError
from layerwise.layers.recompute import recompute_blocks
from layerwise.recipes.presets import preset

LIMIT = 20.0  # GiB
BATCH = 128
TRAINED, TRAINED_BATCH, TRAINED_SIDE, TRAINED_LIMIT = "resnet50", 32, 224, 6.0
NETWORKS = (TRAINED, "resnet1202", "densenet_bc250_k24")
RECOMPUTE = ("blocks", "none")


def peak() -> float:
    """The largest resident memory of this process so far, in GiB. Raises MachineError where the system has no such."""
    try:
        import resource
    except ImportError:
        what = "this system does not tell a process's peak memory"
        raise MachineError(what, mend="Run it on Linux or macOS.") from None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def step(network: str, batch: int, recompute: str, threads: int) -> dict[str, Any]:
    """One training step in this process: what it took."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = models.build(network, num_classes=10)
    if recompute == "blocks":
        recompute_blocks(model.features)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    before = peak()
    started = time.perf_counter()
    loss = cross_entropy(model(images), labels)
    loss.backward()
    optimiser.step()
    seconds = time.perf_counter() - started
    return {"network": network, "batch": batch, "recompute": recompute, "peak_gib": round(peak(), 3),
            "before_step_gib": round(before, 3), "seconds": round(seconds, 1), "loss": round(loss.item(), 4)}


def folder_of_pictures(place: Path, count: int) -> None:
    """`count` JPEGs of 256x256 in two classes."""
    noise = np.random.default_rng(0)
    for number in range(count):
        folder = place / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(noise.integers(0, 256, (256, 256, 3), dtype=np.uint8))
        picture.save(folder / f"{number}.jpg", quality=75)


def trained(threads: int) -> dict[str, Any]:
    """Two steps of `layerwise train` with its defaults: the kernel's account of the process, and what it had chosen."""
    with tempfile.TemporaryDirectory() as place:
        folder_of_pictures(Path(place, "pictures"), 3 * TRAINED_BATCH)
        run = Path(place, "run")
        settings = [f"batch_size={TRAINED_BATCH}", f"input_size={TRAINED_SIDE}", f"threads={threads}", "split=80/10/10",
                    "resize=short-side", "resize_to=256", "crop=resized", "unit=iterations", "duration=2",
                    "warmup_length=1", "evaluate_every=2"]
        words = [sys.executable, "-m", "layerwise", "train", TRAINED, str(Path(place, "pictures")), "--recipe", "fast",
                 "--yes", "--out", str(run), *(word for setting in settings for word in ("--set", setting))]
        with Path(place, "words.txt").open("w+") as told:
            started = time.perf_counter()
            process = subprocess.Popen(words, stdout=told, stderr=told)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                told.seek(0)
                raise MachineError(f"layerwise train ended with status {process.returncode}",
                                   (told.read().strip().splitlines() or ["it said nothing"])[-1])
        recipe, record = rundir.read_recipe(run), rundir.read_run(run)
        return {"network": TRAINED, "batch": recipe.batch_size, "recompute": recipe.recompute,
                "micro_batch": recipe.micro_batch, "precision": recipe.precision, "memory_format": recipe.memory_format,
                "peak_gib": round(used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30, 3),
                "predicted_gib": round(record["memory"]["predicted"] / 2**30, 3), "seconds": round(seconds, 1)}


def in_fresh_process(network: str, batch: int, recompute: str, threads: int) -> dict[str, Any]:
    """`step` in a process of its own. Raises MachineError where it ends without an answer."""
    command = [sys.executable, __file__, "--case", network, str(batch), recompute, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was killed, probably for memory"])[-1]
        raise MachineError(f"{network}, batch {batch}, recompute={recompute}: {last}", mend="Try a smaller --batch.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trained_words(one: dict[str, Any]) -> str:
    """What `trained` found, in words."""
    return (f"peak {one['peak_gib']:.2f} GiB ({one['predicted_gib']:.2f} predicted), ratio "
            f"{one['peak_gib'] / TRAINED_LIMIT:.3f} of {TRAINED_LIMIT:g} GiB; micro-batch {one['micro_batch']}, "
            f"recompute={one['recompute']}, {one['precision']}, {one['memory_format']}, {one['seconds']:.0f} s")


def merged(old: dict[str, Any] | None, cases: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """The file's content: earlier cases kept unless measured again; figures for docs/results.md beside them."""
    measured = {(one["network"], one["batch"], one["recompute"]): one for one in (old or {}).get("cases", [])}
    measured |= {(one["network"], one["batch"], one["recompute"]): one for one in cases}
    recipe = hardware.resolve(preset("fast"))
    found: dict[str, Any] = {"benchmark": "memory", "limit_gib": LIMIT, "threads": threads}
    for (network, batch, recompute), one in sorted(measured.items()):
        if network == TRAINED:
            found[f"{network} batch {batch} at {TRAINED_SIDE} by layerwise train"] = trained_words(one)
            continue
        found[f"{network} batch {batch} recompute={recompute}"] = (
            f"{one['peak_gib']:.2f} GiB, {one['peak_gib'] / LIMIT:.2f} of the limit, {one['seconds']:.0f} s")
    return found | {"cases": [measured[key] for key in sorted(measured)], "hardware": hardware.describe(recipe),
                    "versions": hardware.versions()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help=f"names (default {' '.join(NETWORKS)})")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"pictures (default {BATCH})")
    parser.add_argument("--recompute", nargs="+", choices=RECOMPUTE, default=list(RECOMPUTE))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--case", nargs=3, default=None, metavar=("NETWORK", "BATCH", "RECOMPUTE"),
                        help="one case in this process, as JSON; for the benchmark itself")
    options = parser.parse_args(arguments)
    if options.case:
        network, batch, recompute = options.case
        print(json.dumps(step(network, int(batch), recompute, options.threads)))
        return 0
    if options.batch < 1 or options.threads < 1:
        parser.error("--batch and --threads must be at least 1")
    unknown = [name for name in options.networks if name not in models.names()]
    if unknown:
        raise InputError(f"--networks: {', '.join(unknown)}: not a network of this library", mend="layerwise models")

    cases: list[dict[str, Any]] = []
    summary: list[str] = []

    def keep(one: dict[str, Any], what: str, limit: float) -> None:
        cases.append(one)
        summary.append(f"summary: memory {what} | {one['peak_gib'] / limit:.2f} | {limit:g} GiB | "
                       f"{'ok' if one['peak_gib'] <= limit else 'not'}")
        if options.save is not None:
            old = json.loads(options.save.read_text("utf-8")) if options.save.exists() else None
            options.save.write_text(json.dumps(merged(old, cases, options.threads), indent=2) + "\n", "utf-8")

    for network in options.networks:
        if network == TRAINED:
            one = trained(options.threads)
            print(f"{TRAINED}, batch {TRAINED_BATCH} at {TRAINED_SIDE}, layerwise train: {trained_words(one)}",
                  flush=True)
            keep(one, f"{TRAINED} batch {TRAINED_BATCH}", TRAINED_LIMIT)
            continue
        for recompute in options.recompute:
            one = in_fresh_process(network, options.batch, recompute, options.threads)
            peak_gib = one["peak_gib"]
            print(f"{network}, batch {options.batch}, recompute={recompute}: peak {peak_gib:.2f} GiB "
                  f"({one['before_step_gib']:.2f} before the step), ratio {peak_gib / LIMIT:.3f} of {LIMIT:g} GiB, "
                  f"{one['seconds']:.1f} s", flush=True)
            keep(one, f"{network} batch {options.batch} recompute={recompute}", LIMIT)
    print("\n".join(summary))
    over = [one for one in cases
            if (one["network"] == TRAINED and one["peak_gib"] > TRAINED_LIMIT)
            or (one["batch"] >= BATCH and one["recompute"] == "blocks" and one["peak_gib"] > LIMIT)]
    return 4 if over else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LayerwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
