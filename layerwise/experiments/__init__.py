"""Executable papers: every table and figure of the ResNet and AlexNet papers as rows, numbers and claims.

`EXPERIMENTS` is the table of all of them; `find` gives one as an `Experiment`.
"""

from __future__ import annotations

from types import ModuleType

from layerwise.errors import InputError, nearest
from layerwise.experiments.experiment import Experiment

# "paper/table": its file. Each file adds its own line, in the order of the paper.
EXPERIMENTS: dict[str, ModuleType] = {
}


def find(name: str) -> Experiment:
    """The experiment called `name`, as "resnet/table-6". Raises InputError with the nearest names."""
    if name not in EXPERIMENTS:
        raise InputError(f"{name}: there is no such experiment{nearest(name, EXPERIMENTS)}",
                         mend="`layerwise reproduce --list` names them.")
    return Experiment.of(name, EXPERIMENTS[name])
