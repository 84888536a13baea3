"""What an experiment costs before it is run: operations, and hours from a rate measured in a short probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from layerwise import hardware, models
from layerwise.console import duration
from layerwise.errors import amount
from layerwise.experiments.operations import TRAINING, input_of, multiply_adds, operations, operations_text
from layerwise.recipe import Recipe

PROBE_SECONDS, PROBE_OPERATIONS = 2.0, 2e10


@dataclass(frozen=True)
class Cost:
    """The trainings that are missing: how many, their operations, and the machine's rate (operations a second)."""

    trainings: int
    operations: float
    rate: float = 0.0
    probed: str = ""

    @property
    def seconds(self) -> float | None:
        """How long they take at the rate, None where none was measured."""
        return self.operations / self.rate if self.rate else None

    def line(self) -> str:
        """The cost in words."""
        told = f"{amount(self.trainings, 'trainings')}, {operations_text(self.operations)}"
        if self.seconds is None:
            return told
        return (f"{told}, about {duration(self.seconds)} at {operations_text(self.rate)} a second, measured now with "
                f"{self.probed} on this machine")

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {"trainings": self.trainings, "operations": self.operations, "rate": self.rate or None,
                "seconds": self.seconds, "probed": self.probed or None}


def cost(recipes: Sequence[Recipe], probe: bool) -> Cost:
    """What the recipes cost; with `probe` the rate is measured with the one that costs most.

    Raises what building that network raises.
    """
    total = sum(operations(recipe) for recipe in recipes)
    if not (probe and recipes):
        return Cost(len(recipes), total)
    largest = max(recipes, key=operations)
    return Cost(len(recipes), total, measured_rate(largest), largest.network)


def measured_rate(recipe: Recipe) -> float:
    """Operations a second of training steps of `recipe` on random pictures, after one step of warm-up.

    The batch is small enough that a step takes about a fifth of a second at 100 GFLOP/s; on other devices than the
    processor it is the recipe's.
    """
    resolved = hardware.resolve(recipe)
    device = hardware.prepare(resolved)
    channels, side = input_of(recipe)
    one = TRAINING * multiply_adds(recipe.network, channels, side)
    batch = recipe.batch_size if device.type != "cpu" else max(2, min(recipe.batch_size, int(PROBE_OPERATIONS / one)))
    model = models.build(recipe.network, None, channels).to(device).train()
    model = model.to(memory_format=hardware.memory_format(resolved))  # type: ignore[call-overload]
    images = torch.rand((batch, channels, side, side), device=device)
    images = images.contiguous(memory_format=hardware.memory_format(resolved))
    steps, started = 0, 0.0
    while steps < 2 or time.perf_counter() - started < PROBE_SECONDS:
        model.zero_grad(set_to_none=True)
        with hardware.autocast(resolved):
            loss = model(images).float().square().mean()
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if steps == 0:
            started = time.perf_counter()
        steps += 1
    return (steps - 1) * batch * one / (time.perf_counter() - started)
