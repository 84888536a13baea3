"""The state of a training: what it consists of, how it is put together, saved as a generation and restored."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from layerwise import checkpoint, hardware, models, rundir
from layerwise.data.augment import Draws, on_device
from layerwise.data.colour import Colour
from layerwise.data.order import class_weights, epoch_batches, epoch_order
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.distributed import World, world
from layerwise.errors import InputError
from layerwise.layers.recompute import recompute_blocks
from layerwise.models.network import Network, SupervisedNetwork
from layerwise.models.resnet import zero_last_scales
from layerwise.models.shapes import check_auxiliary
from layerwise.randomness import derived_seed
from layerwise.recipe import Recipe
from layerwise.tasks.classify import Classify
from layerwise.training.average import Average
from layerwise.training.fused import fuse_normalisation
from layerwise.training.in_place import overwrite_inputs
from layerwise.training.optimiser import (
    build_optimiser,
    freeze,
    optimiser_tensors,
    parameter_groups,
    restore_optimiser,
    unfreeze,
)
from layerwise.training.schedule import Schedule
from layerwise.training.tiles import fill_tiles
from layerwise.training.whitening import whiten_first

IMBALANCE = 10
RESIDENT = 0.05  # of a GPU's memory, which small pictures may take: 60,000 of 40x40x3 are 0.27 GiB


def class_counts(samples: Samples) -> NDArray[np.int64]:
    """The number of pictures of each class, (K,)."""
    return np.bincount(samples.labels, minlength=len(samples.class_names)).astype(np.int64)


@dataclass
class Position:
    """Where a training is, and what it has summed up since the last line of its record. All of it is JSON.

    `batch` counts within the epoch; `samples` counts pictures since the start. `window_errors` is None where errors
    are not counted (mixed pictures have two labels). `left_out` are the steps whose batch was not learned from, and
    `went_back` those at which the state had a number that was not finite (recipe: non_finite=skip).
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0
    window_loss: float = 0.0
    window_errors: int = 0
    window_samples: int = 0
    best_score: float | None = None
    best_step: int = 0
    metrics_bytes: int = 0
    micro_batch: int = 0
    unread: int = 0
    left_out: list[int] = field(default_factory=list)
    went_back: list[int] = field(default_factory=list)


@dataclass
class Recorded:
    """A forward and backward pass recorded as a CUDA graph (graphs.py): what it reads, its losses and gradients."""

    graph: Any
    batch: dict[str, Tensor]
    losses: dict[str, Tensor]
    slopes: list[Tensor | None]


@dataclass
class Replay:
    """What a training knows of such a recording. `reason` says why there is none: "" none, None not looked at yet."""

    reason: str | None = None
    steps: int = 0
    recorded: Recorded | None = None


@dataclass
class Pending:
    """Steps whose numbers are still on the device (pending.py).

    `steps` has for each these numbers, the sizes of its micro-batches, and what is known of it without them. `kept` is
    the state before the first of them. `reason` says why each step is read at once: "" none, None not looked at yet.
    Steps before number `until` are read at once, for one of them was not finite.
    """

    steps: list[tuple[Tensor, list[int], dict[str, float]]] = field(default_factory=list)
    kept: checkpoint.Generation | None = None
    reason: str | None = None
    until: int = 0


@dataclass
class Training:
    """All that one loop needs. Everything that changes is in `model`, `optimiser`, `average`, `schedule`, `position`
    and `best`; the rest is a function of the recipe and the data."""

    run: Path
    recipe: Recipe
    device: torch.device
    train: Samples
    val: Samples | None
    preprocess: Preprocess
    colour: Colour | None
    task: Classify
    model: Network
    forward: nn.Module
    optimiser: torch.optim.Optimizer
    groups: list[dict[str, Any]]
    average: Average | None
    schedule: Schedule
    position: Position
    best: dict[str, Tensor]
    metrics: rundir.Lines
    speed: rundir.Lines
    notes: list[str] = field(default_factory=list)
    replay: Replay = field(default_factory=Replay)
    pending: Pending = field(default_factory=Pending)
    resident: Callable[[NDArray[np.int64], Draws], Tensor] | None = None  # the training pictures, where a GPU has them
    world: World = field(default_factory=world)

    @property
    def progress(self) -> float:
        """The position in the recipe's `unit`."""
        position = self.position
        return position.step if self.recipe.unit == "iterations" else position.samples / len(self.train)

    @property
    def imbalanced(self) -> bool:
        """Whether the largest class has more than ten times the training pictures of the smallest that has any."""
        counts = class_counts(self.train)
        return bool(counts.max() > IMBALANCE * counts[counts > 0].min())

    def selected(self) -> dict[str, Tensor]:
        """The weights that the recipe selects: the best by validation, or the last; averaged ones where it averages."""
        if self.recipe.select == "best" and self.best:
            return self.best
        return self.current()

    def current(self) -> dict[str, Tensor]:
        """The state that is evaluated now: the running average where the recipe has one, else the network's own."""
        return self.average.state_tensors() if self.average else self.model.state_dict()

    def evaluated(self) -> nn.Module:
        """The network in evaluation mode with `current()` in it; its own, or a copy that holds the average."""
        if self.average is None:
            return self.model.eval()
        shadow = copy.deepcopy(self.model)
        shadow.load_state_dict(self.average.state_tensors())
        return shadow.eval()


