"""The same weights tested in other ways: what each choice of the test is worth in points, on the same pictures.

Protocols, the rule to resize, antialiasing, the camera's orientation, averaged or raw weights, the last or the best
ones, batch statistics taken anew, precision. Each difference has a paired interval and McNemar's p. These numbers
explain a result; they are none to report, since pictures that were looked at so often choose among them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerwise import checkpoint, hardware, rundir
from layerwise.console import progress_of
from layerwise.data.preprocess import Preprocess, to_tensor
from layerwise.data.resize import centre_crop, rounded_ratio, to_channels
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions, answers, countable
from layerwise.evaluation.batch_statistics import recalibrate
from layerwise.evaluation.metrics import mcnemar
from layerwise.evaluation.protocols import PROTOCOLS
from layerwise.jobs.compare import paired_interval
from layerwise.modelfile import ModelFile
from layerwise.models.network import Network
from layerwise.randomness import permutation
from layerwise.recipe import Recipe

COSTLY = "multi-scale"  # forty times a single view: only where the other side was tested so
STATISTICS = 2048  # training pictures from which batch statistics are taken anew
CHUNK = 256


@dataclass(frozen=True)
class Again:
    """One other way to test: `what` in words, the recipe's `field` and the `setting` it stands for ("" for none).

    `error` and `difference` (this way minus the run's own) are fractions with a 95 % interval; `changed` counts the
    pictures whose answer became right or wrong. Where it can't be done, `reason` says why and the numbers are None.
    """

    what: str
    field: str
    setting: str
    error: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    changed: int = 0
    reason: str = ""


@dataclass(frozen=True)
class _Way:
    what: str
    field: str
    setting: str
    wrong: Callable[[], Mapping[int, bool]]


@dataclass(frozen=True)
class Retest:
    """What is tested again: a run's model, its recipe and pictures; `there` is the other side's recipe, if known.

    `training` opens the training pictures, for batch statistics.
    """

    run: Path
    model: ModelFile
    recipe: Recipe
    samples: Samples
    there: Recipe | None
    training: Callable[[], Samples]


def chosen(samples: Samples, pictures: int) -> Samples:
    """`pictures` of the samples (all where there are fewer), drawn by a fixed order, in their own."""
    if pictures >= len(samples):
        return samples
    return samples.subset(np.sort(permutation(0, 0, len(samples), "tested again")[:pictures]), samples.name)


def retested(asked: Retest) -> tuple[float, list[Again]]:
    """The error of the run's own way, and every other way that fits the network."""
    own = _wrong(asked.model, asked.samples, asked.recipe.protocol)
    ways = list(_ways(asked))
    draw, found = progress_of("testing the same weights in other ways"), []
    for place, way in enumerate(ways):
        draw(place, len(ways))
        try:
            found.append(_difference(way, own))
        except InputError as error:
            found.append(Again(way.what, way.field, way.setting, reason=error.what))
    draw(len(ways), len(ways))
    return sum(own.values()) / len(own), found


def _difference(way: _Way, own: Mapping[int, bool]) -> Again:
    wrong = way.wrong()
    both = own.keys() & wrong.keys()
    if not both:
        raise InputError("no picture has an answer in both ways")
    mended = sum(own[key] and not wrong[key] for key in both)
    broken = sum(wrong[key] and not own[key] for key in both)
    return Again(way.what, way.field, way.setting, sum(wrong[key] for key in both) / len(both),
                 (broken - mended) / len(both), paired_interval(broken, mended, len(both)), mcnemar(mended, broken),
                 mended + broken)


def _ways(asked: Retest) -> Iterator[_Way]:
    """Every other way, those that the other side has among them."""
    model, samples, protocol, there = asked.model, asked.samples, asked.recipe.protocol, asked.there
    for name in PROTOCOLS:
        theirs = there is not None and there.protocol == name
        if name != protocol and (theirs or name != COSTLY):
            yield _way(f"protocol {name}", "protocol", name, model, samples, name)
    for field, value in _settings(model.preprocess, there):
        changed = dataclasses.replace(model.preprocess, **{field: value})
        what = f"{field.replace('_', ' ')} {value}"
        yield _way(what, field, str(value), dataclasses.replace(model, preprocess=changed), samples, protocol)
    if samples.paths is not None:
        other = "ignore" if model.preprocess.exif == "apply" else "apply"
        changed = dataclasses.replace(model.preprocess, exif=other)
        yield _way(f"orientation: {other}", "exif", other, dataclasses.replace(model, preprocess=changed), samples,
                   protocol)
    rule = model.preprocess
    if rule.resize in ("short-side", "squash") and rule.interpolation in ("bilinear", "bicubic"):
        yield _Way("resized without antialiasing", "", "", lambda: _aliased(model, samples))
    yield _Way("batch statistics taken anew over training pictures", "", "", lambda: _wrong(
        recalibrate(model, asked.training(), STATISTICS), samples, protocol))
    yield from _other_weights(asked)
    if asked.recipe.precision == "fp32" and there is not None and there.precision == "bf16":
        yield _Way("in bfloat16", "precision", "bf16", lambda: _bfloat16(model, samples, protocol))


def _way(what: str, field: str, setting: str, model: ModelFile, samples: Samples, protocol: str) -> _Way:
    return _Way(what, field, setting, lambda: _wrong(model, samples, protocol))


def _settings(own: Preprocess, there: Recipe | None) -> Iterator[tuple[str, Any]]:
    """Other values of the rule to resize: the other side's, and near ones."""
    if own.resize == "short-side":
        sides = [own.size, round(own.size * 256 / 224)] + ([there.resize_to] if there is not None else [])
        yield from (("resize_to", side) for side in dict.fromkeys(sides)
                    if side >= own.size and side != own.resize_to)
    if own.resize != "none":
        names = ["bilinear", "bicubic"] + ([there.interpolation] if there is not None else [])
        yield from (("interpolation", name) for name in dict.fromkeys(names) if name != own.interpolation)


def _other_weights(asked: Retest) -> Iterator[_Way]:
    """Raw for averaged weights, the last for the best ones: those that the newest checkpoint still has."""
    generation, _ = checkpoint.newest(asked.run / rundir.CHECKPOINTS)
    if generation is None:
        return
    tensors = generation.tensors
    best = asked.recipe.select == "best" and any(name.startswith("best/") for name in tensors)
    averaged = any(name.startswith("average/") for name in tensors)
    kinds = []
    if best:
        kinds.append(("weights of the last step", "select", "last", "average/" if averaged else "model/"))
    if averaged:
        kinds.append(("raw weights of the last step, not averaged", "ema", "0.0", "model/"))
    for what, field, setting, prefix in kinds:
        state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        yield _Way(what, field, setting, lambda state=state: _with_weights(  # type: ignore[misc]
            asked.model, state, asked.samples, asked.recipe.protocol))


def _with_weights(model: ModelFile, state: dict[str, Tensor], samples: Samples, protocol: str) -> Mapping[int, bool]:
    kept = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    try:
        model.model.load_state_dict(state)
        return _wrong(model, samples, protocol)
    finally:
        model.model.load_state_dict(kept)


def _wrong(model: ModelFile, samples: Samples, protocol: str) -> Mapping[int, bool]:
    """Whether each picture that can be opened, of a class that the model knows, is answered wrongly."""
    options = EvaluateOptions(protocol, bad_images="skip", ignore_unknown=True)
    found = answers(model, samples, countable(model, samples, options), options)
    names = model.class_names
    return {int(index): names[int(answer)] != samples.class_names[samples.labels[index]]
            for index, answer in zip(found.index, found.probabilities.argmax(axis=1), strict=True)}


def _aliased(model: ModelFile, samples: Samples) -> Mapping[int, bool]:
    """As the protocol `single`, but resized by plain interpolation between the nearest pixels."""
    rule = model.preprocess
    plain = dataclasses.replace(model, preprocess=dataclasses.replace(rule, resize="none", resize_to=0))
    found: dict[int, bool] = {}
    for start in range(0, len(samples), CHUNK):
        kept, pictures = [], []
        for index in range(start, min(start + CHUNK, len(samples))):
            try:
                picture = to_channels(samples.read(index), rule.channels)
            except InputError:
                continue
            kept.append(index)
            pictures.append(_plainly_resized(picture, rule))
        if kept:
            part = dataclasses.replace(samples.subset(kept, samples.name), images=np.stack(pictures), paths=None,
                                       digests=None)
            found |= {kept[place]: wrong for place, wrong in _wrong(plain, part, "single").items()}
    return found


def _plainly_resized(picture: NDArray[np.uint8], rule: Preprocess) -> NDArray[np.uint8]:
    """(H, W, C) -> (size, size, C) as `Preprocess.place`, without antialiasing."""
    height, width = picture.shape[:2]
    if rule.resize == "short-side":
        short = min(height, width)
        wanted = (rounded_ratio(height * rule.resize_to, short), rounded_ratio(width * rule.resize_to, short))
    else:
        wanted = (rule.size, rule.size)
    batch = to_tensor(picture).permute(2, 0, 1)[None].float()
    resized = nn.functional.interpolate(batch, wanted, mode=rule.interpolation, align_corners=False, antialias=False)
    pixels = resized.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()
    return centre_crop(pixels, rule.size, rule.size)


class _Rounded(nn.Module):
    """A network whose products are computed in bfloat16."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.autocast(pictures.device.type, dtype=torch.bfloat16):
            logits: Tensor = self.inner(pictures)
        return logits.float()


def _bfloat16(model: ModelFile, samples: Samples, protocol: str) -> Mapping[int, bool]:
    device = next(model.model.parameters()).device
    if device.type == "cpu" and not hardware.cpu_computes_bf16():
        raise InputError("this processor has no arithmetic in bfloat16")
    return _wrong(dataclasses.replace(model, model=cast(Network, _Rounded(model.model))), samples, protocol)
