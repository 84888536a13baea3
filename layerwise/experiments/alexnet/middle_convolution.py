"""Section 7: AlexNet with one of its middle convolutions removed.

    layerwise reproduce alexnet/middle-convolution                  # small: Fashion-MNIST, 1,200 steps, three seeds
    layerwise reproduce alexnet/middle-convolution --scale paper    # ILSVRC-2010, 90 epochs

Costs 0.49, 0.37 and 0.42 EFLOP at paper scale; at small scale three minutes of one core a row and seed.

Left open in the paper: which layers are middle ones, and how their neighbours are joined. Here conv3 and conv4, those
with no pooling beside them; models/alexnet.py says how. The sentence on any convolution (section 1) is judged by these
two alone, and so holds at most as far as they go.
Deviations at small scale: the four-layer network without conv2, the one middle layer of its three convolutions, in
both rows: the same runs.
"""

from __future__ import annotations

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Value, every, less
from layerwise.experiments.judges import by_points
from layerwise.recipe import Recipe

TITLE = "AlexNet, section 7: a middle convolution removed"
ROWS = {
    "whole": protocols.imagenet_row("alexnet"),
    "without_conv3": protocols.imagenet_row("alexnet_without_conv3"),
    "without_conv4": protocols.imagenet_row("alexnet_without_conv4"),
}
PAPER: dict[str, dict[str, Value]] = {"whole": {"error": 37.5, "top5_error": 17.0}}
COLUMNS = ("error", "top5_error", "training_error", "parameters")
REMOVED = ("without_conv3", "without_conv4")
CAUSE = (
    "the 1,200 steps of the small scale: with fewer layers the training error is lower too, so that nothing is said of "
    "what the network could learn. With 4,800 steps (one seed) the loss on training pictures was 0.229 whole and 0.245 "
    "without, and the held-out errors were 8.3 % and 8.6 %, the paper's order but within the noise of 5,000 pictures"
)
CLAIMS = {
    "inferior": Claim("Removing a convolution makes the network worse (sections 1 and 7).",
                      every(*(less("whole", row) for row in REMOVED)), CAUSE),
    "two-points": Claim("Removing any of the middle layers costs about 2 points of top-1 (section 7; here 1.5 to 2.5).",
                        every(*(by_points("whole", row, 2.0, seen=0.5) for row in REMOVED))),
}  # fmt: skip


def small(recipe: Recipe) -> Recipe:
    """The four-layer network, whole or without conv2."""
    return protocols.small(recipe, "four_layer_without_conv2_28" if "without" in recipe.network else "four_layer_28")
