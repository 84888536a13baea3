"""What `layerwise explain` does: the views of a trained network, each kept as a file, and the page that shows them.

A view is kept with a key of what it was made of: the weights, the pictures, the second network. With the same key it is
not computed again, so an interrupted call goes on where it stopped. A view that can't be made of this network is left
out of the page with its reason; one that was asked for by name is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerwise import modelfile, rundir
from layerwise.allocator import kept_buffers
from layerwise.checkpoint import replace_durably
from layerwise.console import progress_of
from layerwise.data.images import ImageRules
from layerwise.data.layout import Row
from layerwise.data.opening import find_layout
from layerwise.data.pieces import Slice
from layerwise.data.place import place_of, placed
from layerwise.data.scan import file_stamp
from layerwise.data.shards import is_shards, read_shards
from layerwise.data.source import Samples
from layerwise.errors import InputError, Interrupted, LayerwiseError, nearest
from layerwise.explain import view as views_kept
from layerwise.explain.subject import Subject
from layerwise.explain.view import View
from layerwise.explain.views import (
    activations,
    attribution,
    classes,
    feature_map,
    gained_lost,
    inversion,
    kernels,
    lesions,
    neighbours,
    predictions,
    responses,
    signal_health,
)
from layerwise.jobs.assessment import own_split
from layerwise.modelfile import ModelFile
from layerwise.recipe import Recipe
from layerwise.report.explain import Heading, Missing, explain_page, heading_of
from layerwise.report.run import read_run
from layerwise.serve.predictor import pictures_below

MAKERS: dict[str, tuple[str, Callable[[Subject], View]]] = {
    "kernels": ("First-layer kernels", kernels.view),
    "predictions": ("Predictions", predictions.view),
    "classes": ("Classes", classes.view),
    "neighbours": ("Nearest training pictures", neighbours.view),
    "feature-map": ("Feature map", feature_map.view),
    "activations": ("Strongest activations", activations.view),
    "attribution": ("Attribution", attribution.view),
    "inversion": ("Inversion", inversion.view),
    "responses": ("Layer responses", responses.view),
    "signal-health": ("Signal health", signal_health.view),
    "lesions": ("Lesions", lesions.view),
    "gained-lost": ("Gained and lost", gained_lost.view),
}
FOLDER = "explain"
VERSION = 2  # raised when a view shows something else, so that kept ones are made again


@dataclass(frozen=True)
class Ask:
    """What is asked: views by name (none: all), a person's own pictures, a second run, and where the page goes."""

    views: tuple[str, ...] = ()
    images: Path | None = None
    against: Path | None = None
    out: Path | None = None
    data_dir: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class Explained:
    """The views that were asked for, those that could not be made and why, and the page."""

    views: tuple[View, ...]
    missing: tuple[Missing, ...]
    page: Path

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON."""
        return {"page": str(self.page), "views": [_without_pictures(view.to_json()) for view in self.views],
                "missing": [vars(one) for one in self.missing]}


def explain(run: Path, ask: Ask = Ask()) -> Explained:
    """Makes the views of the run or model file `run` and writes the page; without `ask.views`, all views.

    Raises InputError for an unknown view, pictures that are not there, and a view that was asked for and can't be made;
    Interrupted after Ctrl-C, with the finished views kept.
    """
    strange = [f"{name}{nearest(name, MAKERS)}" for name in ask.views if name not in MAKERS]
    if strange:
        raise InputError(f"layerwise explain: {len(strange)} views that do not exist",
                         mend=f"The views are: {', '.join(MAKERS)}.", details=strange)
    subject, heading, page = _opened(Path(run), ask)
    key = _key(subject, ask)
    wanted = ask.views or tuple(name for name in MAKERS if name != "gained-lost" or ask.against is not None)
    found: dict[str, View] = {}
    missing: list[Missing] = []
    subject.folder.mkdir(exist_ok=True)
    try:
        with kept_buffers():  # the page of ResNet-20 takes 89 s of a core with them, 143 without
            for number, name in enumerate(wanted, 1):
                made = _made(subject, name, f"{name} ({number} of {len(wanted)})", key)
                if isinstance(made, View):
                    found[name] = made
                elif ask.views:
                    raise made
                else:
                    missing.append(Missing(name, MAKERS[name][0], f"{made.what}. {made.why} {made.mend}".strip()))
    except KeyboardInterrupt:
        raise Interrupted(f"{run}: stopped; {len(found)} finished views are kept in {subject.folder}",
                          "Continue with the same command.") from None
    shown = found if ask.out is not None and ask.views else _with_kept(subject.folder, key, found)
    files = read_run(Path(run)) if Path(run).is_dir() else None
    replace_durably(page, explain_page(files, heading_of(files) if files else heading, tuple(shown.values()),
                                       missing).encode())
    return Explained(tuple(found.values()), tuple(missing), page)


def make(subject: Subject, name: str) -> View:
    """One view of `subject` by its name. Raises what its file says."""
    return MAKERS[name][1](subject)


def _made(subject: Subject, name: str, words: str, key: str) -> View | LayerwiseError:
    """The view, kept or made and then kept; or why it can't be made."""
    file = subject.folder / f"{name}.json"
    kept = views_kept.read(file, key)
    if kept is not None:
        return kept
    subject.progress = progress_of(words)
    try:
        made = make(subject, name)
    except LayerwiseError as error:
        return error
    views_kept.write(file, made, key)
    return made


