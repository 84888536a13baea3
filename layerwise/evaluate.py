"""Tests a network, or the average of several, on a split under a named protocol: (models, samples, options) -> Result.

One pass in evaluation mode, in float32, without gradients. Several processes that are joined (`distributed`) share the
pictures: each gives `answers` for `indices[rank::size]` of what `countable` returns, without padding; the first puts
the shares together with `metrics.merge` and calls `conclude`. Each picture counts once, whatever their number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from layerwise import distributed, hardware
from layerwise.data.images import open_image
from layerwise.data.source import Samples
from layerwise.errors import InputError, MachineError, nearest
from layerwise.evaluation.metrics import Floats, Integers, Predictions, merge, scores, summarise
from layerwise.evaluation.predictions_table import Evidence
from layerwise.evaluation.protocols import Protocol, protocol_named
from layerwise.evaluation.result import Result, class_table, most_confident_mistakes
from layerwise.evaluation.views import Picture, resolved, views
from layerwise.modelfile import ModelFile
from layerwise.models.dense import fully_convolutional

Models = ModelFile | Sequence[ModelFile]
Look = list[list[Picture]] | str  # the views for each model, or why the picture can't be shown to them
BAD_IMAGES = ("stop", "skip")


@dataclass(frozen=True)
class EvaluateOptions:
    """How pictures are shown and what is done about those that don't fit.

    `batch_size` is the largest number of views in one forward pass: it changes the speed, not the result. `device` is
    where the networks are moved, "auto" for where they are; `bad_images` is stop or skip; `data` names the data set in
    the result; `threads` open pictures, 0 for one a core.
    """

    protocol: str = "single"
    batch_size: int = 128
    device: str = "auto"
    bad_images: str = "stop"
    ignore_unknown: bool = False
    data: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size}: must be at least 1")
        if self.bad_images not in BAD_IMAGES:
            raise InputError(f"bad_images={self.bad_images!r}: is not one of {', '.join(BAD_IMAGES)}"
                             f"{nearest(self.bad_images, BAD_IMAGES)}")


def evaluate(models: Models, samples: Samples, options: EvaluateOptions = EvaluateOptions()) -> Result:
    """The result on all of `samples`; of several models the probabilities are averaged, each with its preprocessing.

    Every process of several gets the result; the first alone has its evidence (`Result.evidence`).
    Classes are matched by name. Raises InputError for classes that the models don't know or don't share, for a protocol
    that doesn't fit, and with bad_images=stop for pictures that can't be opened; ToleranceError for answers that are
    not finite.
    """
    world = distributed.world()
    with world.together():
        indices = countable(models, samples, options)
        share = answers(models, samples, indices[world.rank::world.size], options)
    unread = world.exchange(share.unreadable)
    parts = world.gather({"index": torch.from_numpy(share.index), "all": torch.from_numpy(share.probabilities)})
    shares = [Predictions(part["index"].numpy(), part["all"].numpy(), tuple((index, why) for index, why in reasons))
              for part, reasons in zip(parts, unread, strict=False)]
    found: list[Result] = []
    with world.together():
        if world.first:
            found.append(conclude(models, samples, merge(shares, indices), options))
    told = world.exchange([result.to_json() for result in found])
    return found[0] if found else Result.from_json(told[0][0])


def countable(models: Models, samples: Samples, options: EvaluateOptions) -> Integers:
    """The indices of the samples whose class the models know.

    Raises InputError where there are others (unless ignore_unknown), and where nothing is left.
    """
    names = _class_names(_members(models))
    known = np.array([name in names for name in samples.class_names], bool)
    counts = np.bincount(samples.labels, minlength=len(known))
    strange = [f"{name!r}, {counts[i]} images{nearest(name, names)}" for i, name in enumerate(samples.class_names)
               if not known[i] and counts[i]]
    if strange and not options.ignore_unknown:
        raise InputError(f"{samples.name}: {len(strange)} classes that the model does not know",
                         f"The model knows {_listed(names)}.",
                         "Rename the folders or labels, or leave these images out with --ignore-unknown.", strange)
    indices = np.flatnonzero(known[samples.labels]).astype(np.int64)
    if not len(indices):
        raise InputError(f"{samples.name}: no images of classes that the model knows",
                         f"The model knows {_listed(names)}.", "Name other data.")
    return indices


def answers(models: Models, samples: Samples, indices: Integers, options: EvaluateOptions) -> Predictions:
    """The averaged probabilities, in the first model's order of classes, for the samples at `indices`.

    Pictures that can't be opened are listed in `unreadable`; with bad_images=stop the networks rest after the first of
    them, and the others are only opened, so that all are found.
    """
    members = _members(models)
    names = _class_names(members)
    protocols = [resolved(protocol_named(options.protocol), member.preprocess) for member in members]
    dense = protocols[0].fully_convolutional
    group = max(1, options.batch_size // (16 if dense else protocols[0].views))
    blocks, read, unreadable = [], [], []
    with ExitStack() as stack:
        networks = [stack.enter_context(_ready(member.model, dense, options.device)) for member in members]
        orders = [[member.class_names.index(name) for name in names] for member in members]
        opener = _Opener(samples, members, protocols)
        for chunk in opener.chunks(indices, group, options.threads):
            good = [(index, found) for index, found in chunk if not isinstance(found, str)]
            unreadable += [(index, found) for index, found in chunk if isinstance(found, str)]
            if not good or (unreadable and options.bad_images == "stop"):
                continue
            total = np.zeros((len(good), len(names)))
            for m, member in enumerate(members):
                shown = [view for _, found in good for view in found[m]]
                logits = _logits(networks[m], member, shown, options.batch_size)
                total += _averaged(logits.reshape(len(good), -1, logits.shape[1]), protocols[m])[:, orders[m]]
            blocks.append(total / len(members))
            read += [index for index, _ in good]
    probabilities = np.concatenate(blocks) if blocks else np.zeros((0, len(names)))
    if unreadable and options.bad_images == "stop":
        read, probabilities = [], probabilities[:0]
        # The others were not asked; without a reason they are not counted as unreadable.
        unreadable += [(int(i), "") for i in np.setdiff1d(indices, [i for i, _ in unreadable])]
    return Predictions(np.array(read, np.int64), probabilities, tuple(unreadable))


def conclude(models: Models, samples: Samples, found: Predictions, options: EvaluateOptions) -> Result:
    """The result from the merged answers. Raises InputError with the list of unreadable pictures, unless skipped."""
    members = _members(models)
    names = _class_names(members)
    bad = [(index, reason) for index, reason in found.unreadable if reason]
    if bad and options.bad_images == "stop":
        raise InputError(f"{samples.name}: {len(bad)} of {len(samples)} pictures can't be used",
                         "Without them the number would be another split's.",
                         "Mend or remove them, or count them apart with --bad-images skip.",
                         [reason for _, reason in bad])
    labels = np.array([names.index(name) if name in names else -1 for name in samples.class_names], np.int64)
    columns = scores(found.probabilities, labels[samples.labels[found.index]])
    rows, confusion = class_table(columns, names)
    worst = most_confident_mistakes(columns)
    ignored = np.flatnonzero(labels[samples.labels] < 0)
    notes = _notes(members, samples, columns.predicted, ignored, names)
    unanswered = bad + [(int(index), "its class is unknown to the model") for index in ignored]
    evidence = Evidence(
        tuple(samples.ids[i] for i in found.index), columns, found.probabilities,
        tuple((samples.ids[i], samples.class_names[samples.labels[i]], reason) for i, reason in unanswered),
        tuple(samples.read(int(found.index[row])) for row in worst),
    )
    mistakes = [
        {"id": evidence.ids[row], "true": names[columns.labels[row]], "predicted": names[columns.predicted[row]],
         "probability": float(columns.confidence[row]), "picture": f"worst/{place:03d}.png"}
        for place, row in enumerate(worst)
    ]  # fmt: skip
    protocols = [resolved(protocol_named(options.protocol), member.preprocess) for member in members]
    return Result(
        samples.name, len(columns), len(bad), len(ignored), protocols[0], summarise(columns, len(names)), rows,
        confusion, mistakes, {"name": options.data, "fingerprint": samples.fingerprint},
        [_model(member, protocol) for member, protocol in zip(members, protocols, strict=True)],
        dict(hardware.versions()), _machine(members, options), notes, evidence,
    )  # fmt: skip


def _members(models: Models) -> list[ModelFile]:
    members = [models] if isinstance(models, ModelFile) else list(models)
    if not members:
        raise InputError("no model to evaluate", mend="Name at least one run or model file.")
    return members


def _class_names(members: Sequence[ModelFile]) -> tuple[str, ...]:
    """The classes in the first model's order. Raises InputError where the models differ in them."""
    names = members[0].class_names
    problems = []
    for member in members[1:]:
        problems += [f"{member.path}: has no class {name!r}{nearest(name, member.class_names)}"
                     for name in names if name not in member.class_names]
        problems += [f"{member.path}: class {name!r} is not in {members[0].path}{nearest(name, names)}"
                     for name in member.class_names if name not in names]
    if problems:
        raise InputError("the models do not know the same classes", "Their probabilities can't be averaged.",
                         "Evaluate them one by one.", problems)
    return names


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


