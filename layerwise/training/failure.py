"""A number that is not finite: the step is not taken, the pictures are named; it stops, or goes on without them.

With non_finite=stop the state before the step is saved and the training ends. With non_finite=skip a batch whose loss
or gradient is not finite is left out. Where the state itself (weights, running statistics, averages, momentum) has such
a number no batch of now is to blame: the training goes back to its last checkpoint. Where that happens at the same
step again, the update before it did it, and that batch is left out too.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from layerwise import checkpoint, hardware, rundir
from layerwise.data.loader import plain_batches
from layerwise.errors import InputError, MachineError, ToleranceError
from layerwise.randomness import derived_seed
from layerwise.training.optimiser import freeze, optimiser_tensors
from layerwise.training.state import Training, note, restore, save

TAKE, LEAVE, AGAIN = "take", "leave", "again"
MOST, FEW = 0.01, 3  # the part of a training's steps that may be recovered from, and what is always allowed
_OFTEN = "Too many steps had to be left out or gone back from."
LOWER = 10  # what the rate is divided by in the advice
ASKED = 64
FAR_ABOVE = 5  # times the loss of a guess


def pictures_of_all(training: Training, batch: dict[str, Any]) -> int:
    """The pictures of the global batch, over all processes. Raises InputError where none can be read any more."""
    count = int(training.world.add(len(batch["label"]))[0])
    if not count:
        raise InputError(f"step {training.position.step}: none of the batch's pictures can be read any more",
                         mend="Check that the files are still there, then resume the run.")
    return count


def judged(training: Training, batch: dict[str, Any], sums: dict[str, float]) -> str:
    """What is done with a step whose gradients are there: TAKE it, LEAVE its batch out, or begin AGAIN further back.

    Raises ToleranceError where the recipe says stop, or where more than 1 % of the steps (and more than 3) had to be
    recovered from.
    """
    finite = math.isfinite(sums["loss"]) and math.isfinite(sums["norm"])
    skips, world = training.recipe.non_finite == "skip", training.world
    place = next((name for name in world.exchange(first_non_finite(training)) if name), "") if skips else ""
    if finite and not place:
        return TAKE
    rows = [row for part in world.exchange(batch["index"].tolist()) for row in part]
    loss, norm = sums["loss"], sums["norm"]
    if not skips or _recovered(training) >= _most(training):
        world.from_first(lambda: stop_before_step(training, rows, loss, norm))
    world.from_first(lambda: write_bundle(training, rows, loss, norm, place))
    if place:
        _go_back(training, place)
        return AGAIN
    position = training.position
    position.left_out = [*position.left_out, position.step]
    note(training, f"step {position.step}: left out, the loss is {loss}, the gradient's norm {norm}; its pictures are "
                   f"named in failures/step-{position.step}/failure.json")
    world.from_first(lambda: save(training))
    return LEAVE


def sound(training: Training) -> bool:
    """Whether all of a state that is about to be saved is finite; with non_finite=skip it goes back where it is not."""
    if training.recipe.non_finite != "skip":
        return True
    place = next((name for name in training.world.exchange(first_non_finite(training)) if name), "")
    if place:
        if _recovered(training) >= _most(training):
            raise ToleranceError(f"step {training.position.step}: {place} is not finite, and it was gone back often",
                                 f"The last checkpoint stands; {_OFTEN}", "Start anew with a lower learning_rate.")
        _go_back(training, place)
    return not place


def first_non_finite(training: Training) -> str:
    """The name of the first tensor of the state that has a number that is not finite, "" where all are."""
    state = {f"weights/{name}": tensor for name, tensor in training.model.state_dict().items()}
    state |= {f"optimiser/{name}": tensor for name, tensor in optimiser_tensors(training.optimiser).items()}
    if training.average:
        state |= {f"average/{name}": tensor for name, tensor in training.average.state_tensors().items()}
    state = {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel()}
    largest = torch._foreach_norm(list(state.values()), math.inf)
    finite = torch.isfinite(torch.stack([one.float().to(training.device) for one in largest])).tolist()
    return next((name for name, each in zip(state, finite, strict=True) if not each), "")


def _recovered(training: Training) -> int:
    return len(training.position.left_out) + len(training.position.went_back)


def _most(training: Training) -> int:
    schedule = training.schedule
    return max(FEW, int(MOST * schedule.steps_at(schedule.total_samples)))


def _go_back(training: Training, place: str) -> None:
    """Puts the newest checkpoint's state into the training, on all processes; what was recovered from is kept."""
    before, notes = training.position, training.notes
    generation, problems = checkpoint.newest(training.run / rundir.CHECKPOINTS)
    if generation is None:
        raise ToleranceError(f"step {before.step}: {place} is not finite, and there is no checkpoint to go back to",
                             "; ".join(problems), "Start the training again under a new name.")
    if training.recipe.unfreeze_at:
        freeze(training.model, training.recipe)
    restore(training, generation)
    position = training.position
    again = before.step in before.went_back and before.step > position.step
    position.left_out = [*before.left_out, *([before.step - 1] if again else [])]
    position.went_back = [*before.went_back, before.step]
    position.micro_batch = before.micro_batch
    for text in notes:
        note(training, text)
    note(training, f"step {before.step}: {place} had a number that is not finite; went back to step {position.step}"
                   + (f" and left step {before.step - 1} out" if again else ""))


