"""View: each class with its accuracy, confusions and hardest pictures; likely label errors; pictures there twice."""

from __future__ import annotations

import contextlib

import numpy as np

from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.explain.classes import (
    FOLDS,
    MOST_COMPARED,
    Suspect,
    class_reports,
    duplicates,
    label_errors,
    out_of_fold,
)
from layerwise.explain.pictures import uri
from layerwise.explain.subject import Answered, Subject, drawn, percent
from layerwise.explain.view import Gallery, Part, Strips, Table, Tile, View, Words
from layerwise.randomness import permutation
from layerwise.rundir import contents_of

SHOWN_CLASSES, HARDEST, SUSPECTS, TWICE = 50, 6, 24, 12
TRAINING = "train"
BUDGET = 100_000_000  # numbers of pictures x features x classes that the logistic regression sees: about 10 s


def view(subject: Subject) -> View:
    """The report of every class on pictures that the network was not trained on, and what may be wrong in the data."""
    found = subject.tested
    names = subject.names
    judged = _judged(subject)
    reports = [one for one in class_reports(found.probabilities, found.samples.labels, HARDEST) if one.pictures]
    reports.sort(key=lambda one: one.accuracy)
    rows = tuple((names[one.label], one.pictures, percent(one.accuracy), percent(one.precision),
                  ", ".join(f"{names[other]} {count}" for other, count in one.confusions[:3])) for one in reports)
    strips = tuple((
        *(Tile(uri(subject.picture(found.samples, place), 72), names[one.label] if rank == 0 else "",
               (f"{names[int(found.predicted[place])]} {percent(float(found.probabilities[place].max()), 0)}",),
               mark="right" if found.predicted[place] == one.label else "wrong")
          for rank, place in enumerate(one.hardest)),) for one in reports[:SHOWN_CLASSES])  # fmt: skip
    parts: list[Part] = [
        Table("Classes, the worst first: right of the class's pictures (accuracy), right of what is called so "
              "(precision).", ("class", "pictures", "accuracy", "precision", "called instead"), rows),
        Strips("The hardest pictures of each class, and what the network takes them for.",
               ("class, its hardest pictures",), (HARDEST,), strips),
        *_suspects(subject, judged),
        *_twice(subject),
    ]
    return View(
        "classes", "Classes",
        "Which classes are hard, what they are taken for, and where the data may be to blame: labels that the network "
        "disbelieves with confidence, pictures that are there twice.",
        "That a suspected label is wrong: the network may be. Nor that an unsuspected training label is right: the "
        "features that it is judged by were trained on it, so that some errors are known by heart.",
        "Label errors: Northcutt, Jiang, Chuang 2021 (confident learning); duplicates: as layerwise check finds them",
        tuple(parts), subject.bound(len(found.samples), subject.size("") if subject.asked is None else 0, "pictures",
                                    found.unopened)
        + tuple(bound for _, one in judged if one.samples.name == TRAINING
                for bound in subject.bound(len(one.samples), subject.size(TRAINING), "training pictures", one.unopened))
        + (f"near duplicates among at most {MOST_COMPARED:,} pictures, drawn at random",)
        + ((f"the {SHOWN_CLASSES} worst of {len(reports)} classes with pictures",) if len(reports) > SHOWN_CLASSES
           else ()))  # fmt: skip


def _suspects(subject: Subject, judged: list[tuple[str, Answered]]) -> list[Part]:
    """Galleries of likely label errors: among pictures that were not trained on, and among training pictures."""
    parts: list[Part] = []
    for words, found in judged:
        suspects = label_errors(found.probabilities, found.samples.labels)
        told = f"Likely label errors {words}: {len(suspects):,} of {len(found.samples):,} pictures are suspected"
        if not suspects:
            parts.append(Words(f"{told}."))
            continue
        first = f"; the likeliest {SUSPECTS}" if len(suspects) > SUSPECTS else ""
        parts.append(Gallery(f"{told}{first}. Below each its label, and what is said instead.",
                             tuple(_suspect(subject, found, one) for one in suspects[:SUSPECTS])))
    return parts


