"""What `layerwise models` shows: the list of networks, and a network's layers with their cost."""

from __future__ import annotations

from typing import Any

from layerwise import models
from layerwise.errors import InputError, nearest
from layerwise.models import shapes

CONVENTION = "convolution and fc layers; one multiply-add is two floating-point operations"


def known(name: str) -> str:
    """`name`, where it is a network's. Raises InputError with the nearest names."""
    if name not in models.names():
        raise InputError(f"network {name!r}: there is no such network{nearest(name, models.names())}",
                         mend="`layerwise models` lists them.")
    return name


def network_list(with_cost: bool) -> list[dict[str, Any]]:
    """Every network with its published input (C, H, W), and with classes, parameters and multiply-adds if wanted."""
    if not with_cost:
        return [{"name": name, "input": list(models.published_input(name))} for name in models.names()]
    tables = [layer_table(name, 0, 0, 0) for name in models.names()]
    return [{key: table[key] for key in ("name", "input", "classes", "parameters", "multiply_adds")}
            for table in tables]  # fmt: skip


def layer_table(name: str, size: int, channels: int, classes: int) -> dict[str, Any]:
    """The layers of a network for inputs of `channels` x `size` x `size`; 0 stands for the paper's own number.

    Raises InputError where the input is too small, naming the layer and the smallest input.
    """
    import torch

    published = models.published_input(known(name))
    shape = (channels or published[0], size or published[1], size or published[2])
    with torch.device("meta"):
        model = models.build(name, classes or None, channels or None)
    outputs = int(model.architecture["arguments"]["num_classes"])
    notes = shapes.check_input(name, shape[0], size, outputs) if size else []
    cost = shapes.cost(model, shape)
    layers = [
        {"name": row.name, "kind": row.kind, "output": list(row.output), "parameters": row.parameters,
         "multiply_adds": row.multiply_adds}
        for row in cost.rows
    ]  # fmt: skip
    return {
        "name": name, "input": list(shape), "classes": outputs, "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds, "convention": CONVENTION, "notes": list(notes), "layers": layers,
    }  # fmt: skip
