"""View: how strongly each layer answers, in order and sorted, as in the ResNet paper's figure 7."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from layerwise.explain.order import executed
from layerwise.explain.responses import Response, responses
from layerwise.explain.subject import Subject, drawn
from layerwise.explain.view import Chart, Series, Table, View

PICTURES = 500


def view(subject: Subject) -> View:
    """The standard deviation of each layer's response, a second network's beside it. Raises InputError."""
    asked = subject.asked if subject.asked is not None else subject.split("", PICTURES)
    samples = drawn(asked, min(PICTURES, subject.most))
    kernel = _kernel(subject)
    networks = {"this network": responses(subject.file.model, subject.batches(samples), kernel)}
    if subject.against is not None:
        other = subject.against
        networks["other network"] = responses(other.file.model, other.batches(samples), _kernel(other))
    size = f"{kernel[0]}×{kernel[1]}"
    found = networks["this network"]
    return View(
        "responses", "Layer responses",
        "How much each layer changes what passes through it: the standard deviation of its response after batch "
        "normalisation and before the activation. In a residual network that is the strength of its residual "
        "functions; small ones stay near the identity.",
        "How important a layer is: a weak response may decide an answer. The lesions show that.",
        "He, Zhang, Ren, Sun 2015, section 4.2 and figure 7", (
            _chart("Standard deviation of the responses, layers in the order of the computation.", networks, False),
            _chart("The same, sorted from the largest.", networks, True),
            Table(f"The {size} layers of this network.", ("layer", "mean", "deviation", "deviation within maps"),
                  tuple((one.layer.removeprefix("features."), round(one.mean, 4), round(one.deviation, 4),
                         round(one.within, 4)) for one in found))),
        subject.bound(len(samples), subject.size("") if subject.asked is None else len(asked), "pictures"))


def _chart(caption: str, networks: dict[str, tuple[Response, ...]], in_order: bool) -> Chart:
    series = []
    for name, found in networks.items():
        values = [one.deviation for one in found]
        values = sorted(values, reverse=True) if in_order else values
        series.append(Series(name, tuple(float(place) for place in range(1, len(values) + 1)), tuple(values)))
    return Chart(caption, "rank" if in_order else "layer", "standard deviation", tuple(series))


def _kernel(subject: Subject) -> tuple[int, int]:
    """3x3 where the network has such layers, as in the paper; else the size that most of its convolutions have."""
    side, channels = subject.file.preprocess.size, subject.file.preprocess.channels
    order = executed(subject.file.model, torch.zeros(1, channels, side, side), (nn.Conv2d,))
    sizes: Counter[tuple[int, int]] = Counter()
    for name in order:
        layer = subject.file.model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        sizes[(layer.kernel_size[0], layer.kernel_size[1])] += 1
    return (3, 3) if not sizes or (3, 3) in sizes else sizes.most_common(1)[0][0]
