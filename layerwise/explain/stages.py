"""The layers of a network that are worth showing, and the map of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.errors import InputError, nearest
from layerwise.explain.order import mode


class _ReachedError(Exception):
    """The layer has computed; nothing behind it is wanted."""


def stages(model: nn.Module, image: Tensor) -> tuple[str, ...]:
    """The children of `features` that give a map (N, C, H, W), in the order in which `image` (1, C, H, W) passes.

    In a network without `features`, its own children.
    """
    parent = "features." if isinstance(getattr(model, "features", None), nn.Module) else ""
    owner = model.get_submodule("features") if parent else model
    found: list[str] = []
    handles = []

    def hook(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                found.append(parent + name)

        return look

    try:
        for name, child in owner.named_children():
            handles.append(child.register_forward_hook(hook(name)))
        with mode(model, training=False), torch.no_grad():
            model(image[:1])
    finally:
        for handle in handles:
            handle.remove()
    return tuple(dict.fromkeys(found))


@contextmanager
def tapped(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Within it each output of `layer` is appended to the list; what follows works on a copy, so that no layer that
    changes its input in place changes the tensor that was taken. Raises InputError for an unknown layer."""
    module = dict(model.named_modules()).get(layer)
    if module is None or not layer:
        names = [name for name, _ in model.named_modules() if name]
        raise InputError(f"{layer!r} is no layer of this network{nearest(layer, names)}",
                         mend=f"Its layers are called like {', '.join(names[:4])}.")
    taken: list[Tensor] = []

    def take(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(f"layer {layer} gives {type(output).__name__}, not one map",
                             mend="Choose a layer inside it or behind it.")
        taken.append(output)
        return output.clone()

    handle = module.register_forward_hook(take)
    try:
        yield taken
    finally:
        handle.remove()


def map_at(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """What `layer` makes of `images` (N, C, H, W) in evaluation mode; nothing behind it is computed.

    The first output of a layer that is used several times. Gradients follow where they are enabled. Raises InputError
    for an unknown layer, and for one that the pictures do not pass.
    """
    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _ReachedError

    with mode(model, training=False), tapped(model, layer) as taken:
        handle = model.get_submodule(layer).register_forward_hook(stop)
        try:
            model(images)
        except _ReachedError:
            return taken[0]
        finally:
            handle.remove()
    raise InputError(f"pictures do not pass layer {layer}", "It belongs to a head that predictions leave out.",
                     "Choose another layer.")
