"""A made-up table of a paper on the digits, for the tests of `reproduce`; as a script, a process that runs it.

    python -m tests.made_up_experiment FOLDER ARGUMENTS...    # layerwise reproduce ARGUMENTS in FOLDER
"""

from __future__ import annotations

import dataclasses
import os
import sys
from types import ModuleType

import torch
from matplotlib.figure import Figure

from layerwise import experiments
from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, less
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset

NAME = "paper/table-1"
# The "paper's" recipe: long, and on data that are not here.
PAPERS = dataclasses.replace(preset("resnet-cifar"), name="made-up", network="resnet20", precision="fp32")


def small(recipe: Recipe) -> Recipe:
    """Some steps on the digits, of which a checkpoint is written each time."""
    return dataclasses.replace(recipe, data="digits", validation=20, unit="iterations", duration=3, evaluate_every=1,
                               milestones=(2,), batch_size=32, pad=1, threads=1, checkpoint_seconds=0.001)


def long(recipe: Recipe) -> Recipe:
    """As many steps as are needed to be killed among them."""
    return dataclasses.replace(small(recipe), duration=30, milestones=(20,), evaluate_every=10)


def weights(subject: Subject) -> Numbers:
    """A measurement: how large the first kernels are, and how many test pictures there are."""
    first = next(subject.models[0].model.parameters()).detach()
    return {"size": float(first.abs().mean()), "list": [1.0, 2.0], "pictures": len(subject.samples("test"))}


def draw(results: Results, figure: Figure) -> None:
    """One curve a row."""
    axes = figure.subplots()
    for slug in results.rows:
        for curve in results.curves(slug):
            points = [(point["step"], point["validation_error"]) for point in curve if "validation_error" in point]
            axes.plot([x for x, _ in points], [y for _, y in points])


def module(derive: object = small, **rows: Row) -> ModuleType:
    """The file of the experiment; `rows` beside its own, or instead of one of the same name."""
    made = ModuleType("made_up", f"    layerwise reproduce {NAME}")
    made.__dict__.update(
        TITLE="Paper, Table 1: made up",
        ROWS={"deep": Row((PAPERS,)), "cited": Row(unmeasured="a made-up reason"), **rows},
        PAPER={"deep": {"error": 90.0}, "cited": {"error": 7.5}},
        CLAIMS={"better": Claim("Deep is better than other (section 1).", less("deep", "other"))},
        COLUMNS=("error", "parameters"), draw=draw, small=derive)
    return made


if __name__ == "__main__":
    from layerwise.cli import main

    torch.set_num_threads(1)
    os.chdir(sys.argv[1])
    experiments.EXPERIMENTS[NAME] = module(long)
    sys.exit(main(["reproduce", *sys.argv[2:]]))
