"""B7: a number that is not finite, put into a picture, loss, gradient, weight, running statistic or average."""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from faults import tiny
from faults.calls import raised
from faults.goal import Control, Goal, Outcome
from layerwise import checkpoint, rundir, train
from layerwise.data.order import epoch_batches, epoch_order
from layerwise.tasks.classify import Classify
from layerwise.training import failure
from layerwise.training.average import Average
from layerwise.training.state import Training

KINDS = ("pixel", "loss", "gradient", "weight", "statistic", "average")
OF_A_BATCH = KINDS[:3]
NUMBERS = (math.nan, math.inf, -math.inf)
STEPS = 8


@dataclass
class Injection:
    """One number, put in at one step: of a batch each time it comes, of the state once."""

    kind: str
    number: float
    step: int
    draw: random.Random
    done: int = 0

    def put(self, tensor: Tensor) -> None:
        """Writes the number at a random place of `tensor`."""
        with torch.no_grad():
            tensor.view(-1)[self.draw.randrange(tensor.numel())] = self.number

    def into_state(self, training: Training) -> None:
        """Into a weight, a running statistic or an average, before the step's gradients."""
        assert training.average is not None
        tensors: dict[str, list[Tensor]] = {
            "weight": list(training.model.parameters()),
            "statistic": [one for one in training.model.buffers() if one.is_floating_point()],
            "average": [one for one in training.average.state_tensors().values() if one.is_floating_point()],
        }
        self.put(self.draw.choice(tensors[self.kind]))


