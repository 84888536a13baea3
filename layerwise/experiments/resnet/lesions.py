"""The lesion studies of the history: blocks deleted and swapped in trained networks, and how long gradient paths are.

    layerwise reproduce resnet/lesions --rows plain20,resnet20,plain56,resnet56

Nothing is trained beyond figure 6's runs. At small scale a seed takes one core about 1 minute for 20 layers, 7 for 56
and 16 for 110: 95 tests of 1,000 pictures with 56 layers. At paper scale: ten times the pictures, some 240 tests.

They are those of Veit, Wilber, Belongie, "Residual networks behave like ensembles of relatively shallow networks",
2016, as the history tells them after the residual networks (without numbers): one block deleted, k random blocks
deleted, k random pairs of blocks swapped, in residual networks and in chains. Their chain was VGG; here it is the plain
network of the same depth, trained in the same way, which differs in the shortcuts alone. `layerwise.explain.lesions`
says what a deleted block leaves. They used 110 layers; so does a row here.

Left open: what "hardly" and "drastically" mean. Here: a median rise of the error below 2 points over the blocks, and
one above 20 points. "Smoothly": the mean error never falls by more than 2 points as more blocks go, and no step takes
more than half of the whole rise. Errors are of a fixed part of the test set, so that all lesions see the same pictures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict, every, less
from layerwise.experiments.judges import above, below
from layerwise.experiments.looking import at_once, drawn, mean_over_seeds, network, within_row
from layerwise.experiments.resnet.panels import COLOURS, depth, labelled
from layerwise.experiments.resnet.protocols import cifar_row
from layerwise.explain.lesions import Block, blocks, delete_each, delete_some, error_rate, swap_some
from layerwise.explain.paths import count_paths, path_gradients

TITLE = "ResNet, lesions: blocks deleted and swapped at test time"
RESIDUAL = ("resnet20", "resnet56", "resnet110")
NETWORKS = ("plain20", "plain56", *RESIDUAL)
PICTURES = {"smoke": 8, "small": 1000, "paper": 0}
DRAWS = {"smoke": 1, "small": 3, "paper": 10}
COUNTS = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 20)  # blocks deleted at once, and pairs swapped
LENGTHS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 54)
PATH_PICTURES = 16
HARDLY, DRASTIC, DIP = 2.0, 20.0, 2.0  # points of error
COLUMNS = ("untouched", "median_rise", "worst_rise", "same_shape_rise", "changed_shape_rise", "contributing_length",
           "mean_length")


def measure(subject: Subject) -> Numbers:
    """The errors after each lesion, in percent; for residual networks also the gradients along paths by length."""
    model, smoke = network(subject), subject.scale == "smoke"
    images, labels = at_once(subject, drawn(subject.samples("test"), PICTURES[subject.scale]))
    known = blocks(model, images)
    times = DRAWS[subject.scale]
    counts = [count for count in COUNTS[: 2 if smoke else None] if count < len(known)]

    def error(lesioned: nn.Module) -> float:
        return round(error_rate(lesioned, images, labels), 3)

    untouched = error(model)
    single = delete_each(model, known[::3] if smoke else known, error)
    some = delete_some(model, known, error, counts, times, subject.seed)
    swapped = swap_some(model, known, error, counts, times, subject.seed)
    numbers: dict[str, Value] = {
        "untouched": untouched, "blocks": float(len(known)), "pictures": float(len(images)),
        **_rises(known, single, untouched),
        "deleted": list(single.values()),
        "counts": [float(count) for count in counts],
        "deleted_some": [some[count] for count in counts],
        "swapped": [[one.measured for one in swapped[count]] for count in counts],
        "taus": [[round(one.tau, 4) for one in swapped[count]] for count in counts],
    }  # fmt: skip
    if known[0].kind == "residual":
        lengths = [length for length in LENGTHS[: 3 if smoke else None] if length <= len(known)]
        batch = images[:PATH_PICTURES], labels[:PATH_PICTURES]
        found = path_gradients(model, *batch, lengths, times, subject.seed)
        contributing, mean = path_lengths(lengths, [one.gradient for one in found], len(known))
        numbers |= {"lengths": [float(length) for length in lengths], "path_gradients": [one.gradient for one in found],
                    "contributing_length": contributing, "mean_length": mean}
    return numbers


def _rises(known: Sequence[Block], single: Mapping[str, float], untouched: float) -> dict[str, Value]:
    """By how many points the error rises without one block: median, worst, and by whether the block changes shape."""
    rises = {name: error - untouched for name, error in single.items()}
    changed = [rises[block.name] for block in known if block.name in rises and block.input != block.output]
    same = [rises[block.name] for block in known if block.name in rises and block.input == block.output]
    told = {"median_rise": list(rises.values()), "same_shape_rise": same, "changed_shape_rise": changed}
    found: dict[str, Value] = {name: round(statistics.median(values), 3) for name, values in told.items() if values}
    return found | {"worst_rise": round(max(rises.values()), 3)}


def path_lengths(lengths: Sequence[int], gradients: Sequence[float], n: int) -> tuple[float, float]:
    """The mean length of paths weighed by their gradient, and that of all paths (n / 2).

    Between the lengths that were measured the gradient is taken to be the nearest one's, so that each of the 2^n paths
    counts.
    """
    counts = count_paths(n)
    nearest = [min(range(len(lengths)), key=lambda place: abs(lengths[place] - length)) for length in range(n + 1)]
    weights = [counts[length] * gradients[place] for length, place in enumerate(nearest)]
    total = sum(weights)
    return (sum(length * weight for length, weight in enumerate(weights)) / total if total else 0.0), n / 2


def _row(name: str) -> Row:
    return replace(cifar_row(name), measure=measure)


ROWS = {name: _row(name) for name in NETWORKS}
PAPER: dict[str, dict[str, Value]] = {}
DIFFERS = {"small": (f"lesions are tested on {PICTURES['small']:,} of the test pictures, with {DRAWS['small']} draws "
                     f"of each number of blocks; at the paper's scale on all, with {DRAWS['paper']}",)}


def smoothly(row: str, name: str) -> Callable[[Results], Verdict]:
    """Judges whether the mean error rises smoothly with the number of lesions: no dip, and no step of half the rise."""
    def judge(results: Results) -> Verdict:
        means = [statistics.fmean(values) for values in draws(results, row, name)]
        start = results.mean(row, "untouched")
        if start is None or len(means) < 3:
            return Verdict("not measured", f"no curve of {row}")
        course = [start, *means]
        steps = [after - before for before, after in pairwise(course)]
        rise = max(course) - start
        told = (f"{row}, {name}: {start:.1f} % untouched, {course[-1]:.1f} % at the end; largest step {max(steps):.1f} "
                f"of {rise:.1f} points, deepest dip {max(0.0, -min(steps)):.1f}")
        smooth = min(steps) >= -DIP and (rise < DIP or max(steps) <= rise / 2)
        return Verdict("holds" if smooth else "fails", told)

    return judge


def draws(results: Results, row: str, name: str) -> list[list[float]]:
    """For each number of lesions the errors of all draws of all seeds."""
    found: dict[int, list[float]] = {}
    for one in results.rows.get(row, ()):
        lists = one.numbers.get(name)
        for place, values in enumerate(lists if isinstance(lists, list) else []):
            found.setdefault(place, []).extend(values if isinstance(values, list) else [])
    return [found[place] for place in sorted(found)]


def shorter_than_half(row: str) -> Callable[[Results], Verdict]:
    """Judges whether the paths that carry the gradient are shorter than paths are on average."""
    def judge(results: Results) -> Verdict:
        found, mean = results.mean(row, "contributing_length"), results.mean(row, "mean_length")
        if found is None or mean is None:
            return Verdict("not measured", f"no result of {row}")
        return Verdict("holds" if found < mean else "fails",
                       f"{row}: mean length {found:.1f} blocks, weighed by gradient; {mean:.1f} of all paths")

    return judge


FEW_BLOCKS = (
    "depth: each of the nine blocks of 20 layers does a larger part than one of the source's 54; with 27 blocks, "
    "trained alike, the median rise is 4.3, 1.4 and 0.4 points in three seeds, of which the first had learned badly "
    "(49 % wrong untouched)"
)
FEW_DRAWS = (
    "scale, as far as the dips go: with three draws in each of three seeds the mean falls by 3.0 points with 20 layers "
    "and by 17.2 and 2.9 with 56, and the standard errors of these differences are 9.1, 10.5 and 3.1; that the first "
    "pair costs more than half of the whole rise with 20 layers goes with its nine blocks, of which it moves two"
)
PAIRS = (("resnet20", "plain20"), ("resnet56", "plain56"))
CLAIMS = {
    "one-block": Claim(
        "But for a few blocks, deleting a single one hardly changes a residual network's error (Veit et al., 4.1).",
        every(*(below(row, HARDLY, "median_rise") for row in RESIDUAL)), FEW_BLOCKS,
    ),
    "one-plain-block": Claim(
        "Deleting a single layer of a chain raises its error drastically (Veit et al., section 4.1; there VGG).",
        every(*(above(plain, DRASTIC, "median_rise") for _, plain in PAIRS)),
    ),
    "residual-stand-it": Claim(
        "Residual networks stand the loss of a block better than chains of the same depth (Veit et al., section 4.1).",
        every(*(less(residual, plain, "median_rise") for residual, plain in PAIRS)),
    ),
    "changes-of-shape": Claim(
        "The few blocks that matter are those where the shape changes (Veit et al., section 4.1).",
        every(*(within_row(row, "same_shape_rise", "changed_shape_rise") for row in RESIDUAL)),
    ),
    "smooth-deletion": Claim(
        "The error rises smoothly with the number of blocks deleted (Veit et al., section 4.2).",
        every(*(smoothly(row, "deleted_some") for row in RESIDUAL)),
    ),
    "smooth-swaps": Claim(
        "The error rises smoothly with the number of blocks that change places (Veit et al., section 4.3).",
        every(*(smoothly(row, "swapped") for row in RESIDUAL)), FEW_DRAWS,
    ),
    "short-paths": Claim(
        "What gradient reaches the picture comes along relatively short paths (Veit et al., section 5).",
        every(*(shorter_than_half(row) for row in RESIDUAL)),
    ),
}


def draw(results: Results, figure: Figure) -> None:
    """Three panels: the error without each block; against blocks deleted at once; against pairs swapped.

    Plain networks are dashed; points are single draws, lines their means. The error untouched stands at 0.
    """
    one, some, swaps = figure.subplots(1, 3)
    for row in NETWORKS:
        label = labelled(row) if results.rows.get(row) else f"{labelled(row)}, not measured"
        values = mean_over_seeds(results, row, "deleted")
        style = "--" if row.startswith("plain") else "-"
        one.plot(range(1, len(values) + 1), values, color=COLOURS[depth(row)], linestyle=style, linewidth=1.4,
                 marker="o" if style == "-" else "s", markersize=2.5, label=label)
        _curve(some, results, row, "deleted_some")
        _curve(swaps, results, row, "swapped")
    for axes, label in ((one, "block deleted (index)"), (some, "blocks deleted"), (swaps, "pairs of blocks swapped")):
        axes.set_xlabel(label)
        axes.set_ylabel("error (%)")
        axes.set_ylim(0, 100)
    one.legend(loc="best", fontsize=7)


def _curve(axes: Axes, results: Results, row: str, name: str) -> None:
    counts, found = mean_over_seeds(results, row, "counts"), draws(results, row, name)
    start = results.mean(row, "untouched")
    if start is None or not found:
        return
    colour, style = COLOURS[depth(row)], "--" if row.startswith("plain") else "-"
    means = [statistics.fmean(values) for values in found]
    axes.plot([0.0, *counts], [start, *means], color=colour, linestyle=style, linewidth=1.6)
    for count, values in zip(counts, found, strict=True):
        axes.plot([count] * len(values), values, color=colour, linestyle="none", marker=".", markersize=3, alpha=0.4)
