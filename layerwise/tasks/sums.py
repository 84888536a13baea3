"""Several tasks at once: one network, the weighted sum of their losses (Caruana 1997, "Multitask learning")."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from layerwise.errors import InputError

Batch = dict[str, Any]


class Task(Protocol):
    """What a task is: see docs/add-a-task.md."""

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, which is differentiated, and what is counted."""

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Numbers by name, from sums over all samples."""


@dataclass(frozen=True)
class Part:
    """One task of a sum; its loss counts `weight` times (the lambda of Girshick 2015, "Fast R-CNN", eq. 1)."""

    name: str
    task: Task
    weight: float = 1.0


@dataclass(frozen=True)
class Sum:
    """sum over the parts of weight * loss. Each part runs the model itself, on the same batch.

    Raises InputError for no parts, a name that stands twice, and a weight that is no finite number of at least 0.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        times = {name: names.count(name) for name in names}
        problems = [f"{name} stands {count} times" for name, count in times.items() if count > 1]
        problems += [
            f"{part.name} has weight {part.weight}"
            for part in self.parts
            if not (math.isfinite(part.weight) and part.weight >= 0)
        ]
        if problems or not names:
            raise InputError(
                "these tasks have no sum",
                mend="Give at least one task, a name of its own to each, and weights of 0 or more.",
                details=problems or ["there is none"],
            )

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and all that the parts give as name/key: "boxes/loss"."""
        total: Tensor | float = 0.0
        found: dict[str, Tensor] = {}
        for part in self.parts:
            own = part.task.loss(model, batch)
            total = total + part.weight * own["loss"]
            found |= {f"{part.name}/{key}": value for key, value in own.items()}
        assert isinstance(total, Tensor)
        return {"loss": total, **found}

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """All that the parts measure as name/key, and `loss`, the weighted sum of their losses.

        `batches` are gone through once for each part: a list or a loader, not an iterator.
        """
        assert not isinstance(batches, Iterator), "batches are gone through once for each part: not by an iterator"
        total, found = 0.0, {}
        for part in self.parts:
            own = part.task.evaluate(model, batches)
            total += part.weight * own["loss"]
            found.update({f"{part.name}/{key}": value for key, value in own.items()})
        return {"loss": total, **found}
