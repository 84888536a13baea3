"""Table 2: top-1 error on ImageNet of plain networks and ResNets of 18 and 34 layers, ten crops.

    layerwise reproduce resnet/table-2 --scale paper     # up to 600,000 steps of 256 pictures each

Costs at paper scale: 1.65 EFLOP (18 layers) and 3.36 EFLOP (34 layers) each; figure 4 has the same runs. The ResNets
have option A: no more parameters than the plain networks. At small scale Fashion-MNIST enlarged stands in.

Left open in the paper, and how it is closed: see `protocols`.
"""

from __future__ import annotations

from layerwise.experiments.experiment import Claim, less
from layerwise.experiments.judges import at_paper_scale, lower_by, similar
from layerwise.experiments.resnet.protocols import imagenet_row

TITLE = "ResNet, Table 2: plain networks and ResNets of 18 and 34 layers on ImageNet"
ROWS = {network: imagenet_row(network) for network in ("plain18", "plain34", "resnet18_a", "resnet34_a")}
PAPER: dict[str, dict[str, float | str]] = {
    "plain18": {"error": 27.94},
    "plain34": {"error": 28.54},
    "resnet18_a": {"error": 27.88},
    "resnet34_a": {"error": 25.03},
}
PRINTED = "the printed difference is of ImageNet, trained in full"
CLAIMS = {
    "plain-degrades": Claim(
        "The plain network of 34 layers has the higher error than that of 18 (section 4.1).", less("plain18", "plain34")
    ),
    "resnet-gains": Claim(
        "With residual learning it is the other way round: 34 layers are better than 18 (section 4.1).",
        less("resnet34_a", "resnet18_a"),
    ),
    "resnet-gains-2.8": Claim(
        "ResNet-34 is better than ResNet-18 by 2.8 points (section 4.1).",
        at_paper_scale(lower_by("resnet34_a", "resnet18_a", 2.8), PRINTED),
    ),
    "beats-plain-3.5": Claim(
        "ResNet-34 reduces the error of plain-34 by 3.5 points (section 4.1).",
        at_paper_scale(lower_by("resnet34_a", "plain34", 3.5), PRINTED),
    ),
    "beats-plain": Claim("ResNet-34 is better than plain-34 (section 4.1).", less("resnet34_a", "plain34")),
    "18-alike": Claim(
        "At 18 layers plain and residual networks are comparably accurate: within half a point here (section 4.1).",
        similar("plain18", "resnet18_a", 0.5),
    ),
}
