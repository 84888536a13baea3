"""Table 7: object detection on PASCAL VOC, Faster R-CNN on VGG-16 and on ResNet-101, mAP in percent.

    layerwise reproduce resnet/table-7      # prints the paper's numbers: not measured, detector to come

The hyper-parameters are in the paper's appendix, which is not at hand.
"""

from __future__ import annotations

from layerwise.experiments.experiment import Claim, Row, every
from layerwise.experiments.judges import higher

TITLE = "ResNet, Table 7: object detection on PASCAL VOC"
TO_COME = "detector to come"
ROWS = {"vgg16": Row(unmeasured=TO_COME), "resnet101": Row(unmeasured=TO_COME)}
PAPER: dict[str, dict[str, float | str]] = {
    "vgg16": {"map_voc07": 73.2, "map_voc12": 70.4},
    "resnet101": {"map_voc07": 76.4, "map_voc12": 73.8},
}
COLUMNS = ("map_voc07", "map_voc12")
CLAIMS = {
    "resnet-beats-vgg": Claim(
        "ResNet-101 detects better than VGG-16 on both test sets with the same detector (section 4.3).",
        every(*(higher("resnet101", "vgg16", name) for name in COLUMNS)),
    ),
}
