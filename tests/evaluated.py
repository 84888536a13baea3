"""A small network with made-up weights, and pictures for it, for the tests of evaluation and results."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from layerwise import models
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.modelfile import ModelFile

NAMES = ("ant", "bee", "cat")


def preprocess(resize: str = "none", size: int = 8, channels: int = 3) -> Preprocess:
    mean = np.linspace(0.4, 0.6, channels, dtype=np.float32)[:, None, None]
    std = np.full((channels, 1, 1), 0.25, np.float32)
    return Preprocess(channels, size, resize, size + 2 if resize == "short-side" else 0, "bilinear", "apply", mean, std)


def model_file(seed: int = 0, names: tuple[str, ...] = NAMES, resize: str = "none") -> ModelFile:
    torch.manual_seed(seed)
    network = models.build("resnet20", len(names), 3, widths=(4, 4, 8))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    spread_answers(network.eval(), preprocess(resize))
    return ModelFile(network.eval(), names, preprocess(resize), path=Path(f"model{seed}"), sha256="0" * 64)


def spread_answers(network: torch.nn.Module, rule: Preprocess) -> None:
    """Changes the last layer so that random pictures have logits of mean 0 and deviation 0.3 for each class."""
    pictures = np.random.default_rng(9).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        logits = network(rule.normalise(torch.from_numpy(pictures)))
        last = network.head[-1]
        last.bias.copy_((last.bias - logits.mean(0)) * 0.3 / logits.std(0))
        last.weight.mul_(0.3 / logits.std(0)[:, None])


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def samples(count: int = 30, names: tuple[str, ...] = NAMES, seed: int = 0, side: int = 8) -> Samples:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = random.integers(0, len(names), count).astype(np.int64)
    return Samples("test", names, labels, tuple(f"test/{i}" for i in range(count)), images=images)


def files(folder: Path, count: int = 12, bad: tuple[int, ...] = ()) -> Samples:
    random = np.random.default_rng(1)
    paths = []
    for i in range(count):
        path = folder / f"{i:02d}.png"
        pixels = random.integers(0, 256, ((12, 20, 3), (20, 12, 3), (15, 15, 3))[i % 3], dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        if i in bad:
            path.write_bytes(path.read_bytes()[:-40])
        paths.append(path)
    return Samples("val", NAMES, np.arange(count) % 3, tuple(path.name for path in paths), paths=tuple(paths))
