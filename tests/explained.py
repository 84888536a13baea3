"""A run for the tests of what looks into networks: ResNet-20 on the digits, trained in seconds."""

from __future__ import annotations

from pathlib import Path

import layerwise
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training.preparation import RunOptions

SETTINGS = ("network=resnet20", "duration=3", "warmup_length=0.5", "threads=1", "device=cpu", "protocol=single")


def trained(place: Path, *settings: str) -> Path:
    """A finished run in `place` (which must not exist); `settings` are as those of --set and stand instead of ours."""
    given = dict(one.split("=", 1) for one in (*SETTINGS, *settings))
    recipe = changed(preset("digits"), [f"{name}={value}" for name, value in given.items()])
    return layerwise.train(recipe, RunOptions(out=place, quiet=True))
