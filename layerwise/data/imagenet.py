"""ImageNet as it is handed out, read where it lies: nothing is unpacked, and nothing is written beside the data.

| what | training | validation and test |
|---|---|---|
| official archives | ILSVRC2012_img_train.tar, a tar for each synset in it | ILSVRC2012_img_val.tar and the kit |
| Kaggle's tree | ILSVRC/Data/CLS-LOC/train/SYNSET/*.JPEG | .../val/*.JPEG, and LOC_val_solution.csv |
| folders | train/SYNSET/*.JPEG, or train/SYNSET.tar | val/*.JPEG with either's labels, or val/SYNSET/*.JPEG |
| ILSVRC-2010 | ILSVRC2010_images_train.tar, or folders | the same; test labelled by ..._test_ground_truth.txt |
| Fall 2009, Fall 2011 | SYNSET/*.JPEG or SYNSET.tar, or fall11_whole.tar | half of all pictures, drawn by `half` |

Classes are synsets ("n01440764"), sorted. Ids are the same for each layout ("train/n01440764/n01440764_10026.JPEG",
"val/ILSVRC2012_val_00000001.JPEG"), and so are order, fingerprint and training.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from layerwise.data.container import EXTENSIONS
from layerwise.data.download import VARIABLE, search_folders
from layerwise.data.imagenet_truth import SOLUTION, SYNSET, read_truth
from layerwise.data.layout import ALL, SYNONYMS, Layout, Row, layout_notes, natural, require_two
from layerwise.data.pieces import Slice, Source
from layerwise.data.tars import members
from layerwise.errors import InputError


@dataclass(frozen=True)
class Edition:
    """A release: what it is called, and how many classes and pictures it was published with."""

    name: str
    classes: int
    pictures: dict[str, int]  # by split; ALL: of all splits together; without a number where only a rounded one is told
    year: str = ""  # of the challenge, as in its files' names


EDITIONS = {
    "imagenet": Edition("ILSVRC-2012", 1_000, {"train": 1_281_167, "val": 50_000}, "2012"),
    "imagenet-2010": Edition("ILSVRC-2010", 1_000, {"train": 1_261_406, "val": 50_000, "test": 150_000}, "2010"),
    "imagenet-fall2009": Edition("ImageNet Fall 2009", 10_184, {}),  # 8.9 million pictures (AlexNet, section 6)
    "imagenet-fall2011": Edition("ImageNet Fall 2011", 21_841, {ALL: 14_197_122}),
}
ARCHIVE = re.compile(r"ILSVRC(2010|2012)_im(?:g|ages)_(train|val|test)\.tar")
CLASS_TAR = re.compile(r"n\d{8}\.tar")
WHOLE = "fall11_whole.tar"  # as Fall 2011 is handed out: a tar for each synset in it
FALL = re.compile(r"(?<![a-z])fall[-_ ]?(?:20)?(09|11)", re.IGNORECASE)
IN_PATH = re.compile(r"(?:^|/)(n\d{8})(?=[/._])")
NUMBERED = re.compile(r"ILSVRC(2010|2012)_(?:val|test)_\d{8}")
INSIDE = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


@dataclass
class _Found:
    """The pictures by split: name, synset ("" where the place does not tell it), where they lie."""

    pictures: dict[str, list[tuple[str, str, Source]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    years: set[str] = field(default_factory=set)


def half(picture: str) -> str:
    """"train" or "test", each with chance one half: a function of the picture's id alone (its SHA-256's first bit)."""
    return "test" if hashlib.sha256(picture.encode("utf-8", "surrogateescape")).digest()[0] & 128 else "train"


def find_imagenet(name: str, data_dir: Path | None) -> Layout:
    """The release called `name` in `data_dir`, $LAYERWISE_DATA or the cache. InputError says what to fetch."""
    looked = dict.fromkeys((place for folder in (name, "imagenet") for place in search_folders(folder, data_dir)), "")
    for place in looked:
        if looks_like_imagenet(place) or _synset_folders(place) or _synset_folders(place / "train"):
            found = _gather(place, name)
            if any(found.pictures.values()) and found.years <= {EDITIONS[name].year}:
                return _layout(place, name, found, list(looked))
            looked[place] = ", which holds pictures of another release or none"
    raise InputError(f"{name}: {EDITIONS[name].name} is not on this machine", _fetch(name),
                     f"Name the folder that holds it with --data-dir or {VARIABLE}.",
                     [f"looked in {place}{but}" for place, but in looked.items()])


def looks_like_imagenet(root: Path) -> bool:
    """Whether a folder is laid out as ImageNet is handed out, in a way that a plain image folder is not."""
    try:
        names = os.listdir(root)
    except OSError:
        return False
    if SOLUTION in names or WHOLE in names or any(ARCHIVE.fullmatch(name) for name in names):
        return True
    if any((root / inside).is_dir() for inside in INSIDE[1:]) or sum(bool(CLASS_TAR.fullmatch(n)) for n in names) > 1:
        return True
    if FALL.search(root.resolve().name) and _synset_folders(root):
        return True
    train, val = root / "train", root / "val"
    if not train.is_dir() or not any(SYNSET.match(name) for name in os.listdir(train)):
        return False
    flat = val.is_dir() and any(NUMBERED.match(name) for name in os.listdir(val))
    return flat or any(CLASS_TAR.fullmatch(name) for name in os.listdir(train))


def read_imagenet(root: Path) -> Layout:
    """What the folder holds of the release that its files' names tell; of two years' the later one.

    Counts that differ from the published ones are doubts. Raises InputError where labels are missing, or there is
    nothing.
    """
    fall = FALL.search(root.resolve().name) or ((root / WHOLE).is_file() and FALL.match(WHOLE)) or None
    name = f"imagenet-fall20{fall[1]}" if fall else ""
    found = _gather(root, name)
    if not name and found.years:
        name = {"2010": "imagenet-2010", "2012": "imagenet"}[max(found.years)]
    return _layout(root, name, found, ())


def _layout(root: Path, name: str, found: _Found, places: Sequence[Path]) -> Layout:
    """The layout of what was found of the release `name` ("" where nothing tells it). `places`: for labels too."""
    edition = EDITIONS.get(name)
    if not any(found.pictures.values()):
        raise InputError(f"{str(root)!r} holds no picture of ImageNet", _fetch(name or "imagenet"))
    beside = [root.parent] if root.resolve().name == "ILSVRC" else []  # Kaggle's lists lie there
    counts = _label(root, found, edition.year if edition else "2012", [root, *beside, *places], name)
    rows = _rows(found, edition is not None and not edition.year)
    class_names = sorted({row.class_name for part in rows.values() for row in part}, key=natural)
    require_two(root, class_names, "Add a folder or tar for each further synset.")
    doubts = _differences(edition, class_names, rows, counts) if edition else []
    untrained = set(class_names) - {row.class_name for row in rows.get("train", rows.get(ALL, ()))}
    if untrained and "train" in rows:
        doubts.append(f"no training pictures of {len(untrained):,} classes: {', '.join(sorted(untrained)[:10])}")
    notes = [*layout_notes(class_names, {split: list(part) for split, part in rows.items()}), *found.notes]
    if edition and not edition.year:
        notes.append("no published split: half of the pictures are test, by the SHA-256 of their ids")
    if edition and not doubts:
        notes.append(f"as many pictures and classes as {edition.name} has")
    return Layout(name or root.resolve().name, tuple(class_names), rows, (*notes, *doubts), tuple(doubts))


def _gather(root: Path, name: str) -> _Found:
    """All pictures of the release `name` ("": of the latest year there is), unlabelled where they lie flat."""
    found = _Found()
    bases = [base for inside in INSIDE if (base := root / inside).is_dir()]
    children = [child for base in bases for child in sorted(base.iterdir())]
    archives = {child: match for child in children if (match := _archive(child))}
    year = EDITIONS[name].year if name else max((match[1] for match in archives.values()), default="")
    if name and not year:
        children = []  # this release has no splits: its synsets lie in the root
    for child in children:
        archive = archives.get(child)
        split = archive[2] if archive else SYNONYMS.get(child.name.lower(), "") if child.is_dir() else ""
        if not split:
            continue
        if archive and archive[1] != year:
            found.notes.append(f"left out, {child.name}: of another year")
            continue
        if archive:
            found.years.add(archive[1])
        pictures = _sorted(_in_tar(child) if child.is_file() else _in_folder(child))
        if found.pictures.get(split) and pictures:
            found.notes.append(f"left out, {child.name}: {split} was read from elsewhere")
        elif pictures:
            found.pictures[split] = pictures
    if not found.pictures:
        pictures = _sorted(one for one in _in_folder(root, tars=True) if one[1])
        found.pictures = {ALL: pictures} if pictures else {}
    for pictures in found.pictures.values():
        found.years |= {match[1] for picture, _, _ in pictures if (match := NUMBERED.match(picture))}
    return found


def _archive(child: Path) -> re.Match[str] | None:
    """The year and the split of an archive of the challenge, or of a folder that it was unpacked to."""
    return ARCHIVE.fullmatch(child.name) or (ARCHIVE.fullmatch(child.name + ".tar") if child.is_dir() else None)


def _in_folder(folder: Path, tars: bool = True) -> Iterator[tuple[str, str, Source]]:
    """Flat pictures, those in folders of synsets, and those in tars of synsets; (name, synset or "", place)."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and SYNSET.fullmatch(entry.name):
            for file in entry.rglob("*"):
                if file.suffix.lower() in EXTENSIONS and not file.name.startswith("."):
                    yield file.name, entry.name, file
        elif tars and (CLASS_TAR.fullmatch(entry.name) or entry.name == WHOLE):
            yield from _in_tar(entry)
        elif entry.suffix.lower() in EXTENSIONS and not entry.name.startswith(".") and entry.is_file():
            prefix = IN_PATH.match(entry.name)
            yield entry.name, prefix[1] if prefix else "", entry


