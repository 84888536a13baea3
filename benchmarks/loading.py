"""What the loader costs: pictures a second against torchvision's way in a DataLoader, and against decoding alone.

    python benchmarks/loading.py [--rounds 5] [--pictures 256] [--large] [--tries 1] [--save FILE]

Three kinds of row. *JPEG folder to normalised batch*: photographs of 500x375 (parts of scikit-learn's two sample
photographs, re-encoded at quality 75 and 90 in a temporary folder), random resized crops of 224, flips, float32
batches. Against `Theirs`, which is what torchvision's ImageFolder, RandomResizedCrop, RandomHorizontalFlip, ToTensor
and Normalize do, written out, in a DataLoader with as many worker processes as we have threads; and against decoding
the same files and nothing else, in as many threads, with the decoder that our loader takes. *Shards*: the same from
shards that were packed from that folder, against our loader on the folder. *Small pictures in memory*: 32x32x3, padded
by 4, cropped and flipped, against the same in a DataLoader.

The sides take turns in one process, in rounds; an untimed round starts the DataLoader's workers, which stay. After it
the process keeps its freed buffers, as it does in a training by `layerwise train`; the workers have the allocator as it
is. A pass takes every file several times, so that it has some batches. Ratios are of one round, their median, least and
greatest are printed, by the clock and by processor time: on a machine that others use too, the second is the one to
trust. The limits are on the medians by the clock; where one is missed the exit status is 4. Nothing is written but the
temporary folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from quiet import Watch, in_words, most_of, quietest
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from layerwise import hardware
from layerwise.allocator import kept_buffers
from layerwise.data import decoding
from layerwise.data.images import ImageRules
from layerwise.data.loader import training_batches
from layerwise.data.opening import find_layout
from layerwise.data.preprocess import Preprocess
from layerwise.data.shards_write import pack
from layerwise.data.source import Samples
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.presets import preset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = 12_800
REPEATS = 4  # times that a pass takes each photograph
LIMITS = {"theirs": 2.4, "folder": 0.9, "small": 20.0}
AIMS = {"theirs": 2.7, "decoding alone": 0.9, "small": 50.0}


def photographs(folder: Path, count: int, quality: int, size: tuple[int, int]) -> list[Path]:
    """`count` JPEG files of `size` (width, height) in two classes: different parts of the two sample photographs."""
    sources = [Image.fromarray(source) for source in load_sample_images().images]
    chance, paths = np.random.default_rng(0), []
    for name in "ab":
        (folder / "train" / name).mkdir(parents=True)
    for number in range(count):
        source = sources[number % 2]
        width = int(min(source.width, source.height * size[0] / size[1]) * chance.uniform(0.8, 1))
        height = int(width * size[1] / size[0])
        left = int(chance.integers(0, source.width - width + 1))
        top = int(chance.integers(0, source.height - height + 1))
        part = source.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
        paths.append(folder / "train" / "ab"[number % 2] / f"{number:05d}.jpg")
        part.save(paths[-1], quality=quality)
    return paths


class Theirs(Dataset[tuple[Tensor, int]]):
    """torchvision's way, written out: Pillow's picture, random (resized or padded) crop, flip, tensor, normalised."""

    def __init__(self, pictures: Sequence[Path] | np.ndarray[Any, Any], size: int) -> None:
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        source = self.pictures[index]
        if isinstance(source, Path):
            with source.open("rb") as stream:
                image = self.resized(Image.open(stream).convert("RGB"))
        else:
            image = self.padded(Image.fromarray(source))
        if float(torch.rand(1)) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        tensor = tensor.clone()  # Normalize leaves what it gets as it is, unless it is asked for inplace=True
        mean, std = (torch.as_tensor(values, dtype=tensor.dtype) for values in (MEAN, STD))
        if (std == 0).any():
            raise ValueError("std is zero: division by zero")
        return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1)), 0

    def resized(self, image: Image.Image) -> Image.Image:
        """RandomResizedCrop: area in [0.08, 1], aspect in [3/4, 4/3], ten tries, bilinear."""
        width, height = image.size
        low, high = torch.log(torch.tensor((3 / 4, 4 / 3)))
        for _ in range(10):
            area = width * height * float(torch.empty(1).uniform_(0.08, 1))
            ratio = float(torch.exp(torch.empty(1).uniform_(float(low), float(high))))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                top = int(torch.randint(0, height - down + 1, (1,)))
                left = int(torch.randint(0, width - across + 1, (1,)))
                break
        else:
            down = across = min(width, height)
            top, left = (height - down) // 2, (width - across) // 2
        part = image.crop((left, top, left + across, top + down))
        return part.resize((self.size, self.size), Image.Resampling.BILINEAR)

    def padded(self, image: Image.Image) -> Image.Image:
        """RandomCrop(size, padding=4)."""
        wide = Image.new("RGB", (self.size + 8, self.size + 8))
        wide.paste(image, (4, 4))
        top, left = (int(torch.randint(0, 9, (1,))) for _ in range(2))
        return wide.crop((left, top, left + self.size, top + self.size))


def normalising(recipe: Recipe) -> Preprocess:
    """The preprocessing that the command's loader gets."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    side = recipe.resize_to if recipe.resize == "short-side" else 0
    return Preprocess(3, recipe.input_size, recipe.resize, side, recipe.interpolation, recipe.exif, mean, std)


