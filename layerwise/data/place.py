"""Where a run's data lie: a relative path is relative to where the training was started, not to where one is now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerwise.data.imagenet import EDITIONS
from layerwise.data.opening import NAMES
from layerwise.data.pieces import is_remote
from layerwise.recipe import Recipe


def place_of(name_or_path: str) -> str:
    """The absolute path of a folder or list, or an address; "" for a published data set, which has none."""
    if is_remote(name_or_path):
        return name_or_path
    return "" if name_or_path in NAMES or name_or_path in EDITIONS else str(Path(name_or_path).expanduser().absolute())


def placed(recipe: Recipe, record: Mapping[str, Any]) -> Recipe:
    """`recipe` with data that can be found from here: where its own path leads nowhere, at the place in `record`.

    `record` is run.json. A recipe whose data lie in neither place is returned as it is.
    """
    data = record.get("data")
    place = data.get("place") if isinstance(data, dict) else None
    if not isinstance(place, str) or not place or recipe.data in NAMES or is_remote(recipe.data):
        return recipe
    if Path(recipe.data).expanduser().exists():
        return recipe
    return dataclasses.replace(recipe, data=place) if Path(place).exists() else recipe
