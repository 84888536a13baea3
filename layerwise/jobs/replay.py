"""`layerwise replay RUN --step N`: the pictures, labels and losses of one step, computed again from recipe and data.

Which pictures a step had, and how they were augmented, is a function of recipe, data and step alone. Their losses need
the weights before that step: exact where a checkpoint of it is kept, as after a failure; else those of the nearest
checkpoint, and it is said which.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerwise import checkpoint, hardware, modelfile, rundir
from layerwise.data.loader import shared_batches
from layerwise.data.order import Place, epoch_batches
from layerwise.data.place import placed
from layerwise.data.preprocess import Preprocess
from layerwise.data.sheet import contact_sheet
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.randomness import derived_seed
from layerwise.recipe import Recipe
from layerwise.training import transfer
from layerwise.training.optimiser import keep_frozen_statistics
from layerwise.training.preparation import RunOptions, open_split
from layerwise.training.resumption import differences
from layerwise.training.schedule import Schedule
from layerwise.training.state import NoLines, Training, assemble, read_input, restore

SHEET, TABLE = "pictures.png", "step.json"


@dataclass(frozen=True)
class Picture:
    """One picture of the step: its row in the training split, id, file ("" for one in memory), label, and loss.

    `loss` is None where it is not a finite number; `told` is the loss in words.
    """

    index: int
    id: str
    path: str
    label: str
    loss: float | None
    told: str


@dataclass(frozen=True)
class Replayed:
    """A step: where it is, whose weights the losses are of, its pictures, and the failure's record where it failed."""

    run: str
    step: int
    epoch: int
    batch: int
    recipe: str
    weights: str
    exact: bool
    pictures: tuple[Picture, ...]
    unread: tuple[str, ...]
    failure: dict[str, Any] | None
    notes: tuple[str, ...]
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What is said before the table of the pictures."""
        found = [f"{self.run}, step {self.step}: epoch {self.epoch}, batch {self.batch}, {len(self.pictures)} pictures",
                 f"losses: {self.weights}"]
        if self.failure:
            places = [f"{words} {self.failure[key]}" for key, words in
                      (("first_non_finite_gradient", "in the gradient of"), ("first_non_finite_state", "in the state:"))
                      if self.failure.get(key)]
            found.append(f"failed: {self.failure.get('kind', 'not finite')}: loss {self.failure.get('loss')}, norm of "
                         f"the gradient {self.failure.get('gradient_norm')}"
                         + (f"; the first number that is not finite is {', and '.join(places)}" if places else ""))
        found += [f"could not be read: {name}" for name in self.unread]
        return [*found, *(f"note: {text}" for text in self.notes)]


def replay(run: Path, step: int, out: Path | None = None, options: RunOptions = RunOptions()) -> Replayed:  # noqa: B008
    """Shows step `step` (counted from 0) of `run`: writes pictures.png and step.json into `out`.

    `out` is replays/step-N in the run where it is None. Nothing else of the run is written to. Raises InputError where
    `run` is none, its data changed, or it has no such step.
    """
    last, record = rundir.read_recipe(run), rundir.read_run(run)
    data = open_split(placed(last, record), options)
    notes = differences(run, last, record, data, options)
    recipe, epoch, number = place_of(run, record, last, len(data.train), step)
    preprocess, colour = read_input(run)
    with tempfile.TemporaryDirectory(prefix="layerwise-replay-") as folder:
        training = assemble(Path(folder), recipe, data, preprocess, colour)
        weights, exact = _give_weights(training, run, step)
    place = Place(epoch, number, workers=recipe.virtual_workers)
    batch = next(shared_batches(data.train, recipe, preprocess, place, colour))
    losses = _losses(training, batch, step)
    pictures = tuple(_picture(data.train, int(index), loss)
                     for index, loss in zip(batch["index"], losses.tolist(), strict=True))
    failure = _failure(run, step)
    if failure and failure.get("indices") != [one.index for one in pictures]:
        notes.append("the record of the failure names other pictures")
    folder_out = out or run / "replays" / f"step-{step}"
    folder_out.mkdir(parents=True, exist_ok=True)
    contact_sheet([(data.train.read(one.index), seen) for one, seen in
                   zip(pictures, shown(batch["image"], preprocess), strict=True)], folder_out / SHEET)
    found = Replayed(str(run), step, epoch, number, recipe.hash, weights, exact, pictures, tuple(batch["bad"]), failure,
                     tuple(notes), (str(folder_out / SHEET), str(folder_out / TABLE)))
    rundir.write_json(folder_out / TABLE, found.to_json())
    return found


def place_of(run: Path, record: Mapping[str, Any], recipe: Recipe, count: int, step: int) -> tuple[Recipe, int, int]:
    """The recipe that held at a step, its epoch and the number of its batch. `count` training pictures.

    Raises InputError where the run has no such step.
    """
    branches = record["branches"]
    recipes = [Recipe.from_json(path.read_text("utf-8"), str(path)) for number in range(1, len(branches) + 1)
               for path in [run / f"recipe-before-branch-{number}.json"]] + [recipe]
    steps = 0
    for place in _places(recipes, [branch["samples"] for branch in branches], count):
        if steps == step:
            return place
        steps += 1
    raise InputError(f"--step {step}: {run} has {steps} steps, counted from 0", mend="Name one of them.")


def _places(recipes: list[Recipe], branches: list[int], count: int) -> Iterator[tuple[Recipe, int, int]]:
    """Recipe, epoch and batch of each step to the end; `branches` are the samples after which the next recipe held."""
    sizes = {one.batch_size: [len(part) for part in epoch_batches(np.arange(count), one.batch_size)] for one in recipes}
    end = Schedule(recipes[-1], count, len(sizes[recipes[-1].batch_size])).total_samples
    epoch = number = samples = held = 0
    while True:
        while held < len(branches) and samples >= branches[held]:
            held += 1
        if held == len(branches) and samples >= end:
            return
        parts = sizes[recipes[held].batch_size]
        if number >= len(parts):
            epoch, number = epoch + 1, 0
        yield recipes[held], epoch, number
        samples += parts[number]
        number += 1


def _give_weights(training: Training, run: Path, step: int) -> tuple[str, bool]:
    """Puts the weights that are nearest to a step into the network; says which, and whether they are exact."""
    kept = []
    for directory in checkpoint.generations(run / rundir.CHECKPOINTS):
        try:
            kept.append(checkpoint.read(directory))
        except InputError:
            continue
    kept.sort(key=lambda one: abs(one.state["position"]["step"] - step))
    if kept and not (step == 0 and kept[0].state["position"]["step"]):
        at = kept[0].state["position"]["step"]
        training.metrics = NoLines()  # the run's own record stays as it is
        restore(training, kept[0])
        if at == step:
            return f"of the weights before this step, from {kept[0].directory.name}", True
        return (f"of the weights at step {at}, {abs(step - at)} {'before' if at < step else 'after'} this step: the "
                "nearest checkpoint that is kept", False)
    if step and (run / modelfile.NAME).is_file():
        training.model.load_state_dict(modelfile.read(run).model.state_dict())
        return "of the run's final weights: no checkpoint is kept", False
    if training.recipe.start_from:
        transfer.start_from(training.model, training.train.class_names, modelfile.read(training.recipe.start_from))
    return ("of the weights at the start" + ("" if step == 0 else ": no checkpoint is kept"), step == 0)


def _losses(training: Training, batch: dict[str, Any], step: int) -> Tensor:
    """Each picture's loss as in the step: training mode, its micro-batches or virtual workers, its dropout, (N,)."""
    recipe = training.recipe
    training.model.train()
    keep_frozen_statistics(training.model, recipe)
    count = len(batch["label"])
    found = torch.zeros(count)
    workers = batch["worker"].unique().tolist() if recipe.virtual_workers else []
    micro = training.position.micro_batch or count
    parts = [(batch["worker"] == worker).nonzero().flatten() for worker in workers] or list(
        torch.arange(count).tensor_split(math.ceil(count / micro)))
    torch.manual_seed(derived_seed(recipe.seed, "step", step))
    before = {name: tensor.clone() for name, tensor in training.model.named_buffers()}
    for number, rows in enumerate(parts):
        if workers:
            torch.manual_seed(derived_seed(recipe.seed, "step", step, "worker", workers[number]))
        part = {name: value[rows].to(training.device) for name, value in batch.items() if isinstance(value, Tensor)}
        part["image"] = part["image"].contiguous(memory_format=hardware.memory_format(recipe))
        with torch.no_grad(), hardware.autocast(recipe):
            found[rows] = training.task.each(training.model, part).float().cpu()
    with torch.no_grad():
        for name, tensor in training.model.named_buffers():
            tensor.copy_(before[name])
    return found


def _picture(samples: Samples, index: int, loss: float) -> Picture:
    path = "" if samples.paths is None else str(samples.paths[index])
    return Picture(index, samples.ids[index], path, samples.class_names[int(samples.labels[index])],
                   loss if math.isfinite(loss) else None, f"{loss:.4f}")


def _failure(run: Path, step: int) -> dict[str, Any] | None:
    path = run / "failures" / f"step-{step}" / "failure.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})", mend="Remove it, then replay the step without it.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object", mend="Remove it, then replay the step without it.")
    return found


def shown(images: Tensor, preprocess: Preprocess) -> NDArray[np.uint8]:
    """What the network saw, as pictures: (N, C, H, W) normalised -> (N, H, W, C) uint8; what is not finite is black."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    mean, std = (np.asarray(part).transpose(1, 2, 0) for part in (preprocess.mean, preprocess.std))
    scaled = np.nan_to_num((pixels * std + mean) * 255, nan=0, posinf=0, neginf=0)
    result: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return result
