"""Which recipe a command means: a preset's name, a file, a run, or the one that fits the network and the data."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from layerwise.errors import InputError, LayerwiseError, nearest
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.presets import PRESETS, preset

SMALL = 64  # pictures up to this side, in pixels, are "small": the recipe `fast` suits them


def find(name: str) -> Recipe:
    """The recipe that `name` means: a preset, a JSON file, or a run's directory.

    Raises InputError with the nearest presets where it is none of them.
    """
    if name in PRESETS:
        return preset(name)
    path = Path(name)
    file = path / "recipe.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise InputError(f"{name}: a directory without recipe.json, so no run",
                         mend="Name a preset, a recipe's JSON file or a run.")
    if not file.is_file():
        raise InputError(f"recipe {name!r}: no preset and no file of this name{nearest(name, PRESETS)}",
                         "A recipe is used by its exact name, never by a guess.",
                         f"The presets are: {', '.join(PRESETS)}.")
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file, so no recipe",
                         mend="Write one with: layerwise recipe NAME --json > my-recipe.json") from None
    return Recipe.from_json(text, str(file))


def changed_recipe(name: str, settings: Sequence[str]) -> Recipe:
    """The recipe that `name` means with `settings` applied and checked; every problem of them at once."""
    recipe, problems = applied(find(name), settings)
    raise_together(problems)
    return recipe


def applied(recipe: Recipe, settings: Sequence[str]) -> tuple[Recipe, list[LayerwiseError]]:
    """`recipe` with those of `settings` that can be read, and the problems of all: one that can't be read hides none.

    Contradictions between fields are looked for only where all settings could be read: else the missing one may be
    their reason.
    """
    problems: list[LayerwiseError] = []
    try:
        recipe = changed(recipe, settings)
    except InputError as error:
        problems.append(error)
        given: set[str] = set()
        for setting in settings:
            name = setting.partition("=")[0].strip()
            with contextlib.suppress(InputError):
                recipe = changed(recipe, [] if name in given else [setting])
                given.add(name)
    try:
        check(recipe)
    except InputError as error:
        told = error.details
        if problems:
            told = tuple(line for line in told if line.split(" is ")[0] in given and ": expected " in line)
        if told:
            problems.append(InputError(error.what, error.why, error.mend, told))
    return recipe, problems


def raise_together(problems: Sequence[LayerwiseError]) -> None:
    """Raises the problem, or one that tells them all."""
    if len(problems) > 1:
        details = [line for problem in problems for line in (problem.details or (problem.what,))]
        raise InputError(f"{len(details)} problems before the start", problems[-1].why, problems[0].mend, details)
    if problems:
        raise problems[0]


def for_training(network: str, data: str, name: str, settings: Sequence[str]) -> Recipe:
    """The checked recipe that trains `network` on `data`: `name` or, where that is "", the one that fits.

    Raises InputError with a misspelt network's nearest names and every problem of the recipe at once.
    """
    from layerwise import models

    problems: list[LayerwiseError] = []
    if network not in models.names():
        problems.append(InputError(f"network {network!r}: there is no such network{nearest(network, models.names())}",
                                   mend="`layerwise models` lists them."))
    recipe = preset("fast")
    try:
        recipe = find(name) if name else preset("fast") if problems else fitting(network, data, settings)
    except LayerwiseError as error:
        problems.append(error)
    recipe, found = applied(dataclasses.replace(recipe, network=network, data=data), settings)
    # Of another recipe than the one that was meant only what is wrong in any is told.
    raise_together([*problems, *(found if not problems else [one for one in found if one.what.startswith("--set")])])
    return recipe


def fitting(network: str, data: str, settings: Sequence[str]) -> Recipe:
    """The preset for a named data set; for a folder or a list of pictures the one for the network's size.

    Pictures in a folder differ in size, so they are brought to the size the network was published for: `fast` up to
    64 pixels, `fine-tune` above, and without its slower first layers ("from-scratch") where nothing is loaded.
    """
    from layerwise import models
    from layerwise.data.opening import NAMES

    if data in PRESETS:
        return preset(data)
    if data in NAMES:
        return preset("fast")
    size = models.published_input(network)[1]
    if size <= SMALL:
        return dataclasses.replace(preset("fast"), input_size=size, resize="short-side", resize_to=size, pad=size // 8)
    recipe = dataclasses.replace(preset("fine-tune"), input_size=size, resize_to=round(size / 0.875))
    scratch = not any(setting.startswith("start_from=") for setting in settings)
    return dataclasses.replace(recipe, name="from-scratch", slow=()) if scratch else recipe
