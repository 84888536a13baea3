"""Table 5: ensembles on ImageNet, top-5 error: six ResNets of different depth.

    layerwise reproduce resnet/table-5 --scale paper     # table 3's networks and a second one of 152 layers

Costs at paper scale 10.4 EFLOP beyond table 3, for the second network of 152 layers.

Left open in the paper: which six models, but that they differ in depth and two have 152 layers. Closed here: 34 layers
with options B and C, 50, 101, and two of 152, with equal weights. Deviations: the validation set instead of the
server's test set; below paper scale ten crops.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.experiment import Claim, Row
from layerwise.experiments.judges import at_paper_scale, below
from layerwise.experiments.resnet.multi_scale import OPEN_SCALES, TEN_CROPS, at_all_scales
from layerwise.experiments.resnet.protocols import OPEN_IMAGENET, OPEN_PLATEAU, imagenet

TITLE = "ResNet, Table 5: ensembles on ImageNet"
SECOND = 1000  # the seed of the second network of 152 layers stays apart from those of repeated runs
MEMBERS = (
    *(imagenet(network) for network in ("resnet34", "resnet34_c", "resnet50", "resnet101", "resnet152")),
    replace(imagenet("resnet152"), seed=SECOND),
)
CITED = "cited from its own paper; an ensemble of networks trained by another protocol"
ROWS = {
    **{row: Row(unmeasured=CITED) for row in ("vgg_2014", "googlenet_2014", "vgg_v5", "prelu_net", "bn_inception")},
    "resnet_2015": Row(MEMBERS, at_all_scales, differs=(
        "which six networks: 34 layers with options B and C, 50, 101 and two of 152; the paper does not say",
        *OPEN_IMAGENET,
    ), open_points=("tested on the validation set: the test server's labels are not public", *OPEN_PLATEAU,
                       *OPEN_SCALES)),
}  # fmt: skip
PAPER: dict[str, dict[str, float | str]] = {
    "vgg_2014": {"top5_error": 7.32},
    "googlenet_2014": {"top5_error": 6.66},
    "vgg_v5": {"top5_error": 6.8},
    "prelu_net": {"top5_error": 4.94},
    "bn_inception": {"top5_error": 4.82},
    "resnet_2015": {"top5_error": 3.57},
}
COLUMNS = ("top5_error",)
DIFFERS = {"small": (TEN_CROPS,)}
CLAIMS = {
    "beats-all": Claim(
        "The ensemble has the lowest top-5 error of all (section 4.1, table 5).",
        at_paper_scale(below("resnet_2015", 4.82, "top5_error"), "the cited errors are of ImageNet, trained in full"),
    ),
    "below-a-member": Claim(
        "It is below the 4.49 % of ResNet-152 alone (tables 4 and 5).",
        at_paper_scale(below("resnet_2015", 4.49, "top5_error"), "the printed error is of ImageNet, trained in full"),
    ),
}
