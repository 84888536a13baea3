"""A process that has imported Layerwise and forks a child for each job, so that a kill costs a fork, not an import.

Standard input: one JSON object a line, {"action": "train" | "resume", "run": directory, "settings": [...],
"control": "" | the name of a guard to take out}. Standard output: `pid N` when the child runs, `exit N` when it ended.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

from layerwise import randomness, train
from layerwise.data import DataOptions, open_data
from layerwise.models.shapes import cost
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training import state as training


def carry_the_random_state() -> None:
    """Takes a guard out: random numbers depend on how many this process drew, as a carried generator's do."""
    bits, drawn = randomness.random_bits, [0]

    def carried(seed: int, *arguments: object, **named: object) -> np.ndarray:
        drawn[0] += 1
        return bits(seed + drawn[0], *arguments, **named)

    randomness.random_bits = carried


def forget(part: str) -> None:
    """Takes a guard out: the part of a generation whose names begin with `part` is not restored."""
    restore = training.restore

    def forgetful(state: training.Training, generation: object) -> None:
        fresh = {f"model/{name}": tensor.clone() for name, tensor in state.model.state_dict().items()}
        if state.average:
            fresh |= {f"average/{name}": tensor.clone() for name, tensor in state.average.state_tensors().items()}
        for name in generation.tensors:
            if name.startswith(part) and name in fresh:
                generation.tensors[name] = fresh[name]
            elif name.startswith(part) and name.startswith("optimiser/"):
                generation.tensors[name] = torch.zeros_like(generation.tensors[name])
        restore(state, generation)

    train.restore = forgetful


def forget_position() -> None:
    """Takes a guard out: the place within the epoch is not restored."""
    restore = training.restore

    def forgetful(state: training.Training, generation: object) -> None:
        generation.state["position"]["batch"] = 0
        restore(state, generation)

    train.restore = forgetful


CONTROLS = {
    "": lambda: None,
    "random": carry_the_random_state,
    "position": forget_position,
    "model": lambda: forget("model/"),
    "statistics": lambda: forget("model/features.conv1.bn.running"),
    "momentum": lambda: forget("optimiser/"),
    "average": lambda: forget("average/"),
}


def child(job: dict) -> int:
    """Trains or resumes, and returns the exit code."""
    CONTROLS[job["control"]]()
    run = Path(job["run"])
    try:
        if job["action"] == "train":
            recipe = preset("digits")
            for setting in job["settings"]:
                recipe = changed(recipe, [setting])
            train.train(recipe, train.RunOptions(out=run, quiet=True, offline=True, confirmed=True))
        else:
            train.resume(run, train.RunOptions(quiet=True, offline=True))
    except BaseException:
        traceback.print_exc()
        return getattr(sys.exc_info()[1], "exit_code", 1)
    return 0


def main() -> None:
    """Serves jobs until standard input ends."""
    torch.set_num_threads(1)
    # Imports everything that a job imports; runs no backward pass, whose threads a fork would lose.
    open_data("digits", DataOptions(offline=True))
    cost("resnet20", (3, 32, 32))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(f"pid {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"exit {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
