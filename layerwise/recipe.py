"""The recipe: the only configuration object. Flat, frozen, without hidden defaults, strict, hashed.

A recipe is written into every run as `recipe.json` and reads back to an equal object with an equal hash. Presets give
all values (`presets.py`), `changed` applies `--set field=value`, `check` finds ranges and contradictions.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from layerwise.errors import InputError, nearest
from layerwise.recipes import values as values
from layerwise.recipes.contradictions import contradictions

# What people type for a field whose name is not alike.
SYNONYMS = {
    "lr": "learning_rate", "wd": "weight_decay", "epochs": "duration", "iterations": "duration", "batch": "batch_size",
    "model": "network", "arch": "network", "dataset": "data", "optimizer": "optimiser", "opt": "optimiser",
    "smoothing": "label_smoothing", "steps": "milestones", "amp": "precision", "dtype": "precision",
}  # fmt: skip


def _field(doc: str, *choices: object, **limits: object) -> Any:
    """A field with its description (and unit), its choices, or its limits: above, least, below, most.

    `formerly` is what recipes did before the field existed: such a recipe still reads, with the same hash.
    """
    return dataclasses.field(metadata={"doc": doc, "choices": choices, **limits})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run. Times are in `unit` (epochs or iterations of `batch_size` pictures).

    Raises InputError where a field is given a value of the wrong type or a number that is not finite.
    """

    name: str = _field("name of the recipe")
    # what is trained
    network: str = _field("name of the network (`layerwise models` lists them)")
    data: str = _field("name of a data set, or the path of a folder or list")
    seed: int = _field("every random number follows from it", least=0, most=2**63 - 1)
    start_from: str = _field("model file or run to start from; empty: from scratch")
    freeze: tuple[str, ...] = _field(
        "prefixes of the parameter names that are not trained, running statistics included; or all-but-head"
    )
    slow: tuple[str, ...] = _field("prefix=factor: factors on the learning rate by prefix of the parameter names")
    unfreeze_at: float = _field("when the frozen parameters are trained too, in `unit`; 0: never", least=0)
    zero_init_last_scale: bool = _field("start the last batch normalisation of each residual block at scale 0")
    whiten: str = _field("first: the first convolution whitens the training pictures' patches, and is not trained",
                         "none", "first", formerly="none")  # fmt: skip
    # data
    split: str = _field("train/val/test parts in percent for a single folder or list, as 80/10/10; empty: as found")
    validation: float = _field(
        "part (below 1) or number (1 or more) of training pictures held out where the data has no val; 0: none",
        least=0,
    )
    balance: str = _field("how rare classes are made up for", "none", "sampler", "sqrt", "loss")
    bad_images: str = _field("what an unreadable picture does", "stop", "skip")
    exif: str = _field("whether the camera's orientation is applied", "apply", "ignore")
    max_pixels: int = _field("largest picture that is opened, in pixels", least=1)
    # preprocessing
    channels: int = _field("0: as in the data, 1: grey, 3: RGB", 0, 1, 3)
    input_size: int = _field("side of the network's input, in pixels; 0: the pictures' own, all equal", least=0)
    resize: str = _field("how a picture is brought to its size", "none", "short-side", "squash", "letterbox")
    resize_to: int = _field("shorter side before the centre crop at evaluation, in pixels", least=0)
    interpolation: str = _field("filter of the resizing", "nearest", "bilinear", "bicubic", "lanczos")
    mean: str = _field("mean of the training pictures that is subtracted", "none", "per-channel", "per-pixel")
    std: str = _field("standard deviation that is divided by; raw: none, and pixels keep their range of 0 to 255",
                      "none", "per-channel", "raw")  # fmt: skip
    # augmentation
    crop: str = _field(
        "none; pad: pad and crop; resized: random area and shape; scale: shorter side in scale_range, then crop; "
        "square: that from the middle square", "none", "pad", "resized", "scale", "square",
    )  # fmt: skip
    pad: int = _field("border before the crop, in pixels, of the colour pad_with", least=0)
    pad_with: str = _field("colour of the border: the mean of the training pictures (the papers' zeros), or black",
                           "mean", "black", formerly="mean")  # fmt: skip
    flip: bool = _field("mirror half of the pictures left to right")
    flip_turns: str = _field("which half: drawn anew in each epoch, or alternate: drawn once, then each in turns",
                             "drawn", "alternate", formerly="drawn")  # fmt: skip
    crop_area_min: float = _field("smallest part of the picture's area in crop=resized", above=0, most=1)
    scale_range: tuple[int, int] = _field("shortest and longest shorter side in crop=scale, square, in pixels", least=1)
    colour: str = _field("pca: AlexNet's colour augmentation", "none", "pca")
    colour_sigma: float = _field("standard deviation of the colour augmentation", least=0)
    mixup: float = _field("alpha of the Beta distribution of the mixing weight; 0: no mixing", least=0)
    # duration
    unit: str = _field("what times are counted in", "epochs", "iterations")
    duration: float = _field("length of the training, in `unit`", above=0)
    evaluate_every: float = _field("time between evaluations on validation, in `unit`", above=0)
    # schedule
    schedule: str = _field("course of the learning rate", "constant", "steps", "plateau", "cosine", "one-cycle")
    milestones: tuple[float, ...] = _field("when schedule=steps applies decay_factor, in `unit`", above=0)
    decay_factor: float = _field("factor on the learning rate at a milestone or plateau", above=0, below=1)
    plateau_patience: float = _field("time without a better validation error before a drop, in `unit`", above=0)
    plateau_threshold: float = _field("fall of the validation error (0 to 1) that counts as better", least=0, below=1)
    plateau_drops: int = _field("drops at plateaus; the plateau after the last drop ends the training", least=0)
    warmup: str = _field("steps: linear rise; training-error: warmup_rate until it falls below warmup_error",
                      "none", "steps", "training-error")  # fmt: skip
    warmup_length: float = _field("length of warmup=steps, or of the rise of schedule=one-cycle, in `unit`", least=0)
    warmup_rate: float = _field("rate at reference_batch: where warmup=steps starts, or during training-error", least=0)
    warmup_error: float = _field("training error (0 to 1) below which warmup=training-error ends", above=0, most=1)
    # optimiser
    optimiser: str = _field("update rule", "sgd", "adagrad", "adadelta", "rmsprop", "adam", "adamw")
    learning_rate: float = _field("learning rate at reference_batch; used: times batch_size / reference_batch", above=0)
    reference_batch: int = _field("batch size for which learning_rate is stated, in pictures", least=1)
    batch_size: int = _field("pictures in one step = ranks x micro-batch x accumulation", least=1)
    micro_batch: int = _field("most pictures in memory at once; 0: the whole batch, or as much of it as fits", least=0)
    virtual_workers: int = _field("parts of each batch with statistics of their own, their gradients added in one "
                                  "order: the same bits on any number of processes that divides them into powers of "
                                  "two; 0: none", least=0, formerly=0)  # fmt: skip
    batch_norm: str = _field("whose pictures its statistics are over: process: those of each process's micro-batch "
                             "(the papers'); all: those of the micro-batches of all processes at once",
                             "process", "all", formerly="process")  # fmt: skip
    momentum: float = _field("momentum of sgd and rmsprop; beta1 of adam and adamw", least=0, below=1)
    nesterov: bool = _field("Nesterov's form of momentum (sgd)")
    velocity: str = _field("outside: v = mu v + g, w -= rate v (torch); inside: v = mu v - rate g, w += v (AlexNet)",
                        "outside", "inside")  # fmt: skip
    beta2: float = _field("beta2 of adam and adamw, alpha of rmsprop, rho of adadelta", least=0, below=1)
    epsilon: float = _field("added to the denominator by adagrad, adadelta, rmsprop, adam and adamw", above=0)
    weight_decay: float = _field("factor of the weight decay", least=0)
    weight_decay_on: str = _field("weights: of convolution and fc layers; all: all parameters", "weights", "all")
    loss: str = _field("what is minimised, for each picture", "cross-entropy", "squared-error", "hinge",
                       "squared-hinge", formerly="cross-entropy")  # fmt: skip
    auxiliary_weight: float = _field("weight of each auxiliary head's loss; 0: these heads are not trained",
                                     least=0, formerly=0.0)  # fmt: skip
    label_smoothing: float = _field("part of the target that is spread over all classes", least=0, below=1)
    ema: float = _field("decay per step of the averaged weights; 0: none", least=0, below=1)
    clip_norm: float = _field("largest norm of the gradient; 0: not clipped", least=0)
    non_finite: str = _field("what a number that is not finite does; skip: its batch is left out, and where the state "
                             "itself has one it goes back to the last checkpoint", "stop", "skip",
                             formerly="stop")  # fmt: skip
    # selection and test
    select: str = _field("weights that are kept: of the last step, or of the lowest validation error", "last", "best")
    protocol: str = _field("protocol of the test at the end", "single", "mirror", "centre", "ten-crop", "multi-scale")
    # machine
    device: str = _field("auto, cpu, cuda, cuda:N or mps")
    precision: str = _field("arithmetic of the network", "auto", "fp32", "bf16")
    memory_format: str = _field("order of the tensors in memory", "auto", "contiguous", "channels-last")
    recompute: str = _field("blocks: activations inside a block are computed again in the backward pass, for memory",
                            "none", "blocks", formerly="none")  # fmt: skip
    compile: str = _field("whether the network is compiled; norm: batch normalisation alone, with what follows it, "
                          "and maximum pooling over 2x2",
                          "auto", "yes", "no", "norm")  # fmt: skip
    threads: int = _field("threads of the arithmetic; 0: chosen", least=0)
    deterministic: bool = _field("the same bits on every run on the same machine")
    checkpoint_seconds: float = _field("time between checkpoints, in seconds", above=0)

    def __post_init__(self) -> None:
        problems = []
        for name, kind in field_types().items():
            try:
                object.__setattr__(self, name, values.convert(kind, getattr(self, name)))
            except values.WrongValueError as error:
                problems.append(f"{name}: {error}")
        if problems:
            raise _bad("the recipe has values of the wrong type", problems)

    def to_json(self) -> str:
        """The recipe as JSON, one line a field, in the order of the fields; `from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (hexadecimal) of the canonical JSON: names sorted, no spaces, ASCII.

        A field that came later is left out where it says what recipes did before it: their hashes stay what they were.
        """
        later = former_values()
        told = {name: value for name, value in dataclasses.asdict(self).items()
                if name not in later or value != later[name]}
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    @staticmethod
    def from_json(text: str, source: str) -> Recipe:
        """The recipe in `text`; `source` (a path) heads the message.

        Raises InputError with all problems at once: not JSON, unknown, misspelt, missing or repeated fields, and
        values of the wrong type. Ranges and contradictions are `check`'s.
        """
        try:
            found, twice = values.read_object(text)
        except values.WrongValueError as error:
            raise _bad(f"{source}: {error}", []) from None
        known = field_types()
        problems = [f"{name}: given twice" for name in twice]
        problems += [f"{name}: unknown field{_alike(name)}" for name in found if name not in known]
        problems += [f"{name}: missing" for name in known if name not in found and name not in former_values()]
        read = dict(former_values())
        for name in known.keys() & found.keys():
            try:
                read[name] = values.convert(known[name], found[name])
            except values.WrongValueError as error:
                problems.append(f"{name}: {error}")
        if problems:
            raise _bad(f"{source}: not a valid recipe ({_count(problems)})", problems)
        return Recipe(**read)


