"""Section 3.4: pooling windows of 3x3 at stride 2, which overlap, against 2x2 at stride 2, which do not.

    layerwise reproduce alexnet/overlapping-pooling                  # small: Fashion-MNIST, 1,200 steps, three seeds
    layerwise reproduce alexnet/overlapping-pooling --scale paper    # ILSVRC-2010, 90 epochs

Costs 0.49 EFLOP a row at paper scale; at small scale three minutes of one core a row and seed.

Left open in the paper: at 224 pixels neither scheme has a map of a whole number of places; both are given 227 here,
where the maps of 55, 27 and 13 become 27, 13 and 6 with both, as section 3.4 says (equivalent dimensions).
Deviations at small scale: the four-layer network, whose second and third pooling layers average in both rows; the
remark on overfitting is judged on 5,000 training pictures, two rows of their own that the paper does not have.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Row, Value, less
from layerwise.experiments.judges import by_points
from layerwise.recipe import Recipe

TITLE = "AlexNet, section 3.4: overlapping pooling"

def _few(network: str) -> Row:
    """CIFAR-10's first 5,000 pictures: the paper's remark names no data."""
    recipe = replace(protocols.cifar(network), name="four-layer-cifar-few", validation=45_000)
    return Row((recipe,), differs=protocols.OPEN_CIFAR)


ROWS = {
    "overlapping": protocols.imagenet_row("alexnet"),
    "adjacent": protocols.imagenet_row("alexnet_adjacent"),
    "overlapping_few": _few("four_layer"),
    "adjacent_few": _few("four_layer_adjacent"),
}
PAPER: dict[str, dict[str, Value]] = {"overlapping": {"error": 37.5, "top5_error": 17.0}}
COLUMNS = ("error", "top5_error", "training_error")
CLAIMS = {
    "lowers-error": Claim("Overlapping windows lower the test error (section 3.4).", less("overlapping", "adjacent"),
                          "most likely scale. After 1,200 steps neither network overfits (the test error is 0.7 and "
                          "0.9 points above the training error), and windows that are harder to overfit fit more "
                          "slowly (training error 12.4 against 11.4 %). Where both overfit, in the rows of few "
                          "pictures, overlapping windows have the lower test error, 15.4 against 15.9 %, but within "
                          "the noise. No defect was found; the data are not ruled out"),
    "top-1-points": Claim("By 0.4 points of top-1 error.", by_points("overlapping", "adjacent", 0.4, protocols.SEEN)),
    "top-5-points": Claim("By 0.3 points of top-5 error.",
                          by_points("overlapping", "adjacent", 0.3, protocols.SEEN, "top5_error")),
    "harder-to-overfit": Claim("Networks with them are slightly harder to overfit: the test error lies less far above "
                               "the training error.", protocols.overfits_more("adjacent_few", "overlapping_few")),
}  # fmt: skip


def small(recipe: Recipe) -> Recipe:
    """The four-layer network with either window; few pictures stay few."""
    network = "four_layer_adjacent_28" if "adjacent" in recipe.network else "four_layer_28"
    return protocols.few(recipe, network) if recipe.network.startswith("four") else protocols.small(recipe, network)
