"""Every difference between two recipes and what they were used on, each with the effect that is to be expected of it.

Times are compared as what they mean: the length as pictures seen, the others as parts of the length. What neither side
uses (the plateau's patience under a schedule of steps) and what is left to the machine is no difference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerwise.experiments.experiment import Experiment, Row
from layerwise.jobs.again import Again
from layerwise.recipe import Recipe
from layerwise.recipes import effects
from layerwise.recipes.effects import FIELDS, Effect
from layerwise.recipes.used import USED
from layerwise.recipes.values import show

PARTS = ("milestones", "evaluate_every", "plateau_patience", "warmup_length", "unfreeze_at")
# A name, the spread, or compared as what they mean.
APART = ("name", "seed", "unit", "duration", "learning_rate", "reference_batch", *PARTS)
PUBLISHED = {"cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000, "fashion-mnist": 60_000, "imagenet": 1_281_167,
             "imagenet-2010": 1_261_406}
LONGEST = 8  # times as long: the source has 600 epochs for 90
RESAMPLED = 0.05  # two lengths or parts that differ by less are one

# Values that leave a field to the machine or to the data.
LEFT_OPEN: Mapping[str, object] = {"device": "auto", "precision": "auto", "memory_format": "auto", "compile": "auto",
                                   "threads": 0, "channels": 0, "input_size": 0}


@dataclass(frozen=True)
class Cause:
    """One difference: what it is here and there, and its effect.

    `points` (of error) is signed where it was measured: what the error would change by if it were done as there; else
    it is the size that is to be expected, without a sign. `kind` is measured, printed, judged, or other question, where
    the two numbers do not answer the same one. `interval` is of a measured effect, in points.
    """

    name: str
    here: str
    there: str
    kind: str
    points: float | None
    source: str
    interval: tuple[float, float] | None = None

    @property
    def rank(self) -> tuple[bool, float]:
        """The larger, the more is expected of it."""
        return self.kind == "other question", abs(self.points or 0.0)


def of_effect(name: str, here: str, there: str, effect: Effect) -> Cause:
    """A cause whose effect was not measured here."""
    if not effect.comparable:
        return Cause(name, here, there, "other question", None, effect.source)
    return Cause(name, here, there, "printed" if effect.printed else "judged", effect.size, effect.source)


@dataclass(frozen=True)
class Trained:
    """A recipe and how many training pictures it saw an epoch, None where that is not known."""

    recipe: Recipe
    pictures: int | None

    @property
    def seen(self) -> float | None:
        """Pictures seen in the whole training."""
        if self.recipe.unit == "iterations":
            return self.recipe.duration * self.recipe.batch_size
        return None if self.pictures is None else self.recipe.duration * self.pictures

    def part(self, name: str) -> tuple[float, ...]:
        """A time, or each of several, as part of the length."""
        value = getattr(self.recipe, name)
        times = value if isinstance(value, tuple) else (value,)
        return tuple(round(time / self.recipe.duration, 4) for time in times)


def training_pictures(recipe: Recipe) -> int | None:
    """How many pictures a recipe on published data trains on; None for other data."""
    total = PUBLISHED.get(recipe.data)
    if total is None:
        return None
    held = recipe.validation if recipe.validation >= 1 else round(recipe.validation * total)
    return int(total - (0 if recipe.data.startswith("imagenet") else held))  # it has validation pictures of its own


def differences(here: Trained, there: Trained, printed: Mapping[str, float], again: Sequence[Again]) -> list[Cause]:
    """Every difference of two recipes, in order of effect; `printed` are errors (percent) by network.

    A difference of which `again` tested the other side's setting has the effect that was measured.
    """
    tested = {(one.field, one.setting): one for one in again if one.difference is not None}
    found = []
    for field in dataclasses.fields(Recipe):
        name = field.name
        ours, theirs = getattr(here.recipe, name), getattr(there.recipe, name)
        if name in APART or ours == theirs or not _counts(name, here.recipe, there.recipe):
            continue
        one = tested.get((name, str(theirs)))
        if one is not None and one.difference is not None and one.interval is not None:
            found.append(measured(name, _shown(ours), _shown(theirs), one))
        else:
            shown = _micro_batches(here, there) if name == "micro_batch" else (_shown(ours), _shown(theirs))
            found.append(of_effect(name, *shown, _effect(name, here, there, printed)))
    found += [*_rate(here.recipe, there.recipe), *_times(here, there)]
    return sorted(found, key=lambda cause: cause.rank, reverse=True)


def measured(name: str, ours: str, theirs: str, one: Again) -> Cause:
    """A cause whose effect was measured on the run's own weights."""
    assert one.difference is not None
    assert one.interval is not None
    low, high = one.interval
    inside = "" if one.p is not None and one.p < 0.05 else "; inside the noise"
    return Cause(name, ours, theirs, "measured", 100 * one.difference,
                 f"the same weights tested again, p = {one.p:.2g}{inside}", (100 * low, 100 * high))


