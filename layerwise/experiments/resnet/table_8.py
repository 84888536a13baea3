"""Table 8: object detection on COCO validation, Faster R-CNN on VGG-16 and on ResNet-101, mAP in percent.

    layerwise reproduce resnet/table-8      # prints the paper's numbers: not measured, detector to come

The hyper-parameters are in the paper's appendix, which is not at hand.
"""

from __future__ import annotations

from layerwise.experiments.experiment import Claim, Results, Row, Verdict, every
from layerwise.experiments.judges import higher
from layerwise.experiments.resnet.table_7 import TO_COME

TITLE = "ResNet, Table 8: object detection on COCO"
ROWS = {"vgg16": Row(unmeasured=TO_COME), "resnet101": Row(unmeasured=TO_COME)}
PAPER: dict[str, dict[str, float | str]] = {
    "vgg16": {"map_50": 41.5, "map": 21.2},
    "resnet101": {"map_50": 48.4, "map": 27.2},
}
COLUMNS = ("map_50", "map")


def relative(results: Results) -> Verdict:
    """Whether the gain in mAP is 6.0 points and 28 % of VGG-16's, both as rounded in the paper."""
    ours, theirs = results.mean("resnet101", "map"), results.mean("vgg16", "map")
    if ours is None or theirs is None:
        return Verdict("not measured", TO_COME)
    points, percent = round(ours - theirs, 1), round(100 * (ours / theirs - 1))
    return Verdict("holds" if points >= 6 and percent >= 28 else "fails", f"{points:+.1f} points, {percent:+d} %")


CLAIMS = {
    "resnet-beats-vgg": Claim(
        "ResNet-101 detects better than VGG-16 by both measures with the same detector (section 4.3).",
        every(*(higher("resnet101", "vgg16", name) for name in COLUMNS)),
    ),
    "28-percent": Claim("The gain is 6.0 points of mAP@[.5, .95], 28 % relative (abstract, section 4.3).", relative),
}
