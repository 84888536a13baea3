"""A run's directory with made-up content, for tests of the report: no number in it was ever measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from layerwise.evaluation.protocols import PROTOCOLS
from layerwise.evaluation.result import Result
from layerwise.recipes.presets import preset

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FINGERPRINTS = {"train": "ab" * 32, "val": "cd" * 32, "test": "ef" * 32}
STEPS, SAMPLES = 4220, 54_000
CLOTHES = {(0, 6): 9, (6, 0): 12, (2, 4): 6, (4, 2): 7, (6, 2): 6, (2, 6): 5, (6, 4): 6, (4, 6): 5, (3, 6): 3,
           (5, 7): 2, (9, 7): 3, (7, 9): 2, (3, 4): 2, (0, 3): 2}  # fmt: skip


RECIPE = dataclasses.replace(preset("fast"), protocol="single")


def make_run(
    path: Path, names: Sequence[str] = NAMES, data: str = "synthetic-clothes", pictures: int = 100
) -> Path:
    """Writes a whole run into `path`: `pictures` test pictures a class, two evaluations, and a model file."""
    path.mkdir(parents=True)
    (path / "recipe.json").write_text(RECIPE.to_json(), "utf-8")
    _write(path / "run.json", run_record(names, data))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics()), "utf-8")
    speed = [{"step": step, "images_per_second": 480 + step % 37, "data_wait": 0.012, "seconds": step / 4.2}
             for step in range(50, STEPS, 50)]
    (path / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in speed), "utf-8")
    generator = np.random.default_rng(0)
    kernels = generator.normal(size=(16, 1, 3, 3)).astype(np.float32)
    later = generator.normal(size=(16, 16, 3, 3)).astype(np.float32)
    save_file({"model.features.conv1.0.weight": kernels, "model.features.conv2_x.0.conv1.weight": later},
              path / "model.safetensors")
    evaluate(path, "test", "single", names, pictures)
    evaluate(path, "val", "single", names, pictures // 2)
    return path


def run_record(names: Sequence[str], data: str) -> dict[str, Any]:
    """run.json of the made-up run."""
    return {
        "format": 1, "name": "fast", "started": "2025-01-01T12:00:00+00:00", "state": "finished",
        "finished": "2025-01-01T12:17:03+00:00", "seconds": 1023.4,
        "versions": {"layerwise": "0.0", "python": "3.11.7", "torch": "0.0-synthetic", "code": "0" * 12},
        "hardware": {"device": "cpu", "processor": "made-up processor", "cores": 2, "threads": 2, "precision": "fp32",
                     "memory_format": "channels-last"},
        "data": {"name": data, "fingerprint": FINGERPRINTS, "counts": {"train": 54_000, "val": 6000, "test": 1000},
                 "class_names": list(names), "class_counts": [5400] * len(names),
                 "notes": ["This data is made up for a test of the report."]},
        "model": {"name": "resnet20", "parameters": 269_434, "multiply_adds": 31_021_056, "input": [1, 28, 28]},
        "branches": [], "notes": ["Synthetic: no number on this page was measured."],
    }


def metrics(steps: int = STEPS) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: a training line every 10 steps, ten validations, a one-cycle learning rate."""
    noise = np.random.default_rng(1)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        part = step / STEPS
        rate = 0.2 * (part / 0.2 if part < 0.2 else (1 - part) / 0.8)
        error = 0.045 + 0.75 * np.exp(-part * 45) + 0.11 * (1 - part) + noise.normal() * 0.022
        lines.append({"kind": "train", "step": step, "samples": step * 128, "epoch": step * 128 / SAMPLES, "loss": 0.5,
                      "error": float(max(error, 0.0)), "learning_rate": rate})
        if step % (STEPS // 10) < 10:
            error = 0.058 + 0.14 * (1 - part) ** 1.5 + abs(noise.normal()) * 0.02 * (1 - part)
            lines.append({"kind": "val", "step": step, "samples": step * 128, "epoch": step * 128 / SAMPLES,
                          "loss": 0.2, "error": float(error), "learning_rate": rate})
    return lines


def evaluate(run: Path, split: str, protocol: str, names: Sequence[str], pictures: int) -> Path:
    """Writes evaluations/<split>-<protocol> with a made-up confusion matrix and pictures."""
    size = len(names)
    confusion = np.zeros((size, size), np.int64)
    for (true, predicted), number in CLOTHES.items():
        if true < size and predicted < size:
            confusion[true, predicted] = number * pictures // 100
    np.fill_diagonal(confusion, pictures - confusion.sum(axis=1))
    right, predicted_as, total = np.diag(confusion), confusion.sum(axis=0), int(confusion.sum())
    error = 1 - int(right.sum()) / total
    half = 1.96 * (error * (1 - error) / total) ** 0.5
    classes = [{"name": name, "support": pictures, "precision": float(right[i] / predicted_as[i]),
                "recall": float(right[i] / pictures), "f1": float(2 * right[i] / (pictures + predicted_as[i])),
                "reason": ""} for i, name in enumerate(names)]
    folder = run / "evaluations" / f"{split}-{protocol}"
    (folder / "worst").mkdir(parents=True)
    worst = []
    for index, (true, predicted) in enumerate([pair for pair in CLOTHES if max(pair) < size] * 2):
        if index == 24:
            break
        Image.fromarray(_drawing(index)).save(folder / "worst" / f"{index:03d}.png")
        worst.append({"id": f"synthetic/{split}/{index * 37}", "true": names[true], "predicted": names[predicted],
                      "probability": 0.999 - index * 0.004, "picture": f"worst/{index:03d}.png"})
    resolved = dataclasses.replace(PROTOCOLS[protocol], resize="none", size=28, interpolation="bilinear", exif="apply",
                                   mean="per-channel")
    made = Result(
        split, total, 0, 0, resolved,
        {"error": error, "error_interval": [error - half, error + half], "top_k_error": {"5": 0.0012}, "loss": 0.1723,
         "calibration_error": 0.0091, "macro_f1": 0.9381},
        classes, confusion.tolist(), worst, {"name": "synthetic", "fingerprint": FINGERPRINTS[split]},
        [{"path": "model.safetensors", "sha256": "cd" * 32, "recipe_hash": "ef" * 32, "seed": 0}],
        {"torch": "0.0-synthetic"}, {"device": "cpu"}, [],
    )
    _write(folder / "result.json", made.to_json())
    return folder


def change(file: Path, **fields: object) -> None:
    """Sets top-level fields of a JSON file."""
    _write(file, json.loads(file.read_text("utf-8")) | fields)


def _drawing(index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A grey 28 x 28 picture of overlapping blobs, different for each index."""
    y, x = np.mgrid[0:28, 0:28] / 27 - 0.5
    parts = np.random.default_rng(index).uniform(-0.25, 0.25, size=(5, 2))
    height = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) * 28) for a, b in parts)
    return np.clip(np.asarray(height) * 200, 0, 255).astype(np.uint8)


def _write(file: Path, contents: dict[str, Any]) -> None:
    file.write_text(json.dumps(contents, indent=1), "utf-8")
