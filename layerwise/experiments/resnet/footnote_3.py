"""Footnote 3: three times as many iterations do not cure the degradation of plain networks.

    layerwise reproduce resnet/footnote-3 --rows plain20,plain56,plain20_3x,plain56_3x    # our own, on small pictures
    layerwise reproduce resnet/footnote-3 --scale paper

Costs at paper scale 1.65 and 3.36 EFLOP (table 2's plain networks), three times these with three times the steps; on
CIFAR-10 2.0 and 6.2 PFLOP (figure 6's), three times these.

Left open in the paper: which networks were trained longer, and how the schedule was stretched. Closed here: plain-18
and plain-34, every time of the schedule three times as long. Added, not the paper's: the same on CIFAR-10.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.experiment import Claim, Row, every, less
from layerwise.experiments.resnet.protocols import (
    OPEN_CIFAR,
    OPEN_IMAGENET,
    OPEN_PLATEAU,
    cifar,
    cifar_row,
    imagenet,
    imagenet_row,
)
from layerwise.experiments.scales import at_scale
from layerwise.recipe import Recipe

TITLE = "ResNet, footnote 3: three times as many iterations for plain networks"
TIMES = 3


def longer(recipe: Recipe) -> Recipe:
    """`recipe` with duration, milestones and patience three times as long."""
    return replace(recipe, duration=TIMES * recipe.duration, plateau_patience=TIMES * recipe.plateau_patience,
                   milestones=tuple(TIMES * time for time in recipe.milestones))  # fmt: skip


STRETCHED = "every time of the schedule is three times as long: the paper says only that the iterations were"
ADDED = "not the paper's, which trained longer on ImageNet"
ROWS = {
    "plain18": imagenet_row("plain18"),
    "plain34": imagenet_row("plain34"),
    "plain18_3x": Row((longer(imagenet("plain18")),), differs=(STRETCHED, *OPEN_IMAGENET), open_points=OPEN_PLATEAU),
    "plain34_3x": Row((longer(imagenet("plain34")),), differs=(STRETCHED, *OPEN_IMAGENET), open_points=OPEN_PLATEAU),
    "plain20": cifar_row("plain20"),
    "plain56": cifar_row("plain56"),
    "plain20_3x": Row((longer(cifar("plain20")),), differs=(ADDED, *OPEN_CIFAR)),
    "plain56_3x": Row((longer(cifar("plain56")),), differs=(ADDED, *OPEN_CIFAR)),
}
PAPER: dict[str, dict[str, float | str]] = {"plain18": {"error": 27.94}, "plain34": {"error": 28.54}}
COLUMNS = ("error", "training_error")
CLAIMS = {
    "imagenet": Claim(
        "With three times the iterations plain-34 still has the higher training and validation error than plain-18 "
        "(section 4.1, footnote 3).",
        every(less("plain18_3x", "plain34_3x", "training_error"), less("plain18_3x", "plain34_3x")),
    ),
    "small-pictures": Claim(
        "The same of plain-56 and plain-20 on small pictures; our own question, not the paper's.",
        every(less("plain20_3x", "plain56_3x", "training_error"), less("plain20_3x", "plain56_3x")),
    ),
    "longer-than-short": Claim(
        "Even plain-56 with three times the iterations ends with the higher training error than plain-20 without; our "
        "own question.",
        less("plain20", "plain56_3x", "training_error"),
    ),
}


def small(recipe: Recipe) -> Recipe:
    """The generic small run, and one of three times as many steps where the paper's recipe has them."""
    paper = imagenet(recipe.network) if recipe.data == "imagenet" else cifar(recipe.network)
    short = at_scale(paper, "small", recipe.seed)
    return longer(short) if recipe.duration == TIMES * paper.duration else short
