"""View: the last hidden layer as a map, with the pictures as marks."""

from __future__ import annotations

from layerwise.explain.feature_map import feature_map, kept_near
from layerwise.explain.pictures import uri
from layerwise.explain.subject import Subject, drawn, percent
from layerwise.explain.view import Point, Scatter, View, Words

PICTURES, SIDE, NEAR = 1_000, 32, 10


def view(subject: Subject) -> View:
    """Up to 1,000 pictures laid out by t-SNE of their features, each with a frame in its class's colour."""
    found = subject.shown
    chosen = drawn(found.samples.subset(range(len(found.samples)), "map"), PICTURES)
    places = {name: place for place, name in enumerate(found.samples.ids)}
    rows = [places[name] for name in chosen.ids]
    features = found.features[rows]
    laid = feature_map(features)
    known, names = subject.own_labels, subject.names
    points = []
    for place, row in enumerate(rows):
        label, predicted = int(found.samples.labels[row]) if known else -1, int(found.predicted[row])
        title = names[predicted] if not known else names[label] if label == predicted else (
            f"{names[label]}, called {names[predicted]}")
        points.append(Point(round(float(laid[place, 0]), 4), round(float(laid[place, 1]), 4),
                            uri(subject.picture(chosen, place), SIDE), title, label if known else predicted))
    near = kept_near(features, laid, min(NEAR, len(rows) - 1))
    return View(
        "feature-map", "Feature map",
        "Which classes the network keeps apart, which run into each other, and pictures that lie among those of "
        "another class: mistakes, odd ones, wrong labels.",
        "Distances: t-SNE keeps who is near, and not how far apart groups are, how large or how dense. Here "
        f"{percent(near, 0)} of each picture's {NEAR} nearest in the layer are among its {NEAR} nearest on the map.",
        "van der Maaten, Hinton 2008 (t-SNE); scikit-learn", (
            Scatter("Pictures laid out by their features; the frame's colour is the "
                    f"{'class' if known else 'answer'}. Wheel or two fingers zoom, a drag moves, a double click shows "
                    "all.", names, tuple(points)),
            *(() if known else (Words("The labels of these pictures are not known."),))),
        subject.bound(len(rows), len(subject.asked) if subject.asked is not None else subject.size(""), "pictures",
                      found.unopened))
