"""View: the training pictures nearest to a picture in the last hidden layer, beside those nearest in its pixels."""

from __future__ import annotations

import json
from pathlib import Path

from layerwise.checkpoint import replace_durably
from layerwise.data.source import Samples
from layerwise.explain.neighbours import Vectors, faiss, nearest, pixels, precision, vector_index
from layerwise.explain.pictures import uri
from layerwise.explain.subject import Subject, drawn
from layerwise.explain.view import Strips, Table, Tile, View

QUERIES, NEAR, COUNTED, SIDE = 10, 6, 500, 32
INDEX, ENTRIES = "neighbours.faiss", "neighbours-entries.json"


def view(subject: Subject) -> View:
    """Six neighbours of ten pictures in both ways; over 500 labelled pictures how many are of the picture's class.

    The index over the training pictures and the ids of its entries are kept in the subject's folder. Raises
    MachineError without FAISS.
    """
    faiss()
    database, asked = subject.trained, subject.shown
    near = min(NEAR, len(database.samples))
    queries = drawn(asked.samples.subset(range(len(asked.samples)), "queries"), COUNTED)
    place = {name: number for number, name in enumerate(asked.samples.ids)}
    rows = [place[name] for name in queries.ids]
    entries = pixels(subject.batches(database.samples), SIDE)
    looked = pixels(subject.batches(queries), SIDE)
    by_features = nearest(database.features, asked.features[rows], near)
    by_pixels = nearest(entries, looked, near)
    save_index(subject.folder, database.features, database.samples)
    parts = []
    if subject.own_labels:
        counted = [(words, round(precision(found, database.samples.labels, queries.labels), 1))
                   for words, found in (("last hidden layer", by_features), ("pixels", by_pixels))]
        parts.append(Table(
            f"How many of the {near} nearest are of the picture's class, over {len(queries):,} pictures.",
            ("nearest in", "of the same class (%)"), tuple(counted)))
    shown = drawn(queries, QUERIES, 1)
    first = [queries.ids.index(name) for name in shown.ids]
    strips = []
    for row in first:
        label = int(queries.labels[row]) if subject.own_labels else -1
        query = Tile(uri(subject.picture(queries, row), 72), subject.names[label] if label >= 0 else queries.ids[row])
        strips.append((query, *(_neighbour(subject, database.samples, int(entry), label)
                                for entry in (*by_features.indices[row], *by_pixels.indices[row]))))
    drawing = Strips("Each picture, then its nearest training pictures. Marked are those of another class.",
                     ("picture", "nearest in the last hidden layer", "nearest in pixels"), (1, near, near),
                     tuple(strips))
    return View(
        "neighbours", "Nearest training pictures",
        "What the network takes to be alike. Near in the last hidden layer is what it treats in the same way, however "
        "different the pixels are; near in pixels is what a comparison without a network finds.",
        "Why they are alike: the distance has no parts. A neighbour of another class is a reason to look at its label.",
        "Krizhevsky, Sutskever, Hinton 2012, section 6.1 and figure 4, right; the search is FAISS's (Johnson, Douze, "
        "Jégou 2017)", (*parts, drawing),
        subject.bound(len(database.samples), subject.size("train"), "training pictures",
                      database.unopened))  # fmt: skip


def save_index(folder: Path, features: Vectors, samples: Samples) -> None:
    """Keeps the index over `features` (N, D) as FAISS writes it, and the ids of its entries as JSON."""
    written: bytes = faiss().serialize_index(vector_index(features)).tobytes()
    replace_durably(folder / INDEX, written)
    entries = {"ids": list(samples.ids), "classes": [samples.class_names[label] for label in samples.labels]}
    replace_durably(folder / ENTRIES, (json.dumps(entries) + "\n").encode())


def _neighbour(subject: Subject, samples: Samples, entry: int, label: int) -> Tile:
    own = int(samples.labels[entry])
    mark = "wrong" if label >= 0 and own != label else ""
    return Tile(uri(subject.picture(samples, entry), 72), samples.class_names[own], mark=mark)
