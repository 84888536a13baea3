"""The networks by name: `names`, `build`, `published_input`, `paper`, `reported`, `for_small_pictures`."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from layerwise.errors import InputError, nearest
from layerwise.layers.unfilled import FilledOnce, Unfilled
from layerwise.models import (
    airnet,
    alexnet,
    densenet,
    dsn,
    efficientnet_lite,
    fitnet,
    four_layer,
    googlenet,
    highway,
    inception_resnet,
    inception_v2,
    inception_v3,
    inception_v4,
    lenet,
    maxout,
    mobilenet,
    mobilenet_v2,
    nasnet,
    nin,
    preact_resnet,
    resnet,
    resnext,
    vgg,
    wide_resnet,
    xception,
    zfnet,
)
from layerwise.models.network import Network, Paper, Reported

_FAMILIES = (
    lenet,
    alexnet,
    four_layer,
    zfnet,
    nin,
    maxout,
    vgg,
    googlenet,
    dsn,
    fitnet,
    highway,
    inception_v2,
    inception_v3,
    resnet,
    preact_resnet,
    wide_resnet,
    resnext,
    inception_v4,
    inception_resnet,
    mobilenet,
    xception,
    densenet,
    nasnet,
    mobilenet_v2,
    efficientnet_lite,
    airnet,
)
SMALL_SIDE = 32  # pixels
MANY = 15_000  # objects that the garbage collector knows: the deepest networks, from NASNet-A large on
_VARIANTS: dict[str, Callable[..., Network]] = {k: v for family in _FAMILIES for k, v in family.VARIANTS.items()}
_INPUTS: dict[str, tuple[int, int, int]] = {k: v for family in _FAMILIES for k, v in family.INPUTS.items()}
_PAPERS: dict[str, Paper] = {k: v for family in _FAMILIES for k, v in family.PAPERS.items()}
_REPORTED: dict[str, tuple[Reported, ...]] = {k: v for family in _FAMILIES for k, v in family.REPORTED.items()}
# Networks with large weights: those for large pictures, and the wide ones. Of the others the deepest has 1,202 layers.
_LARGE = frozenset({*wide_resnet.VARIANTS, *resnext.VARIANTS, *(k for k, v in _INPUTS.items() if v[1] > SMALL_SIDE)})
_SMALL: dict[str, str] = {k: v for family in _FAMILIES for k, v in family.FOR_SMALL_PICTURES.items()}


def names() -> tuple[str, ...]:
    """Every network's name, in the order of the papers' tables."""
    return tuple(_VARIANTS)


def published_input(name: str) -> tuple[int, int, int]:
    """The input of the paper, (C, H, W). Raises InputError for an unknown name."""
    _known(name)
    return _INPUTS[name]


def paper(name: str) -> Paper:
    """The paper that a network is from. Raises InputError for an unknown name."""
    _known(name)
    return _PAPERS[name]


def reported(name: str) -> tuple[Reported, ...]:
    """The error rates that the paper reports for a network, often none. Raises InputError for an unknown name."""
    _known(name)
    return _REPORTED.get(name, ())


def for_small_pictures(name: str) -> str | None:
    """The network for 32x32 pictures that is nearest to one made for large ones; None where there is none."""
    return _SMALL.get(name)


def build(name: str, num_classes: int | None = None, in_channels: int | None = None, **arguments: object) -> Network:
    """The network `name` with random weights, in training mode; None means the paper's own number.

    Further arguments are the numbers that the network's constructor leaves free (AlexNet's `dropout`, the CIFAR
    networks' `widths`). `architecture` of the result holds the name and all arguments, fit for JSON:
    build(name, **arguments) gives the same network again. Raises InputError with all that is wrong.
    """
    constructor = _known(name)
    free = _free_arguments(constructor)
    given = {"num_classes": num_classes, "in_channels": in_channels, **arguments}
    chosen = {key: value for key, value in given.items() if value is not None}
    problems = []
    for key, value in chosen.items():
        if key not in free:
            problems.append(f"{key} is not an argument of {name}{nearest(key, free)}")
        elif (problem := _problem(value, free[key])) is not None:
            problems.append(f"{key}={value!r}: {problem}")
    if problems:
        takes = ", ".join(f"{key} ({default})" for key, default in free.items())
        raise InputError(f"{name} cannot be built so", mend=f"It takes: {takes}.", details=problems)
    complete = free | {key: tuple(value) if isinstance(value, list) else value for key, value in chosen.items()}
    if torch.get_default_device().type == "meta":
        filling: AbstractContextManager[object] = Unfilled()
    else:
        filling = FilledOnce() if name in _LARGE else nullcontext()
    with _uncollected(), filling:
        network = constructor(**complete)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in complete.items()}
    network.architecture = {"name": name, "arguments": plain}
    return network


@contextmanager
def _uncollected() -> Iterator[None]:
    """Python looks for no garbage within it nor, at its end, among the thousands of modules made, which all stay.

    Only a large network is declared old: what is called old does not count towards the next search for old garbage, so
    that a process that reads one small model file after another would never look and grow without end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY and not gc.get_freeze_count():  # saves a fifth of the time of ResNet-1202
            gc.freeze()
            gc.unfreeze()
        if enabled:
            gc.enable()


def _known(name: str) -> Callable[..., Network]:
    if name not in _VARIANTS:
        raise InputError(
            f"{name!r} is not a network of this library{nearest(name, _VARIANTS)}",
            mend=f"The names are: {', '.join(_VARIANTS)}.",
        )
    return _VARIANTS[name]


def _free_arguments(constructor: Callable[..., Network]) -> dict[str, object]:
    """The arguments with a number, or a tuple of numbers, as default."""
    defaults = {key: parameter.default for key, parameter in inspect.signature(constructor).parameters.items()}
    free = {"num_classes": defaults.pop("num_classes"), "in_channels": defaults.pop("in_channels")}
    return free | {key: value for key, value in defaults.items() if _is_free(key, value, constructor)}


def _is_free(key: str, value: object, constructor: Callable[..., Network]) -> bool:
    fixed = getattr(constructor, "keywords", {})
    return key not in fixed and isinstance(value, int | float | tuple)


def _problem(value: object, default: object) -> str | None:
    """Why `value` cannot stand for `default`, or None."""
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) != len(default):
            return f"expected {len(default)} numbers"
        return next((f"{one!r}: {why}" for one in value if (why := _problem(one, default[0]))), None)
    if isinstance(default, int):
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        return None if is_count else "expected a whole number of at least 1"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float) and default >= 1:  # a multiplier
        return None if is_number and 0 < value <= 100 else "expected a number above 0"  # type: ignore[operator]
    is_part = is_number and 0 <= value < 1  # type: ignore[operator]
    return None if is_part else "expected a number from 0 up to, but not including, 1"
