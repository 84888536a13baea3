"""Mistakes in folders (B5): forty kinds, each planted five times into a set that is else clean, and clean sets.

A mistake is found where the report of `layerwise check` has the words that name it. A clean set may have no word but
its counts.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faults.goal import Control, Goal, Outcome
from layerwise.data import layout
from layerwise.data.check import CheckOptions, check_data
from layerwise.data.opening import DataOptions

CLASSES = ("cat", "dog", "hen")
COUNTS = {"train": 5, "val": 2, "test": 2}
COPIES, CLEAN = 5, 20
SIDE = 40


def texture(seed: int, side: int = 96) -> NDArray[np.uint8]:
    """A random picture with the spectrum of a photograph, (side, side, 3)."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequencies[0, 0] = 1
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal((3, side, side)))
    values = np.real(np.fft.ifft2(noise / frequencies**1.5))
    low, span = values.min(axis=(1, 2), keepdims=True), np.ptp(values, axis=(1, 2), keepdims=True)
    return np.asarray(((values - low) / span * 255).transpose(1, 2, 0), dtype=np.uint8)


@cache
def picture(seed: int, form: str = "PNG", how: str = "") -> bytes:
    """One of the pictures, no two of which are alike, perhaps changed."""
    image = Image.fromarray(texture(seed, SIDE))
    stream, options = io.BytesIO(), {}
    if how == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    if how == "frames":
        image.save(stream, form, save_all=True, append_images=[Image.fromarray(texture(seed + 9000, SIDE))])
    else:
        (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if how == "mirrored" else image).save(stream, form, **options)
    return stream.getvalue()


def clean(root: Path, number: int) -> None:
    """A set without a mistake; `number` varies its classes, extensions and layout."""
    classes = CLASSES if number % 3 else (*CLASSES, "ibex")
    seed = 100 * number
    for split, count in COUNTS.items():
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                form = ("PNG", "JPEG")[(number + index) % 2]
                file = root / split / name / f"{index}{'.png' if form == 'PNG' else '.jpg'}"
                file.write_bytes(picture(seed, form))
                seed += 1


@dataclass(frozen=True)
class Mistake:
    """`plant(root, number, name)` makes it, for class `name`; `found` is what the report must say."""

    name: str
    plant: Callable[[Path, int, str], object]
    found: str


def first(folder: Path) -> Path:
    """A picture in the folder."""
    return min(path for path in folder.iterdir() if path.is_file())


