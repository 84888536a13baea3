"""Layerwise: the convolutional networks of the papers, trained, tested and used in PyTorch.

The public names are in `__all__`; each is imported when it is first used, so that `import layerwise` is quick.
`layerwise.train` and `layerwise.evaluate` are modules as well as functions: they can be called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerwise.data import open_data as open_data
    from layerwise.data.source import Samples
    from layerwise.errors import InputError as InputError
    from layerwise.errors import MachineError as MachineError
    from layerwise.errors import ToleranceError as ToleranceError
    from layerwise.evaluate import EvaluateOptions
    from layerwise.evaluation.result import Result
    from layerwise.jobs.main_job import resume as resume
    from layerwise.modelfile import ModelFile
    from layerwise.modelfile import read as load
    from layerwise.models import build as build
    from layerwise.recipe import Recipe
    from layerwise.recipes.presets import preset as preset
    from layerwise.serve.predictor import predict as predict
    from layerwise.training.preparation import RunOptions

__all__ = ["InputError", "MachineError", "ToleranceError", "build", "evaluate", "load", "open_data", "predict",
           "preset", "resume", "train"]


class _Train(ModuleType):
    def __call__(self, recipe: Recipe, options: RunOptions | None = None) -> Path:
        """Trains as `recipe` says, tests on the test split, reports; returns the run's directory."""
        from layerwise.jobs.main_job import train
        from layerwise.training.preparation import RunOptions

        return train(recipe, options or RunOptions())


class _Evaluate(ModuleType):
    def __call__(self, models: ModelFile | Sequence[ModelFile], samples: Samples,
                 options: EvaluateOptions | None = None) -> Result:
        """Tests a model, or several together, on labelled pictures under the options' protocol."""
        from layerwise.evaluate import EvaluateOptions, evaluate

        return evaluate(models, samples, options or EvaluateOptions())


_CALLABLE: dict[str, type[ModuleType]] = {"train": _Train, "evaluate": _Evaluate}


def _public(name: str) -> Any:
    """The public name, imported now."""
    if name.endswith("Error"):
        import layerwise.errors as errors
        return getattr(errors, name)
    if name == "build":
        from layerwise.models import build
        return build
    if name == "load":
        from layerwise.modelfile import read
        return read
    if name == "open_data":
        from layerwise.data import open_data
        return open_data
    if name == "predict":
        from layerwise.serve.predictor import predict
        return predict
    if name == "preset":
        from layerwise.recipes.presets import preset
        return preset
    if name == "resume":
        from layerwise.jobs.main_job import resume
        return resume
    if name == "evaluate":
        import layerwise.evaluate as evaluate
        return evaluate
    import layerwise.train as train
    return train


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLABLE and isinstance(value, ModuleType):
            value.__class__ = _CALLABLE[name]
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'layerwise' has no attribute {name!r}")
        found = _public(name)
        super().__setattr__(name, found)
        return found

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