class NoLines(rundir.Lines):
    """The records of a process that is not the first: they are written once."""

    def __init__(self) -> None: ...

    def cut(self, size: int) -> None: ...

    def write(self, line: dict[str, Any]) -> None: ...

    def size(self) -> int:
        return 0

    def sync(self) -> int:
        return 0


def assemble(run: Path, recipe: Recipe, data: DataSet, preprocess: Preprocess, colour: Colour | None) -> Training:
    """Puts a training together at its start, with the weights that the seed gives."""
    device = world().device(hardware.prepare(recipe))
    torch.manual_seed(derived_seed(recipe.seed, "weights"))
    model = models.build(recipe.network, num_classes=len(data.train.class_names), in_channels=preprocess.channels)
    if recipe.zero_init_last_scale:
        zero_last_scales(model)
    overwrite_inputs(model)
    fill_tiles(model, recipe)
    fuse_normalisation(model, recipe)
    if recipe.recompute == "blocks":
        recompute_blocks(model.features)
    model.to(device, memory_format=hardware.memory_format(recipe))  # type: ignore[call-overload]
    _auxiliary(model, recipe, preprocess)
    freeze(model, recipe)
    if recipe.whiten == "first":
        whiten_first(model, data.train, preprocess)
    groups = parameter_groups(model, recipe)
    batches = len(epoch_batches(epoch_order(data.train, recipe, 0), recipe.batch_size))
    weights = class_weights(data.train, recipe) if recipe.balance == "loss" else None
    return Training(
        run=run,
        recipe=recipe,
        device=device,
        train=data.train,
        val=data.val,
        preprocess=preprocess,
        colour=colour,
        task=Classify(recipe.label_smoothing, () if weights is None else tuple(weights.tolist()), recipe.loss,
                      recipe.auxiliary_weight),
        model=model,
        forward=_compiled(model, recipe) if recipe.compile == "yes" else model,
        optimiser=build_optimiser(groups, recipe),
        groups=groups,
        average=Average(model, recipe.ema) if recipe.ema > 0 else None,
        schedule=Schedule(recipe, len(data.train), batches),
        position=Position(micro_batch=recipe.micro_batch),
        best={},
        metrics=rundir.Lines(run / rundir.METRICS) if world().first else NoLines(),
        speed=rundir.Lines(run / rundir.SPEED) if world().first else NoLines(),
        resident=on_device(data.train.images, recipe, preprocess, device, room(device)),
    )


def _compiled(model: Network, recipe: Recipe) -> nn.Module:
    """What a step calls: the compiled network; its pass with auxiliary heads, a method of its own, is compiled too."""
    compiled = cast(nn.Module, torch.compile(model))
    if recipe.auxiliary_weight:  # set in the usual way, torch's wrapper would hand it on to the network itself
        object.__setattr__(compiled, "with_auxiliary", torch.compile(cast(SupervisedNetwork, model).with_auxiliary))
    return compiled


def room(device: torch.device) -> float:
    """Bytes of the device's own memory that the training pictures may take; none where it has none of its own."""
    return RESIDENT * torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 0


def _auxiliary(model: Network, recipe: Recipe, preprocess: Preprocess) -> None:
    """Heads that the recipe does not train have no gradient; a weight for heads that can't be trained is refused."""
    if isinstance(model, SupervisedNetwork):
        model.auxiliary.requires_grad_(recipe.auxiliary_weight > 0)
        if recipe.auxiliary_weight:
            check_auxiliary(model, (preprocess.channels, preprocess.size, preprocess.size))
    elif recipe.auxiliary_weight:
        raise InputError(f"auxiliary_weight={recipe.auxiliary_weight:g}: {recipe.network} has no auxiliary heads",
                         "Only networks such as googlenet or inception_v3 have them.", "Set auxiliary_weight=0.")


