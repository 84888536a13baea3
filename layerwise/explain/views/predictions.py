"""View: pictures with their five most probable labels, as in the AlexNet paper's figure 4, and answers worth a look."""

from __future__ import annotations

import numpy as np

from layerwise.explain.pictures import uri
from layerwise.explain.predictions import confident_mistakes, confused_pairs, uncertain_hits
from layerwise.explain.subject import Answered, Subject, drawn, percent
from layerwise.explain.view import Bar, Gallery, Part, Table, Tile, View, Words

PANELS, WORTH, LABELS, PAIRS = 16, 16, 5, 12
MOST_ASKED = 64  # of a person's own pictures


def view(subject: Subject) -> View:
    """Panels of random pictures, or of those that were asked for; mistakes, hits and pairs where labels are known."""
    found, known = subject.shown, subject.own_labels
    own = subject.asked is not None
    most = MOST_ASKED if own else PANELS
    chosen = drawn(found.samples.subset(range(len(found.samples)), "panels"), most)
    places = {name: place for place, name in enumerate(found.samples.ids)}
    parts: list[Part] = [_gallery(subject, found, [places[name] for name in chosen.ids],
                                  "The pictures that were asked for." if own else "Pictures drawn at random.")]
    if known:
        error = float((found.predicted != found.samples.labels).mean())
        parts.insert(0, Words(f"{percent(error)} of these {len(found.samples):,} pictures are answered wrongly, with "
                              "one centre crop. The page's result is what counts; this is how the answers look."))
        mistakes = confident_mistakes(found.probabilities, found.samples.labels, WORTH)
        hits = uncertain_hits(found.probabilities, found.samples.labels, WORTH)
        pairs = confused_pairs(found.predicted, found.samples.labels, len(subject.names), PAIRS)
        parts += [
            _gallery(subject, found, mistakes.tolist(), "The most confident mistakes."),
            _gallery(subject, found, hits.tolist(), "The least certain hits: right by a hair."),
            Table("The pairs of classes that are confused most often.",
                  ("one class", "other class", "one called the other", "other called the one", "together"),
                  tuple((subject.names[pair.first], subject.names[pair.second], pair.called_second, pair.called_first,
                         pair.both) for pair in pairs)),
        ]
    return View(
        "predictions", "Predictions",
        "How sure the network is, and of what. Confident mistakes show what it can't see or what is labelled wrongly; "
        "uncertain hits show what it barely tells apart.",
        "Whether a probability can be trusted: networks are often too sure; layerwise calibrate measures that.",
        "Krizhevsky, Sutskever, Hinton 2012, figure 4, left", tuple(part for part in parts if not _empty(part)),
        subject.bound(len(found.samples), len(subject.asked) if own and subject.asked else subject.size(""),
                      "pictures", found.unopened)
        + (subject.bound(most, len(found.samples), "pictures in the panels") if own else ()))


def panel(subject: Subject, found: Answered, place: int, known: bool = True) -> Tile:
    """A picture with its five most probable labels; the true one's bar stands out, also where it is not among them."""
    row, names = found.probabilities[place], subject.names
    likely = np.argsort(-row, kind="stable")[:LABELS].tolist()
    truth = int(found.samples.labels[place]) if known else -1
    if known and truth not in likely:
        likely.append(truth)
    bars = tuple(Bar(names[number], float(row[number]), number == truth) for number in likely)
    right = bool(found.predicted[place] == truth)
    title = names[truth] if known else names[likely[0]]
    mark = ("right" if right else "wrong") if known else ""
    return Tile(uri(subject.picture(found.samples, place)), title, (found.samples.ids[place],), bars, mark)


def _gallery(subject: Subject, found: Answered, places: list[int], caption: str) -> Gallery:
    return Gallery(caption, tuple(panel(subject, found, place, subject.own_labels) for place in places), "large")


def _empty(part: Part) -> bool:
    return (isinstance(part, Gallery) and not part.tiles) or (isinstance(part, Table) and not part.rows)
