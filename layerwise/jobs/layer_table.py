"""What `layerwise models` shows: the list of networks; a network's stages as papers print them, and its layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from layerwise import models
from layerwise.errors import InputError, nearest
from layerwise.models import shapes
from layerwise.models.costs import costs
from layerwise.models.network import FLOWS, Network

CONVENTION = "convolution and fc layers; one multiply-add is two floating-point operations"
SORTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "name": lambda row: row["name"],
    "paper": lambda row: row["paper"].lower(),
    "year": lambda row: row["year"],
    "flow": lambda row: list(FLOWS).index(row["flow"]),
    "parameters": lambda row: row["parameters"],
    "multiply-adds": lambda row: row["multiply_adds"],
    "input": lambda row: math.prod(row["input"]),
}


def known(name: str) -> str:
    """`name`, where it is a network's. Raises InputError with the nearest names."""
    if name not in models.names():
        raise InputError(f"network {name!r}: there is no such network{nearest(name, models.names())}",
                         mend="`layerwise models` lists them.")
    return name


def network_list(filters: Sequence[str], sort: str) -> list[dict[str, Any]]:
    """Every network that has all `filters` in its name, paper, year, flow or input, in the order of `sort`.

    A row has name, paper, year, flow, input (C, H, W), classes, parameters and multiply_adds; `sort` is one of SORTS,
    with a minus before it for the largest first, or "" for the order of the papers. Raises InputError for another.
    """
    column = sort.removeprefix("-")
    if column and column not in SORTS:
        raise InputError(f"--sort {column!r}: is not a column{nearest(column, SORTS)}",
                         mend=f"Sort by one of {', '.join(SORTS)}; -year puts the latest first.")
    chosen = [name for name in models.names() if _matches(name, filters)]
    if not chosen:
        raise InputError(f"--filter {' '.join(filters)}: no network has that",
                         "A filter is text in the name, paper, year, flow or input of a network; all must be there.",
                         "Try --filter 2015, --filter residual, --filter 32x32 or --filter sum.")
    rows = [_row(name) for name in chosen]
    return sorted(rows, key=SORTS[column], reverse=sort.startswith("-")) if column else rows


def _matches(name: str, filters: Sequence[str]) -> bool:
    paper = models.paper(name)
    size = "x".join(map(str, models.published_input(name)))
    text = f"{name} {paper} {paper.title} {paper.flow} {size}".lower()
    return all(one.lower() in text for one in filters)


def _row(name: str) -> dict[str, Any]:
    paper, counted = models.paper(name), costs()[name]
    return {
        "name": name, "paper": paper.authors, "year": paper.year, "flow": paper.flow,
        "input": list(models.published_input(name)), "classes": counted.classes,
        "parameters": counted.parameters, "multiply_adds": counted.multiply_adds,
    }  # fmt: skip


def _on_meta(name: str, classes: int | None = None, channels: int | None = None) -> Network:
    with torch.device("meta"):
        return models.build(name, classes, channels)


def layer_table(name: str, size: int, channels: int, classes: int) -> dict[str, Any]:
    """The stages and layers of a network for inputs of `channels` x `size` x `size`; 0: the paper's own number.

    A layer's `activations` are the numbers that it puts out; `field` is its units' receptive field (height, width,
    step) in pixels. Raises InputError where the input is too small, naming the layer and the smallest input.
    """
    published = models.published_input(known(name))
    shape = (channels or published[0], size or published[1], size or published[2])
    model = _on_meta(name, classes or None, channels or None)
    outputs = int(model.architecture["arguments"]["num_classes"])
    notes = shapes.check_input(name, shape[0], size, outputs, "--size") if size else []
    cost, rows, paper = shapes.cost(model, shape), shapes.traced(model, shape), models.paper(name)
    outputs_of = shapes.stage_shapes(model, shape) | {"head": (outputs,)}
    layers = [
        {"name": row.name, "kind": row.kind, "output": list(row.output), "parameters": row.parameters,
         "multiply_adds": row.multiply_adds, "activations": math.prod(row.output),
         "field": None if row.field is None else list(row.field)}
        for row in rows
    ]  # fmt: skip
    return {
        "name": name, "paper": str(paper), "title": paper.title, "flow": f"{paper.flow}: {FLOWS[paper.flow]}",
        "reported": [f"{one.error:g} % {one.measure}, {one.data} ({one.where})" for one in models.reported(name)],
        "input": list(shape), "classes": outputs, "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds, "activations": sum(layer["activations"] for layer in layers),
        "convention": CONVENTION, "notes": list(notes),
        "stages": list(_stages(model, rows, outputs_of)), "layers": layers,
    }  # fmt: skip


def _stages(
    model: Network, rows: Sequence[shapes.Row], outputs: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, Any]]:
    """A row for each child of `features` and for `head`: output, blocks as papers print them, parameters, cost."""
    groups = [f"features.{stage}" for stage, _ in model.features.named_children()] + ["head"]
    for group in groups:
        stage = group.removeprefix("features.")
        inside = [row for row in rows if row.name == group or row.name.startswith(f"{group}.")]
        text = _blocks(model, group, inside)
        if text or any(row.parameters for row in inside):
            yield {
                "name": stage, "output": list(outputs[stage]),
                "layers": text, "parameters": sum(row.parameters for row in inside),
                "multiply_adds": sum(row.multiply_adds for row in inside),
            }  # fmt: skip


def _blocks(model: Network, group: str, rows: Sequence[shapes.Row]) -> str:
    """The windows and fully connected layers of a stage; equal blocks once, with their number."""
    parts: list[str] = []
    for _, block in itertools.groupby(rows, key=lambda row: row.name.removeprefix(group).split(".")[1:2]):
        shown = [(text, _stride(model, row)) for row in block if "shortcut" not in row.name
                 if (text := _window(model, row))]  # fmt: skip
        if len(shown) == 1:
            parts.append("".join(shown[0]))
        elif shown:
            parts.append(f"[{'; '.join(text for text, _ in shown)}]")
    counted = [(text, len(list(same))) for text, same in itertools.groupby(parts)]
    return ", ".join(text if count == 1 else f"{text} x {count}" for text, count in counted)


def _window(model: Network, row: shapes.Row) -> str:
    """One layer as in the tables of papers: "3x3, 64", "3x3 max pool", "1000-d fc"; "" for what they leave out."""
    layer = model.get_submodule(row.name)
    if isinstance(layer, nn.Linear):
        return f"{layer.out_features}-d fc"
    if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return f"{'global' if row.output[1:] == (1, 1) else 'adaptive'} {_pool_kind(row.kind)} pool"
    kernel = getattr(layer, "kernel_size", None)
    if kernel is None:
        return ""
    height, width = (kernel, kernel) if isinstance(kernel, int) else (kernel[0], kernel[-1])
    if isinstance(layer, shapes.CONVOLUTIONS):
        groups = getattr(layer, "groups", 1)
        if groups > 1 and groups == layer.in_channels:
            return f"{height}x{width} depthwise, {row.output[0]}"
        return f"{height}x{width}, {row.output[0]}" + (f", {groups} groups" if groups > 1 else "")
    return f"{height}x{width} {_pool_kind(row.kind)} pool"


def _stride(model: Network, row: shapes.Row) -> str:
    """", stride 2" where a layer that stands alone halves the map; in a stage's blocks only the first does."""
    stride = getattr(model.get_submodule(row.name), "stride", 1)
    largest = stride if isinstance(stride, int) else max(stride)
    return f", stride {largest}" if largest > 1 else ""


def _pool_kind(kind: str) -> str:
    return "max" if "Max" in kind else "average" if "Avg" in kind else kind