def save(training: Training) -> None:
    """Writes a generation. A full disk does not end the training: it is noted and the last generation stands.

    Nor does an older generation that can't be removed. Other errors of the system are raised as they are.
    """
    position = training.position
    position.metrics_bytes = training.metrics.sync()
    tensors, state = snapshot(training)
    try:
        checkpoint.write(training.run / rundir.CHECKPOINTS, position.samples, tensors, state)
    except checkpoint.LeftOverError as error:
        note(training, f"an old checkpoint could not be removed ({error.strerror}); the next save tries it again")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        note(training, f"no room for the checkpoint at step {position.step} ({error.strerror}); the one before stands")


def snapshot(training: Training) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that changes in a training: tensors by name, which are not copies, and what is JSON."""
    tensors = {f"model/{name}": tensor for name, tensor in training.model.state_dict().items()}
    tensors |= {f"optimiser/{name}": tensor for name, tensor in optimiser_tensors(training.optimiser).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in training.best.items()}
    state: dict[str, Any] = {
        "position": dataclasses.asdict(training.position),
        "schedule": training.schedule.state(),
        "recipe": training.recipe.hash,
        "notes": list(training.notes),
    }
    if training.average:
        tensors |= {f"average/{name}": tensor for name, tensor in training.average.state_tensors().items()}
        state["average_count"] = training.average.count
    return tensors, state


def restore(training: Training, generation: checkpoint.Generation) -> None:
    """Puts a generation's state into a training that was assembled from the same data, and the same recipe or a branch.

    What a branch asks for and the generation does not have begins here. Raises InputError for what can't begin.
    """
    state = generation.state
    branch = state["recipe"] != training.recipe.hash
    training.position = Position(**state["position"])
    training.schedule.restore(state["schedule"])
    training.notes = list(state["notes"])
    position, wanted = training.position, training.recipe.micro_batch
    if branch and position.micro_batch != wanted:
        note(training, f"step {position.step}: micro-batches of {wanted} from here on, {position.micro_batch} before")
        position.micro_batch = wanted
    if training.recipe.unfreeze_at and training.progress >= training.recipe.unfreeze_at:
        unfreeze(training.model, training.recipe)

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in generation.tensors.items()
                if name.startswith(prefix)}

    training.model.load_state_dict(under("model/"))
    restore_optimiser(training.optimiser, under("optimiser/"))
    training.best = {name: tensor.to(training.device) for name, tensor in under("best/").items()}
    if training.average and branch and "average_count" not in state:
        training.average = Average(training.model, training.recipe.ema)
    elif training.average:
        training.average.restore(under("average/"), state["average_count"])
    training.metrics.cut(training.position.metrics_bytes)


def note(training: Training, text: str) -> None:
    """Keeps a note for the closing summary and the report, once."""
    if text not in training.notes:
        training.notes.append(text)


def checkpoint_size(training: Training) -> int:
    """Bytes that a generation takes: the network, its optimiser's state, its average and the best weights."""
    own: int = sum(tensor.numel() * tensor.element_size() for tensor in training.model.state_dict().values())
    slots = {"sgd": 1, "adagrad": 1, "adadelta": 2, "rmsprop": 2, "adam": 2, "adamw": 2}[training.recipe.optimiser]
    return own * (1 + slots + (training.average is not None) + (training.recipe.select == "best"))


def write_input(run: Path, preprocess: Preprocess, colour: Colour | None) -> None:
    """Writes what was computed from the training pictures, so that a resumed run reads it instead of them all."""
    tensors = {f"preprocess.{name}": tensor for name, tensor in preprocess.tensors().items()}
    if colour is not None:
        tensors["colour.vectors"] = torch.from_numpy(colour.vectors)
        tensors["colour.values"] = torch.from_numpy(colour.values)
    header = {"preprocess": json.dumps(preprocess.to_json())}
    checkpoint.replace_durably(run / "input.safetensors", save_tensors(tensors, metadata=header))


def read_input(run: Path) -> tuple[Preprocess, Colour | None]:
    """Reads what `write_input` wrote. Raises InputError where it is damaged."""
    path = run / "input.safetensors"
    try:
        data = path.read_bytes()
        tensors = load_tensors(data)
        header = json.loads(str(data[8 : 8 + int.from_bytes(data[:8], "little")], "utf-8"))["__metadata__"]
        specification = json.loads(header["preprocess"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{path}: can't be read ({error})", "It holds the preprocessing of this run.",
                         "Start the training again under a new name.") from None

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    parts = {name: tensor.numpy() for name, tensor in under("colour.").items()}
    return Preprocess.from_parts(specification, under("preprocess.")), Colour(**parts) if parts else None
