"""Contradictions between the fields of a recipe, each explained with the change that mends it.

Ranges of single fields are in `recipe.py`; here are the pairs. A field that would be silently ignored although
someone must have meant it (milestones without schedule=steps, a warm-up length without a warm-up) is one too.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

Values = Mapping[str, Any]
HEAD = "all-but-head"
# Data sets without a validation part of their own.
WITHOUT_VALIDATION = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")
TIMES = ("duration", "evaluate_every", "milestones", "plateau_patience", "warmup_length", "unfreeze_at")
PERCENT = r"(\d+\.?\d*|\.\d+)"


def contradictions(recipe: Values) -> list[str]:
    """Every contradiction in `recipe` (all fields by name), as lines that start with the field."""
    parts = (_what, _data, _pictures, _times, _schedule, _warmup, _optimiser, _selection, _workers)
    return [problem for part in parts for problem in part(recipe)]


def _workers(recipe: Values) -> Iterator[str]:
    workers = recipe["virtual_workers"]
    if recipe["batch_norm"] == "all":
        if workers:
            yield f"batch_norm=all with virtual_workers={workers}: a worker has its own statistics; set one of the two"
        if recipe["compile"] == "yes":
            yield "batch_norm=all with compile=yes: the sums over the processes are not compiled; set compile=no"
        if recipe["recompute"] != "none":
            yield (f"batch_norm=all with recompute={recipe['recompute']}: what is computed again would not see the "
                   "other processes; set recompute=none")
    if recipe["compile"] == "norm":
        yield from against_compiled_norm(recipe)
    if not workers:
        return
    each = math.ceil(recipe["batch_size"] / workers)
    if recipe["batch_size"] < 2 * workers:
        yield f"virtual_workers={workers} with batch_size={recipe['batch_size']}: each needs at least two pictures"
    elif recipe["micro_batch"] not in (0, each):
        yield (f"micro_batch={recipe['micro_batch']} with virtual_workers={workers}: a worker's part of the batch is "
               f"{each}; leave micro_batch at 0")
    if not recipe["deterministic"]:
        yield "virtual_workers with deterministic=False: they are there for equal bits; set one of the two"


def against_compiled_norm(recipe: Values) -> Iterator[str]:
    """What in `recipe` rules compile=norm out."""
    if recipe["batch_norm"] == "all":
        yield "batch_norm=all with compile=norm: the sums over the processes are not compiled; set compile=no"
    if workers := recipe["virtual_workers"]:
        yield f"compile=norm with virtual_workers={workers}: their statistics are not compiled; set compile=no"
    for field, can in (("precision", "bf16"), ("memory_format", "channels-last"), ("device", "cpu")):
        if recipe[field] not in ("auto", can):
            yield f"compile=norm with {field}={recipe[field]}: its loops are for {can}; set compile=no"


def covers(prefix: str, name: str) -> bool:
    """Whether `prefix` (features.conv1) stands for `name` (features.conv1.weight): whole parts of names only."""
    return prefix == name or name.startswith(prefix + ".")


def split_factor(text: str) -> tuple[str, float]:
    """Prefix and factor of "features.conv1=0.1". Raises ValueError where it is not of that form."""
    prefix, equals, number = text.partition("=")
    factor = float(number)
    if not (equals and prefix.strip() and 0 < factor < math.inf):
        raise ValueError(text)
    return prefix.strip(), factor


def _what(recipe: Values) -> Iterator[str]:
    for name in ("name", "network", "data"):
        if not recipe[name]:
            yield f"{name} is empty: say which"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", recipe["device"]):
        yield f"device is {recipe['device']!r}: expected auto, cpu, cuda, cuda:N or mps"
    frozen = recipe["freeze"]
    if any(not prefix.strip() for prefix in frozen):
        yield "freeze has an empty prefix: name the parameters, or use all-but-head"
    if frozen and not recipe["start_from"]:
        yield (
            f"freeze={','.join(frozen)} with an empty start_from: the frozen layers would keep their random weights; "
            "name the model to start from, or set freeze="
        )
    if recipe["slow"] and not recipe["start_from"]:
        yield "slow with an empty start_from: the slowed layers would stay near their random weights; name the model"
    if recipe["zero_init_last_scale"] and recipe["start_from"]:
        yield "zero_init_last_scale with start_from: the loaded weights replace the zeros; set one of the two"
    if recipe["whiten"] != "none" and recipe["start_from"]:
        yield f"whiten={recipe['whiten']} with start_from: it would replace the loaded weights; set one of the two"
    if recipe["unfreeze_at"] > 0 and not frozen:
        yield "unfreeze_at without freeze: nothing is frozen; set freeze, or unfreeze_at=0"
    if frozen and recipe["unfreeze_at"] >= recipe["duration"]:
        yield f"unfreeze_at={recipe['unfreeze_at']:g} is not before the end (duration={recipe['duration']:g})"
    yield from _slow(recipe)


def _slow(recipe: Values) -> Iterator[str]:
    seen = set()
    for text in recipe["slow"]:
        try:
            prefix, _ = split_factor(text)
        except ValueError:
            yield f"slow: {text!r} is not prefix=factor with a factor above 0, as features.conv1=0.1"
            continue
        if prefix in seen:
            yield f"slow: {prefix} is given twice"
        seen.add(prefix)
        frozen = any(
            covers(other, prefix) or (other == HEAD and not covers("head", prefix)) for other in recipe["freeze"]
        )
        if frozen and not recipe["unfreeze_at"]:
            yield f"slow: {prefix} is frozen for the whole training, so it has no learning rate; take it from one"


def _data(recipe: Values) -> Iterator[str]:
    text = recipe["split"]
    if text:
        whole = re.fullmatch(rf"{PERCENT}(/{PERCENT}){{2}}", text)
        parts = [float(part) for part in text.split("/")] if whole else []
        if len(parts) != 3 or abs(sum(parts) - 100) > 1e-6 or parts[0] <= 0:
            yield f"split is {text!r}: expected train/val/test in percent that add up to 100, as 80/10/10"
    if recipe["validation"] >= 1 and recipe["validation"] % 1:
        yield f"validation is {recipe['validation']:g}: expected a part below 1, or a whole number of pictures"
    if recipe["mixup"] and recipe["batch_size"] == 1:
        yield "mixup with batch_size=1: there is no second picture to mix with; raise batch_size, or set mixup=0"
    if recipe["loss"] != "cross-entropy" and recipe["label_smoothing"]:
        yield f"label_smoothing with loss={recipe['loss']}: its targets are not probabilities; set label_smoothing=0"


def _pictures(recipe: Values) -> Iterator[str]:
    size, resize, crop = recipe["input_size"], recipe["resize"], recipe["crop"]
    if resize != "none" and not size:
        yield f"resize={resize} with input_size=0: say the size in pixels, or set resize=none"
    if resize == "short-side" and size and recipe["resize_to"] < size:
        yield f"resize_to={recipe['resize_to']} is smaller than the centre crop of input_size={size}"
    if crop == "pad" and not recipe["pad"]:
        yield "crop=pad with pad=0 moves nothing: set pad above 0, or crop=none"
    if crop != "pad" and recipe["pad_with"] != "mean":
        yield f"pad_with={recipe['pad_with']} would be ignored with crop={crop}: set crop=pad, or pad_with=mean"
    if recipe["flip_turns"] == "alternate" and not recipe["flip"]:
        yield "flip_turns=alternate with flip=false: nothing is mirrored; set flip=true, or flip_turns=drawn"
    low, high = recipe["scale_range"]
    if low > high:
        yield f"scale_range={low},{high} is not ascending"
    if crop in ("scale", "square"):
        if resize != "short-side":
            yield f"crop={crop} with resize={resize}: it resizes the shorter side; set resize=short-side"
        if size and low < size:
            yield f"scale_range={low},{high} starts below input_size={size}: the crop would not fit"
    if recipe["colour"] == "pca" and recipe["channels"] == 1:
        yield "colour=pca with channels=1: a grey picture has no colours; set colour=none, or channels=3"


def _times(recipe: Values) -> Iterator[str]:
    if recipe["unit"] != "iterations":
        return
    for name in TIMES:
        times = recipe[name] if isinstance(recipe[name], tuple) else (recipe[name],)
        if any(time % 1 for time in times):
            yield f"{name} has a fraction: with unit=iterations times are whole numbers of steps"


def _schedule(recipe: Values) -> Iterator[str]:
    schedule, milestones, duration = recipe["schedule"], recipe["milestones"], recipe["duration"]
    if schedule == "steps":
        if not milestones:
            yield "schedule=steps without milestones: say when the learning rate falls, or set schedule=constant"
        if any(late <= early for early, late in itertools.pairwise(milestones)):
            yield f"milestones={','.join(f'{time:g}' for time in milestones)} are not ascending"
        late = [f"{time:g}" for time in milestones if time >= duration]
        if late:
            yield f"milestones {', '.join(late)} are not before the end (duration={duration:g} {recipe['unit']})"
    elif milestones:
        yield f"milestones with schedule={schedule} would be ignored: set schedule=steps, or milestones="
    if schedule == "plateau" and _never_validates(recipe):
        yield "schedule=plateau with validation=0: it follows the validation error; hold some pictures out"
    if schedule == "one-cycle" and recipe["warmup"] != "none":
        yield f"warmup={recipe['warmup']} with schedule=one-cycle, which has its own rise: set warmup=none"


def _warmup(recipe: Values) -> Iterator[str]:
    kind, length, rate = recipe["warmup"], recipe["warmup_length"], recipe["warmup_rate"]
    used = kind == "steps" or recipe["schedule"] == "one-cycle"
    if used and length >= recipe["duration"]:
        yield f"warmup_length={length:g} is not before the end (duration={recipe['duration']:g} {recipe['unit']})"
    if kind == "steps" and not length:
        yield "warmup=steps with warmup_length=0: say its length, or set warmup=none"
    if length and not used:
        yield f"warmup_length={length:g} would be ignored: set warmup=steps, or warmup_length=0"
    if kind == "none" and rate:
        yield f"warmup_rate={rate:g} would be ignored with warmup=none: set a warm-up, or warmup_rate=0"
    if kind == "training-error" and not rate:
        yield "warmup=training-error with warmup_rate=0 would never learn, so never end: set warmup_rate"
    if kind == "training-error" and recipe["mixup"]:
        yield "warmup=training-error with mixup: mixed pictures have no training error; set one of the two"
    if kind != "none" and rate > recipe["learning_rate"]:
        yield f"warmup_rate={rate:g} is above learning_rate={recipe['learning_rate']:g}"


def _optimiser(recipe: Values) -> Iterator[str]:
    rule, batch, micro = recipe["optimiser"], recipe["batch_size"], recipe["micro_batch"]
    if micro > batch:
        yield f"micro_batch={micro} is larger than batch_size={batch}: a step would be part of a micro-batch"
    if rule != "sgd" and recipe["nesterov"]:
        yield f"nesterov with optimiser={rule}: only sgd has it here; set nesterov=false"
    if rule == "sgd" and recipe["nesterov"] and not recipe["momentum"]:
        yield "nesterov with momentum=0: there is no velocity to look ahead with; set momentum, or nesterov=false"
    if rule != "sgd" and recipe["velocity"] == "inside":
        yield f"velocity=inside with optimiser={rule}: only sgd has it; set velocity=outside"
    if rule in ("adagrad", "adadelta") and recipe["momentum"]:
        yield f"momentum={recipe['momentum']:g} with optimiser={rule}, which has none: set momentum=0"


def _selection(recipe: Values) -> Iterator[str]:
    if recipe["select"] == "best" and _never_validates(recipe):
        yield "select=best with validation=0: there is no validation error to choose by; hold some pictures out"


def _never_validates(recipe: Values) -> bool:
    """Whether no validation part can exist: none is held out and the data is known to bring none."""
    without = recipe["data"] in WITHOUT_VALIDATION or re.fullmatch(r"[\d.]+/0+/[\d.]+", recipe["split"])
    return not recipe["validation"] and bool(without)