def _in_tar(file: Path) -> Iterator[tuple[str, str, Source]]:
    for member in members(file):
        path = PurePosixPath(member.name)
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
            synsets = IN_PATH.findall(f"{file.name}/{member.name}")
            yield path.name, synsets[-1] if synsets else "", Slice(str(file), member.offset, member.size, member.name)


def _sorted(pictures: Iterator[tuple[str, str, Source]]) -> list[tuple[str, str, Source]]:
    """By synset and name; of a picture that lies there twice, the one in a tar first."""
    return sorted(pictures, key=lambda one: (one[1], natural(one[0]), isinstance(one[2], Path)))


def _label(root: Path, found: _Found, year: str, places: Sequence[Path], name: str) -> dict[str, int]:
    """Gives flat pictures their synsets, or leaves out an unlabelled test set; the kit's training counts, if any."""
    counts: dict[str, int] = {}
    for split in ("val", "test"):
        pictures = found.pictures.get(split, [])
        bare = [one for one in pictures if not one[1]]
        truth = read_truth(places, year, split) if bare or split == "val" else None
        counts = counts or (truth.train_counts if truth else {})
        if not bare:
            continue
        if truth is None and split == "test":
            found.notes.append(f"left out, {len(pictures):,} test pictures: no file gives their classes")
            del found.pictures[split]
            continue
        if truth is None:
            raise InputError(f"{str(root)!r}: the {len(bare):,} validation pictures have no labels",
                             "Their classes are in a file of their own, which is not here.", _fetch_labels(name))
        unknown = [f"{one[0]}: not in {truth.source}" for one in bare if _stem(one[0]) not in truth.by_stem]
        if unknown:
            raise InputError(f"{str(root)!r}: {len(unknown):,} pictures of {split} have no label",
                             "Without their class they can't be judged.", "Fetch the labels of this release.", unknown)
        labelled = [(one[0], one[1] or truth.by_stem[_stem(one[0])], one[2]) for one in pictures]
        found.pictures[split] = labelled
        found.notes.append(f"classes of {split} from {truth.source}")
    strays = [one[0] for one in found.pictures.get("train", []) if not one[1]]
    if strays:
        raise InputError(f"{str(root)!r}: {len(strays):,} training pictures have no synset in their path or name",
                         "Expected is train/n01440764/n01440764_10026.JPEG.", "Sort them into their folders.", strays)
    return counts


