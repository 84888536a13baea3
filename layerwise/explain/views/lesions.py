"""View: what becomes of the network when blocks are taken out of it or change places, and how long its paths are."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import nn

from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.explain.lesions import Block, blocks, delete_each, delete_some, error_rate, exchangeable, swap_some
from layerwise.explain.paths import path_gradients
from layerwise.explain.subject import Subject, drawn, renumbered, require_same_classes
from layerwise.explain.view import Chart, Part, Series, Table, View, Words

BUDGET = 400_000_000_000  # multiply-adds of all measurements together: about 30 s on two cores
MOST, LEAST = 1_000, 64  # pictures
COUNTS, DRAWS, BATCH = (1, 2, 3, 4, 5), 3, 16
Progress = Callable[[int, int], None]


def view(subject: Subject) -> View:
    """Lesions of this network and of a second one beside it, on the same pictures.

    Raises InputError where one has no blocks, or they know different classes.
    """
    networks = {"this network": subject}
    if subject.against is not None:
        require_same_classes(subject, subject.against)
        networks["other network"] = subject.against
    samples = drawn(subject.tested.samples, min(_affordable(one) for one in networks.values()))
    parts: dict[str, list[Series]] = {}
    for name, one in networks.items():
        for what, series in _lesions(one, renumbered(samples, one.names), name, subject.progress).items():
            parts.setdefault(what, []).append(series)
    errors = parts["each"][0].y
    names = [block.name.removeprefix("features.") for block in _blocks(subject)]
    drawn_parts: list[Part] = [Table("Each block of this network, and the error without it.",
                                     ("block", "number", "error (%)"), tuple(
        (name, number, round(error, 2)) for number, (name, error) in
        enumerate(zip(["none deleted", *names], errors, strict=True))))]
    for what, (caption, x, y) in CHARTS.items():
        if what in parts:
            drawn_parts.append(Chart(caption, x, y, tuple(parts[what]), log=what == "paths"))
    drawn_parts += [Words(why) for what, why in ABSENT.items() if what not in parts]
    return View(
        "lesions", "Lesions",
        "Which blocks the network needs. A residual network loses little without one block, and gets worse smoothly as "
        "more go, as an ensemble of its paths would; a chain such as VGG is lost with one layer.",
        "What would become of a network that was trained without the block: nothing is trained again.",
        "Veit, Wilber, Belongie 2016, sections 4 and 5", tuple(drawn_parts),
        (f"errors on {len(samples):,} pictures", f"{DRAWS} draws for each number of blocks"))  # fmt: skip


def _blocks(subject: Subject) -> tuple[Block, ...]:
    side, channels = subject.file.preprocess.size, subject.file.preprocess.channels
    return blocks(subject.file.model, torch.zeros(1, channels, side, side))


CHARTS = {
    "each": ("Error after one block is deleted, in the order of the blocks; block 0 is the whole network.", "block",
             "error (%)"),
    "some": ("Mean error after several random blocks are deleted.", "blocks deleted", "error (%)"),
    "swaps": ("Mean error after random pairs of blocks have changed places.", "pairs swapped", "error (%)"),
    "paths": ("Gradient that reaches the picture along one path, by the number of blocks it goes through.",
              "path length", "gradient norm"),
    "contributions": ("What the paths of each length contribute to the gradient: their number times the gradient.",
                      "path length", "share of the sum"),
}


ABSENT = {
    "swaps": "No blocks change places here: no two of them take and give maps of equal shape.",
    "paths": "The gradient by length of path is left out: it can be followed in blocks of a residual function and "
             "a shortcut, and this network has others, or none.",
}


def _counts(known: Sequence[Block]) -> list[int]:
    """How many blocks are deleted or swapped at once."""
    return [count for count in COUNTS if count <= len(known)]


def _passes(known: Sequence[Block]) -> int:
    """How often the pictures go through a network: whole, without each block, without several, with swapped ones."""
    return 1 + len(known) + 2 * DRAWS * len(_counts(known))


def _affordable(subject: Subject) -> int:
    """How many pictures the budget allows for one network."""
    return min(MOST, max(LEAST, BUDGET // (subject.multiply_adds * _passes(_blocks(subject)))))


def _lesions(subject: Subject, samples: Samples, name: str, progress: Progress) -> dict[str, Series]:
    """The curves of one network by the keys of CHARTS, on pictures whose classes are numbered as its own."""
    model, known = subject.file.model, _blocks(subject)
    counts, passes = _counts(known), _passes(known)
    images, labels = subject.at_once(samples)
    measure = _counted(lambda network: error_rate(network, images, labels), passes, progress)
    whole = measure(model)
    each = [whole, *delete_each(model, known, measure).values()]
    found = {"each": Series(name, tuple(map(float, range(len(each)))), tuple(each))}
    some = {0: whole} | {count: statistics.fmean(errors)
                         for count, errors in delete_some(model, known, measure, counts, DRAWS, 0).items()}
    found["some"] = Series(name, tuple(map(float, some)), tuple(some.values()))
    if exchangeable(known):
        swaps = {0: whole} | {count: statistics.fmean(one.measured for one in draws)
                              for count, draws in swap_some(model, known, measure, counts, DRAWS, 0).items()}
        found["swaps"] = Series(name, tuple(map(float, swaps)), tuple(swaps.values()))
    progress(passes, passes)
    try:
        lengths = sorted({round(step * len(known) / 10) for step in range(11)})
        paths = path_gradients(model, images[:BATCH], labels[:BATCH], lengths, DRAWS, 0)
    except InputError:  # its blocks have no two ways
        return found
    x = tuple(float(one.length) for one in paths)
    found["paths"] = Series(name, x, tuple(one.gradient for one in paths))
    found["contributions"] = Series(name, x, tuple(one.contribution for one in paths))
    return found


def _counted(measure: Callable[[nn.Module], float], total: int, progress: Progress) -> Callable[[nn.Module], float]:
    """`measure`, which tells after each network how far all are."""
    done = 0

    def counted(network: nn.Module) -> float:
        nonlocal done
        progress(done, total)
        done += 1
        return measure(network)

    return counted