def _with_kept(folder: Path, key: str, found: dict[str, View]) -> dict[str, View]:
    """The views that were just made and those kept of the same network and pictures, in the order of the page."""
    all_views = {name: found.get(name) or views_kept.read(folder / f"{name}.json", key) for name in MAKERS}
    return {name: view for name, view in all_views.items() if view is not None}


def _opened(run: Path, ask: Ask) -> tuple[Subject, Heading, Path]:
    """The network with its pictures, the page's heading and place. Raises InputError for what is not there."""
    file = modelfile.read(run)
    is_run = run.is_dir()
    folder = run / FOLDER if is_run else run.with_name(f"{run.stem}-{FOLDER}")
    page = ask.out or (run / "explain.html" if is_run else run.with_name(f"{run.stem}-explain.html"))
    if page.is_dir() or not page.parent.is_dir():
        raise InputError(f"--out {page}: can't be the page's file", "It is a directory, or its directory does not "
                         "exist.", "Give a file name in a directory that exists.")
    if not os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
        raise InputError(f"{folder}: can't be written", "The views are kept there.",
                         "Copy the run to a place of yours.")
    asked, labelled = _asked(ask.images, file) if ask.images is not None else (None, False)
    against = None
    if ask.against is not None:
        other = modelfile.read(ask.against)
        against = Subject(other, _splits(other, ask), folder, ask.against if ask.against.is_dir() else None)
    subject = Subject(file, _splits(file, ask), folder, run if is_run else None, asked, labelled, against)
    data = file.recipe.data if file.recipe is not None else (ask.images or Path("its data")).name
    return subject, Heading(str(file.model.architecture["name"]), data, run.name), page


def _splits(file: ModelFile, ask: Ask) -> Callable[[str], Samples]:
    """What opens the splits of the data that a network was trained on."""
    def opened(on: str) -> Samples:
        recipe = _recipe(file)
        if recipe is None:
            raise InputError(f"{file.path}: does not say which data it was trained on",
                             "This view needs training pictures, or pictures with labels.",
                             "Name pictures of yours with --images DIR, each in a folder that is called as its class.")
        return own_split(recipe, on, ask.data_dir, ask.offline)

    return opened


def _recipe(file: ModelFile) -> Recipe | None:
    """The recipe of a network, with its data where they are found from here."""
    if file.recipe is None or not (file.path.parent / rundir.RUN).is_file():
        return file.recipe
    return placed(file.recipe, rundir.read_run(file.path.parent))


def _asked(folder: Path, file: ModelFile) -> tuple[Samples, bool]:
    """A person's own pictures, and whether they are labelled: each in a folder that is called as a class."""
    if is_shards(str(folder)):
        rows = [row for split in read_shards(str(folder)).rows.values() for row in split]
    else:
        root = folder if folder.is_dir() else folder.parent
        rows = [Row(path, path.relative_to(root).as_posix(), path.parent.name)
                for path in pictures_below([folder]) if path.is_file()]
    if not rows:
        raise InputError(f"--images {folder}: no pictures there", mend="Name a folder with pictures, or one picture.")
    number = {name: place for place, name in enumerate(file.class_names)}
    labels = [number.get(row.class_name, -1) for row in rows]
    labelled = min(labels) >= 0
    samples = Samples("pictures", file.class_names, np.array(labels if labelled else [0] * len(rows), np.int64),
                      tuple(row.id for row in rows), paths=tuple(row.path for row in rows),
                      rules=ImageRules(exif=file.preprocess.exif))
    return samples, labelled


def _key(subject: Subject, ask: Ask) -> str:
    """A digest of all that the views depend on: weights, data, own pictures, the second network."""
    run = rundir.read_run(subject.run) if subject.run is not None else {}
    parts = [VERSION, subject.file.sha256, subject.file.preprocess.sha256, run.get("data", {}).get("fingerprint")]
    parts += [[name, _stamped(rows)] for name, rows in _rows(subject.file, ask).items()]
    if subject.asked is not None:
        assert subject.asked.paths is not None
        named = zip(subject.asked.paths, subject.asked.ids, strict=True)
        parts.append(_stamped(Row(path, name, "") for path, name in named))
    parts.append(subject.against.file.sha256 if subject.against is not None else None)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _rows(file: ModelFile, ask: Ask) -> Mapping[str, Iterable[Row]]:
    """The pictures of each split that a network was trained on, unless they are published ones, which never change."""
    recipe = _recipe(file)
    if recipe is not None and place_of(recipe.data):
        with suppress(LayerwiseError):  # they are not there: a view that needs them says so
            return find_layout(recipe.data, ask.data_dir).rows
    return {}


def _stamped(rows: Iterable[Row]) -> str:
    """A digest of the pictures' names and classes, and of the sizes and times of change of the files they lie in."""
    total, stamps = hashlib.sha256(), dict[str, list[int]]()
    for row in rows:
        file = row.path.file if isinstance(row.path, Slice) else str(row.path)
        if file not in stamps:
            stamps[file] = []
            with suppress(OSError):  # an address, or gone by now
                stamps[file] = file_stamp(file)
        total.update(json.dumps([row.id, row.class_name, stamps[file]]).encode())
    return total.hexdigest()


def _without_pictures(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_pictures(one) for name, one in value.items() if name != "uri"}
    return [_without_pictures(one) for one in value] if isinstance(value, list) else value