def _rows(found: _Found, halved: bool) -> dict[str, tuple[Row, ...]]:
    """The rows of each split; a picture that lies there twice, as tar and as folder of its synset, is one."""
    rows: dict[str, list[Row]] = {}
    twice: list[str] = []
    for split in ("train", "val", "test", ALL):
        # Validation and test pictures by their numbers, so that folders of synsets give the same order as a flat one.
        pictures = found.pictures.get(split, [])
        if split in ("val", "test"):
            pictures = sorted(pictures, key=lambda one: natural(one[0]))
        for picture, synset, place in pictures:
            where = {"train": f"train/{synset}/", ALL: f"{synset}/"}.get(split, f"{split}/")
            part = half(where + picture) if split == ALL and halved else split
            have = rows.setdefault(part, [])
            if have and have[-1].id == where + picture:  # equal ids stand together
                twice.append(have[-1].id)
            else:
                have.append(Row(place, where + picture, synset))
    if twice:
        found.notes.append(f"left out, {len(twice):,} pictures that lie there twice, such as {twice[0]}")
    return {split: tuple(rows[split]) for split in ("train", "val", "test", ALL) if split in rows}


def _differences(
    edition: Edition, class_names: Sequence[str], rows: dict[str, tuple[Row, ...]], counts: dict[str, int]
) -> list[str]:
    """In what the data differ from what was published."""
    told = []
    if len(class_names) != edition.classes:
        told.append(f"{len(class_names):,} classes, {edition.name} has {edition.classes:,}")
    for split, expected in edition.pictures.items():
        have = sum(map(len, rows.values())) if split == ALL else len(rows.get(split, ()))
        if have != expected:
            told.append(f"{have:,} pictures in {split}, {edition.name} has {expected:,}")
    if counts and "train" in rows:
        have_of: dict[str, int] = {}
        for row in rows["train"]:
            have_of[row.class_name] = have_of.get(row.class_name, 0) + 1
        differ = [f"{name} {have_of.get(name, 0):,} of {count:,}" for name, count in sorted(counts.items())
                  if have_of.get(name, 0) != count]
        if differ:
            told.append(f"{len(differ):,} classes of train differ from the kit: " + ", ".join(differ[:10])
                        + (", ..." if len(differ) > 10 else ""))
    return told


def _stem(name: str) -> str:
    return name.split(".")[0]


def _synset_folders(folder: Path) -> bool:
    return folder.is_dir() and any(SYNSET.fullmatch(name.removesuffix(".tar")) for name in os.listdir(folder))


def _fetch(name: str) -> str:
    """What to fetch for a release."""
    if EDITIONS[name].year:
        year = EDITIONS[name].year
        kind = "img" if year == "2012" else "images"
        return (f"Its archives are ILSVRC{year}_{kind}_train.tar, ILSVRC{year}_{kind}_val.tar and the development kit, "
                "from image-net.org; they need not be unpacked.")
    return f"It is a folder or a tar for each synset (n01440764.tar), or {WHOLE}, from image-net.org."


def _fetch_labels(name: str) -> str:
    year = EDITIONS[name].year if name in EDITIONS else "2012"
    kit = "ILSVRC2012_devkit_t12.tar.gz" if year == "2012" else "the development kit of 2010"
    other = f" (or Kaggle's {SOLUTION})" if year == "2012" else ""
    return f"Fetch {kit} from image-net.org{other} and put it beside the pictures, or into a folder of --data-dir."
