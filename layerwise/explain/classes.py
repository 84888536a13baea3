"""A report a class: accuracy, confusions, hardest pictures, likely errors of the labels, pictures that are there twice.

Label errors: Northcutt, Jiang, Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021, section 3.
The probabilities must be of a classifier that was not fitted to the picture ("out-of-fold"); what was trained on is
known by heart, its errors too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwise.data.duplicates import Pair, exact_pairs, near_pairs
from layerwise.data.scan import perceptual_hash
from layerwise.data.source import Samples
from layerwise.errors import InputError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
MOST_COMPARED = 4_000  # pictures that are compared with each other for near duplicates
FOLDS, STEPS = 5, 100  # parts that are judged one by one; the solver's iterations for each
STRENGTH = 0.1  # scikit-learn's C: some regularisation, so that no picture is fitted for its own sake


@dataclass(frozen=True)
class ClassReport:
    """One class: its pictures, how many are right, how many others are called so, and its confusions.

    `confusions` are (class, pictures), the most frequent first; `hardest` are places of the pictures whose own label
    is least probable.
    """

    label: int
    pictures: int
    right: int
    called: int
    confusions: tuple[tuple[int, int], ...]
    hardest: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """Of the class's pictures those that are right (recall), 0..1; NaN where it has none."""
        return self.right / self.pictures if self.pictures else float("nan")

    @property
    def precision(self) -> float:
        """Of what is called so, the part that is, 0..1; NaN where nothing is."""
        return self.right / self.called if self.called else float("nan")


def class_reports(probabilities: Floats, labels: Integers, most: int = 6) -> tuple[ClassReport, ...]:
    """A report of each class, in their order, from probabilities (N, classes) and labels (N)."""
    predicted, classes = probabilities.argmax(1), probabilities.shape[1]
    truth = probabilities[np.arange(len(labels)), labels]
    found = []
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        counts = np.bincount(predicted[own], minlength=classes)
        wrong = counts.copy()
        wrong[label] = 0
        order = np.argsort(-wrong, kind="stable")[:most]
        found.append(ClassReport(
            label, len(own), int(counts[label]), int((predicted == label).sum()),
            tuple((int(other), int(wrong[other])) for other in order if wrong[other]),
            tuple(own[np.argsort(truth[own], kind="stable")][:most].tolist())))
    return tuple(found)


@dataclass(frozen=True)
class Suspect:
    """A picture whose label is likely wrong: its place, its label, the likelier one, and both probabilities."""

    place: int
    label: int
    likely: int
    own: float
    other: float


def label_errors(probabilities: Floats, labels: Integers) -> tuple[Suspect, ...]:
    """The likely errors among labels (N), from out-of-fold probabilities (N, classes), the likeliest error first.

    A class's threshold is the mean probability of that class over the pictures labelled so. A picture is suspected
    where a class other than its label is the likeliest of those that reach their thresholds; the order is by own
    probability minus the other's ("normalised margin"). Raises InputError where the shapes differ.
    """
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise InputError(f"probabilities {probabilities.shape} of {len(labels)} labels", "Each picture has a row.")
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    truth = probabilities[np.arange(len(labels)), labels]
    thresholds = np.where(counts > 0, np.bincount(labels, truth, classes) / np.maximum(counts, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    likely = reached.argmax(1)
    places = np.flatnonzero((reached.max(1) >= 0) & (likely != labels))
    found = [Suspect(int(place), int(labels[place]), int(likely[place]), float(truth[place]),
                     float(probabilities[place, likely[place]])) for place in places]
    return tuple(sorted(found, key=lambda one: one.own - one.other))


def out_of_fold(features: NDArray[np.floating], labels: Integers, classes: int) -> tuple[Integers, Floats]:
    """Probabilities of pictures by a classifier of their features that was fitted to the other pictures alone.

    A logistic regression of features (N, D), standardised, in 5 folds that keep the shares of the classes: always the
    same (scikit-learn's cross_val_predict). Returns the places (M) of the pictures that were judged, which are those of
    classes with at least 5, and the probabilities (M, classes). The fit is out-of-fold, the features are not: a network
    that was trained on all of the pictures with their labels made them. Raises InputError where no two classes have 5.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    places = np.flatnonzero(np.bincount(labels, minlength=classes)[labels] >= FOLDS)
    kept = np.unique(labels[places])
    if len(kept) < 2:
        raise InputError(f"{len(labels)} pictures of {classes} classes are too few for {FOLDS} folds",
                         mend=f"At least two classes need {FOLDS} pictures each.")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=STEPS))
    with warnings.catch_warnings():  # a fit that was stopped early has not seen the picture either
        warnings.simplefilter("ignore", ConvergenceWarning)
        rows = cross_val_predict(classifier, features[places], labels[places], method="predict_proba",
                                 cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0))
    probabilities = np.zeros((len(places), classes))
    probabilities[:, kept] = rows
    return places, probabilities


def duplicates(samples: Samples, contents: list[str], most: int = MOST_COMPARED) -> tuple[Pair, ...]:
    """Pictures that are there twice: exactly, by the digests `contents`, among all; nearly, among the first `most`.

    What counts as near is said in data/duplicates.py. Pairs with two labels come first, exact ones before near ones.
    """
    exact = exact_pairs(contents)
    count = min(most, len(samples))
    hashes = np.array([perceptual_hash(samples.read(place)) for place in range(count)], np.uint64)
    near, _ = near_pairs(hashes, samples.read, {(pair.first, pair.second) for pair in exact})
    labels = samples.labels
    return tuple(sorted([*exact, *near], key=lambda pair: (
        labels[pair.first] == labels[pair.second], pair.kind != "exact", pair.first, pair.second)))
