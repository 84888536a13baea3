"""Which fields a recipe uses: one that another field switches off changes nothing, whatever its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layerwise.recipe import Recipe

_ADAPTIVE = ("adam", "adamw")
USED: Mapping[str, Callable[[Recipe], bool]] = {
    "pad": lambda recipe: recipe.crop == "pad",
    "pad_with": lambda recipe: recipe.crop == "pad",
    "crop_area_min": lambda recipe: recipe.crop == "resized",
    "scale_range": lambda recipe: recipe.crop in ("scale", "square"),
    "flip_turns": lambda recipe: recipe.flip,
    "resize_to": lambda recipe: recipe.resize == "short-side",
    "interpolation": lambda recipe: recipe.resize != "none" or recipe.crop in ("resized", "scale", "square"),
    "colour_sigma": lambda recipe: recipe.colour != "none",
    "milestones": lambda recipe: recipe.schedule == "steps",
    "decay_factor": lambda recipe: recipe.schedule in ("steps", "plateau"),
    "plateau_patience": lambda recipe: recipe.schedule == "plateau",
    "plateau_threshold": lambda recipe: recipe.schedule == "plateau",
    "plateau_drops": lambda recipe: recipe.schedule == "plateau",
    "evaluate_every": lambda recipe: recipe.schedule == "plateau" or recipe.select == "best",
    "warmup_length": lambda recipe: recipe.warmup == "steps" or recipe.schedule == "one-cycle",
    "warmup_rate": lambda recipe: recipe.warmup != "none",
    "warmup_error": lambda recipe: recipe.warmup == "training-error",
    "momentum": lambda recipe: recipe.optimiser in ("sgd", "rmsprop", *_ADAPTIVE),
    "nesterov": lambda recipe: recipe.optimiser == "sgd",
    "velocity": lambda recipe: recipe.optimiser == "sgd",
    "beta2": lambda recipe: recipe.optimiser in ("rmsprop", "adadelta", *_ADAPTIVE),
    "epsilon": lambda recipe: recipe.optimiser != "sgd",
    "weight_decay_on": lambda recipe: recipe.weight_decay > 0,
    "unfreeze_at": lambda recipe: bool(recipe.freeze),
}
