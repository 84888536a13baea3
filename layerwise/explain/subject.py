"""What a view looks at: a trained network with its pictures, and what it answers, computed once for all views."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerwise.data.loader import plain_batches
from layerwise.data.source import Samples
from layerwise.errors import InputError, amount
from layerwise.explain.neighbours import Vectors, answered
from layerwise.explain.pictures import Pixels
from layerwise.modelfile import ModelFile
from layerwise.models import shapes
from layerwise.randomness import permutation

BATCH = 128
MOST, LEAST = 10_000, 200  # pictures that are answered
BUDGET = 400_000_000_000  # multiply-adds of one pass over the pictures: about 20 s on two cores


@dataclass(frozen=True, eq=False)
class Answered:
    """Pictures with the network's answers: features (N, D) of its last hidden layer, probabilities (N, classes).

    `unopened` is how many more there would be, had they been pictures that can be opened.
    """

    samples: Samples
    features: Vectors
    probabilities: NDArray[np.float64]
    unopened: int = 0

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each picture."""
        found: NDArray[np.int64] = self.probabilities.argmax(1)
        return found

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        """The probability of each picture's own label."""
        found: NDArray[np.float64] = self.probabilities[np.arange(len(self.samples)), self.samples.labels]
        return found


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(eq=False)
class Subject:
    """A model file and how its pictures are opened: `opened("test")` gives a split of its own data.

    `asked` are pictures of a person's own, with labels only where `labelled`. `folder` is where what a view makes is
    kept; `run` has checkpoints. `against` is a second network.
    """

    file: ModelFile
    opened: Callable[[str], Samples]
    folder: Path
    run: Path | None = None
    asked: Samples | None = None
    labelled: bool = False
    against: Subject | None = None
    progress: Callable[[int, int], None] = quiet
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The network's classes."""
        return self.file.class_names

    @cached_property
    def multiply_adds(self) -> int:
        """The multiply-adds of one picture."""
        side, channels = self.file.preprocess.size, self.file.preprocess.channels
        return max(1, shapes.cost(self.file.model, (channels, side, side)).multiply_adds)

    @property
    def most(self) -> int:
        """How many pictures are answered in one pass: fewer where a network is large."""
        return min(MOST, max(LEAST, BUDGET // self.multiply_adds))

    def split(self, name: str, most: int = 0) -> Samples:
        """At most `most` pictures (0: as many as one pass answers) of a split, drawn at random, always the same ones.

        Labels are numbered as the network's classes. Raises InputError for classes that it does not know.
        """
        if name not in self.kept:
            self.kept[name] = renumbered(self.opened(name), self.names)
        found: Samples = self.kept[name]
        return drawn(found, min(most or self.most, self.most))

    def size(self, name: str) -> int:
        """How many pictures a split has."""
        self.split(name)
        return len(self.kept[name])

    @cached_property
    def tested(self) -> Answered:
        """Labelled pictures that the network was not trained on, with its answers."""
        return self.answers(self.asked if self.asked is not None and self.labelled else self.split(""))

    @cached_property
    def trained(self) -> Answered:
        """Training pictures with the network's answers."""
        return self.answers(self.split("train"))

    @cached_property
    def shown(self) -> Answered:
        """The pictures that a person asked for, else the tested ones, with the network's answers."""
        return self.tested if self.asked is None or self.labelled else self.answers(self.asked)

    @property
    def own_labels(self) -> bool:
        """Whether the labels of `shown` are known."""
        return self.asked is None or self.labelled

    def answers(self, samples: Samples) -> Answered:
        """The network's answers to `samples`, in their order; pictures that can't be opened are left out."""
        read: list[int] = []
        features, logits = answered(self.file.model, self._noted(samples, read))
        return Answered(samples if len(read) == len(samples) else samples.subset(read, samples.name), features,
                        torch.from_numpy(logits).double().softmax(1).numpy(), len(samples) - len(read))

    def _noted(self, samples: Samples, read: list[int]) -> Iterator[dict[str, Any]]:
        for batch in self.batches(samples):
            self.progress(len(read), len(samples))
            read += batch["index"].tolist()
            yield batch
        self.progress(len(samples), len(samples))

    def batches(self, samples: Samples) -> Iterator[dict[str, Any]]:
        """The samples in batches as the network sees them: `image` (N, C, H, W), `label`, `index`."""
        return (batch for batch in plain_batches(samples, self.file.preprocess, BATCH) if len(batch["label"]))

    def at_once(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """All samples together: images (N, C, H, W) and labels (N). Raises InputError for none."""
        parts = list(self.batches(samples))
        if not parts:
            raise InputError(f"{samples.name}: no pictures that can be opened", mend="Name other pictures.")
        return torch.cat([part["image"] for part in parts]), torch.cat([part["label"] for part in parts])

    def picture(self, samples: Samples, index: int) -> Pixels:
        """A picture as the network sees it, before it is normalised: (size, size, C) uint8."""
        return self.file.preprocess.place(samples.read(index))

    def bound(self, have: int, of: int, what: str, unopened: int = 0) -> tuple[str, ...]:
        """The sentences that say how many pictures were looked at, and how many could not; none where it was all."""
        told = [f"{have:,} of {of:,} {what}, drawn at random, always the same ones"] if have + unopened < of else []
        return (*told, *([f"{amount(unopened, what)} could not be opened"] if unopened else []))


def drawn(samples: Samples, most: int, seed: int = 0) -> Samples:
    """At most so many of the samples, drawn at random and always the same for a seed, in their order."""
    if most >= len(samples):
        return samples
    return samples.subset(np.sort(permutation(seed, 0, len(samples), "explain")[:most]), samples.name)


def percent(part: float, digits: int = 1) -> str:
    """A fraction as "12.3 %"; "–" where it is not a number."""
    return "–" if math.isnan(part) else f"{100 * part:.{digits}f}\u202f%"


def require_same_classes(one: Subject, other: Subject) -> None:
    """Raises InputError where two networks know different classes; their order does not matter."""
    if set(other.names) != set(one.names):
        raise InputError("the two networks know different classes", "Then their answers can't be compared.",
                         "Name a network that was trained on the same classes.")


def renumbered(samples: Samples, names: tuple[str, ...]) -> Samples:
    """The samples with their classes numbered as in `names`. Raises InputError for classes that are not there."""
    if samples.class_names == names:
        return samples
    number = {name: place for place, name in enumerate(names)}
    strange = [repr(name) for name in samples.class_names if name not in number]
    if strange:
        raise InputError(f"{samples.name}: {len(strange)} classes that the network does not know",
                         mend="Name the data it was trained on.", details=strange)
    labels = np.array([number[name] for name in samples.class_names], np.int64)[samples.labels]
    return replace(samples, class_names=names, labels=labels)
