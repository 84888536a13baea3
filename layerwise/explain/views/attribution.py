"""View: which parts of a picture an answer comes from, by several methods side by side, with a sanity check of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain.attribution import grad_cam, gradients, integrated_gradients, saliency
from layerwise.explain.occlusion import blurred, occlusion
from layerwise.explain.pictures import Pixels, capped, diverging, from_input, heat, over, uri
from layerwise.explain.predictions import confident_mistakes
from layerwise.explain.sanity import depends, sanity
from layerwise.explain.stages import stages
from layerwise.explain.subject import Subject, drawn, percent
from layerwise.explain.view import Cell, Strips, Table, Tile, View

PICTURES, MISTAKES, STEPS = 6, 3, 32
CHECK_STEPS, CHECK_ROWS = 8, 4
BUDGET = 150_000_000_000  # multiply-adds of all maps together
PASSES = 600  # forward passes that the maps of one picture cost, about
SIDE = 112  # pixels of a map on the page


def view(subject: Subject) -> View:
    """Maps of up to six pictures for the answer and for the label (or the second answer), and the sanity check."""
    model, preprocess = subject.file.model, subject.file.preprocess
    most = int(max(1, min(PICTURES, BUDGET // (PASSES * subject.multiply_adds))))
    found, places = subject.shown, _chosen(subject, most)
    images, _ = subject.at_once(found.samples.subset(places, "shown"))
    asked = [_classes(subject, place) for place in places]
    layers = stages(model, images[:1])
    last, middle = layers[-1], layers[len(layers) // 2]
    window = max(2, preprocess.size // 6)
    maps = {
        "gradient": saliency(gradients(model, images, asked)),
        "integrated gradients": integrated_gradients(model, images, asked, steps=STEPS).attributions.sum(2),
        f"Grad-CAM, {middle.removeprefix('features.')}": grad_cam(model, images, asked, middle),
        f"Grad-CAM, {last.removeprefix('features.')}": grad_cam(model, images, asked, last),
        "occlusion": occlusion(model, images, asked, window, max(1, window // 2), blurred(images, window / 2)).drops,
    }
    shown: list[tuple[Tile, ...]] = []
    for row, place in enumerate(places):
        picture = from_input(images[row].numpy(), preprocess)
        for column, number in enumerate(asked[row]):
            told = f"{subject.names[number]} {percent(float(found.probabilities[place, number]), 0)}"
            first = Tile(uri(picture, SIDE), told, (found.samples.ids[place],) if column == 0 else ())
            shown.append((first, *(Tile(uri(_drawn(name, values[row, column], picture), SIDE))
                                  for name, values in maps.items())))
    return View(
        "attribution", "Attribution",
        "Which pixels an answer comes from, for the answer and for the label beside it. Where the methods agree, and "
        "on the object, there is reason to believe them.",
        "Why the network answers so. A map is drawn for any answer, also a wrong one; methods that fail the sanity "
        "check show the picture's edges and not what the network learned.",
        "Simonyan, Vedaldi, Zisserman 2014 (gradient); Sundararajan, Taly, Yan 2017 (integrated gradients); Selvaraju "
        "et al. 2017 (Grad-CAM); Zeiler, Fergus 2014 (occlusion), with the blur of Fong, Vedaldi 2017; Adebayo et al. "
        "2018 (the check)", (
            Strips("Left the picture with the class that is explained; red in integrated gradients and occlusion "
                   "speaks for it, blue against it. The strongest half of a percent of the pixels is cut off.",
                   ("explained", *maps), (1,) * (1 + len(maps)), tuple(shown)),
            _check(subject, images[:1], asked[:1], last)),
        (f"{len(places)} pictures", f"occlusion by squares of {window}×{window} pixels of the blurred picture",
         f"integrated gradients in {STEPS} steps"))  # fmt: skip


def _drawn(name: str, values: NDArray[np.float32], picture: Pixels) -> Pixels:
    if name.startswith("Grad-CAM"):
        return over(picture, values)
    return heat(capped(values)) if name == "gradient" else diverging(capped(values))


def _check(subject: Subject, images: Tensor, asked: list[list[int]], layer: str) -> Table:
    """How much each method's maps change when all weights are redrawn."""
    methods: dict[str, Callable[[nn.Module], NDArray[np.float32]]] = {
        "gradient": lambda network: saliency(gradients(network, images, asked)),
        "integrated gradients": lambda network: integrated_gradients(
            network, images, asked, steps=CHECK_STEPS).attributions.sum(2),
        "Grad-CAM": lambda network: grad_cam(network, images, asked, layer),
    }  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for number, (name, method) in enumerate(methods.items()):
        subject.progress(number, len(methods))
        try:
            found = sanity(subject.file.model, images, method, most=CHECK_ROWS)
        except InputError:  # a map that is 0 everywhere can't change
            rows.append((name, None, None, "not known: the map is constant"))
            continue
        rows.append((name, round(found[0].correlation, 3), round(found[-1].correlation, 3),
                     "yes" if depends(found) else "no"))
    return Table("Sanity check: rank correlation of the maps with those after the weights are redrawn from the last "
                 "layer down. Maps that show what was learned must change.",
                 ("method", f"last 1/{CHECK_ROWS} redrawn", "all redrawn", "depends on the weights"), tuple(rows))


def _chosen(subject: Subject, most: int) -> list[int]:
    """Confident mistakes and random pictures; of a person's own pictures the first ones."""
    found = subject.shown
    if subject.asked is not None:
        return list(range(min(most, len(found.samples))))
    wrong = confident_mistakes(found.probabilities, found.samples.labels, min(MISTAKES, most // 2)).tolist()
    others = drawn(found.samples.subset(range(len(found.samples)), "random"), most - len(wrong), 2)
    number = {name: place for place, name in enumerate(found.samples.ids)}
    return list(dict.fromkeys([*(number[name] for name in others.ids), *wrong]))


def _classes(subject: Subject, place: int) -> list[int]:
    """The answer, and the label where it is another; else the second answer."""
    order = np.argsort(-subject.shown.probabilities[place], kind="stable")
    label = int(subject.shown.samples.labels[place]) if subject.own_labels else int(order[0])
    return [int(order[0]), label if label != order[0] else int(order[min(1, len(order) - 1)])]