def unused(here: Recipe, there: Recipe) -> tuple[str, ...]:
    """The fields that differ and that neither recipe uses, or that one leaves to the machine."""
    names = [field.name for field in dataclasses.fields(Recipe) if field.name not in ("name", "seed", "unit")]
    return tuple(name for name in names
                 if getattr(here, name) != getattr(there, name) and not _counts(name, here, there))


def _counts(name: str, here: Recipe, there: Recipe) -> bool:
    """Whether a difference in a field is one in what is done."""
    used = USED.get(name)
    if used is not None and not used(here) and not used(there):
        return False
    if name == "micro_batch":
        return (here.micro_batch or here.batch_size) != (there.micro_batch or there.batch_size)
    return name not in LEFT_OPEN or LEFT_OPEN[name] not in (getattr(here, name), getattr(there, name))


def _effect(name: str, here: Trained, there: Trained, printed: Mapping[str, float]) -> Effect:
    ours, theirs = getattr(here.recipe, name), getattr(there.recipe, name)
    if name == "network" and ours in printed and theirs in printed:
        return Effect(round(abs(printed[ours] - printed[theirs]), 2),
                      f"the paper's own printed errors, {printed[ours]:g} and {printed[theirs]:g}")
    if name == "protocol":
        return effects.of_protocols(ours, theirs)
    if name == "micro_batch":
        ours, theirs = (int(size) for size in _micro_batches(here, there))
        return effects.of_micro_batches(ours, theirs)
    return FIELDS[name]


def _micro_batches(here: Trained, there: Trained) -> tuple[str, str]:
    """Over how many pictures batch normalisation takes its statistics."""
    ours, theirs = (side.recipe.micro_batch or side.recipe.batch_size for side in (here, there))
    return str(ours), str(theirs)


def _rate(here: Recipe, there: Recipe) -> list[Cause]:
    """The learning rate: stated for a reference batch, so that equal ones may be written in two ways."""
    ours, theirs = (recipe.learning_rate / recipe.reference_batch for recipe in (here, there))
    if math.isclose(ours, theirs):
        return []
    shown = [f"{recipe.learning_rate:g} for {recipe.reference_batch} pictures" for recipe in (here, there)]
    return [of_effect("learning_rate", shown[0], shown[1], FIELDS["learning_rate"])]


def _times(here: Trained, there: Trained) -> list[Cause]:
    """The length, and when things happen as parts of it."""
    found = []
    ours, theirs = here.seen, there.seen
    told = [_length(side) for side in (here, there)]
    if ours is None or theirs is None:
        if told[0] != told[1]:
            found.append(of_effect("length", told[0], told[1], FIELDS["duration"]))
    elif abs(ours / theirs - 1) > RESAMPLED:
        found.append(of_effect("length", told[0], told[1], _of_lengths(ours / theirs)))
    for name in PARTS:
        parts = here.part(name), there.part(name)
        close = len(parts[0]) == len(parts[1]) and all(
            abs(one - other) <= RESAMPLED * max(one, other) for one, other in zip(*parts, strict=True))
        if not close and _counts(name, here.recipe, there.recipe):
            shown = [", ".join(f"{part:.3g}" for part in side) or "none" for side in parts]
            found.append(of_effect(f"{name}, as parts of the length", shown[0], shown[1], FIELDS[name]))
    return found


def _of_lengths(ratio: float) -> Effect:
    """What a training `ratio` times as long is expected to differ by."""
    if 1 / 2 <= ratio <= LONGEST:
        return FIELDS["duration"]
    times = f"{1 / ratio:.3g} times shorter" if ratio < 1 else f"{ratio:.3g} times longer"
    return effects.judged(10.0, f"{times}; no source for such a ratio is known to us")


def _length(side: Trained) -> str:
    recipe = side.recipe
    seen = "" if side.seen is None else f", {side.seen:,.0f} pictures seen"
    of = f" of {recipe.batch_size}" if recipe.unit == "iterations" else ""
    return f"{recipe.duration:,.6g} {recipe.unit}{of}{seen}"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else show(value) or "none"


def printed_errors(experiment: Experiment, row: Row, others: Iterable[Experiment] = ()) -> dict[str, float]:
    """The printed error of each network that a row of the experiment, or of `others`, trains alone on the data and
    tests under the protocol of `row`; the experiment's own go first."""
    asked, found = row.recipes[0], dict[str, float]()
    for one in (experiment, *others):
        for slug, other in one.rows.items():
            error = one.paper.get(slug, {}).get("error")
            recipes = [recipe for recipe in other.recipes if (recipe.data, recipe.protocol) == (
                asked.data, asked.protocol)]
            if len(other.recipes) == len(recipes) == 1 and isinstance(error, int | float):
                found.setdefault(recipes[0].network, float(error))
    return found


def of_records(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Cause]:
    """Differences of the machines and versions that two runs were made with."""
    found = []
    for part in ("versions", "hardware"):
        ours, theirs = here.get(part, {}), there.get(part, {})
        for name in dict.fromkeys([*ours, *theirs]):
            if name not in FIELDS and ours.get(name) != theirs.get(name):
                found.append(of_effect(f"{part}: {name}", str(ours.get(name, "not recorded")),
                                       str(theirs.get(name, "not recorded")), effects.FIELDS["device"]))
    return found
