"""Every entry of a weight file and of a network accounted for: loaded, new, unused, or a problem that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise import models
from layerwise.importing.tables import Table, translated

COUNTER = ".num_batches_tracked"
AUXILIARY = "auxiliary."


@dataclass(frozen=True)
class Wanted:
    """What a network needs: each entry's tensor on the meta device, and the entries whose first axis is the classes."""

    entries: dict[str, Tensor]
    by_class: frozenset[str]


@dataclass(frozen=True)
class Match:
    """`pairs` are our entries with the file's name for each; `new` those that it lacks and may lack, with the reason;
    `unused` what it has and the network doesn't take, with the reason; `classes` as many as its head has (0: none)."""

    pairs: dict[str, str]
    new: dict[str, str]
    unused: dict[str, str]
    problems: tuple[str, ...]
    classes: int


def wanted(name: str) -> Wanted:
    """The entries of our network `name`; the classes' are those that change with their number."""
    with torch.device("meta"):
        entries, other = (dict(models.build(name, num_classes=classes).state_dict()) for classes in (10, 11))
    return Wanted(entries, frozenset(key for key in entries if entries[key].shape != other[key].shape))


def match(entries: Mapping[str, Tensor], network: Wanted, table: Table, new_head: bool = False) -> Match:
    """Which entry of a file becomes which of ours; shapes are compared, but for the number of classes.

    The auxiliary heads as a whole and the batch counters may be missing; of the network's own head all, where a new
    one is asked for.
    """
    pairs: dict[str, str] = {}
    unused: dict[str, str] = {}
    problems: list[str] = []
    for theirs, tensor in entries.items():
        ours = translated(theirs, table)
        if ours == theirs:
            problems.append(f"{theirs} {_shape(tensor)}: in the file, of no layer that is known")
        elif ours not in network.entries:
            if ours.startswith(AUXILIARY) and not _auxiliary(network.entries):
                unused[theirs] = "the network has no auxiliary heads"
            else:
                problems.append(f"{theirs} {_shape(tensor)}: in the file, but the network has no {ours}")
        elif ours in pairs:
            problems.append(f"{theirs}: in the file, and {pairs[ours]} too, for {ours}")
        else:
            pairs[ours] = theirs
            problems += _misshapen(theirs, tensor, ours, network)
    new = {}
    without_auxiliary = not _auxiliary(pairs)
    for ours, needed in network.entries.items():
        if ours in pairs:
            continue
        if ours.startswith(AUXILIARY) and without_auxiliary:
            new[ours] = "the file has no auxiliary heads"
        elif ours.endswith(COUNTER):
            new[ours] = "the file is older than this counter, which evaluation doesn't use"
        elif ours in network.by_class and new_head:
            new[ours] = "the file has no head"
        else:
            problems.append(f"{ours} {_shape(needed)}: the network has it, the file doesn't")
    heads = [entries[pairs[ours]] for ours in network.by_class if ours in pairs]
    classes = {tensor.shape[0] for tensor in heads if tensor.ndim}
    if len(classes) > 1:
        problems.append(f"heads for different numbers of classes: {', '.join(map(str, sorted(classes)))}")
    return Match(pairs, new, unused, tuple(problems), max(classes, default=0))


def _auxiliary(names: Mapping[str, object]) -> bool:
    return any(name.startswith(AUXILIARY) for name in names)


def _misshapen(theirs: str, tensor: Tensor, ours: str, network: Wanted) -> list[str]:
    """What is wrong with a tensor's shape or kind of numbers, for the entry that it is meant for."""
    needed = network.entries[ours]
    axes = 1 if ours in network.by_class else 0
    if tensor.ndim != needed.ndim or tensor.shape[axes:] != needed.shape[axes:]:
        expected = ("classes, " if axes else "") + ", ".join(map(str, needed.shape[axes:]))
        return [f"{theirs} {_shape(tensor)}: expected ({expected}) for {ours}"]
    if tensor.is_floating_point() != needed.is_floating_point():
        return [f"{theirs}: {tensor.dtype}, expected {needed.dtype} for {ours}"]
    return []


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def knows(entries: Mapping[str, Tensor], table: Table) -> bool:
    """Whether a table has a name of ours for every entry."""
    return all(translated(name, table) != name for name in entries)