def copied(from_: str, to: str, how: str = "") -> Callable[[Path, int, str], object]:
    """A picture of one split and class put into another; "other" is the next class."""
    def plant(root: Path, number: int, name: str) -> None:
        other = CLASSES[(CLASSES.index(name) + 1) % len(CLASSES)]
        source = first(root / from_.replace("CLASS", name))
        target = root / to.replace("CLASS", name).replace("OTHER", other)
        with Image.open(source) as opened:
            image = opened.copy()
        if how == "mirrored":
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target / "copy.png")
        elif how == "larger":
            image.resize((SIDE * 3 // 2, SIDE * 3 // 2), Image.Resampling.BICUBIC).save(target / "copy.png")
        elif how == "compressed":
            image.save(target / "copy.jpg", quality=60)
        else:
            (target / f"copy{source.suffix}").write_bytes(source.read_bytes())
    return plant


def written(place: str, data: bytes) -> Callable[[Path, int, str], object]:
    """A file of these bytes."""
    def plant(root: Path, number: int, name: str) -> None:
        file = root / place.replace("CLASS", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return plant


def moved(from_: str, to: str) -> Callable[[Path, int, str], object]:
    """A folder renamed."""
    def plant(root: Path, number: int, name: str) -> None:
        target = root / to.replace("CLASS", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / from_.replace("CLASS", name)).rename(target)
    return plant


def twin(spell: Callable[[str], str]) -> Callable[[Path, int, str], object]:
    """A class in training a second time, in another spelling."""
    def plant(root: Path, number: int, name: str) -> None:
        for word in ("hé lo", spell("hé lo")):
            (root / "train" / word).mkdir()
            (root / "train" / word / "a.png").write_bytes(picture(7000 + number + (word == "hé lo") * 50))
    return plant


def cut(root: Path, number: int, name: str) -> None:
    """A picture ends too early."""
    file = first(root / "train" / name)
    file.write_bytes(file.read_bytes()[: -300 - number])


def altered(root: Path, number: int, name: str) -> None:
    """A bit of a PNG is another."""
    data = bytearray(picture(8000 + number))
    data[len(data) // 2] ^= 16
    (root / "val" / name / "z.png").write_bytes(data)


def emptied(root: Path, name: str, split: str) -> None:
    """A class folder without pictures."""
    shutil.rmtree(root / split / name)
    (root / split / name).mkdir()


def numbered(root: Path, number: int, name: str) -> None:
    """Classes 1 to 12, whose plain order is 1, 10, 11, 12, 2."""
    for split in COUNTS:
        for index in range(1, 13):
            file = root / split / str(index) / "a.png"
            file.parent.mkdir()
            file.write_bytes(picture(9000 + 40 * list(COUNTS).index(split) + index))


def nested(root: Path, number: int, name: str) -> None:
    """Each class one level deeper than it should be."""
    for split in COUNTS:
        (root / f"{split}-new").mkdir()
        (root / split).rename(root / f"{split}-new" / "images")
        (root / f"{split}-new").rename(root / split)


def single(root: Path, number: int, name: str) -> None:
    """One class alone is left."""
    for split in COUNTS:
        for other in (path for path in (root / split).iterdir() if path.name != name):
            shutil.rmtree(other)


def many(root: Path, number: int, name: str) -> None:
    """One class has fifty pictures, and another three."""
    for index in range(50):
        (root / "train" / name / f"more{index}.png").write_bytes(picture(10_000 + index))
    other = CLASSES[(CLASSES.index(name) + 1) % len(CLASSES)]
    for file in sorted((root / "train" / other).iterdir())[3:]:
        file.unlink()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(80)
MISTAKES = (
    Mistake("hidden folder", written("train/.old/a.png", picture(1)), r"ignored: .*\.old/"),
    Mistake("hidden file", written("train/CLASS/._0.png", b"\0\5\x16\7"), r"ignored: .*\._0\.png"),
    Mistake("Windows' thumbnails", written("val/CLASS/Thumbs.db", b"x"), r"ignored: .*Thumbs\.db"),
    Mistake("a Macintosh's folder", written("__MACOSX/CLASS/._1.png", b"x"), r"ignored: .*__MACOSX/"),
    Mistake("own runs in the folder", written("runs/CLASS/a.png", picture(2)), r"ignored: .*runs/"),
    Mistake("a text among pictures", written("train/CLASS/labels.txt", b"a"), r"ignored: .*\.txt"),
    Mistake("class missing in val", lambda root, n, name: shutil.rmtree(root / "val" / name), "0 images in val for 1"),
    Mistake("class missing in test", lambda root, n, name: shutil.rmtree(root / "test" / name),
            "0 images in test for 1"),
    Mistake("class empty in val", lambda root, n, name: emptied(root, name, "val"), "0 images in val for 1"),
    Mistake("class empty in train", lambda root, n, name: emptied(root, name, "train"), "class '.*' is not in train"),
    Mistake("class of val alone", written("val/yak/a.png", picture(3)), "class 'yak' is not in train"),
    Mistake("class misspelt in test", moved("test/CLASS", "test/CLASSs"), "not in train, did you mean"),
    Mistake("class in another case in val",
            lambda root, n, name: (root / "val" / name).rename(root / "val" / name.upper()), "another spelling of it"),
    Mistake("10 before 2", numbered, "classes in natural order: 1, 2, 3"),
    Mistake("twins by case", twin(str.upper), "probably one class"),
    Mistake("twins by Unicode form", twin(lambda word: unicodedata.normalize("NFD", word)), "probably one class"),
    Mistake("twins by space", twin(lambda word: word.replace(" ", "_")), "probably one class"),
    Mistake("link that leads back",
            lambda root, n, name: (root / "train" / name / "loop").symlink_to(root / "train" / name),
            "a link that leads back"),
    Mistake("link to nothing", lambda root, n, name: (root / "train" / name / "l.png").symlink_to("gone.png"),
            "can't be opened|does not exist"),
    Mistake("pipe called a picture", lambda root, n, name: os.mkfifo(root / "train" / name / "p.png"), "is not a file"),
    Mistake("same picture, two labels", copied("train/CLASS", "train/OTHER"), "same picture has two labels"),
    Mistake("same picture in train and test", copied("test/CLASS", "train/CLASS"), "same picture is in two splits"),
    Mistake("same picture in train and val", copied("train/CLASS", "val/CLASS"), "same picture is in two splits"),
    Mistake("same picture twice", copied("train/CLASS", "train/CLASS"), "same picture is twice in one split"),
    Mistake("compressed copy in test", copied("train/CLASS", "test/CLASS", "compressed"),
            "nearly the same .* two splits"),
    Mistake("mirrored copy in test", copied("train/CLASS", "test/CLASS", "mirrored"), "nearly the same .* two splits"),
    Mistake("larger copy, another label", copied("train/CLASS", "train/OTHER", "larger"), "nearly .* two labels"),
    Mistake("pictures beside the classes", written("train/a.png", picture(4)), "pictures directly in train/"),
    Mistake("folder beside the splits", written("extra/CLASS/a.png", picture(5)), "beside the splits: extra"),
    Mistake("classes one level too deep", nested, "only in sub-sub-folders|one class only|Did you mean"),
    Mistake("split within a split", written("train/val/CLASS/a.png", picture(6)), "a split inside of a split"),
    Mistake("two folders for one split", written("valid/CLASS/a.png", picture(7)), "there is another folder for val"),
    Mistake("no train folder", moved("train", "traning"), "has no train folder"),
    Mistake("one class only", single, "has one class only"),
    Mistake("truncated picture", cut, "can't be opened"),
    Mistake("altered PNG", altered, "can't be opened"),
    Mistake("web page called a picture", written("test/CLASS/p.jpg", b"<!DOCTYPE html>404"), "an HTML page"),
    Mistake("pointer of Git LFS", written("val/CLASS/p.jpg", b"version https://git-lfs.github.com"), "git lfs pull"),
    Mistake("HEIC called JPEG", written("train/CLASS/p.jpg", HEIC), "is HEIC"),
    Mistake("rare class", many, "see the recipe's balance"),
    # Mistakes that are read rightly, and said.
    Mistake("misnamed", written("train/CLASS/m.jpg", picture(11)), "extensions of another format"),
    Mistake("several frames", written("train/CLASS/m.gif", picture(12, "GIF", "frames")), "several frames"),
    Mistake("turned by EXIF", written("train/CLASS/m.jpg", picture(13, "JPEG", "turned")), "EXIF rotation"),
    Mistake("unsupported format", written("train/CLASS/m.heic", HEIC), "formats that are not supported"),
)


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """The user's cache elsewhere."""
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(folder)}):
        yield


def words(root: Path, options: CheckOptions) -> str:
    """What the check says, but for the counts that it says of every set."""
    report = check_data(str(root), DataOptions(), options)
    lines = [*report.notes, *(word for one in report.problems for word in (one.text, *one.items, one.mend) if word)]
    return "\n".join(line for line in lines if not re.fullmatch(r"found [\d,]+ pictures in (train|val|test)", line))


def mistakes(trials: int, folder: Path, near: str = "auto", sets: int = CLEAN) -> Outcome:
    """B5: planted mistakes and clean sets in turn."""
    kinds, options = MISTAKES, CheckOptions(near=near)
    cases = [*((None, number) for number in range(sets)),
             *((kind, number) for number in range(COPIES) for kind in kinds)][:trials]
    missed, alarms = [], []
    with cache_in(folder / "cache"):
        for kind, number in cases:
            root = folder / "set"
            clean(root, number)
            if kind is not None:
                kind.plant(root, number, CLASSES[number % len(CLASSES)])
            said = words(root, options)
            if kind is None and said:
                alarms.append(f"false alarm in clean set {number}: {said}")
            elif kind is not None and not re.search(kind.found, said):
                missed.append(f"{kind.name} {number}: not found in {said!r}")
            shutil.rmtree(root)
    planted = len(cases) - min(sets, len(cases))
    return Outcome(len(cases), (*missed, *alarms),
                   f"recall {planted - len(missed)} of {planted} in {len(kinds)} kinds; "
                   f"{len(alarms)} false alarms in {min(sets, len(cases))} clean sets")


def without_twins(folder: Path) -> Outcome:
    """The control: names are compared by their bytes."""
    with mock.patch.object(layout, "folded", lambda name: name):
        return mistakes(19, folder, sets=1)


GOALS = (
    Goal("B5", f"folder mistakes: {len(MISTAKES)} kinds, {COPIES} planted each, {CLEAN} clean sets",
         "recall 100 %, 0 false alarms", CLEAN + COPIES * len(MISTAKES),
         CLEAN + len(MISTAKES), mistakes,
         (Control("near duplicates off", lambda folder: mistakes(28, folder, "no", 0)),
          Control("spellings not compared", without_twins))),
)
