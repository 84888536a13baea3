"""Section 5: biases of 1 in conv2, conv4, conv5 and the hidden fully connected layers, against biases of 0.

    layerwise reproduce alexnet/bias-one                  # small: Fashion-MNIST, 1,200 steps, three seeds
    layerwise reproduce alexnet/bias-one --scale paper    # ILSVRC-2010, 90 epochs

Costs 0.49 EFLOP a row at paper scale; at small scale three minutes of one core a row and seed.

Left open in the paper: how early the early stages are; here the first EARLY of all steps (at small scale a third, for
which the rate is constant), in which the mean training error is compared.
Deviations at small scale: the four-layer network with biases 1 in conv2 and conv3.
"""

from __future__ import annotations

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Value
from layerwise.recipe import Recipe

TITLE = "AlexNet, section 5: biases of 1"
ROWS = {"one": protocols.imagenet_row("alexnet"), "zero": protocols.imagenet_row("alexnet_biases_zero")}
PAPER: dict[str, dict[str, Value]] = {"one": {"error": 37.5, "top5_error": 17.0}}
COLUMNS = ("error", "top5_error", "training_error")
EARLY = {"paper": 1 / 90, "small": 1 / 3, "smoke": 1.0}  # part of the steps: an epoch at paper scale
DIFFERS = {"small": ("the early stages are the first third of the steps; at the paper's scale the first epoch of 90",)}
CLAIMS = {
    "faster-early": Claim("Biases of 1 make the early stages of learning faster: the training error is lower over the "
                          "first steps (section 5).", protocols.lower_early("one", "zero", EARLY)),
}  # fmt: skip


def small(recipe: Recipe) -> Recipe:
    """The four-layer network with either start."""
    return protocols.small(recipe, "four_layer_28" if recipe.network.endswith("zero") else "four_layer_bias_one_28")