@contextlib.contextmanager
def injected(one: Injection) -> Iterator[None]:
    """Within it a training has the number put in."""
    gradients, loss = train.gradients, Classify.loss
    now = [False]

    def poisoned(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        now[0] = training.position.step == one.step and (one.kind in OF_A_BATCH or not one.done)
        one.done += now[0]
        if not now[0]:
            return gradients(training, batch)
        if one.kind == "pixel":
            batch["image"] = batch["image"].contiguous()
            one.put(batch["image"])
        elif one.kind == "gradient":
            weight = one.draw.choice(list(training.model.parameters()))
            place = one.draw.randrange(weight.numel())

            def spoil(slope: Tensor) -> Tensor:
                spoilt = slope.clone()
                spoilt.view(-1)[place] = one.number
                return spoilt

            handle = weight.register_hook(spoil)
            try:
                return gradients(training, batch)
            finally:
                handle.remove()
        elif one.kind != "loss":
            one.into_state(training)
        return gradients(training, batch)

    def lost(task: Classify, model: torch.nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        found = loss(task, model, batch)
        return found | {"loss": found["loss"] * one.number} if now[0] and one.kind == "loss" else found

    with mock.patch.object(train, "gradients", poisoned), mock.patch.object(Classify, "loss", lost):
        yield


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """What was wrong with an update or a checkpoint: the list that it gives grows."""
    problems: list[str] = []
    step, update, write = torch.optim.SGD.step, Average.update, checkpoint.write

    def finite(tensors: Any) -> bool:
        return all(bool(torch.isfinite(one).all()) for one in tensors if one is not None and one.is_floating_point())

    def stepped(optimiser: torch.optim.SGD, *arguments: Any) -> Any:
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        if not finite(weights) or not finite(weight.grad for weight in weights):
            problems.append("an update began with a number that is not finite")
        made = step(optimiser, *arguments)
        if not finite(weights):
            problems.append("an update made a number that is not finite")
        return made

    def averaged(average: Average, model: torch.nn.Module) -> None:
        update(average, model)
        if not finite(average.state_tensors().values()) or not finite(model.state_dict().values()):
            problems.append("an average or statistic that is not finite was updated")

    def written(directory: Path, position: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
        if not finite(tensors.values()):
            problems.append("a checkpoint with a number that is not finite was written")
        return write(directory, position, tensors, state)

    with mock.patch.object(torch.optim.SGD, "step", stepped), mock.patch.object(Average, "update", averaged), \
            mock.patch.object(checkpoint, "write", written):
        yield problems


@contextlib.contextmanager
def without(step: int) -> Iterator[None]:
    """The clean run without that step's batch, told without the package's own way to leave it out."""
    gradients, update = train.gradients, Average.update
    at = [0]

    def passed(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        at[0] = training.position.step
        if at[0] != step:
            return gradients(training, batch)
        training.optimiser.zero_grad(set_to_none=True)  # so that the step changes nothing
        return {"loss": 0.0, "norm": 0.0, "errors": 0, "samples": 0, "unread": 0}

    def kept(average: Average, model: torch.nn.Module) -> None:
        if at[0] != step:
            update(average, model)

    with mock.patch.object(train, "gradients", passed), mock.patch.object(Average, "update", kept):
        yield


def injections(trials: int, folder: Path) -> Outcome:
    """B7: `trials` tiny trainings of 8 steps with non_finite=skip, each with one number put in.

    No update, average or checkpoint with a number that is not finite; the pictures of the batch named, and the step in
    the notes; the end is that of the clean run without that batch (of the clean run, where the state was spoilt).
    """
    problems: list[str] = []
    with tiny.tiny():
        wanted = {step: _clean(folder / f"clean-{step}", step) for step in range(-1, STEPS)}
        batches = [batch for epoch in (0, 1)
                   for batch in epoch_batches(epoch_order(tiny.data().train, tiny.recipe(), epoch), 8)]
        for trial in range(trials):
            draw = random.Random(trial)
            one = Injection(KINDS[trial % 6], NUMBERS[trial // 6 % 3], draw.randrange(STEPS), draw)
            often = draw.choice(("0.000001", "3600"))
            run = folder / "run"
            with injected(one), watched() as found:
                error = raised(lambda run=run, often=often: tiny.begin(run, _recipe(often)))  # type: ignore[misc]
            if not one.done:
                found.append("the number was not put in")
            if error:
                found.append(f"ended with {error.what}")
            elif tiny.digest(run) != wanted[one.step if one.kind in OF_A_BATCH else -1]:
                found.append("the end is not that of the clean run")
            ids = [tiny.data().train.ids[row] for row in batches[one.step]]
            found += _named(run, one.step, ids)
            problems += [f"{one.number} in a {one.kind} at step {one.step}: {problem}" for problem in found]
            shutil.rmtree(run, ignore_errors=True)
    return Outcome(trials, tuple(problems), f"non_finite=skip; {', '.join(KINDS)}; NaN, Inf and -Inf")


def _recipe(often: str) -> Any:
    return tiny.recipe(f"duration={STEPS}", f"checkpoint_seconds={often}", "non_finite=skip")


def _clean(run: Path, step: int) -> str:
    with without(step):
        return tiny.digest(tiny.begin(run, tiny.recipe(f"duration={STEPS}")))


def _named(run: Path, step: int, ids: list[str]) -> list[str]:
    bundle = run / "failures" / f"step-{step}" / "failure.json"
    if not bundle.exists():
        return ["no pictures were named"]
    told = json.loads(bundle.read_bytes())
    problems = [] if told["pictures"] == ids else ["other pictures were named"]
    if not any(f"step {step}:" in text for text in rundir.read_run(run)["notes"]):
        problems.append("the closing summary says nothing")
    return problems


def _with(name: str, function: Callable[..., object]) -> Callable[[Path], Outcome]:
    def attempt(folder: Path) -> Outcome:
        with mock.patch.object(failure if name == "first_non_finite" else train, name, function):
            return injections(12, folder)
    return attempt


B7 = Goal(
    "B7", "a number that is not finite never reaches a weight", "0 violations", 1_000, 24, injections,
    (Control("the check taken out", _with("judged", lambda *_: failure.TAKE)),
     Control("only loss and gradient looked at", _with("first_non_finite", lambda *_: ""))),
)
GOALS = (B7,)
