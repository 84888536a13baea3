"""Executable papers: every table and figure of the ResNet and AlexNet papers as rows, numbers and claims.

`EXPERIMENTS` is the table of all of them; `find` gives one as an `Experiment`.
"""

from __future__ import annotations

from types import ModuleType

from layerwise.errors import InputError, nearest
from layerwise.experiments.alexnet import accounts as alexnet_accounts
from layerwise.experiments.alexnet import bias_one as alexnet_bias_one
from layerwise.experiments.alexnet import colour as alexnet_colour
from layerwise.experiments.alexnet import crops_and_flips as alexnet_crops_and_flips
from layerwise.experiments.alexnet import dropout as alexnet_dropout
from layerwise.experiments.alexnet import figure_1 as alexnet_figure_1
from layerwise.experiments.alexnet import figure_2 as alexnet_figure_2
from layerwise.experiments.alexnet import figure_3 as alexnet_figure_3
from layerwise.experiments.alexnet import figure_4 as alexnet_figure_4
from layerwise.experiments.alexnet import groups as alexnet_groups
from layerwise.experiments.alexnet import lrn as alexnet_lrn
from layerwise.experiments.alexnet import middle_convolution as alexnet_middle_convolution
from layerwise.experiments.alexnet import overlapping_pooling as alexnet_overlapping_pooling
from layerwise.experiments.alexnet import retrieval as alexnet_retrieval
from layerwise.experiments.alexnet import table_1 as alexnet_table_1
from layerwise.experiments.alexnet import table_2 as alexnet_table_2
from layerwise.experiments.alexnet import two_gpus as alexnet_two_gpus
from layerwise.experiments.alexnet import weight_decay as alexnet_weight_decay
from layerwise.experiments.experiment import Experiment
from layerwise.experiments.history import numbers as history_numbers
from layerwise.experiments.resnet import accounts as resnet_accounts
from layerwise.experiments.resnet import cardinality as resnet_cardinality
from layerwise.experiments.resnet import figure_1 as resnet_figure_1
from layerwise.experiments.resnet import figure_4 as resnet_figure_4
from layerwise.experiments.resnet import figure_6 as resnet_figure_6
from layerwise.experiments.resnet import figure_7 as resnet_figure_7
from layerwise.experiments.resnet import footnote_3 as resnet_footnote_3
from layerwise.experiments.resnet import footnote_4 as resnet_footnote_4
from layerwise.experiments.resnet import footnote_5 as resnet_footnote_5
from layerwise.experiments.resnet import identity as resnet_identity
from layerwise.experiments.resnet import lesions as resnet_lesions
from layerwise.experiments.resnet import one_layer as resnet_one_layer
from layerwise.experiments.resnet import signal_health as resnet_signal_health
from layerwise.experiments.resnet import table_1 as resnet_table_1
from layerwise.experiments.resnet import table_2 as resnet_table_2
from layerwise.experiments.resnet import table_3 as resnet_table_3
from layerwise.experiments.resnet import table_4 as resnet_table_4
from layerwise.experiments.resnet import table_5 as resnet_table_5
from layerwise.experiments.resnet import table_6 as resnet_table_6
from layerwise.experiments.resnet import table_7 as resnet_table_7
from layerwise.experiments.resnet import table_8 as resnet_table_8
from layerwise.experiments.resnet import width_depth as resnet_width_depth

# "paper/table": its file. Each file adds its own line, in the order of the paper.
EXPERIMENTS: dict[str, ModuleType] = {
    "alexnet/figure-1": alexnet_figure_1,
    "alexnet/figure-2": alexnet_figure_2,
    "alexnet/groups": alexnet_groups,
    "alexnet/two-gpus": alexnet_two_gpus,
    "alexnet/lrn": alexnet_lrn,
    "alexnet/overlapping-pooling": alexnet_overlapping_pooling,
    "alexnet/colour": alexnet_colour,
    "alexnet/crops-and-flips": alexnet_crops_and_flips,
    "alexnet/dropout": alexnet_dropout,
    "alexnet/bias-one": alexnet_bias_one,
    "alexnet/weight-decay": alexnet_weight_decay,
    "alexnet/table-1": alexnet_table_1,
    "alexnet/table-2": alexnet_table_2,
    "alexnet/figure-3": alexnet_figure_3,
    "alexnet/middle-convolution": alexnet_middle_convolution,
    "alexnet/figure-4": alexnet_figure_4,
    "alexnet/retrieval": alexnet_retrieval,
    "alexnet/accounts": alexnet_accounts,
    "resnet/figure-1": resnet_figure_1,
    "resnet/identity": resnet_identity,
    "resnet/table-1": resnet_table_1,
    "resnet/table-2": resnet_table_2,
    "resnet/figure-4": resnet_figure_4,
    "resnet/footnote-3": resnet_footnote_3,
    "resnet/signal-health": resnet_signal_health,
    "resnet/table-3": resnet_table_3,
    "resnet/footnote-4": resnet_footnote_4,
    "resnet/table-4": resnet_table_4,
    "resnet/table-5": resnet_table_5,
    "resnet/table-6": resnet_table_6,
    "resnet/figure-6": resnet_figure_6,
    "resnet/footnote-5": resnet_footnote_5,
    "resnet/figure-7": resnet_figure_7,
    "resnet/one-layer": resnet_one_layer,
    "resnet/table-7": resnet_table_7,
    "resnet/table-8": resnet_table_8,
    "resnet/width-depth": resnet_width_depth,
    "resnet/cardinality": resnet_cardinality,
    "resnet/lesions": resnet_lesions,
    "resnet/accounts": resnet_accounts,
    "history/numbers": history_numbers,
}


def find(name: str) -> Experiment:
    """The experiment called `name`, as "resnet/table-6". Raises InputError with the nearest names."""
    if name not in EXPERIMENTS:
        raise InputError(f"{name}: there is no such experiment{nearest(name, EXPERIMENTS)}",
                         mend="`layerwise reproduce --list` names them.")
    return Experiment.of(name, EXPERIMENTS[name])
