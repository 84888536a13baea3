"""Table 1: errors on the test set of ILSVRC-2010.

    layerwise reproduce alexnet/table-1 --scale paper    # ILSVRC-2010, 90 epochs

Costs 0.49 EFLOP at paper scale. At small scale the row is that of the four-layer network with normalisation, shared
with alexnet/lrn: it shows the table's path, and its numbers say nothing of the paper's.

Left open in the paper: see protocols.OPEN_IMAGENET. The two other rows are cited there from other papers.
"""

from __future__ import annotations

from layerwise.experiments.alexnet import protocols
from layerwise.experiments.experiment import Claim, Row, Value, every
from layerwise.experiments.judges import PRINTED, at_paper_scale, below, near
from layerwise.recipe import Recipe

TITLE = "AlexNet, Table 1: ILSVRC-2010"
ROWS = {
    "sparse_coding": Row(unmeasured="cited from the contest of 2010: mean of six sparse-coding models"),
    "sift_fvs": Row(unmeasured="cited from Sanchez and Perronnin 2011: mean of two classifiers on Fisher vectors"),
    "cnn": protocols.imagenet_row("alexnet"),
}
PAPER: dict[str, dict[str, Value]] = {
    "sparse_coding": {"error": 47.1, "top5_error": 28.2},
    "sift_fvs": {"error": 45.7, "top5_error": 25.7},
    "cnn": {"error": 37.5, "top5_error": 17.0},
}
CLAIMS = {
    "best": Claim("The network's errors are considerably lower than the best before it, 45.7 and 25.7 % (section 6).",
                  at_paper_scale(every(below("cnn", 45.7), below("cnn", 25.7, "top5_error")), PRINTED)),
    "printed": Claim("They are 37.5 and 17.0 %.",
                     every(near("cnn", 37.5, protocols.SAME), near("cnn", 17.0, protocols.SAME, "top5_error"))),
}  # fmt: skip


def small(recipe: Recipe) -> Recipe:
    """The four-layer network with normalisation."""
    return protocols.small(recipe, "four_layer_lrn_28")
