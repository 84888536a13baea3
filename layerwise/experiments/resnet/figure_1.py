"""Figure 1: training and test error of plain networks of 20 and 56 layers on CIFAR-10.

    layerwise reproduce resnet/figure-1                  # small: Fashion-MNIST, 640 steps, three seeds
    layerwise reproduce resnet/figure-1 --scale paper    # 64,000 steps of 128 pictures each

Costs 8.2 PFLOP at paper scale (2.0 and 6.2), which figure 6 shares. No numbers are printed in the paper.

Left open in the paper: see `protocols.OPEN_CIFAR`. Deviations: the right panel is the error on 5,000 held-out pictures
of the training set, because the test set is read once, at the end; diamonds at the end are that test. The paper's
training error has no definition: here it is that of the steps' own batches, augmented, averaged between two readings.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from layerwise.experiments.experiment import Claim, Results, every, less
from layerwise.experiments.judges import HELD_OUT, TRAINING, above_at_every_point
from layerwise.experiments.resnet.panels import Frame, Line, depth, draw_panel, legend, mark
from layerwise.experiments.resnet.protocols import cifar_row

TITLE = "ResNet, Figure 1: plain networks of 20 and 56 layers on CIFAR-10"
ROWS = {network: cifar_row(network) for network in ("plain20", "plain56")}
PAPER: dict[str, dict[str, float | str]] = {}
COLUMNS = ("error", "training_error")
CLAIMS = {
    "training-error": Claim(
        "The deeper plain network has the higher training error at every reading after the first drop of the rate "
        "(section 1, figure 1 left).",
        above_at_every_point("plain56", "plain20", TRAINING),
    ),
    "test-error": Claim(
        "And thus the higher test error (section 1, figure 1 right).",
        every(above_at_every_point("plain56", "plain20", HELD_OUT), less("plain20", "plain56")),
    ),
    "not-overfitting": Claim(
        "The degradation is not overfitting: the deeper network ends with the higher training error too (section 1).",
        every(less("plain20", "plain56", "training_error"), less("plain20", "plain56")),
    ),
}
FRAME = Frame(0, 20, (0, 10, 20), 0, 65_000, 64_000)
LABELS = {row: f"{depth(row)}-layer" for row in ROWS}


def draw(results: Results, figure: Figure) -> None:
    """Two panels: training error left; right the error on held-out pictures, where the paper has that of the test."""
    left, right = figure.subplots(1, 2)
    for axes, name, title in ((left, TRAINING, "training error (%)"), (right, HELD_OUT, "validation error (%)")):
        draw_panel(axes, results, LABELS, (Line(name, 1.8),), FRAME)
        axes.set_ylabel(title)
        if axes is right:
            mark(axes, results, ROWS, {}, FRAME)
        legend(axes, 8)
