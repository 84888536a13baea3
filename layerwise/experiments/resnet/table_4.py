"""Table 4: single models on ImageNet validation, tested fully convolutionally at five scales.

    layerwise reproduce resnet/table-4 --scale paper     # the networks of table 3, tested otherwise

Costs nothing to train beyond table 3; the test of 50,000 pictures at five scales and mirrored costs 36 times a single
crop's. Left open in the paper: whether mirrored pictures take part, and how scores are averaged over positions and
scales: see the protocol multi-scale. Deviation below paper scale: ten crops, since pictures of 28x28 have no scales.
"""

from __future__ import annotations

from layerwise.experiments.experiment import Claim, Row, every
from layerwise.experiments.judges import at_paper_scale, below, each, ordered
from layerwise.experiments.resnet.multi_scale import OPEN_SCALES, TEN_CROPS, at_all_scales
from layerwise.experiments.resnet.protocols import OPEN_IMAGENET, OPEN_PLATEAU, imagenet
from layerwise.experiments.resnet.table_5 import PAPER as ENSEMBLES

TITLE = "ResNet, Table 4: single models on ImageNet"
NETWORKS = ("resnet34", "resnet34_c", "resnet50", "resnet101", "resnet152")
CITED = "cited from its own paper, which trained and tested it by another protocol"
ROWS = {
    **{row: Row(unmeasured=CITED) for row in ("vgg_2014", "googlenet_2014", "vgg_v5", "prelu_net", "bn_inception")},
    **{row: Row((imagenet(row),), at_all_scales, differs=OPEN_IMAGENET, open_points=OPEN_PLATEAU + OPEN_SCALES)
       for row in NETWORKS},
}
PAPER: dict[str, dict[str, float | str]] = {
    "vgg_2014": {"top5_error": "8.43 (test set)"},
    "googlenet_2014": {"top5_error": 7.89},
    "vgg_v5": {"error": 24.4, "top5_error": 7.1},
    "prelu_net": {"error": 21.59, "top5_error": 5.71},
    "bn_inception": {"error": 21.99, "top5_error": 5.81},
    "resnet34": {"error": 21.84, "top5_error": 5.71},
    "resnet34_c": {"error": 21.53, "top5_error": 5.60},
    "resnet50": {"error": 20.74, "top5_error": 5.25},
    "resnet101": {"error": 19.87, "top5_error": 4.60},
    "resnet152": {"error": 19.38, "top5_error": 4.49},
}
COLUMNS = ("error", "top5_error")
DIFFERS = {"small": (TEN_CROPS,)}
PRINTED = "the cited errors are of ImageNet, trained in full"
BEST_ENSEMBLE = min(float(str(printed["top5_error"])) for row, printed in ENSEMBLES.items() if row != "resnet_2015")
CLAIMS = {
    "152-beats-ensembles": Claim(
        "ResNet-152 alone outperforms all earlier ensembles in top-5 (section 4.1, tables 4 and 5).",
        at_paper_scale(below("resnet152", BEST_ENSEMBLE, "top5_error"), PRINTED),
    ),
    "34-competitive": Claim(
        "The 34 layers are very competitive: below BN-inception's 21.99 % and 5.81 %, as we read it (section 4.1).",
        at_paper_scale(every(*(below(row, bound, name) for row in ("resnet34", "resnet34_c")
                               for name, bound in (("error", 21.99), ("top5_error", 5.81)))), PRINTED),
    ),
    "deeper-better": Claim(
        "Gains of depth show in both measures: 34, 50, 101, 152 layers in this order (section 4.1).",
        each(*(ordered("resnet152", "resnet101", "resnet50", "resnet34", name=name) for name in COLUMNS)),
    ),
}  # fmt: skip
