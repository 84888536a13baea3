"""Section 4.1: AlexNet with and without the colour augmentation along the principal colours.

    layerwise reproduce alexnet/colour                  # small: Fashion-MNIST, 1,200 steps, three seeds
    layerwise reproduce alexnet/colour --scale paper    # ILSVRC-2010, 90 epochs

Costs 0.49 EFLOP a row at paper scale; at small scale four minutes of one core a row and seed.

Left open in the paper: the scale of the eigenvalues; taken on 0..1 (data/colour.py).
Deviations at small scale: grey pictures as three equal channels, so that the one principal colour is brightness, and
the claim is one of brightness there; the four-layer network with normalisation.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Row, Value, less
from layerwise.experiments.judges import at_least_points
from layerwise.recipe import Recipe

TITLE = "AlexNet, section 4.1: colour augmentation"
WITHOUT = replace(protocols.imagenet("alexnet"), colour="none")
ROWS = {"with": protocols.imagenet_row("alexnet"), "without": Row((WITHOUT,), open_points=protocols.OPEN_IMAGENET)}
PAPER: dict[str, dict[str, Value]] = {"with": {"error": 37.5, "top5_error": 17.0}}
COLUMNS = ("error", "top5_error", "training_error")
CLAIMS = {
    "lowers-error": Claim("It lowers the top-1 error (section 4.1).", less("with", "without")),
    "one-point": Claim("By over 1 point of top-1 error.", at_least_points("with", "without", 1.0, protocols.SEEN)),
}


def small(recipe: Recipe) -> Recipe:
    """Three equal channels, shifted in brightness or not."""
    return replace(protocols.small(recipe, "four_layer_lrn_28"), channels=3, colour=recipe.colour)