@functools.cache
def field_types() -> Mapping[str, Any]:
    """The name and type of each field, in order."""
    return get_type_hints(Recipe)


@functools.cache
def former_values() -> Mapping[str, Any]:
    """The fields that came after the first recipes were written, and what those recipes did."""
    return {field.name: field.metadata["formerly"] for field in dataclasses.fields(Recipe)
            if "formerly" in field.metadata}


@dataclass(frozen=True)
class FieldNote:
    """What is said of a field: its name, type, range or choices in words, and description with its unit."""

    name: str
    type: str
    limits: str
    doc: str


def field_notes() -> tuple[FieldNote, ...]:
    """The documentation of each field, in order (for `layerwise recipe NAME` and for messages)."""
    kinds = field_types()
    return tuple(
        FieldNote(field.name, values.type_name(kinds[field.name]), values.limits(field.metadata), field.metadata["doc"])
        for field in dataclasses.fields(Recipe)
    )


def changed(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """`recipe` with `settings` applied, each "field=value" (lists by commas: "milestones=32000,48000").

    Raises InputError with all problems at once: no "=", an unknown field, a value of the wrong type, a field twice.
    """
    kinds, problems, new = field_types(), [], {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals:
            problems.append(f"{setting}: expected field=value")
        elif name not in kinds:
            problems.append(f"{name}: unknown field{_alike(name)}")
        elif name in new:
            problems.append(f"{name}: given twice")
        else:
            try:
                new[name] = values.parse(kinds[name], text)
            except values.WrongValueError as error:
                problems.append(f"{name}: {error}")
                new[name] = None
    if problems:
        raise _bad(f"--set: {_count(problems)}", problems)
    return dataclasses.replace(recipe, **new)


def check(recipe: Recipe) -> None:
    """Raise InputError with every value out of its range and every contradiction between fields."""
    problems = []
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if values.outside(value, field.metadata):
            limits = values.limits(field.metadata)
            alike = nearest(value, field.metadata["choices"]) if isinstance(value, str) else ""
            problems.append(f"{field.name} is {values.show(value)!r}: expected {limits}{alike}")
    problems += contradictions(dataclasses.asdict(recipe))
    if problems:
        raise _bad(f"recipe {recipe.name!r}: {_count(problems)}", problems)


def _alike(name: str) -> str:
    return f", did you mean {SYNONYMS[name.lower()]!r}?" if name.lower() in SYNONYMS else nearest(name, field_types())


def _count(problems: Sequence[str]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _bad(what: str, problems: Sequence[str]) -> InputError:
    return InputError(
        what,
        "A recipe is used exactly as written, so nothing in it may be unknown, missing or contradictory.",
        "Set a field with --set field=value; `layerwise recipe NAME` prints every field with its meaning.",
        problems,
    )
