"""Leakage (B6): duplicates planted into a folder's test split, exact and changed, and what `layerwise check` finds.

The pictures have the spectrum of photographs and are else random, so that no two are alike but those planted; where
the pictures of a set are alike by nature, precision is lower. What a leak is worth is shown by the nearest neighbour
among the training pictures, whose labels mean nothing: without leaks it is right as often as chance.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faults.folders import cache_in, texture
from faults.goal import Control, Goal, Outcome
from layerwise.data.check import CheckOptions, check_data
from layerwise.data.opening import DataOptions

SIDE, CLASSES, PLANTED = 48, 10, 0.033
NEAR_RECALL, NEAR_PRECISION = 0.97, 0.99


def encoded(image: Image.Image) -> Image.Image:
    """As JPEG of quality 50, and back."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(stream)


def cropped(image: Image.Image) -> Image.Image:
    """To 90 % of each side, off the middle."""
    lost = SIDE // 10
    return image.crop((lost // 3, lost - lost // 3, SIDE - lost + lost // 3, SIDE - lost // 3))


def recoloured(image: Image.Image) -> Image.Image:
    """Warmer and lighter."""
    return Image.fromarray((np.asarray(image) * np.array([1.15, 0.95, 0.9]) + 10).clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "exact": lambda image: image, "compressed": encoded,
    "resized": lambda image: image.resize((SIDE * 3 // 4, SIDE * 3 // 4), Image.Resampling.BICUBIC),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped": cropped, "recoloured": recoloured,
}


def made(
    root: Path, count: int
) -> tuple[dict[tuple[str, str], str], NDArray[np.float32], NDArray[np.int64], list[str]]:
    """(planted pairs of ids and how, thumbnails (N, 64), labels (N,), ids); nine tenths train, one tenth test."""
    random = np.random.default_rng(6)
    planted: dict[tuple[str, str], str] = {}
    thumbs, labels, ids = [], [], []
    kinds, copies = list(CHANGES), round(count * PLANTED)
    training = round(0.9 * count)
    for split in ("train", "test"):
        for label in range(CLASSES):
            (root / split / f"c{label}").mkdir(parents=True)
    for number in range(count):
        split, label = ("train" if number < training else "test"), int(random.integers(CLASSES))
        copy = number - (count - copies)
        image = Image.fromarray(texture(number if copy < 0 else copy, SIDE))
        how = ""
        if copy >= 0:  # of training picture number `copy`, with its label
            how, label = kinds[copy % len(kinds)], int(labels[copy])
            image = CHANGES[how](image)
        name = f"{split}/c{label}/{number:05d}.png"
        image.save(root / name)
        if how:
            planted[ids[copy], name] = how
        ids.append(name)
        labels.append(label)
        small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), np.float32).ravel()
        thumbs.append((small - small.mean()) / max(1.0, float(small.std())))
    return planted, np.array(thumbs), np.array(labels), ids


def accuracy(thumbs: NDArray[np.float32], labels: NDArray[np.int64], tested: NDArray[np.int64], training: int) -> float:
    """How often the nearest training thumbnail has the label of a test picture."""
    nearest = (thumbs[tested] @ thumbs[:training].T).argmax(axis=1)
    return float((labels[nearest] == labels[tested]).mean())


def leaks(trials: int, folder: Path, near: str = "auto") -> Outcome:
    """B6 on `trials` pictures."""
    planted, thumbs, labels, ids = made(folder / "set", trials)
    sheet = folder / "sheet.png"
    with cache_in(folder / "cache"):
        report = check_data(str(folder / "set"), DataOptions(), CheckOptions(near=near, sheet_png=sheet))
    found = {(one.first, one.second) if (one.first, one.second) in planted else (one.second, one.first): one.kind
             for one in report.duplicates}
    wanted, hits = Counter(planted.values()), Counter(how for pair, how in planted.items() if pair in found)
    close = [pair for pair, kind in found.items() if kind == "near"]
    right = sum(pair in planted for pair in close)
    expected = sum(wanted.values()) - wanted["exact"]
    recall, precision = (sum(hits.values()) - hits["exact"]) / max(1, expected), right / max(1, len(close))
    problems = []
    if hits["exact"] != wanted["exact"] or any(kind == "exact" and pair not in planted for pair, kind in found.items()):
        problems.append(f"exact: {hits['exact']} of {wanted['exact']} found")
    if recall < NEAR_RECALL:
        problems.append(f"near: recall {recall:.1%}")
    if precision < NEAR_PRECISION:
        problems.append(f"near: precision {precision:.1%}")
    if close and not sheet.is_file():
        problems.append("no contact sheet")
    training = round(0.9 * trials)
    leaked = {name for pair in found for name in pair if name.startswith("test")}
    tested = np.arange(training, trials)
    clean = np.array([number for number in tested if ids[number] not in leaked])
    told = ", ".join(f"{how} {hits[how]}/{count}" for how, count in wanted.items())
    return Outcome(trials, tuple(problems),
                   f"found: {told}; near recall {recall:.1%}, precision {precision:.1%}; nearest neighbour right in "
                   f"{accuracy(thumbs, labels, tested, training):.1%} of the test, in "
                   f"{accuracy(thumbs, labels, clean, training):.1%} without what was found (chance {1 / CLASSES:.0%})")


GOALS = (
    Goal("B6", "leakage: 3.3 % planted duplicates, exact and changed in five ways",
         "exact 100 %; near: recall 97 %, precision 99 %", 20_000, 900, leaks,
         (Control("near duplicates off", lambda folder: leaks(300, folder, "no")),)),
)
