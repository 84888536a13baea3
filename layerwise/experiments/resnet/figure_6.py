"""Figure 6: training on CIFAR-10: plain networks, ResNets, and ResNets of 110 and 1202 layers.

    layerwise reproduce resnet/figure-6 --rows plain20,plain56,resnet20,resnet56
    layerwise reproduce resnet/figure-6 --scale paper    # 64,000 steps of 128 pictures each

Costs in PFLOP at paper scale, plain and residual alike: 2.0 (20 layers), 3.4, 4.8, 6.2 (56), 12.4 (110; five seeds of
ResNet-110), 139 (1202). Table 6 has the same runs. Its test errors stand as triangles at the end of the curves, our
own tests as diamonds.

Left open in the paper: see `protocols.py`. Deviations: as figure 1; bold lines are the error on held-out pictures.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from layerwise.experiments import judges
from layerwise.experiments.experiment import Claim, Results, every, less
from layerwise.experiments.judges import HELD_OUT, TRAINING, above_at_every_point
from layerwise.experiments.resnet.panels import DASHED, FULL, Frame, draw_panel, labelled, legend, mark
from layerwise.experiments.resnet.protocols import TOO_SHORT, cifar_row
from layerwise.experiments.resnet.table_6 import RESNETS as PRINTED

TITLE = "ResNet, Figure 6: training on CIFAR-10"
PLAIN = ("plain20", "plain32", "plain44", "plain56")
RESNETS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
ROWS = {network: cifar_row(network) for network in (*PLAIN, "plain110", *RESNETS, "resnet1202")}
PAPER: dict[str, dict[str, float | str]] = {
    "plain110": {"error": "> 60"},
    **{row: {"error": PRINTED[row]["error"]} for row in RESNETS},
    "resnet1202": {"error": PRINTED["resnet1202"]["error"], "training_error": "< 0.1"},
}
COLUMNS = ("error", "training_error")

FULL_ONLY = "the printed number is of CIFAR-10, trained in full"
CLAIMS = {
    "plain-deeper-worse": Claim(
        "Plain networks have the higher training error the deeper they are (section 4.2, figure 6 left).",
        judges.ordered(*PLAIN, name=TRAINING),
    ),
    "plain-throughout": Claim(
        "The deepest plain network shown lies above the shallowest at every reading after the first drop, in training "
        "and in testing (figure 6 left).",
        every(*(above_at_every_point("plain56", "plain20", name) for name in (TRAINING, HELD_OUT))),
    ),
    "plain110": Claim(
        "The error of the plain network of 110 layers is above 60 % (figure 6, caption).",
        judges.at_paper_scale(judges.above("plain110", 60), FULL_ONLY),
    ),
    "resnet-deeper-better": Claim(
        "ResNets gain accuracy as they get deeper, up to 110 layers (section 4.2, figure 6 middle).",
        judges.ordered(*reversed(RESNETS)),
        TOO_SHORT,
    ),
    "resnet-deeper-trains-better": Claim(
        "ResNets overcome the difficulty of optimisation: deeper ones have the lower training error (section 4.2).",
        judges.ordered(*reversed(RESNETS), name=TRAINING),
        TOO_SHORT,
    ),
    "resnet-beats-plain": Claim(
        "At the same depth the ResNet has the lower training and test error (section 4.2, figure 6 left and middle).",
        judges.each(*(less(f"resnet{depth}", f"plain{depth}", name)
               for depth in (20, 32, 44, 56, 110) for name in ("training_error", "error"))),
    ),
    "1202-trains": Claim(
        "1202 layers show no difficulty of optimisation: training error below 0.1 % (section 4.2, figure 6 right).",
        judges.at_paper_scale(judges.below("resnet1202", 0.1, TRAINING), FULL_ONLY),
    ),
    "1202-overfits": Claim(
        "1202 layers test worse than 110 although both have similar training error: overfitting (section 4.2).",
        every(less("resnet110", "resnet1202"), judges.similar("resnet110", "resnet1202", 0.5, "training_error")),
    ),
}
WIDE = Frame(0, 20, (0, 5, 10, 20), 0, 65_000, 64_000)
ERRORS = {row: float(str(PRINTED[row]["error"])) for row in PRINTED}
LATE = Frame(0, 20, (0, 1, 5, 10, 20), 40_000, 65_000, 64_000)


def draw(results: Results, figure: Figure) -> None:
    """Three panels: dashed lines are the training error, bold ones the held-out, the paper's test error; 0 to 20 %.

    Left plain networks, middle ResNets, right 110 and 1202 layers from 4e4 iterations on. Triangles are table 6's
    errors, diamonds our own tests.
    """
    left, middle, right = figure.subplots(1, 3)
    deepest = {"resnet110": "residual-110", "resnet1202": "residual-1202"}
    panels = ((left, {row: labelled(row) for row in (*PLAIN, "plain110")}, WIDE),
              (middle, {row: labelled(row) for row in RESNETS}, WIDE), (right, deepest, LATE))  # fmt: skip
    for axes, labels, frame in panels:
        draw_panel(axes, results, labels, (DASHED, FULL), frame)
        axes.set_ylabel("error (%)")
        mark(axes, results, labels, ERRORS, frame)
        legend(axes, 6.5)