@contextmanager
def _ready(model: nn.Module, dense: bool, device: str) -> Iterator[nn.Module]:
    """The network in evaluation mode, on the device, fully convolutional where asked; as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    home = next(model.parameters()).device
    try:
        if device != "auto":
            try:
                model.to(device)
            except (RuntimeError, AssertionError) as error:
                raise MachineError(f"device={device}: can't be used ({str(error).splitlines()[0]})",
                                   mend="Choose another with --device.") from None
        model.eval()
        yield fully_convolutional(model).eval() if dense else model
    finally:
        model.to(home)
        for module, mode in modes.items():
            module.training = mode


class _Opener:
    """Opens pictures and cuts their views for each model, in threads, a group ahead of the network."""

    def __init__(self, samples: Samples, members: Sequence[ModelFile], protocols: Sequence[Protocol]) -> None:
        self.samples, self.members, self.protocols = samples, members, protocols
        self.rules = {member.preprocess.exif: dataclasses.replace(samples.rules, exif=member.preprocess.exif)
                      for member in members}

    def chunks(self, indices: Integers, size: int, threads: int) -> Iterator[list[tuple[int, Look]]]:
        """(index, what is seen of it) for `size` pictures at a time."""
        groups = [[int(i) for i in indices[start:start + size]] for start in range(0, len(indices), size)]
        if self.samples.images is not None:  # nothing to decode: threads would only cost
            yield from ([(i, self._look(i)) for i in group] for group in groups)
            return
        with ThreadPoolExecutor(threads or hardware.cores(), "layerwise-evaluate") as pool:
            ahead = [pool.submit(self._look, i) for i in groups[0]] if groups else []
            for g, group in enumerate(groups):
                following = groups[g + 1] if g + 1 < len(groups) else []
                current, ahead = ahead, [pool.submit(self._look, i) for i in following]
                yield [(i, future.result()) for i, future in zip(group, current, strict=True)]

    def _look(self, index: int) -> Look:
        try:
            if self.samples.paths is None:
                opened = dict.fromkeys(self.rules, self.samples.read(index))
            else:
                path = self.samples.paths[index]
                opened = {exif: open_image(path, rules)[0] for exif, rules in self.rules.items()}
        except InputError as error:
            return error.what
        try:
            return [views(protocol, member.preprocess, opened[member.preprocess.exif])
                    for member, protocol in zip(self.members, self.protocols, strict=True)]
        except InputError as error:
            return f"{self.samples.ids[index]!r}: {error.what}"


def _logits(network: nn.Module, member: ModelFile, shown: Sequence[Picture], batch_size: int) -> Floats:
    """The logits (V, C) of views that may differ in size: those of one size go through the network together."""
    device = next(network.parameters()).device
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, view in enumerate(shown):
        by_shape.setdefault(view.shape, []).append(place)
    found: Floats | None = None
    for (height, width, _), places in by_shape.items():
        # The memory of a batch is bounded by its pixels.
        step = max(1, batch_size * member.preprocess.size**2 // max(height * width, member.preprocess.size**2))
        for start in range(0, len(places), step):
            part = places[start:start + step]
            logits = forward(network, member, np.stack([shown[place] for place in part]), device)
            if found is None:
                found = np.empty((len(shown), logits.shape[1]))
            found[part] = logits
    assert found is not None
    return found


def forward(network: nn.Module, member: ModelFile, pictures: NDArray[np.uint8], device: torch.device) -> Floats:
    """The logits (N, C) in float64 of uint8 pictures (N, H, W, C), computed in float32 without gradients."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), _plain_float32(device):
        logits: torch.Tensor = network(member.preprocess.normalise(torch.from_numpy(pictures).to(device)))
        return np.asarray(logits.cpu().double().numpy())  # in this order: Apple's GPUs have no float64


