"""Section 5: weight decay of 0.0005 against none; it lowers the training error too.

    layerwise reproduce alexnet/weight-decay                  # small: Fashion-MNIST, 1,200 steps, three seeds
    layerwise reproduce alexnet/weight-decay --scale paper    # ILSVRC-2010, 90 epochs

Costs 0.49 EFLOP a row at paper scale; at small scale four minutes of one core a row and seed.

Left open in the paper: by how much, and in which training it was seen. The training error is the mean of that of the
last tenth of the steps, on augmented pictures and under dropout.
Deviations at small scale: the four-layer network with normalisation.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Row, Value, less
from layerwise.recipe import Recipe

TITLE = "AlexNet, section 5: weight decay and the training error"
WITHOUT = replace(protocols.imagenet("alexnet"), weight_decay=0)
ROWS = {"with": protocols.imagenet_row("alexnet"), "without": Row((WITHOUT,), open_points=protocols.OPEN_IMAGENET)}
PAPER: dict[str, dict[str, Value]] = {"with": {"error": 37.5, "top5_error": 17.0}}
COLUMNS = ("error", "top5_error", "training_error")
CLAIMS = {
    "lowers-training-error": Claim("Weight decay is not merely a regulariser: it lowers the training error "
                                   "(section 5).", less("with", "without", "training_error")),
}  # fmt: skip


def small(recipe: Recipe) -> Recipe:
    """The four-layer network with normalisation; the decay is the row's."""
    return protocols.small(recipe, "four_layer_lrn_28")
