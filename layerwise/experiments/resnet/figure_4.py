"""Figure 4: training on ImageNet of plain networks and ResNets of 18 and 34 layers.

    layerwise reproduce resnet/figure-4 --scale paper    # the runs of table 2

Costs at paper scale: 1.65 EFLOP (18 layers) and 3.36 EFLOP (34 layers) each, shared with table 2.

Thin curves are the training error, bold ones the validation error of the centre crops. Triangles are table 2's errors,
which are of ten crops, diamonds ours. Left open in the paper: see `protocols`; its training error has no
definition: here it is that of the steps' own batches, augmented, averaged between two readings. Deviation at a smaller
scale: the axes are 0 to 40 % over the whole training, with the drops of figure 6.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from layerwise.experiments.experiment import Claim, Results, every, less
from layerwise.experiments.judges import HELD_OUT, TRAINING, above_at_every_point, beginning, faster
from layerwise.experiments.resnet.panels import BOLD, THIN, Frame, draw_panel, labelled, legend, mark
from layerwise.experiments.resnet.table_2 import PAPER as PRINTED
from layerwise.experiments.resnet.table_2 import ROWS as TABLE_2

TITLE = "ResNet, Figure 4: training on ImageNet"
ROWS = TABLE_2
PAPER = PRINTED
COLUMNS = ("error", "training_error")
CLAIMS = {
    "plain-throughout": Claim(
        "Plain-34 has the higher training error than plain-18 throughout the whole training (section 4.1, figure 4).",
        above_at_every_point("plain34", "plain18", TRAINING, beginning),
    ),
    "resnet-trains-better": Claim(
        "ResNet-34 has considerably lower training error than ResNet-18, and it generalises (section 4.1, figure 4).",
        every(less("resnet34_a", "resnet18_a", TRAINING), less("resnet34_a", "resnet18_a")),
    ),
    "resnet-trains-better-throughout": Claim(
        "So it is at every reading after the first drop, in training and in validation (figure 4 right).",
        every(*(above_at_every_point("resnet18_a", "resnet34_a", name) for name in (TRAINING, HELD_OUT))),
    ),
    "34-trains-better-than-plain": Claim(
        "ResNet-34's lower error results from its lower training error than plain-34's (section 4.1).",
        every(less("resnet34_a", "plain34", TRAINING), less("resnet34_a", "plain34")),
    ),
    "18-converges-faster": Claim(
        "ResNet-18 converges faster than plain-18 at the early stage (section 4.1, figure 4).",
        every(faster("resnet18_a", "plain18", TRAINING), faster("resnet18_a", "plain18", HELD_OUT)),
    ),
}
FRAME = Frame(20, 60, (20, 30, 40, 50, 60), 0, 500_000, 600_000, every=10)
SMALL_FRAME = Frame(0, 40, (0, 10, 20, 30, 40), 0, 65_000, 64_000)  # the schedule of a small run is figure 6's
ERRORS = {row: float(str(printed["error"])) for row, printed in PRINTED.items()}


def draw(results: Results, figure: Figure) -> None:
    """Two panels, plain networks left and ResNets right: thin training, bold validation; 20 to 60 % over 0 to 50e4."""
    frame = FRAME if results.schedule == "paper" else SMALL_FRAME
    for axes, rows in zip(figure.subplots(1, 2), (("plain18", "plain34"), ("resnet18_a", "resnet34_a")), strict=True):
        draw_panel(axes, results, {row: labelled(row) for row in rows}, (THIN, BOLD), frame)
        axes.set_ylabel("error (%)")
        mark(axes, results, rows, ERRORS, frame)
        legend(axes, 7)
