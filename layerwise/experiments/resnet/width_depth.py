"""From the history: width against depth, wide residual networks beside thin and deep ones (Zagoruyko, Komodakis 2016).

    layerwise reproduce resnet/width-depth --rows wrn40_1,wrn16_2
    layerwise reproduce resnet/width-depth --scale paper    # 200 epochs each

Costs of a run in PFLOP at paper scale (9 million pictures): 4.5 (wrn40_1), 5.5 (wrn16_2), 70 (wrn40_4), 84 (wrn16_8),
283 (wrn28_10), 14 (110 and 164 layers), 80 (1001 layers); where the paper has five runs, five times that.

Protocol of its section 3: batches of 128, Nesterov momentum 0.9, weight decay 5e-4, rate 0.1 times 0.2 after 60, 120
and 160 of 200 epochs; crops from 4 pixels of padding, mirror images, mean and deviation of the channels. The printed
errors are its table 5's, its own medians of five runs. Deviations: the padding is the mean colour, where the paper
mirrors the picture; 45,000 pictures train and 5,000 are held out; the pre-activation networks have this protocol too,
the printed ones their own.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.experiment import Claim, Row, every, less
from layerwise.experiments.judges import at_paper_scale
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset

TITLE = "History: width against depth (wide residual networks)"


def wide(network: str) -> Recipe:
    """The protocol of the wide residual networks on CIFAR-10 for a network."""
    return replace(preset("resnet-cifar"), network=network, precision="fp32", mean="per-channel", std="per-channel",
                   unit="epochs", duration=200, evaluate_every=2, milestones=(60, 120, 160), decay_factor=0.2,
                   plateau_patience=10, nesterov=True, weight_decay=5e-4)  # fmt: skip


OPEN = (
    "the border of the crops is the mean colour; the paper mirrors the picture",
    "5,000 pictures are held out for the curve; the paper trained on all 50,000",
)
MEDIAN = ("the printed error is the median of five runs",)
OWN = ("its printed error is of the protocol of its own paper",)
THIN = ("preact_resnet110", "preact_resnet164", "preact_resnet1001")
WIDE = ("wrn40_1", "wrn16_2", "wrn40_4", "wrn16_8", "wrn28_10")
PRINTED = ("wrn40_4", "wrn16_8", "wrn28_10")
ROWS = {
    **{network: Row((wide(network),), differs=OPEN + OWN) for network in THIN},
    **{network: Row((wide(network),), seeds=5, differs=OPEN + MEDIAN) if network in PRINTED else
       Row((wide(network),), differs=OPEN) for network in WIDE},
}
PAPER: dict[str, dict[str, float | str]] = {
    "preact_resnet110": {"parameters": "1.7M", "error": 6.37},
    "preact_resnet164": {"parameters": "1.7M", "error": 5.46},
    "preact_resnet1001": {"parameters": "10.2M", "error": 4.92},
    "wrn40_4": {"parameters": "8.9M", "error": 4.53},
    "wrn16_8": {"parameters": "11.0M", "error": 4.27},
    "wrn28_10": {"parameters": "36.5M", "error": 4.00},
}
COLUMNS = ("parameters", "error", "training_error")
CLAIMS = {
    "width-helps": Claim(
        "Widening alone makes a network better: 40 layers four times as wide beat 40 thin ones (the history, on WRN).",
        less("wrn40_4", "wrn40_1"),
    ),
    "wide-beats-deep-small": Claim(
        "With about as many parameters, 16 layers twice as wide beat 40 thin ones (0.69 and 0.56 million); our pair.",
        less("wrn16_2", "wrn40_1"),
    ),
    "wide-beats-1001": Claim(
        "With about as many parameters, 16 and 40 wide layers beat 1001 thin ones (WRN, section 3, table 5).",
        every(less("wrn16_8", "preact_resnet1001"), less("wrn40_4", "preact_resnet1001")),
    ),
    "both": Claim(
        "Width is not better than depth as such, the two must go together: 28 layers ten times as wide beat 16 layers "
        "eight times as wide (the history, on WRN).",
        at_paper_scale(less("wrn28_10", "wrn16_8"), "the gain of depth beside width shows in full training"),
    ),
}
