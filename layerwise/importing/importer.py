"""From a weight file of another library to a model file of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerwise import models
from layerwise.errors import InputError
from layerwise.importing import catalogue, classes, matching, preprocessing, weightfile
from layerwise.importing.catalogue import TIMM, TORCHVISION, Origin
from layerwise.importing.matching import Match, Wanted
from layerwise.importing.preprocessing import View
from layerwise.importing.weightfile import WeightFile
from layerwise.modelfile import ModelFile
from layerwise.randomness import derived_seed

SHOWN = 3
# torchvision's first weights of the networks that timm has under the same names of entries, as SECOND_WEIGHTS.
FIRST_WEIGHTS = ("f37072fd", "5c106cde", "b627a593", "333f7ec4", "0676ba61", "19c8e357", "63fe2227", "5d3b4d8f",
                 "394f9c45", "b121ed2d", "7cdf4587", "8ba56ff5", "95faca4d", "32ee1156", "a639ec97", "b2777c0a",
                 "c1103571", "8d451a50", "0cc3c7bd", "1a9a5a14")  # fmt: skip


@dataclass(frozen=True)
class ImportReport:
    """What became of each entry of the network (`loaded` with the file's name, `adapted` with how, `new` with why)
    and of the file (`unused` with why)."""

    loaded: dict[str, str]
    adapted: dict[str, str]
    new: dict[str, str]
    unused: dict[str, str]

    def lines(self) -> list[str]:
        """The report for people: the counts, then what is not simply loaded, grouped by the reason."""
        counts = (f"{len(self.loaded)} entries loaded, {len(self.adapted)} adapted, "
                  f"{len(self.new)} new, {len(self.unused)} of the file unused")
        kinds = (("adapted", self.adapted), ("new", self.new), ("unused", self.unused))
        return [counts, *(line for kind, entries in kinds for line in _grouped(kind, entries))]

    def counts(self) -> dict[str, int]:
        """How many entries of each kind."""
        return {kind: len(entries) for kind, entries in vars(self).items()}


@dataclass(frozen=True)
class Imported:
    """A weight file matched to our network `name`; `tensors` are by our names, in the file's own precision."""

    name: str
    origin: Origin
    weights: WeightFile
    tensors: dict[str, Tensor]
    report: ImportReport
    class_names: tuple[str, ...]
    view: View
    notes: tuple[str, ...]

    def model_file(self) -> ModelFile:
        """The network with these weights in float32, its class names, preprocessing and where it is from.

        What is new is initialised by the network's own rule from a fixed seed.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(0, "import", self.name))
            model = models.build(self.name, num_classes=len(self.class_names))
        for name, tensor in model.state_dict().items():
            if name in self.tensors:
                tensor.copy_(self.tensors[name])
        provenance: dict[str, Any] = {"imported": {
            "source": self.origin.source, "network": self.origin.name, "file": self.weights.path.name,
            "sha256": self.weights.sha256, "entries": self.report.counts(), "new": sorted(self.report.new),
            "unused": sorted(self.report.unused), "notes": list(self.notes)}}
        return ModelFile(model.eval(), self.class_names, self.view.preprocess(), provenance=provenance)


def import_weights(
    path: Path | str, name: str, source: str = "auto", class_names: Sequence[str] | None = None, new_head: bool = False
) -> Imported:
    """Matches the weight file at `path` to our network `name`.

    `class_names` are the outputs' in their order; with `new_head` they are the classes of a newly initialised head.
    Raises InputError with every entry that is unknown, missing or of another shape, and where the source's
    preprocessing or the head can't be told.
    """
    candidates = catalogue.origins(name, source)
    if new_head and class_names is None:
        raise InputError("--new-head: for which classes?", "A head has an output for each class.",
                         "Add --classes FILE with the class names, one a line.")
    weights = weightfile.read(path)
    network = matching.wanted(name)
    origin, match = _chosen(weights, network, candidates, new_head)
    tensors, report = _sorted_out(weights, network, match, new_head)
    if new_head:
        assert class_names is not None
        names, about = tuple(class_names), f"a new head for {len(class_names)} classes: train it before it is used"
    else:
        names, about = classes.fitting(match.classes, class_names)
    view, seen = _view(weights, origin)
    notes = (*weights.notes, about, seen)
    return Imported(name, origin, weights, tensors, report, names, view, notes)


def _chosen(
    weights: WeightFile, network: Wanted, candidates: Sequence[Origin], new_head: bool
) -> tuple[Origin, Match]:
    """The origin whose names the file has. Raises InputError where none fits, or several with other preprocessing."""
    matches = [(origin, matching.match(weights.entries, network, origin.table, new_head)) for origin in candidates]
    fitting = [(origin, match) for origin, match in matches if not match.problems]
    if not fitting:
        raise _misfit(weights, *min(matches, key=lambda pair: len(pair[1].problems)))
    if len({origin.view for origin, _ in fitting}) > 1:
        told = _source_told(weights)
        fitting = [(origin, match) for origin, match in fitting if origin.source == told]
        if not fitting:
            known = " or ".join(origin.source for origin in candidates)
            raise InputError(f"{weights.path}: weights of {known}: the file doesn't tell",
                             "Their entries have the same names, but their preprocessing differs.",
                             f"Add --source {candidates[0].source} or --source {candidates[-1].source}.")
    return fitting[0]


def _source_told(weights: WeightFile) -> str:
    """The source by what is known of the file itself: its digest, or timm's description beside it."""
    if weights.sha256.startswith((*FIRST_WEIGHTS, *preprocessing.SECOND_WEIGHTS)):
        return TORCHVISION
    return TIMM if preprocessing.described_beside(weights.path) else ""


def _misfit(weights: WeightFile, origin: Origin, match: Match) -> InputError:
    others = [name for name in catalogue.ORIGINS if _fits(weights, name)]
    headless = bool(match.problems) and match.classes == 0
    mend = f"They fit --as {' or --as '.join(others)}." if others else (
        "If it is a network without its head, add --new-head --classes FILE." if headless else
        "Name the network that the file is of with --as, and its library with --source.")
    return InputError(
        f"{weights.path}: its entries are not those of {origin.source}'s {origin.name}: {len(match.problems)} differ",
        "Nothing is left out or filled in silently: it would be a network that nobody trained.", mend, match.problems)


def _fits(weights: WeightFile, name: str) -> bool:
    tables = {origin.table for origin in catalogue.ORIGINS[name]}
    known = [table for table in tables if matching.knows(weights.entries, table)]
    return any(not matching.match(weights.entries, matching.wanted(name), table).problems for table in known)


def _sorted_out(
    weights: WeightFile, network: Wanted, match: Match, new_head: bool
) -> tuple[dict[str, Tensor], ImportReport]:
    """The tensors by our names, and what became of each entry. Raises InputError where float32 can't hold one."""
    new, unused, adapted = dict(match.new), dict(match.unused), {}
    tensors: dict[str, Tensor] = {}
    problems = []
    for ours, theirs in match.pairs.items():
        tensor, needed = weights.entries[theirs], network.entries[ours]
        if new_head and ours in network.by_class:
            new[ours] = "a head for other classes"
            unused[theirs] = f"the file's head, for {tensor.shape[0]} classes"
            continue
        tensors[ours] = tensor
        if tensor.dtype != needed.dtype:
            adapted[ours] = f"{_plain(tensor)} to {_plain(needed)}"
            if not bool(torch.isfinite(tensor.to(needed.dtype)).all()):
                problems.append(f"{theirs}: beyond the range of {_plain(needed)}")
    if problems:
        raise InputError(f"{weights.path}: numbers that a model file can't hold", details=problems)
    loaded = {ours: match.pairs[ours] for ours in tensors if ours not in adapted}
    return tensors, ImportReport(loaded, adapted, new, unused)


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _view(weights: WeightFile, origin: Origin) -> tuple[View, str]:
    """The preprocessing of these weights, and how it is known."""
    if origin.source == TIMM and (found := preprocessing.described_beside(weights.path)):
        return found, f"preprocessing: {found}; from {preprocessing.CONFIG} beside the file"
    if origin.source == TORCHVISION and weights.sha256.startswith(preprocessing.SECOND_WEIGHTS):
        second = preprocessing.TORCHVISION_SECOND
        return second, f"preprocessing: {second}; of torchvision's second weights, by the file's SHA-256"
    return origin.view, f"preprocessing: {origin.view}; {origin.source}'s of its {origin.name}"


def _grouped(kind: str, entries: Mapping[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, reason in entries.items():
        reasons.setdefault(reason, []).append(name)
    return [f"{kind}: {_several(names)}: {reason}" for reason, names in reasons.items()]


def _several(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
