"""Figure 4: eight test pictures with their five most probable labels; five with their six nearest training pictures.

    layerwise reproduce alexnet/figure-4                  # small: a four-layer network on Fashion-MNIST, three seeds
    layerwise reproduce alexnet/figure-4 --scale paper    # AlexNet on ILSVRC-2010, 0.49 EFLOP

Nearest are those whose feature vectors in the last hidden layer have the smallest Euclidean distance (section 6.1).
Beside them, what the paper tells and does not show: the six nearest in the pixels themselves. Over 500 test pictures it
is counted how many of the six are of the query's class, how many both ways have in common, and how much farther in
pixels the neighbours by features are than those by pixels.

Left open in the paper: how the pictures were chosen; here at random, the same for every network. Probabilities are of
one centre crop. At paper scale 100,000 training pictures drawn at random are searched, since the features of all take
20 GB; pixels are compared on pictures averaged down to 32x32. "Generally not close in L2" is held to: less than half of
the six in common.
"""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from layerwise.data.source import Samples
from layerwise.experiments.alexnet import protocols
from layerwise.experiments.alexnet.retrieval import SEARCHED, vectors
from layerwise.experiments.alexnet.retrieval import small as retrieval_small
from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value
from layerwise.experiments.judges import below
from layerwise.experiments.looking import at_once, drawn, network, within_row
from layerwise.explain.neighbours import nearest, precision

TITLE = "AlexNet, Figure 4: predictions, and nearest pictures in the last hidden layer"
SHOWN, LABELS, ASKED, NEAR = 8, 5, 5, 6
QUERIES = {"smoke": 8, "small": 500, "paper": 500}
RIGHT = "#f2837b"  # a red on which the label's black letters can be read
THUMBNAIL = 56  # pixels a side, at most
IN_COMMON = 50.0  # percent
COLUMNS = ("precision_by_features", "precision_by_pixels", "in_common", "pixel_distance_ratio")


def measure(subject: Subject) -> Numbers:
    """The panels as small pictures and names, and the counts over all queries."""
    model, names = network(subject), subject.models[0].class_names
    database = drawn(subject.samples("train"), SEARCHED[subject.scale])
    asked = drawn(subject.samples("test"), QUERIES[subject.scale])
    truth = [asked.class_names[label] for label in asked.labels]
    with torch.no_grad():
        images, _ = at_once(subject, asked.subset(range(SHOWN), asked.name))
        likely = model(images).softmax(1).topk(min(LABELS, len(names)))
    found, ratios, shared = {}, [], []
    for kind in ("features", "pixels"):
        found[kind] = vectors(kind, subject, database), vectors(kind, subject, asked)
    by_features, by_pixels = (nearest(*found[kind], NEAR) for kind in ("features", "pixels"))
    entries, queries = found["pixels"]
    for row, query in enumerate(queries):
        gaps = np.linalg.norm(entries[by_features.indices[row]].astype(np.float64) - query, axis=1)
        ratios.append(gaps.mean() / max(by_pixels.distances[row].mean(), 1e-12))
        shared.append(len(set(by_features.indices[row]) & set(by_pixels.indices[row])) / NEAR)
    first = range(SHOWN, SHOWN + ASKED) if len(asked) >= SHOWN + ASKED else range(min(ASKED, len(asked)))
    panels = [[*by_features.indices[row], *by_pixels.indices[row]] for row in first]
    rows = [[_thumbnail(subject, asked, row), *(_thumbnail(subject, database, int(place)) for place in places)]
            for row, places in zip(first, panels, strict=True)]
    tested = [_thumbnail(subject, asked, row) for row in range(SHOWN)]
    return {
        "precision_by_features": round(precision(by_features, database.labels, asked.labels), 3),
        "precision_by_pixels": round(precision(by_pixels, database.labels, asked.labels), 3),
        "in_common": round(100 * float(np.mean(shared)), 3),
        "pixel_distance_ratio": round(float(np.mean(ratios)), 4),
        "tested": _png(np.concatenate(tested, 1)),
        "truth": json.dumps(truth[:SHOWN]),
        "labels": json.dumps([[names[int(place)] for place in places] for places in likely.indices]),
        "probabilities": [[round(float(part), 5) for part in parts] for parts in likely.values],
        "neighbours": _png(np.concatenate([np.concatenate(row, 1) for row in rows], 0)),
        "neighbour_names": json.dumps([
            [truth[row], *(database.class_names[database.labels[int(place)]] for place in places)]
            for row, places in zip(first, panels, strict=True)]),
    }  # fmt: skip


