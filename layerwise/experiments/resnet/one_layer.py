"""Section 3.2: a residual function of one layer, y = W1 x + x, for which the paper saw no advantage.

    layerwise reproduce resnet/one-layer                 # small: Fashion-MNIST, 640 steps, three seeds
    layerwise reproduce resnet/one-layer --scale paper   # 64,000 steps of 128 pictures each

Costs at paper scale 2.0 PFLOP (20 layers) and 6.2 PFLOP (56 layers) each; plain and two-layer networks are figure 6's.

Left open in the paper: on which networks it was seen. Closed here: the CIFAR networks of 20 and 56 layers with a
shortcut around every layer instead of every pair, with batch normalisation before and ReLU after the addition as in
the paper's blocks; as many layers, parameters and operations as the plain network. 56 layers, because 20 are "not
overly deep": there a plain network has little to gain.
"""

from __future__ import annotations

from layerwise.experiments.experiment import Claim, less
from layerwise.experiments.judges import no_better
from layerwise.experiments.resnet.protocols import cifar_row

TITLE = "ResNet, section 3.2: residual functions of one, two and three layers"
ROWS = {
    network: cifar_row(network)
    for network in ("plain20", "resnet20_one_layer", "resnet20", "resnet20_three_layer",
                    "plain56", "resnet56_one_layer", "resnet56")
}  # fmt: skip
PAPER: dict[str, dict[str, float | str]] = {"resnet20": {"error": 8.75}, "resnet56": {"error": 6.97}}
COLUMNS = ("error", "training_error")
CLAIMS = {
    "no-advantage-20": Claim(
        "Of 20 layers, shortcuts around single layers have no advantage over none (section 3.2).",
        no_better("resnet20_one_layer", "plain20"),
    ),
    "no-advantage-56": Claim(
        "Of 56 layers, shortcuts around single layers have no advantage over none (section 3.2).",
        no_better("resnet56_one_layer", "plain56"),
    ),
    "two-layers-better": Claim(
        "Of 56 layers, residual functions of two layers are better than those of one; our reading of section 3.2.",
        less("resnet56", "resnet56_one_layer"),
    ),
}
