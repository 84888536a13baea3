"""Table 3: error on ImageNet, ten crops: shortcuts A, B and C, and bottlenecks of 50, 101 and 152 layers.

    layerwise reproduce resnet/table-3 --scale paper     # up to 600,000 steps of 256 pictures each

Costs at paper scale in EFLOP: 3.36 (plain-34, A), 3.38 (B), 3.53 (C), 3.56 (50 layers), 6.98 (101), 10.4 (152).
Plain-34 and ResNet-34 A are the runs of table 2. ResNet-50, 101 and 152 have option B.

Left open in the paper, and how it is closed: see `protocols`.
"""

from __future__ import annotations

from layerwise.experiments.experiment import Claim, Row, every, less
from layerwise.experiments.judges import at_paper_scale, below, each, ordered, similar
from layerwise.experiments.resnet.protocols import imagenet_row

TITLE = "ResNet, Table 3: error on ImageNet, ten crops"
NETWORKS = ("plain34", "resnet34_a", "resnet34", "resnet34_c", "resnet50", "resnet101", "resnet152")
ROWS = {
    "vgg16": Row(unmeasured="the authors' test of weights that others published; here: import such weights, then "
                            "`layerwise evaluate MODEL --protocol ten-crop`"),
    "googlenet": Row(unmeasured="cited from its own paper, which trained it by another protocol"),
    "prelu_net": Row(unmeasured="cited from its own paper; the network is not in this library"),
    **{network: imagenet_row(network) for network in NETWORKS},
}  # fmt: skip
PAPER: dict[str, dict[str, float | str]] = {
    "vgg16": {"error": 28.07, "top5_error": 9.33},
    "googlenet": {"top5_error": 9.15},
    "prelu_net": {"error": 24.27, "top5_error": 7.38},
    "plain34": {"error": 28.54, "top5_error": 10.02},
    "resnet34_a": {"error": 25.03, "top5_error": 7.76},
    "resnet34": {"error": 24.52, "top5_error": 7.46},
    "resnet34_c": {"error": 24.19, "top5_error": 7.40},
    "resnet50": {"error": 22.85, "top5_error": 6.71},
    "resnet101": {"error": 21.75, "top5_error": 6.05},
    "resnet152": {"error": 21.43, "top5_error": 5.71},
}
COLUMNS = ("error", "top5_error")
PRINTED = "how much is 'considerable' or 'small' is read off numbers of ImageNet, trained in full"
OPTIONS = ("resnet34_a", "resnet34", "resnet34_c")
CLAIMS = {
    "all-beat-plain": Claim(
        "All three options are better than the plain network (section 4.1).",
        each(*(less(option, "plain34", name) for option in OPTIONS for name in COLUMNS)),
    ),
    "all-beat-plain-considerably": Claim(
        "All three are considerably better: by 2 points of top-1 or more, as we read it (section 4.1).",
        at_paper_scale(every(*(less(option, "plain34", by=2) for option in OPTIONS)), PRINTED),
    ),
    "plain-competitive": Claim(
        "Plain-34 still reaches competitive accuracy: within 1 point of VGG-16's 28.07 %, as we read it (section 4.1).",
        at_paper_scale(below("plain34", 29.07), PRINTED),
    ),
    "b-beats-a": Claim("B is slightly better than A (section 4.1).", less("resnet34", "resnet34_a")),
    "c-beats-b": Claim("C is marginally better than B (section 4.1).", less("resnet34_c", "resnet34")),
    "options-alike": Claim(
        "The differences among A, B and C are small: within 1 point of top-1, as we read it (section 4.1).",
        every(similar("resnet34_a", "resnet34", 1), similar("resnet34", "resnet34_c", 1),
              similar("resnet34_a", "resnet34_c", 1)),
    ),
    "bottlenecks-beat-34": Claim(
        "50, 101 and 152 layers are more accurate than 34 by considerable margins: 1 point of top-1 or more, as we "
        "read it (section 4.1).",
        at_paper_scale(every(*(less(deep, "resnet34", by=1) for deep in NETWORKS[4:])), PRINTED),
    ),
    "no-degradation": Claim(
        "No degradation up to 152 layers: each deeper network is better, in top-1 and top-5 (section 4.1).",
        each(*(ordered("resnet152", "resnet101", "resnet50", "resnet34", name=name) for name in COLUMNS)),
    ),
}  # fmt: skip