def _thumbnail(subject: Subject, samples: Samples, index: int) -> NDArray[np.uint8]:
    """The picture as the network sees it before it is normalised, (side, side, 3), at most 56 pixels a side."""
    placed = subject.models[0].preprocess.place(samples.read(index))
    picture = Image.fromarray(placed[..., 0] if placed.shape[2] == 1 else placed).convert("RGB")
    side = min(THUMBNAIL, picture.width)
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS) if side < picture.width else picture)


def _png(sheet: NDArray[np.uint8]) -> str:
    """A sheet of pictures as PNG in base64."""
    kept = io.BytesIO()
    Image.fromarray(sheet).save(kept, "png", optimize=True)
    return base64.b64encode(kept.getvalue()).decode("ascii")


ROWS = {"alexnet": Row((protocols.imagenet("alexnet"),), measure, open_points=protocols.OPEN_IMAGENET)}
PAPER: dict[str, dict[str, Value]] = {}
CLAIMS = {
    "not-close-in-pixels": Claim(
        "The training pictures retrieved by features are generally not close to the query in pixels (section 6.1).",
        below("alexnet", IN_COMMON, "in_common"),
    ),
    "alike-by-features": Claim(
        "What the network's last hidden layer considers similar is of the same class more often than what is near in "
        "pixels (section 6.1, figure 4).",
        within_row("alexnet", "precision_by_pixels", "precision_by_features"),
    ),
}
small = retrieval_small


def draw(results: Results, figure: Figure) -> None:
    """Left the eight pictures with their labels, the right one's bar red; right the queries, each with its neighbours.

    The first seed is shown. Right of the six of the paper stand the six nearest in pixels.
    """
    halves = figure.add_gridspec(1, 2, width_ratios=(1, 1.7))
    seeds = results.rows.get("alexnet", ())
    if not seeds:
        figure.text(0.5, 0.5, "not measured", ha="center")
        return
    numbers = seeds[0].numbers
    tested, names = _sheet(str(numbers["tested"])), json.loads(str(numbers["labels"]))
    truth, probabilities = json.loads(str(numbers["truth"])), numbers["probabilities"]
    assert isinstance(probabilities, list)
    side = tested.shape[0]
    grid = halves[0].subgridspec(4, 4, height_ratios=(1.4, 1, 1.4, 1), hspace=0.0, wspace=0.0)
    for place in range(SHOWN):
        line, column = 2 * (place // 4), place % 4
        axes = figure.add_subplot(grid[line, column])
        _show(axes, tested[:, place * side : (place + 1) * side])
        axes.set_xlabel(truth[place], fontsize=6)
        bars, parts = figure.add_subplot(grid[line + 1, column]), probabilities[place]
        assert isinstance(parts, list)
        colours = [RIGHT if name == truth[place] else "#8fb8de" for name in names[place]]
        bars.barh(range(len(parts)), parts, color=colours, height=0.8)
        for height, name in enumerate(names[place]):
            bars.text(0.02, height, name, fontsize=5.5, va="center")
        bars.set_xlim(0, 1)
        bars.invert_yaxis()
        bars.set_axis_off()
    _draw_neighbours(figure.add_subplot(halves[1]), _sheet(str(numbers["neighbours"])),
                     json.loads(str(numbers["neighbour_names"])))


def _draw_neighbours(axes: Axes, sheet: NDArray[np.uint8], names: list[list[str]]) -> None:
    side = sheet.shape[0] // len(names)
    gap = side // 4
    parts = [sheet[:, :side], sheet[:, side : side * (1 + NEAR)], sheet[:, side * (1 + NEAR) :]]
    white = np.full((sheet.shape[0], gap, 3), 255, np.uint8)
    _show(axes, np.concatenate([parts[0], white, parts[1], white, parts[2]], 1))
    starts = (0, side + gap, side * (1 + NEAR) + 2 * gap)
    labels = ("query", "nearest in the last hidden layer", "nearest in pixels (red below: another class)")
    for start, label in zip(starts, labels, strict=True):
        axes.text(start, -0.08 * side, label, fontsize=7, va="bottom")
    for row, line in enumerate(names):
        for place, name in enumerate(line[1:]):
            if name != line[0]:  # another class than the query's
                start = starts[1 if place < NEAR else 2] + (place % NEAR) * side
                axes.plot([start + 1, start + side - 2], [(row + 1) * side - 2] * 2, color="#c8102e", linewidth=2)


def _show(axes: Axes, picture: NDArray[np.uint8]) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _sheet(text: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