def of_photographs(options: argparse.Namespace) -> Recipe:
    """The recipe for photographs: random resized crops of 224, flipped."""
    recipe = changed(preset("fast"), ["crop=resized", "resize=short-side", "resize_to=256", "input_size=224",
                                      "interpolation=bilinear", f"batch_size={options.batch}", "flip=yes"])
    check(recipe)
    return recipe


def from_(place: Path) -> Samples:
    """The pictures of a folder or of shards as the command's loader gets them, each `REPEATS` times."""
    samples = find_layout(str(place)).samples("train", ImageRules())
    return samples.subset(np.tile(np.arange(len(samples)), REPEATS), "train")


def decoded(path: Path) -> int:
    """Reads and decodes a whole file with the loader's decoder, and nothing else."""
    if decoding.turbo is not None:
        return len(decoding.turbo(path.read_bytes()))
    with Image.open(path) as image:
        image.load()
        return image.height


def exhausted(batches: Iterable[Any]) -> None:
    """Takes every batch and drops it."""
    for _ in batches:
        pass


def cpu_seconds() -> float:
    """The processor time of this process, its threads, and its living children (Linux alone counts those)."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        record = Path(f"/proc/{child.pid}/stat")
        if record.is_file():
            ticks = record.read_text("utf-8").rpartition(")")[2].split()[11:13]
            total += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return total


def passed(side: Callable[[], None], count: int) -> tuple[float, float, float]:
    """One pass: pictures a second, microseconds of the processor for one, share of the cores that went elsewhere."""
    watch = Watch(cpu_seconds)
    side()
    seconds, used, elsewhere = watch.spent()
    return count / seconds, used / count * 1e6, elsewhere


def measured(sides: dict[str, Callable[[], None]], count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second and CPU time of each side, and what ours does of them in the same time, in each round.

    Medians; ratios with the least and the greatest. The side that begins changes from round to round. The first round
    is not timed, and of it alone the allocator knows nothing.
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    costs: dict[str, list[float]] = {name: [] for name in sides}
    elsewhere: list[float] = []
    for side in sides.values():
        side()
    with kept_buffers():
        for number in range(options.rounds):
            names = list(sides)
            for name in names[number % len(names):] + names[: number % len(names)]:
                rate, cost, share = quietest(partial(passed, sides[name], count), itemgetter(2), options.tries)
                rates[name].append(rate)
                costs[name].append(cost)
                elsewhere.append(share)
    found: dict[str, Any] = {"pictures_per_second": {name: statistics.median(rates[name]) for name in sides},
                             "cpu_microseconds": {name: statistics.median(costs[name]) for name in sides},
                             "elsewhere": most_of(elsewhere)}
    for name in sides:
        if name != "ours":
            ratios = [ours / other for ours, other in zip(rates["ours"], rates[name], strict=True)]
            saved = [other / ours for ours, other in zip(costs["ours"], costs[name], strict=True)]
            for kind, values in (("ratio", ratios), ("cpu ratio", saved)):
                found[f"{kind} to {name}"] = [statistics.median(values), min(values), max(values)]
    return found


def folder_row(quality: int, size: tuple[int, int], options: argparse.Namespace) -> dict[str, Any]:
    """JPEG folder to normalised batch, at one quality."""
    recipe = of_photographs(options)
    preprocess = normalising(recipe)
    with tempfile.TemporaryDirectory() as place:
        paths = photographs(Path(place), options.pictures, quality, size) * REPEATS
        samples = from_(Path(place))
        theirs = DataLoader(Theirs(paths, 224), options.batch, shuffle=True, num_workers=options.workers,
                            persistent_workers=True)
        with ThreadPoolExecutor(options.workers) as pool:
            found = measured({
                "ours": lambda: exhausted(training_batches(samples, recipe, preprocess, 0, 0, None, options.workers)),
                "theirs": lambda: exhausted(theirs),
                "decoding alone": lambda: exhausted(pool.map(decoded, paths)),
            }, len(paths), options)
        mean_size = statistics.fmean(path.stat().st_size for path in paths) / 1024
        return {"row": f"JPEG {size[0]}x{size[1]}, quality {quality}, {mean_size:.0f} KiB",
                "limit": ["theirs", LIMITS["theirs"]], **found}


def shards_row(options: argparse.Namespace) -> dict[str, Any]:
    """Photographs of quality 75 from shards, against the folder that they were packed from."""
    recipe = of_photographs(options)
    preprocess = normalising(recipe)
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = place  # where packing remembers what it found
        folder, shards = Path(place) / "photographs", Path(place) / "shards"
        photographs(folder, options.pictures, 75, (500, 375))
        pack(find_layout(str(folder)), shards)
        sides = {"ours": from_(shards), "folder": from_(folder)}
        found = measured({
            name: lambda samples=samples: exhausted(  # type: ignore[misc]
                training_batches(samples, recipe, preprocess, 0, 0, None, options.workers))
            for name, samples in sides.items()
        }, len(sides["ours"]), options)
        return {"row": "JPEG 500x375, quality 75, from shards", "limit": ["folder", LIMITS["folder"]], **found}


def memory_row(options: argparse.Namespace) -> dict[str, Any]:
    """Small pictures in memory, crop and flip."""
    pictures = np.random.default_rng(0).integers(0, 256, (SMALL, 32, 32, 3), np.uint8)
    recipe = dataclasses.replace(changed(preset("fast"), ["crop=pad", "pad=4", "flip=yes", "batch_size=128"]),
                                 input_size=32, channels=3)
    samples = Samples("train", ("one",), np.zeros(SMALL, np.int64), tuple(map(str, range(SMALL))), pictures)
    preprocess = normalising(recipe)
    theirs = DataLoader(Theirs(pictures, 32), 128, shuffle=True, num_workers=options.workers, persistent_workers=True)
    found = measured({
        "ours": lambda: exhausted(training_batches(samples, recipe, preprocess, 0, 0, None, options.workers)),
        "theirs": lambda: exhausted(theirs),
    }, SMALL, options)
    return {"row": "32x32x3 in memory, crop and flip", "limit": ["theirs", LIMITS["small"]], **found}


def report(found: dict[str, Any]) -> None:
    """Prints a row."""
    print(f"{found['row']}; {in_words(found['elsewhere'])}")
    for name, rate in found["pictures_per_second"].items():
        line = f"    {name}: {rate:,.0f} pictures/s, {found['cpu_microseconds'][name]:,.0f} us of CPU time a picture"
        if name != "ours":
            for kind in ("ratio", "cpu ratio"):
                middle, least, most = found[f"{kind} to {name}"]
                line += f"; {kind} {middle:.2f} ({least:.2f} to {most:.2f})"
        print(line, flush=True)


def within(found: dict[str, Any]) -> bool:
    """Whether a row keeps its limit; says so."""
    other, limit = found["limit"]
    ratio = found[f"ratio to {other}"][0]
    verdict = "ok" if ratio >= limit else "not"
    print(f"summary: loading {found['row']}, to {other} | {ratio:.2f} | {limit:g} | {verdict}")
    return bool(ratio >= limit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each side (default 5)")
    parser.add_argument("--pictures", type=int, default=256, help="JPEG files (default 256)")
    parser.add_argument("--batch", type=int, default=32, help="pictures in a batch of photographs (default 32)")
    parser.add_argument("--workers", type=int, default=2, help="our threads and their processes (default 2)")
    parser.add_argument("--tries", type=int, default=1, help="of a pass, while the cores are not ours (default 1)")
    parser.add_argument("--large", action="store_true", help="also photographs of 1000x750, which are decoded scaled")
    parser.add_argument("--note", default="", help="what else the machine was doing, for the saved result")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.pictures, options.batch, options.workers, options.tries) < 1:
        parser.error("every number must be at least 1")

    recipe = hardware.resolve(preset("fast"))
    hardware.prepare(recipe)
    rows: list[dict[str, Any]] = []
    cases = [(75, (500, 375)), (90, (500, 375)), *([(90, (1000, 750))] if options.large else [])]
    for row in (*(partial(folder_row, *case) for case in cases), shards_row, memory_row):
        rows.append(row(options))
        report(rows[-1])
    kept = [within(row) for row in rows]
    if options.save is not None:
        found = {"benchmark": "loading", "workers": options.workers, "batch": options.batch,
                 "pictures": options.pictures, "repeats": REPEATS, "rounds": options.rounds, "limits": LIMITS,
                 "aims": AIMS, "rows": rows, "note": options.note or "nothing said of other work on the machine",
                 "decoder": "simplejpeg" if decoding.turbo else "pillow",
                 "hardware": hardware.describe(recipe), "versions": hardware.versions()}
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if all(kept) else 4


if __name__ == "__main__":
    sys.exit(main())
