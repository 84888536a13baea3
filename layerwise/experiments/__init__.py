"""Executable papers: every table and figure of the ResNet and AlexNet papers as rows, numbers and claims.

`EXPERIMENTS` is the table of all of them; `find` gives one as an `Experiment`.
"""

from __future__ import annotations

from types import ModuleType

from layerwise.errors import InputError, nearest
from layerwise.experiments.experiment import Experiment
from layerwise.experiments.resnet import figure_1 as resnet_figure_1
from layerwise.experiments.resnet import figure_6 as resnet_figure_6
from layerwise.experiments.resnet import table_6 as resnet_table_6

# "paper/table": its file. Each file adds its own line, in the order of the paper.
EXPERIMENTS: dict[str, ModuleType] = {
    "resnet/figure-1": resnet_figure_1,
    "resnet/figure-6": resnet_figure_6,
    "resnet/table-6": resnet_table_6,
}


def find(name: str) -> Experiment:
    """The experiment called `name`, as "resnet/table-6". Raises InputError with the nearest names."""
    if name not in EXPERIMENTS:
        raise InputError(f"{name}: there is no such experiment{nearest(name, EXPERIMENTS)}",
                         mend="`layerwise reproduce --list` names them.")
    return Experiment.of(name, EXPERIMENTS[name])
