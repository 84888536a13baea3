"""Seconds from the shell to the answer: `layerwise --help` and `layerwise predict MODEL one.png`, in fresh processes.

    python benchmarks/startup.py [--rounds 5] [--save FILE]

The model is a `resnet20` made for it, the picture 32x32. Beside the clock stands the processor's time of the process,
which other work on the machine changes less. `import torch` alone is measured too: `predict` can't be faster.
Exit status 4 where the processor's median is above 0.3 s (--help) or 2.5 s (predict).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from layerwise import hardware, modelfile, models
from layerwise.data.preprocess import Preprocess

LIMITS = {"help": 0.3, "predict": 2.5}


def seconds(command: Sequence[str]) -> tuple[float, float]:
    """By the clock, and by the processor (user and system) of the child."""
    # As installed: Python may keep what it compiled; the first round, which is not counted, leaves it there.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, used


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--note", default="", help="kept in the file, as: the machine was busy")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        model, picture = Path(place, "model.safetensors"), Path(place, "one.png")
        grey = np.full((3, 1, 1), 0.5, dtype=np.float32)
        preprocess = Preprocess(3, 32, "squash", 0, "bilinear", "apply", grey, grey)
        modelfile.write(model, modelfile.ModelFile(models.build("resnet20"), tuple(map(str, range(10))), preprocess))
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
        layerwise = [sys.executable, "-m", "layerwise"]
        commands = {"help": [*layerwise, "--help"], "predict": [*layerwise, "predict", str(model), str(picture)],
                    "import torch": [sys.executable, "-c", "import torch"]}
        rounds = [{name: seconds(command) for name, command in commands.items()} for _ in range(options.rounds + 1)]
    found: dict[str, object] = {"benchmark": "startup", "rounds": options.rounds, "cpu": hardware.cpu_name(),
                                "note": options.note or "nothing said of other work on the machine"}
    within, summary = True, []
    for name in commands:
        clock = [one[name][0] for one in rounds[1:]]
        used = [one[name][1] for one in rounds[1:]]
        limit = LIMITS.get(name)
        middle = statistics.median(used)
        within = within and (limit is None or middle <= limit)
        if limit is not None:
            summary.append(f"summary: startup {name} | {middle / limit:.2f} | {limit:g} s | "
                           f"{'ok' if middle <= limit else 'not'}")
        found[name] = (f"{statistics.median(clock):.2f} s ({min(clock):.2f} to {max(clock):.2f}); processor "
                       f"{statistics.median(used):.2f} s ({min(used):.2f} to {max(used):.2f})"
                       + (f", limit {limit} s" if limit else ""))
        print(f"{name}: {found[name]}")
    print("\n".join(summary))
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if within else 4


if __name__ == "__main__":
    sys.exit(main())
