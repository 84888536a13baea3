"""A non-finite loss or gradient: the step is not taken, the state before it saved, the pictures named."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch

from layerwise import rundir
from layerwise.data.loader import plain_batches
from layerwise.errors import ToleranceError
from layerwise.randomness import derived_seed
from layerwise.training.optimiser import optimiser_tensors
from layerwise.training.state import Training, save

LOWER = 10  # what the rate is divided by in the advice
ASKED = 64
FAR_ABOVE = 5  # times the loss of a guess


def stop_before_step(training: Training, batch: dict[str, Any], loss: float, norm: float) -> NoReturn:
    """Saves the state before the step with a bundle that names the batch's pictures, and raises ToleranceError."""
    position = training.position
    rows = [int(index) for index in batch["index"]]
    names = [training.train.ids[row] for row in rows]
    bundle = training.run / "failures" / f"step-{position.step}"
    bundle.mkdir(parents=True, exist_ok=True)
    layer = next((name for name, parameter in training.model.named_parameters()
                  if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())), None)
    rundir.write_json(bundle / "failure.json", {
        "step": position.step, "epoch": position.epoch, "batch": position.batch, "loss": str(loss),
        "gradient_norm": str(norm), "first_non_finite_gradient": layer, "pictures": names, "indices": rows,
        "learning_rate": training.schedule.rate(position.samples), "recipe": training.recipe.hash,
        "dropout_seed": derived_seed(training.recipe.seed, "step", position.step),
    })
    reason = ruined(training, rows)
    save(training)
    recipe = training.recipe
    settings = f"--set learning_rate={recipe.learning_rate / LOWER:g}" + (
        " --set precision=fp32" if recipe.precision != "fp32" else "")
    saved = f"The weights before it are saved{f', but {reason}' if reason else ''}"
    raise ToleranceError(
        f"step {position.step}: the loss is {loss}, the gradient's norm {norm}; the step was not taken",
        f"{saved}; the batch's {len(names)} pictures are named in {bundle}/failure.json, the first is {names[0]!r}.",
        f"Start anew with a lower rate: layerwise train {shlex.quote(recipe.network)} {shlex.quote(recipe.data)} "
        f"--recipe {shlex.quote(str(training.run))} {settings}" if reason else
        f"Go on with a lower rate: layerwise resume {shlex.quote(str(training.run))} {settings}",
    )


def ruined(training: Training, rows: Sequence[int]) -> str:
    """Why a lower rate can't save the weights as they are, "" where it can.

    They are asked for the loss of up to 64 training pictures that are not in `rows`, the batch that failed, and the
    next step of momentum alone is compared with them.
    """
    model, recipe = training.model, training.recipe
    state = [*model.state_dict().values(), *optimiser_tensors(training.optimiser).values()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state if tensor.is_floating_point()):
        return "not all of them are finite numbers"
    rate = training.schedule.rate(training.position.samples) / LOWER
    for parameter in model.parameters():
        velocity = training.optimiser.state.get(parameter, {}).get("momentum_buffer")
        if velocity is not None and recipe.velocity == "outside" and float(
                rate * velocity.norm()) > max(1e-6, float(parameter.detach().norm())):
            return "their momentum would carry them away at a tenth of the rate too"
    others = np.setdiff1d(np.arange(len(training.train)), rows)[:ASKED]
    if not len(others):
        return ""
    buffers = list(model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    # A guess has the loss ln C; so has a network that knows nothing.
    most = FAR_ABOVE * math.log(max(2, len(training.train.class_names)))
    try:
        for batch in plain_batches(training.train.subset(others, "train"), training.preprocess, ASKED):
            image = batch["image"].to(training.device)
            with torch.no_grad():
                losses = torch.nn.functional.cross_entropy(model(image).double(), batch["label"].to(training.device))
            if not float(losses) <= most:
                return f"they are ruined: their loss on other pictures is {float(losses):.3g}"
    finally:
        with torch.no_grad():
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
    return ""

