"""The layers of a network in the order of its computation, and a network put back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

WEIGHT_LAYERS = (nn.Conv2d, nn.Linear)
Look = Callable[[str, nn.Module, Tensor, Tensor], None]  # name, layer, its input, its output


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode; each module's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, was in modes.items():
            module.training = was


@contextmanager
def watched(modules: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """Calls `look` whenever one of the modules has computed; takes its hooks away afterwards."""
    handles = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: look(name, module, inputs[0], output)

    try:
        for name, module in modules.items():
            handles.append(module.register_forward_hook(hook(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(model: nn.Module, stand_ins: Mapping[str, nn.Module]) -> Iterator[None]:
    """Puts other modules in the places named (paths as in `named_modules`); the same objects are back afterwards."""
    places = [(model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in stand_ins]
    originals = [parent._modules[name] for parent, name in places]
    try:
        for (parent, name), module in zip(places, stand_ins.values(), strict=True):
            parent._modules[name] = module
        yield
    finally:
        for (parent, name), original in zip(places, originals, strict=True):
            parent._modules[name] = original


def executed(model: nn.Module, image: Tensor, kinds: tuple[type[nn.Module], ...] = WEIGHT_LAYERS) -> tuple[str, ...]:
    """The names of the layers of `kinds` in the order in which `image` (1, C, H, W) goes through them."""
    found: list[str] = []
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    with mode(model, training=False), watched(layers, lambda name, *_: found.append(name)), torch.no_grad():
        model(image[:1])
    return tuple(dict.fromkeys(found))


def normalised(model: nn.Module, image: Tensor) -> dict[str, str]:
    """Which batch normalisation takes the output of which layer with weights, by their names; by one picture.

    It is found by the tensors that pass, not by names. Where none follows a layer at once, the layer is left out.
    """
    last: list[tuple[str, Tensor]] = []
    pairs: dict[str, str] = {}

    def look(name: str, module: nn.Module, entered: Tensor, left: Tensor) -> None:
        if isinstance(module, _BatchNorm):
            pairs.update({layer: name for layer, output in last if output is entered})
        else:
            last[:] = [(name, left)]

    layers = {name: m for name, m in model.named_modules() if isinstance(m, (*WEIGHT_LAYERS, _BatchNorm))}
    with mode(model, training=False), watched(layers, look), torch.no_grad():
        model(image[:1])
    return pairs
