"""Starting from a model file: every entry is loaded, adapted, newly initialised or unused, and said to be so."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise.errors import InputError
from layerwise.modelfile import ModelFile
from layerwise.models.network import Network


@dataclass(frozen=True)
class LoadReport:
    """What became of each entry of a network (`loaded`, `adapted` with how, `new`) and of the file (`unused`)."""

    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for people: the counts, then what is not simply loaded."""
        counts = (f"{len(self.loaded)} entries loaded, {len(self.adapted)} adapted, "
                  f"{len(self.new)} newly initialised, {len(self.unused)} of the file unused")
        named = (("adapted", self.adapted), ("new", self.new), ("unused", self.unused))
        return [counts, *(f"{kind}: {entry}" for kind, entries in named for entry in entries)]


def start_from(model: Network, class_names: tuple[str, ...], source: ModelFile) -> LoadReport:
    """Loads a network's entries from a model file.

    The head follows the class names: the same names in another order are reordered, other names get a new one. A
    first convolution for one channel takes the sum of the file's over its channels; one for n channels takes the
    file's only channel divided by n (so that a grey picture gives the same). Only the classifier may be new:
    any other entry that is missing or of another shape raises InputError, all at once.
    """
    wanted, have = model.state_dict(), source.model.state_dict()
    classifier = _classifier(model)
    loaded, adapted, new, problems = [], [], [], []
    for name, tensor in wanted.items():
        if name.startswith(classifier) and class_names != source.class_names:
            rows = _rows(class_names, source.class_names)
            if rows is not None and name in have and have[name].shape == tensor.shape and _has_rows(tensor, rows):
                tensor.copy_(have[name][torch.tensor(rows)])
                adapted.append(f"{name}: rows put in the order of the class names")
            else:
                new.append(f"{name}: the classes differ")
        elif name not in have:
            problems.append(f"{name}: not in the file")
        elif have[name].shape == tensor.shape:
            tensor.copy_(have[name])
            loaded.append(name)
        elif (channels := _channels(have[name], tensor)) is not None:
            tensor.copy_(channels)
            adapted.append(f"{name}: {have[name].shape[1]} input channels to {tensor.shape[1]}")
        else:
            problems.append(f"{name}: {tuple(have[name].shape)} in the file, {tuple(tensor.shape)} in the network")
    if problems:
        raise InputError(
            f"{source.path}: {source.model.architecture['name']} does not fit {model.architecture['name']}",
            "Only the classifier may be newly initialised; anything else would be a network that nobody trained.",
            "Train the network that the file holds, or start from another file.",
            problems,
        )
    return LoadReport(tuple(loaded), tuple(adapted), tuple(new), tuple(name for name in have if name not in wanted))


def _classifier(model: Network) -> str:
    """The prefix of the entries that give the classes: the last child of `head` that has any."""
    with_entries = [name for name, child in model.head.named_children() if child.state_dict()]
    return f"head.{with_entries[-1]}."


def _rows(names: tuple[str, ...], source: tuple[str, ...]) -> list[int] | None:
    """For each class its row in the source, where both have the same set of names."""
    return [source.index(name) for name in names] if set(names) == set(source) else None


def _has_rows(tensor: Tensor, rows: list[int]) -> bool:
    return tensor.ndim > 0 and len(tensor) == len(rows)


def _channels(source: Tensor, wanted: Tensor) -> Tensor | None:
    """A convolution's weights (C_out, C_in, H, W) for another number of input channels."""
    if source.ndim != 4 or wanted.ndim != 4:
        return None
    if source.shape[0] != wanted.shape[0] or source.shape[2:] != wanted.shape[2:]:
        return None
    if wanted.shape[1] == 1:
        return source.sum(1, keepdim=True)
    if source.shape[1] == 1:
        return source.expand_as(wanted) / wanted.shape[1]
    return None