def write_bundle(training: Training, rows: Sequence[int], loss: float, norm: float, place: str = "",
                 kind: str = "not finite") -> Path:
    """Writes what `layerwise replay` shows of a failure: the step, its pictures, and the first non-finite number.

    Returns failures/step-N in the run.
    """
    position = training.position
    bundle = training.run / "failures" / f"step-{position.step}"
    bundle.mkdir(parents=True, exist_ok=True)
    layer = next((name for name, parameter in training.model.named_parameters()
                  if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())), None)
    rundir.write_json(bundle / "failure.json", {
        "kind": kind, "step": position.step, "epoch": position.epoch, "batch": position.batch, "loss": str(loss),
        "gradient_norm": str(norm), "first_non_finite_gradient": layer, "first_non_finite_state": place or None,
        "pictures": [training.train.ids[row] for row in rows], "indices": list(rows),
        "learning_rate": training.schedule.rate(position.samples), "recipe": training.recipe.hash,
        "dropout_seed": derived_seed(training.recipe.seed, "step", position.step),
    })
    return bundle


def no_memory(training: Training, rows: Sequence[int]) -> MachineError:
    """The error of a step for which there is no memory, even one picture at a time; its pictures are named."""
    named = ""
    if training.world.first:
        bundle = write_bundle(training, rows, math.nan, math.nan, kind="out of memory")
        named = f"The {len(rows)} pictures of step {training.position.step} are named in {bundle}/failure.json."
    return MachineError("one picture at a time does not fit into memory", named,
                        "Choose a smaller network or input_size.")


@contextmanager
def memory_told(training: Training) -> Iterator[None]:
    """Within it memory that runs out where no micro-batch can be halved is a MachineError, with the way on.

    So it is in a validation, in the optimiser's first step and in the copy that holds the average.
    """
    try:
        yield
    except RuntimeError as error:
        if not hardware.memory_ran_out(error):
            raise
        said = str(error).partition("\n")[0]
        raise MachineError(
            f"{training.run}: memory ran out at step {training.position.step} ({said})",
            "It was not in a pass over a micro-batch, which would have been halved; the last checkpoint is untouched.",
            f"End what else takes memory, then continue with: layerwise resume {shlex.quote(str(training.run))}",
        ) from error


def stop_before_step(training: Training, rows: Sequence[int], loss: float, norm: float) -> NoReturn:
    """Saves the state before the step, where it is finite, with a bundle that names the batch's pictures.

    Raises ToleranceError.
    """
    place = first_non_finite(training)
    bundle = write_bundle(training, rows, loss, norm, place)
    reason = ruined(training, rows)
    kept = checkpoint.newest(training.run / rundir.CHECKPOINTS)[0] if place else None
    if not place:
        save(training)
    recipe, often = training.recipe, _recovered(training) > 0
    settings = f"--set learning_rate={recipe.learning_rate / LOWER:g}" + (
        " --set precision=fp32" if recipe.precision != "fp32" else "")
    saved = f"The weights before it are saved{f', but {reason}' if reason else ''}"
    if place:
        saved = f"{place} is not finite, so nothing was saved" + ("; the last checkpoint stands" if kept else "")
    anew = bool(reason) and kept is None
    raise ToleranceError(
        f"step {training.position.step}: the loss is {loss}, the gradient's norm {norm}; the step was not taken",
        f"{_OFTEN + ' ' if often else ''}{saved}; the batch's {len(rows)} pictures are named in "
        f"{bundle}/failure.json, the first is {training.train.ids[rows[0]]!r} (layerwise replay shows them).",
        f"Start anew with a lower rate: layerwise train {shlex.quote(recipe.network)} {shlex.quote(recipe.data)} "
        f"--recipe {shlex.quote(str(training.run))} {settings}" if anew else
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
                logits = model(image).cpu().double()  # in this order: Apple's GPUs have no float64
                losses = torch.nn.functional.cross_entropy(logits, batch["label"])
            if not float(losses) <= most:
                return f"they are ruined: their loss on other pictures is {float(losses):.3g}"
    finally:
        with torch.no_grad():
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
    return ""

