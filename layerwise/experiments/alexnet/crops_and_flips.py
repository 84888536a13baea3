"""Section 4.1: AlexNet with and without random crops and their mirrors.

    layerwise reproduce alexnet/crops-and-flips                  # small: 5,000 pictures, 1,200 steps, three seeds
    layerwise reproduce alexnet/crops-and-flips --scale paper    # ILSVRC-2010, 90 epochs

Costs 0.49 EFLOP a row at paper scale; at small scale seven minutes of one core a row and seed, half of it for the
55,000 held-out pictures.

Left open in the paper: what is trained on without the scheme; here the centre crop of each picture. Both are tested
with ten crops. Overfitting is the gap of the test error above the training error at the end, and the training error is
that of the steps' own, augmented pictures: augmentation itself narrows the gap, and so the test error is judged too.
Deviations at small scale: crops of 28x28 from pictures with a border of 2, on 5,000 training pictures of Fashion-MNIST
at a constant rate, so that the four-layer network can overfit in 31 epochs.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Results, Row, Value, Verdict, every, less
from layerwise.recipe import Recipe

TITLE = "AlexNet, section 4.1: crops and flips"
WITHOUT = replace(protocols.imagenet("alexnet"), crop="none", flip=False)
ROWS = {"with": protocols.imagenet_row("alexnet"), "without": Row((WITHOUT,), open_points=protocols.OPEN_IMAGENET)}
PAPER: dict[str, dict[str, Value]] = {"with": {"error": 37.5, "top5_error": 17.0}}
COLUMNS = ("error", "top5_error", "training_error")
PRINTED_FACTOR = 2048


def factor(results: Results) -> Verdict:
    """How many pictures a 256x256 one gives: places of the crop, times two for the mirrors."""
    places = (256 - 224) ** 2 * 2
    exact = (256 - 224 + 1) ** 2 * 2
    assert places == PRINTED_FACTOR
    return Verdict("holds only if", f"32 x 32 x 2 = {places} if the last place in each direction is left out; all 33 x "
                                    f"33 places with mirrors are {exact}, and 30 x 30 x 2 = 1800 for crops of 227")


CLAIMS = {
    "overfits-without": Claim("Without them the network overfits substantially: its test error lies further above its "
                              "training error, and above that with them (section 4.1).",
                              every(protocols.overfits_more("without", "with"), less("with", "without"))),
    "factor": Claim(f"They enlarge the training set by a factor of {PRINTED_FACTOR}.", factor),
}  # fmt: skip


def small(recipe: Recipe) -> Recipe:
    """Few pictures, moved by up to two pixels and mirrored, or not."""
    few = protocols.few(recipe, "four_layer_lrn_28")
    return replace(few, crop="pad", flip=True) if recipe.flip else few