@contextmanager
def _plain_float32(device: torch.device) -> Iterator[None]:
    """On CUDA without TF32, which torch allows in convolutions unless told otherwise."""
    if device.type != "cuda":
        yield
        return
    kept = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = kept


def _averaged(logits: Floats, protocol: Protocol) -> Floats:
    """One answer a picture, probabilities (n, C), from the logits of its views (n, V, C)."""
    if protocol.averaging == "logits":
        return softmax(logits.mean(axis=1))
    return np.asarray(softmax(logits).mean(axis=1))


def softmax(logits: Floats) -> Floats:
    """Along the last axis."""
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=-1, keepdims=True))


def _notes(members: Sequence[ModelFile], samples: Samples, predicted: Integers, ignored: Integers,
           names: Sequence[str]) -> list[str]:
    notes = []
    if len(ignored):
        lost = sorted({samples.class_names[samples.labels[i]] for i in ignored})
        notes.append(f"{len(ignored)} images left out: the model does not know their classes {_listed(lost)}")
    empty = sorted(set(names) - {samples.class_names[label] for label in np.unique(samples.labels)})
    if empty:
        notes.append(f"0 images of {len(empty)} classes of the model: {_listed(empty)}")
    if len(names) > 1 and len(predicted) > 1 and len(np.unique(predicted)) == 1:
        notes.append(f"every image was answered with {names[int(predicted[0])]!r}")
    if samples.images is not None and any(member.preprocess.exif != samples.rules.exif for member in members):
        notes.append(f"the pictures were opened with exif={samples.rules.exif}, which is not the model's rule")
    if len({member.preprocess.sha256 for member in members}) > 1:
        notes.append("the models differ in preprocessing; `protocol` is the first one's, each model lists its own")
    return notes


def _model(member: ModelFile, protocol: Protocol) -> dict[str, Any]:
    return {
        "path": str(member.path), "sha256": member.sha256, "architecture": getattr(member.model, "architecture", {}),
        "recipe_hash": member.recipe.hash if member.recipe else None,
        "seed": member.recipe.seed if member.recipe else None,
        "preprocess_sha256": member.preprocess.sha256, "protocol": protocol.to_json(),
    }  # fmt: skip


def _machine(members: Sequence[ModelFile], options: EvaluateOptions) -> dict[str, Any]:
    device = next(members[0].model.parameters()).device
    return {"device": str(device) if options.device == "auto" else options.device, "cpu": hardware.cpu_name(),
            "threads": torch.get_num_threads(), "precision": "float32", "batch_size": options.batch_size}
