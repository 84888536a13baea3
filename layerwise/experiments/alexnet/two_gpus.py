"""Section 3.2: the network on two processes, what they exchange, and that they compute what one process does.

    layerwise reproduce alexnet/two-gpus      # under a minute on any machine and at any scale: no data, a tiny check

What is exchanged is counted for the paper's network and picture. That the two processes equal one is measured on two
real ones, with a small version of the network (67 pixels, 64 units in fc6 and fc7) in float64, over three steps.
Left open: whether response normalisation crosses the towers; here it does not (`alexnet_two_gpus`), since the GPUs
communicate in certain layers only. The answers of the 1,000 classes are in two halves too, so that the softmax over all
of them needs a last exchange, which the paper does not name. Values are float32, 4 bytes.
"""

from __future__ import annotations

import math

import torch

from layerwise import models
from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict
from layerwise.models import published_input, shapes
from layerwise.training import two_towers

TITLE = "AlexNet, section 3.2: two processes and what they exchange"
NETWORK = "alexnet_two_gpus"
SMALL = {"num_classes": 10, "map_side": 1, "hidden_features": 64}
SMALL_SIDE = 67
READING_BOTH = ("conv3", "fc6", "fc7", "fc8")  # section 3.5
BYTES = 4


def exchanged(subject: Subject) -> Numbers:
    """Values that both processes send for a picture: by place forward, and in all forward and backward; bytes of all.

    `every_layer` is the values forward if conv2, conv4 and conv5 read both towers too.
    """
    with torch.device("meta"):
        network = models.build(NETWORK)
    sent = two_towers.communication(network, published_input(NETWORK)[1])
    forward, backward = sum(one.forward for one in sent.values()), sum(one.backward for one in sent.values())
    cost = shapes.cost(NETWORK)
    outputs = {row.name.rpartition(".")[2]: math.prod(row.output) for row in cost.rows}
    every = forward + outputs["pool1"] + outputs["conv3"] + outputs["conv4"]
    places: dict[str, Value] = {place: one.forward for place, one in sent.items()}
    return {**places, "forward": forward, "backward": backward, "bytes": BYTES * (forward + backward),
            "every_layer": every, "multiply_adds_a_value": cost.multiply_adds / forward}


def equal(subject: Subject) -> Numbers:
    """Largest relative differences between two processes and one."""
    found = two_towers.compared(NETWORK, SMALL, SMALL_SIDE)
    return {"logits": found.logits, "gradients": found.gradients, "weights": found.weights}


def left_out(subject: Subject) -> Numbers:
    """The same differences where nothing is exchanged before conv3."""
    found = two_towers.compared(NETWORK, SMALL, SMALL_SIDE, ("conv3",))
    return {"logits": found.logits, "gradients": found.gradients, "weights": found.weights}


ROWS = {"exchanged": Row(measure=exchanged), "two_processes": Row(measure=equal),
        "without_conv3": Row(measure=left_out)}
PAPER: dict[str, dict[str, Value]] = {}
COLUMNS = (*READING_BOTH, two_towers.SOFTMAX, "forward", "backward", "bytes", "logits", "gradients", "weights")


def only_there(results: Results) -> Verdict:
    """The places with an exchange."""
    found = results.rows.get("exchanged")
    if not found:
        return Verdict("not measured", "not counted")
    sent = found[0].numbers
    places = [place for place in (*READING_BOTH, two_towers.SOFTMAX, "conv2", "conv4", "conv5") if sent.get(place)]
    told = ", ".join(f"{place} {sent[place]:,}" for place in places) + " values a picture"
    if places == list(READING_BOTH):
        return Verdict("holds", told)
    if places == [*READING_BOTH, two_towers.SOFTMAX]:
        return Verdict("holds only if", f"the softmax over all classes counts as a part of fc8: {told}")
    return Verdict("fails", told)


def same_function(results: Results) -> Verdict:
    """Within the rounding of float64, and not without the exchange."""
    names = ("logits", "gradients", "weights")
    far = [results.mean("two_processes", name) for name in names]
    without = results.mean("without_conv3", "weights")
    if None in far or without is None:
        return Verdict("not measured", "not both rows were measured")
    told = ", ".join(f"{name} {value:.0e}" for name, value in zip(names, far, strict=True))
    same = all(value is not None and value <= two_towers.TOLERANCE for value in far) and without > 1e-3
    return Verdict("holds" if same else "fails",
                   f"relative differences {told} in float64; {without:.0e} without the exchange before conv3")


def fewer_values(results: Results) -> Verdict:
    """Against a network in which every layer reads both towers."""
    forward, every = results.mean("exchanged", "forward"), results.mean("exchanged", "every_layer")
    work = results.mean("exchanged", "multiply_adds_a_value")
    if forward is None or every is None or work is None:
        return Verdict("not measured", "not counted")
    return Verdict("holds" if forward < every else "fails",
                   f"{forward:,.0f} values forward against {every:,.0f} if conv2, conv4 and conv5 read both too; "
                   f"{work:,.0f} multiply-adds for each value sent")


CLAIMS = {
    "certain-layers": Claim("The GPUs communicate only before the third convolution and the fully connected layers "
                            "(sections 3.2 and 3.5).", only_there),
    "same-network": Claim("Half of the kernels on each GPU, with that communication, is the grouped network.",
                          same_function),
    "tuned": Claim("The pattern of connections tunes the amount of communication (section 3.2).", fewer_values),
}  # fmt: skip
