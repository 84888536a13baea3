"""The paper's recipe at another scale, and what differs from the paper then, in words.

- smoke: two steps of 8 of the digits at the smallest input that the network takes. It shows that a row runs.
- small: a shortened training on Fashion-MNIST with the paper's batch. Where an experiment has no derivation of its own
  it takes 640 steps, a hundredth of the CIFAR protocol: the rate falls after 1/2 and 3/4, as at 32,000 and 48,000 of
  64,000. Networks for small pictures see them as they are (28x28); others see them enlarged to 56x56, or to the paper's
  size where they take no other.
- paper: the recipe as it stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

from layerwise.errors import InputError, nearest, noun
from layerwise.experiments.experiment import SCALES, Row
from layerwise.models import published_input, shapes
from layerwise.recipe import Recipe
from layerwise.recipes.used import USED
from layerwise.recipes.values import show

SEEDS = {"smoke": 1, "small": 3}  # at the paper's scale: as many as the paper has
STEPS = {"smoke": 2, "small": 640}
SMALL_PICTURES = 64  # published inputs up to this side, in pixels, are "small"
ENLARGED = 56
SMOKE_BATCH, SMOKE_VALIDATION = 8, 20
TIMES = ("evaluate_every", "plateau_patience", "warmup_length", "unfreeze_at")
EVALUATIONS = 10  # at most so many a small run: each is 5,000 pictures
# Not deviations: the seed, and fields of the machine, which the line on the hardware tells.
UNTOLD = ("seed", "device", "memory_format", "compile", "threads", "micro_batch", "checkpoint_seconds")
WITH_UNIT = ("duration", "milestones", *TIMES)
SECOND_READING = "the measurement read the test pictures a second time, after the training and its test were over"
Derive = Callable[[Recipe], Recipe]


@cache
def at_scale(recipe: Recipe, scale: str, seed: int, small: Derive | None = None) -> Recipe:
    """The paper's `recipe` with `seed` at a scale of `SCALES`; `small` is an experiment's own derivation.

    A smoke run has the network of the small one, where an experiment chose another for that.

    Raises InputError for an unknown scale.
    """
    if scale not in SCALES:
        raise InputError(f"--scale {scale}: no such scale{nearest(scale, SCALES)}",
                         mend=f"It is {', '.join(SCALES[:-1])} or {SCALES[-1]}.")
    if scale == "smoke" and small is not None:
        recipe = dataclasses.replace(small(recipe), seed=recipe.seed)
    derive = {"smoke": _smoke, "small": small or _small, "paper": _paper}[scale]
    # A recipe's own seed sets apart the second of two equal networks in a row (ResNet, table 5).
    return dataclasses.replace(derive(recipe), seed=recipe.seed + seed)


def seeds_of(scale: str, row: Row) -> int:
    """With how many seeds a row is measured; where nothing is trained chance plays no part, unless the row says so."""
    return SEEDS.get(scale, row.seeds) if row.recipes or scale == "smoke" else row.seeds


def differences(paper: Recipe, used: Recipe) -> tuple[str, ...]:
    """Each field in which `used` differs from the paper's recipe, in words; seed and machine are told elsewhere.

    A field that `used` does not use is left out: what switches it off is told.
    """
    told = []
    for field in dataclasses.fields(Recipe):
        theirs, ours = getattr(paper, field.name), getattr(used, field.name)
        if ours == theirs or field.name in UNTOLD or not _counts(field.name, used):
            continue
        units = ("", "")
        if field.name in WITH_UNIT:
            units = (_unit(ours, used.unit), _unit(theirs, paper.unit))
        told.append(f"{field.name.replace('_', ' ')} {_shown(ours)}{units[0]} instead of {_shown(theirs)}{units[1]}")
    return tuple(told)


def _counts(name: str, recipe: Recipe) -> bool:
    """Whether a recipe uses a field; where it does not, the field that switches it off is told."""
    return name == "evaluate_every" or name not in USED or USED[name](recipe)  # the curve is made of evaluations


def _unit(value: object, unit: str) -> str:
    return f" {noun(value, unit)}" if value != () else ""


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(_shown(one) for one in value) or "none"
    return f"{value:,.10g}" if isinstance(value, int | float) and not isinstance(value, bool) else show(value) or "none"


def _paper(recipe: Recipe) -> Recipe:
    return recipe


def _small(recipe: Recipe) -> Recipe:
    """Fashion-MNIST in a hundredth of the CIFAR protocol's steps."""
    return shortened(_pictures(recipe, ENLARGED), STEPS["small"], "fashion-mnist", 5000)


def _smoke(recipe: Recipe) -> Recipe:
    """Two steps on the digits."""
    fewer = dataclasses.replace(recipe, batch_size=SMOKE_BATCH, micro_batch=0, compile="no", threads=1,
                                checkpoint_seconds=3600)
    short = shortened(_pictures(fewer, 0), STEPS["smoke"], "digits", SMOKE_VALIDATION)
    return dataclasses.replace(short, evaluate_every=STEPS["smoke"])


def shortened(recipe: Recipe, steps: int, data: str, validation: int) -> Recipe:
    """`recipe` on other data in so many steps, all its times in proportion; steps at 1/2 and 3/4 for a plateau's rule.

    A plateau is found over more steps than there are.
    """
    share = steps / recipe.duration
    times: dict[str, float] = {}
    for name in TIMES:
        value = getattr(recipe, name)
        times[name] = max(1, round(value * share)) if value else value
    times["evaluate_every"] = max(times["evaluate_every"], steps // EVALUATIONS, 1)
    milestones = [round(time * share) for time in recipe.milestones]
    if recipe.schedule == "plateau":
        milestones = [steps // 2, 3 * steps // 4]
    drops = tuple(dict.fromkeys(time for time in milestones if 0 < time < steps))
    schedule = "steps" if drops else "constant" if recipe.schedule in ("steps", "plateau") else recipe.schedule
    return dataclasses.replace(
        recipe, data=data, split="", validation=validation, unit="iterations", duration=steps, schedule=schedule,
        milestones=drops, **times)  # type: ignore[arg-type]


def _pictures(recipe: Recipe, side: int) -> Recipe:
    """`recipe` for grey pictures of 28x28 or less: as they are, or enlarged to `side` (0: as little as possible)."""
    published = published_input(recipe.network)[1]
    if published <= SMALL_PICTURES and recipe.input_size in (0, published):
        return recipe if side else dataclasses.replace(recipe, pad=min(recipe.pad, 1))
    size = side if side and _takes(recipe.network, side) else smallest_input(recipe.network) if not side else published
    asked = recipe.input_size or published
    longer = max(size, round(size * recipe.resize_to / asked))
    low, high = (max(size, round(size * edge / asked)) for edge in recipe.scale_range)
    return dataclasses.replace(recipe, input_size=size, resize_to=longer, scale_range=(low, high))


@cache
def smallest_input(network: str) -> int:
    """The smallest of some sides, in pixels, that the network takes; the published one where it takes no other."""
    published = published_input(network)[1]
    return next((side for side in (32, 64, 96, 128) if side < published and _takes(network, side)), published)


@cache
def _takes(network: str, side: int) -> bool:
    try:
        shapes.stage_shapes(network, (published_input(network)[0], side, side))
    except shapes.MisfitError:
        return False
    return True
