"""How much memory a training on a large folder takes beyond one on a small folder, by the kernel's account.

    python benchmarks/folder_memory.py [--pictures 100000] [--save FILE]

Writes JPEGs of 80x80 into a temporary folder: a few hundred contents, each under many names (hard links, where the file
system has them). `layerwise train` runs for three steps in a fresh process on the whole folder, and in another on 100
pictures of it; their peaks (VmHWM of /proc, Linux alone) are taken apart. What is left is what the pictures' number
costs: names, labels, what is known of each file, the order of an epoch. Above 1.5 GiB the exit status is 4.
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
from PIL import Image

from layerwise import hardware

LIMIT = 1.5
SMALL = 100
CONTENTS = 400  # different pictures
CLASSES = 10
RECIPE = ("input_size=64", "resize=short-side", "resize_to=72", "crop=resized", "batch_size=32", "unit=iterations",
          "duration=3", "evaluate_every=3", "validation=0", "channels=3")
# In the process that is measured: the command, then the greatest memory it had.
MEASURED = """
import sys
from pathlib import Path
from layerwise.cli import main
status = main(sys.argv[2:])
Path(sys.argv[1]).write_text(Path("/proc/self/status").read_text("utf-8"), "utf-8")
sys.exit(status)
"""


def folder(place: Path, count: int) -> None:
    """`count` pictures for training and 20 for testing, in classes."""
    chance = np.random.default_rng(0)
    contents = place / "contents"
    contents.mkdir(parents=True)
    for number in range(CONTENTS):
        low = Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8))
        low.resize((80, 80), Image.Resampling.BICUBIC).save(contents / f"{number}.jpg", quality=75)
    for split, many in (("train", count), ("test", 20)):
        for name in range(CLASSES):
            (place / "data" / split / f"class {name}").mkdir(parents=True)
        for number in range(many):
            named = place / "data" / split / f"class {number % CLASSES}" / f"picture {number:07d}.jpg"
            content = contents / f"{number % CONTENTS}.jpg"
            try:
                os.link(content, named)
            except OSError:  # too many links to one file, or a file system without
                named.write_bytes(content.read_bytes())


def peak(place: Path, count: int) -> dict[str, float]:
    """GiB and seconds of `layerwise train` on a folder of `count` pictures, in a process of its own."""
    folder(place, count)
    settings = [word for setting in RECIPE for word in ("--set", setting)]
    command = ["train", "resnet20", str(place / "data"), *settings, "--out", str(place / "run")]
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", MEASURED, str(place / "status"), *command], capture_output=True,
                          text=True, check=False, env={**os.environ, "XDG_CACHE_HOME": str(place / "cache")})
    if done.returncode:
        raise RuntimeError(f"layerwise train on {count} pictures ended with {done.returncode}: {done.stderr[-2000:]}")
    record = dict(line.split(":", 1) for line in (place / "status").read_text("utf-8").splitlines())
    return {"GiB": int(record["VmHWM"].split()[0]) / 1024**2, "seconds": time.monotonic() - started}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pictures", type=int, default=100_000, help="of the large folder (default 100,000)")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)
    if options.pictures < SMALL:
        parser.error(f"--pictures must be at least {SMALL}")
    if not Path("/proc/self/status").is_file():
        print("left out: /proc tells the peak of a process on Linux alone")
        print(f"summary: memory of a folder | - | {LIMIT:g} GiB | left out: no /proc")
        return 0
    found: dict[str, Any] = {"benchmark": "folder_memory", "cpu": hardware.cpu_name(), "limit_GiB": LIMIT}
    for name, count in (("small", SMALL), ("large", options.pictures)):
        with tempfile.TemporaryDirectory() as place:
            found[name] = {"pictures": count, **peak(Path(place), count)}
        print(f"{count:,} pictures: peak {found[name]['GiB']:.2f} GiB, {found[name]['seconds']:.0f} s", flush=True)
    found["beyond_GiB"] = beyond = found["large"]["GiB"] - found["small"]["GiB"]
    kept = beyond <= LIMIT
    print(f"beyond the network: {beyond:.3f} GiB, limit {LIMIT} GiB")
    print(f"summary: memory of a folder, {options.pictures:,} pictures | {beyond / LIMIT:.2f} | {LIMIT:g} GiB | "
          f"{'ok' if kept else 'not'}")
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if kept else 4


if __name__ == "__main__":
    sys.exit(main())
