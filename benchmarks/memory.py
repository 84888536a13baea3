"""What a training step of the deepest networks takes in memory on a CPU, against the limit of 20 GiB.

    python benchmarks/memory.py [--networks resnet1202 densenet_bc250_k24] [--batch 128] [--recompute none blocks]
                                [--threads 2] [--save FILE]

Each case is one step (forward, backward, SGD with momentum) over random 3x32x32 pictures in a process of its own, which
reports its peak resident memory (everything counts: weights, momentum, gradients, torch itself) and its seconds. Where
the machine has not the room, give smaller values of --batch and read off the growth. With --save a file that is there
already keeps its other cases.

Exit status 4 where a case at batch 128 with recompute=blocks takes more than the limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from layerwise import hardware, models
from layerwise.errors import InputError, LayerwiseError, MachineError
from layerwise.layers.recompute import recompute_blocks
from layerwise.recipes.presets import preset

LIMIT = 20.0  # GiB
BATCH = 128
NETWORKS = ("resnet1202", "densenet_bc250_k24")
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


def in_fresh_process(network: str, batch: int, recompute: str, threads: int) -> dict[str, Any]:
    """`step` in a process of its own. Raises MachineError where it ends without an answer."""
    command = [sys.executable, __file__, "--case", network, str(batch), recompute, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was killed, probably for memory"])[-1]
        raise MachineError(f"{network}, batch {batch}, recompute={recompute}: {last}", mend="Try a smaller --batch.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def merged(old: dict[str, Any] | None, cases: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """The file's content: earlier cases kept unless measured again; figures for docs/results.md beside them."""
    measured = {(one["network"], one["batch"], one["recompute"]): one for one in (old or {}).get("cases", [])}
    measured |= {(one["network"], one["batch"], one["recompute"]): one for one in cases}
    recipe = hardware.resolve(preset("fast"))
    found: dict[str, Any] = {"benchmark": "memory", "limit_gib": LIMIT, "threads": threads}
    for (network, batch, recompute), one in sorted(measured.items()):
        found[f"{network} batch {batch} recompute={recompute}"] = (
            f"{one['peak_gib']:.2f} GiB, {one['peak_gib'] / LIMIT:.2f} of the limit, {one['seconds']:.0f} s")
    return found | {"cases": [measured[key] for key in sorted(measured)], "hardware": hardware.describe(recipe),
                    "versions": hardware.versions()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="names (default: the issue's two)")
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
    for network in options.networks:
        for recompute in options.recompute:
            one = in_fresh_process(network, options.batch, recompute, options.threads)
            cases.append(one)
            peak_gib = one["peak_gib"]
            print(f"{network}, batch {options.batch}, recompute={recompute}: peak {peak_gib:.2f} GiB "
                  f"({one['before_step_gib']:.2f} before the step), ratio {peak_gib / LIMIT:.3f} of {LIMIT:g} GiB, "
                  f"{one['seconds']:.1f} s", flush=True)
            if options.save is not None:
                old = json.loads(options.save.read_text("utf-8")) if options.save.exists() else None
                options.save.write_text(json.dumps(merged(old, cases, options.threads), indent=2) + "\n", "utf-8")
    over = [one for one in cases
            if one["batch"] >= BATCH and one["recompute"] == "blocks" and one["peak_gib"] > LIMIT]
    return 4 if over else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LayerwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
