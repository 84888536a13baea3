"""Opens a data set by its name or path: finds it, splits it, tries every picture, keeps small ones in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerwise.data.cifar import open_cifar
from layerwise.data.digits import open_digits
from layerwise.data.folder import read_folder
from layerwise.data.idx import open_idx
from layerwise.data.imagenet import EDITIONS, find_imagenet, looks_like_imagenet, read_imagenet
from layerwise.data.images import MAX_PIXELS, ImageRules
from layerwise.data.layout import ALL, Layout
from layerwise.data.listing import read_listing
from layerwise.data.pieces import is_remote
from layerwise.data.scan import Scanned, scan_files
from layerwise.data.shards import is_shards, read_shards
from layerwise.data.source import DataSet, Samples, small_and_equal
from layerwise.data.splits import divide
from layerwise.errors import InputError, nearest

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")
LISTS = (".csv", ".tsv")
EXPECTED = ("The data is a folder of pictures or shards, a .csv or .tsv list, or one of "
            f"{', '.join((*NAMES, *EDITIONS))}.")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DataOptions:
    """How a data set is found, split and read.

    `data_dir` is where published sets lie; `split` is "80/10/10" for a source without splits, drawn with `seed`;
    `bad_images` is "stop" or "skip"; `exif` and `max_pixels` as in ImageRules.
    """

    data_dir: Path | None = None
    split: str = ""
    seed: int = 0
    offline: bool = False
    exif: str = "apply"
    max_pixels: int = MAX_PIXELS
    bad_images: str = "stop"

    @property
    def rules(self) -> ImageRules:
        """The rules by which pictures are opened."""
        return ImageRules(self.exif, self.max_pixels)


def open_data(
    name_or_path: str,
    options: DataOptions = DataOptions(),
    progress: Progress | None = None,
) -> DataSet:
    """The data set of a name (digits, mnist, ...), or the folder, shards or CSV/TSV list at a path.

    ImageNet's releases (`imagenet.EDITIONS`) are found in `data_dir` by their names; an address with :// is of shards.

    Every file is decoded once (remembered in the user's cache). Raises InputError with all problems: not found, wrong
    layout, no split, bad pictures (unless bad_images is "skip": then they are left out and listed in the notes);
    MachineError where a published set can't be had.
    """
    if options.bad_images not in ("stop", "skip"):
        raise InputError(f"bad_images={options.bad_images!r} is not a rule", "It is 'stop' or 'skip'.")
    if name_or_path in NAMES:
        return _published(name_or_path, options)
    data = divided(find_layout(name_or_path, options.data_dir), name_or_path, options)
    splits = data.splits
    paths = [path for samples in splits.values() for path in samples.paths or ()]
    scanned = scan_files(paths, options.rules, progress=progress)
    notes = list(data.notes)
    bad = [found.error for found in scanned if found.error]
    left_out: tuple[str, ...] = ()
    if bad and (options.bad_images == "stop" or len(bad) == len(scanned)):
        raise InputError(
            f"{len(bad):,} of {len(scanned):,} pictures in {name_or_path!r} can't be opened",
            "Left out, they would change the data without a trace.",
            "Repair or remove them (`layerwise check` lists all), or --set bad_images=skip.",
            bad,
        )
    if bad:
        left_out = (f"{len(bad):,} of {len(scanned):,} pictures can't be opened and were left out",)
        notes += [*left_out, *bad]
    notes += [
        f"{sum(1 for one in scanned if one.facts and one.facts.misnamed):,} files have the extension of another format"
    ] * any(one.facts and one.facts.misnamed for one in scanned)
    kept = _kept(splits, scanned)
    if "train" not in kept:
        raise InputError(f"no picture for training in {name_or_path!r} can be opened")
    leaks = _leaks(splits, scanned)
    return DataSet(data.name, kept["train"], kept.get("val"), kept.get("test"), (*notes, *leaks), data.licence,
                   (*data.doubts, *left_out, *leaks))


def find_layout(name_or_path: str, data_dir: Path | None = None) -> Layout:
    """What the folder, list or shards at the path or address hold; InputError where there is nothing of the kind.

    `data_dir` is where named sets of files lie.
    """
    if name_or_path in EDITIONS:
        return find_imagenet(name_or_path, data_dir)
    if name_or_path in NAMES and not Path(name_or_path).is_dir():
        raise InputError(f"{name_or_path}: a published set, which is no folder of pictures",
                         "It is read whole from its own files and has nothing to be packed or listed.",
                         "Use it by its name: layerwise train, check and evaluate know it.")
    path = Path(name_or_path).expanduser()
    if is_shards(name_or_path if is_remote(name_or_path) else str(path)):
        return read_shards(name_or_path if is_remote(name_or_path) else str(path))
    if path.is_dir() and looks_like_imagenet(path):
        return read_imagenet(path)
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        if path.suffix.lower() in LISTS:
            return read_listing(path)
        beside = path.parent / path.stem
        hint = f", did you mean the folder {str(beside)!r}?" if beside.is_dir() else ""
        raise InputError(
            f"{name_or_path!r} is a file{hint}",
            EXPECTED,
            "Name the folder that holds the pictures.",
        )
    near = nearest(name_or_path, (*NAMES, *EDITIONS))
    if not near and path.parent.is_dir():
        near = nearest(path.name, (other.name for other in path.parent.iterdir()))
    raise InputError(
        f"there is no data at {name_or_path!r}{near}",
        EXPECTED,
        "Check the path." if path.is_absolute() else f"Check the path; it is looked for from {str(Path.cwd())!r}.",
    )


def _published(name: str, options: DataOptions) -> DataSet:
    if options.split:
        raise InputError(
            f"--split {options.split} can't be given for {name}",
            "Its split is published and fixed.",
            "Leave --split out.",
        )
    if name == "digits":
        return open_digits()
    opener = open_cifar if name.startswith("cifar") else open_idx
    return opener(name, options.data_dir, options.offline)


def divided(layout: Layout, where: str, options: DataOptions) -> DataSet:
    """The layout's own splits, or those that `options.split` draws; InputError where there are none, or both."""
    if not {"train", ALL} & layout.rows.keys():
        raise InputError(f"{where!r} has no training pictures", f"Found {', '.join(layout.rows)}.",
                         "Add the training pictures; `layerwise evaluate RUN --data` needs none.")
    only = next(iter(layout.rows)) if len(layout.rows) == 1 else ""
    if only and not options.split:
        kind = "no train, val and test" if only == ALL else "train only"
        raise InputError(
            f"{where!r} has {kind}",
            "Without a test set, nothing can be said about new pictures.",
            "Add --split 80/10/10, or add a test folder.",
        )
    if options.split and not only:
        raise InputError(
            f"--split {options.split} can't be given for {where!r}",
            f"It has splits of its own: {', '.join(layout.rows)}.",
            "Leave --split out.",
        )
    notes = layout.notes
    splits: dict[str, Samples | None]
    if only:
        splits = dict(divide(layout.samples(only, options.rules), options.split, options.seed))
        counts = ", ".join(f"{len(samples):,} {name}" for name, samples in splits.items() if samples is not None)
        notes = (*notes, f"split {options.split} with seed {options.seed}, by class: {counts}")
    else:
        splits = {split: layout.samples(split, options.rules) for split in layout.rows}
    train = splits["train"]
    assert train is not None
    return DataSet(layout.name, train, splits.get("val"), splits.get("test"), notes, "", layout.doubts)


def _leaks(splits: dict[str, Samples], scanned: list[Scanned]) -> tuple[str, ...]:
    """What has to be said of val and test where pictures of theirs are, pixel for pixel, training pictures too."""
    found, start = {}, 0
    for name, samples in splits.items():
        found[name] = [one.pixels_sha256 for one in scanned[start : start + len(samples)] if one.pixels_sha256]
        start += len(samples)
    trained = set(found["train"])
    counts = {name: sum(digest in trained for digest in found[name]) for name in found if name != "train"}
    return tuple(
        f"{count:,} of {len(found[name]):,} pictures in {name} are in train too, so its error is too good; "
        "`layerwise check` lists them"
        for name, count in counts.items()
        if count
    )


def _kept(splits: dict[str, Samples], scanned: list[Scanned]) -> dict[str, Samples]:
    """The splits without their bad pictures, with digests and shapes of files, in memory if all are small and equal."""
    small = small_and_equal([one for one in scanned if not one.error])
    kept: dict[str, Samples] = {}
    start = 0
    for name, samples in splits.items():
        mine = scanned[start : start + len(samples)]
        start += len(samples)
        good = [index for index, one in enumerate(mine) if not one.error]
        if not good:
            continue
        found = [mine[index] for index in good]
        shapes = [(one.facts.height, one.facts.width, one.facts.channels) for one in found if one.facts is not None]
        part = replace(samples.subset(good, samples.name), digests=tuple(one.sha256 for one in found),
                       shapes=np.array(shapes, dtype=np.int32))
        kept[name] = part.in_memory(found) if small else part
    return kept