def _judged(subject: Subject) -> list[tuple[str, Answered]]:
    """Pictures with probabilities that did not come of their own labels, and in words which these are."""
    found = []
    if subject.tested.samples.name != TRAINING:  # where nothing is held out
        found.append((f"in {subject.tested.samples.name}, by the network", subject.tested))
    if subject.asked is None:
        with contextlib.suppress(InputError):  # where nothing was held out
            if subject.tested.samples.name == "test":
                found.append(("in the validation pictures, by the network", subject.answers(subject.split("val"))))
        with contextlib.suppress(InputError):  # too few pictures, or a model file without its data
            found.append(("in the training pictures, by a logistic regression of the last hidden layer, each fitted to "
                          f"the other {FOLDS - 1} of {FOLDS} parts", _refitted(subject)))
    return found


def _refitted(subject: Subject) -> Answered:
    """Training pictures with probabilities by a classifier of their features that was not fitted to them."""
    trained, classes = subject.trained, len(subject.names)
    most = BUDGET // (trained.features.shape[1] * classes)
    chosen = np.sort(permutation(0, 0, len(trained.samples), "label errors")[:most])
    places, probabilities = out_of_fold(trained.features[chosen], trained.samples.labels[chosen], classes)
    rows = chosen[places]
    return Answered(trained.samples.subset(rows, TRAINING), trained.features[rows], probabilities, trained.unopened)


def _suspect(subject: Subject, found: Answered, one: Suspect) -> Tile:
    names = subject.names
    return Tile(uri(subject.picture(found.samples, one.place), 96), names[one.label],
                (f"rather {names[one.likely]}: {percent(one.other)} against {percent(one.own)}",
                 found.samples.ids[one.place]), mark="wrong")  # fmt: skip


def _twice(subject: Subject) -> list[Part]:
    """Pairs of tested and training pictures that are equal or nearly so, those with two labels first."""
    tested = drawn(subject.tested.samples, MOST_COMPARED // 2)
    try:
        trained = drawn(subject.split("train"), MOST_COMPARED - len(tested))
    except InputError:  # a model file without its data
        trained = tested.subset([], "train")
    both = _together(tested, trained)
    pairs = duplicates(both, contents_of(both))
    if not pairs:
        return [Words(f"No picture is there twice among {len(both):,} that were compared.")]
    labels = both.labels
    differ = sum(bool(labels[pair.first] != labels[pair.second]) for pair in pairs)
    rows = tuple((Tile(uri(subject.picture(both, pair.first), 72), subject.names[labels[pair.first]],
                       (both.ids[pair.first],)),
                  Tile(uri(subject.picture(both, pair.second), 72), subject.names[labels[pair.second]],
                       (both.ids[pair.second], "equal" if pair.kind == "exact" else "nearly equal"),
                       mark="wrong" if labels[pair.first] != labels[pair.second] else ""))
                 for pair in pairs[:TWICE])  # fmt: skip
    return [Strips(f"{len(pairs):,} pairs of equal or nearly equal pictures among {len(both):,}; {differ:,} of them "
                   f"with two different labels{', which come first' if differ else ''}. In small pictures with little "
                   "detail, different things may look nearly equal.", ("picture", "its twin"), (1, 1), rows)]


def _together(first: Samples, second: Samples) -> Samples:
    """Two splits with the same classes as one."""
    if not len(second):
        return first
    images = None if first.images is None or second.images is None else np.concatenate([first.images, second.images])
    paths = None if first.paths is None or second.paths is None else first.paths + second.paths
    if images is None and paths is None:  # one in memory, one as files
        return first
    return Samples("pictures", first.class_names, np.concatenate([first.labels, second.labels]), first.ids + second.ids,
                   images, paths, first.rules)
