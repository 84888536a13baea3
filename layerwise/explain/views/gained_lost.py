"""View: this network and another on the same pictures: which are gained, which are lost, by class."""

from __future__ import annotations

import numpy as np

from layerwise.errors import InputError
from layerwise.explain.gained_lost import gained_lost
from layerwise.explain.pictures import uri
from layerwise.explain.subject import Subject, percent, require_same_classes
from layerwise.explain.view import Gallery, Part, Table, Tile, View, Words

SHOWN = 24


def view(subject: Subject) -> View:
    """Raises InputError without a second network, or where its classes are others."""
    if subject.against is None:
        raise InputError("gained and lost pictures are of two networks", "Only one was named.",
                         "Name the other one with --against RUN.")
    other = subject.against
    require_same_classes(subject, other)
    here = subject.tested
    there = other.answers(here.samples)
    order = [other.names.index(name) for name in subject.names]
    before = there.probabilities[:, order].argmax(1)
    found = gained_lost(before, here.predicted, here.samples.labels, len(subject.names))
    names, labels = subject.names, here.samples.labels
    error = [float((answers != labels).mean()) for answers in (before, here.predicted)]
    rows = sorted(found.classes, key=lambda one: one.gained - one.lost)
    parts: list[Part] = [
        Words(f"The other network's error is {percent(error[0], 2)}, this one's {percent(error[1], 2)}: "
              f"{len(found.gained):,} pictures gained and {len(found.lost):,} lost of {len(labels):,}. "
              + (f"Were they equally good, so uneven a split would come about with p = {found.p:.2g} (McNemar's exact "
                 "test)." if len(found.gained) != len(found.lost) else "Neither is better on these pictures.")),
        Table("Classes, those that lost most first.",
              ("class", "pictures", "gained", "lost", "both right", "neither"),
              tuple((names[one.label], one.pictures, one.gained, one.lost, one.both, one.neither) for one in rows)),
    ]
    for words, places in (("Gained: this network has them right, the other does not", found.gained),
                          ("Lost: the other network has them right, this one does not", found.lost)):
        surest = places[np.argsort(-here.probabilities[places].max(1), kind="stable")][:SHOWN]
        tiles = tuple(Tile(uri(subject.picture(here.samples, place), 96), names[labels[place]],
                           (f"here {names[here.predicted[place]]} {percent(float(here.probabilities[place].max()))}",
                            f"there {names[before[place]]}", here.samples.ids[place]),
                           mark="right" if here.predicted[place] == labels[place] else "wrong")
                      for place in surest.tolist())  # fmt: skip
        if tiles:
            more = f", the {len(tiles)} where this one is surest of {len(places):,}" if len(places) > SHOWN else ""
            parts.append(Gallery(f"{words}{more}.", tiles))
    return View(
        "gained-lost", "Gained and lost",
        "What a change of network or training bought and what it cost, picture by picture: two networks with one error "
        "may fail on different pictures.",
        "Whether the recipe is better: it is these two sets of weights. layerwise compare tests over seeds.",
        "McNemar 1947", tuple(parts),
        subject.bound(len(labels), subject.size("") if subject.asked is None else 0, "pictures",
                      here.unopened))  # fmt: skip
