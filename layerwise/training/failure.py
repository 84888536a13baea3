"""A non-finite loss or gradient: the step is not taken, the state before it saved, the pictures named."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from layerwise import rundir
from layerwise.errors import ToleranceError
from layerwise.randomness import derived_seed
from layerwise.training.state import Training, save


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
    save(training)
    raise ToleranceError(
        f"step {position.step}: the loss is {loss}, the gradient's norm {norm}; the step was not taken",
        f"The weights before it are saved; the batch's {len(names)} pictures are named in {bundle}/failure.json, "
        f"the first is {names[0]!r}.",
        f"Go on with a lower rate: layerwise resume {training.run} "
        f"--set learning_rate={training.recipe.learning_rate / 10:g}"
        + (" --set precision=fp32" if training.recipe.precision != "fp32" else ""),
    )
