"""What the whole page of `layerwise explain` takes: ResNet-20 on Fashion-MNIST, against 3 minutes and 2 GiB.

    python benchmarks/explain.py [--run RUN] [--threads 2] [--save FILE]

Without --run a ResNet-20 is trained for 30 iterations first, which is not counted: what a view costs does not depend on
the weights. The command runs in a fresh process on a copy of the run without kept views; the kernel's account of it
gives its seconds (by the clock and of the processors) and its largest resident memory. Then each view by itself, from
the files' times. Exit status 4 where the page takes longer by the clock, or more memory, than its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from layerwise import hardware
from layerwise.errors import LayerwiseError

SECONDS, GIB = 180.0, 2.0
PAGE_MB = 10.0
TRAIN = ("train", "resnet20", "fashion-mnist", "--set", "unit=iterations", "--set", "duration=30", "--set",
         "warmup_length=0", "--set", "evaluate_every=30", "--set", "protocol=single")


def command(words: Sequence[str], threads: int) -> None:
    """Runs `layerwise` in a process of its own. Raises CalledProcessError where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "layerwise", *words], check=True, env=environment, stdout=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures; 4 where a limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, help="a finished run of resnet20 on fashion-mnist")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="layerwise-explain-") as place:
        run = Path(place) / "run"
        if options.run is None:
            command([*TRAIN, "--out", str(run)], options.threads)
        else:
            shutil.copytree(options.run, run, ignore=shutil.ignore_patterns("explain", "explain.html"))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started, began = time.perf_counter(), time.time()
        command(["explain", str(run)], options.threads)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = (run / "explain.html").stat().st_size / 1e6
        kept = sorted((run / "explain").glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in kept:
            print(f"{file.stem:20} done after {file.stat().st_mtime - began:6.1f} s")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    memory = after.ru_maxrss / 2**20  # the largest of all children: the training's, if that is more
    rows = (("seconds", seconds, SECONDS), ("GiB", memory, GIB), ("MB of the page", size, PAGE_MB))
    print(f"processors' seconds: {processor:.1f} with {options.threads} threads")
    found: dict[str, object] = {"benchmark": "explain", "cpu": hardware.cpu_name(), "threads": options.threads,
                                "seconds of the processors": round(processor, 1)}
    for what, value, limit in rows:
        found[what] = f"{value:.2f}, limit {limit:g}"
        print(f"summary: page of resnet20 on fashion-mnist, {what} | {value:.2f} | {limit:g} | "
              f"{'ok' if value <= limit else 'not'}")
    if options.save is not None:
        options.save.write_text(json.dumps(found | {"versions": hardware.versions()}, indent=2) + "\n", "utf-8")
    return 0 if all(value <= limit for _, value, limit in rows) else 4


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LayerwiseError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
