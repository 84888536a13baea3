"""How many pictures go into memory at once: found before the first step, without changing anything that is trained.

The largest micro-batch is looked for (the whole batch, then halves) for which the forward and backward pass, the
optimiser's state, the averages, the validation and saving fit with a margin. On a GPU a step is tried. On a CPU an
allocation rarely fails, the system ends the process instead; so there the step is walked through on the meta device,
where tensors have sizes and no content, and the bytes alive at once are counted.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerwise import hardware
from layerwise.errors import MachineError
from layerwise.models.shapes import cost
from layerwise.training.optimiser import keep_frozen_statistics
from layerwise.training.state import Training, checkpoint_size, note

MARGIN = 0.2  # of the free memory, left for what is not counted
FAR = 10  # a rough bound that fits this many times over needs no probe
ROUGH = 6  # bytes of a step for each byte of the layers' outputs; 2 to 4 were measured
# What the process grew by on CPUs, against the tensors that were counted: 1.1 to 1.5 times their bytes, and twice those
# of the weights (rearranged weights, partial sums of their gradients).
OVERHEAD, SCRATCH = 1.5, 2
VALIDATED_AT_ONCE = 256 * 64 * 64  # pixels of a validation batch
WAITING = 4  # batches: files are made ready a few ahead
# Times the weights: what writing the model file takes at the end, beside all that a step keeps. 3.0 were measured
# (AlexNet), and next to nothing for a checkpoint, which is written tensor by tensor.
WRITTEN = 3
GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Need:
    """Bytes of a step with a micro-batch, by phase; `weights` are in memory already and count in no peak."""

    micro_batch: int
    weights: int
    optimiser: int  # gradients, the optimiser's state, the best weights
    activations: int
    pictures: int  # whole batches that wait in memory
    validation: int
    saving: int  # copies of the weights on their way to a file

    @property
    def peak(self) -> int:
        """The most that is allocated at once beyond the weights."""
        return self.optimiser + self.pictures + max(self.activations, self.validation, self.saving)

    def lines(self) -> list[str]:
        """The peak by phase for people."""
        return [f"weights {_gb(self.weights)} (in memory already)",
                f"gradients, optimiser and best weights {_gb(self.optimiser)}",
                f"activations of {_pictures(self.micro_batch)} {_gb(self.activations)}",
                f"batches that wait {_gb(self.pictures)}",
                f"validation {_gb(self.validation)}, saving {_gb(self.saving)}"]


def probe_micro_batch(training: Training, automatic: bool) -> str:
    """Chooses the micro-batch where the recipe leaves it open (`automatic`); returns a line that says what fits.

    The choice is written into `training.recipe`, as if it had been given. Nothing else of the training changes. Raises
    MachineError with the peak by phase where not even one picture fits.
    """
    recipe = training.recipe
    micro, free = recipe.micro_batch, _free(training)
    line = f"micro-batch {micro}: memory does not limit it"
    if free is None:
        line = f"micro-batch {micro}: not probed, this system does not tell how much memory is free"
    elif FAR * rough_bound(training) > free:
        line = _choose(training, automatic, free)
    micro = training.recipe.micro_batch
    if micro < recipe.batch_size and any(isinstance(module, _BatchNorm) for module in training.model.modules()):
        note(training, f"micro-batches of {micro} in a batch of {recipe.batch_size}: batch normalisation takes its "
                       f"statistics over those {micro}")
    return line


def _free(training: Training) -> int | None:
    """The bytes that this process may take: on a CPU several share the machine's memory."""
    free, shared = available_memory(training.device), training.world.size if training.device.type == "cpu" else 1
    return None if free is None else free // shared


def _share(training: Training) -> int:
    """The most pictures of a batch that one process has."""
    return math.ceil(training.recipe.batch_size / training.world.size)


def validation_batch(training: Training) -> int:
    """The pictures of a validation batch: a function of micro-batch and size, so that resumed runs have the same.

    Without a backward pass several times the micro-batch takes less memory than a step.
    """
    return _validation_batch(training.position.micro_batch, training.preprocess.size)


def _validation_batch(micro: int, size: int) -> int:
    return max(micro, min(256, 8 * micro, VALIDATED_AT_ONCE // size**2))


def _choose(training: Training, automatic: bool, free: int) -> str:
    """Halves the micro-batch until it fits, writes it down; returns the line."""
    wanted = training.recipe.micro_batch
    micro, room = wanted, int(free * (1 - MARGIN))
    while True:
        need = needed(training, micro)
        if need is None:
            return f"micro-batch {micro}: not probed, {training.recipe.network} can't be walked through"
        peak = _trial(training, micro) if tried_on(training.device) else need.peak
        if peak is not None and peak <= room:
            break
        if not automatic:
            text = (f"micro_batch={micro} as set needs about {_gb(need.peak)}, {_gb(free)} are free on "
                    f"{training.device}: it may not fit")
            note(training, text)
            return text
        if micro == 1:
            raise _too_large(training, need, free)
        micro = math.ceil(micro / 2)
    training.recipe = dataclasses.replace(training.recipe, micro_batch=micro)
    training.position.micro_batch = micro
    how = "the whole batch" if micro == wanted else "found by probing"
    return f"micro-batch {micro}, {how}: needs about {_gb(peak)} of {_gb(free)}"


def tried_on(device: torch.device) -> bool:
    """Whether a step is tried on `device`; on a CPU it is only walked through."""
    return device.type != "cpu"


def needed(training: Training, micro: int, size: int = 0) -> Need | None:
    """What a step with micro-batches of `micro` pictures of `size` pixels a side (0: as in the recipe) allocates.

    None where the network can't be walked through on the meta device.
    """
    recipe, channels = training.recipe, training.preprocess.channels
    size = size or training.preprocess.size
    model = _on_meta(training.model)
    # Activations of two bytes; weights are counted in full below. Where the processor has no bf16 its convolutions
    # lay out each window: the process grew by 1.4 GiB where fp32 took 0.9 (ResNet-20, 48 pictures at 96).
    factor = 2 if recipe.precision == "bf16" and hardware.computes_bf16(training.device) else 1
    if factor == 2:
        model.bfloat16()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in training.model.state_dict().values())
    learnt = sum(p.numel() * p.element_size() for p in training.model.parameters() if p.requires_grad)
    try:
        with torch.random.fork_rng(devices=[]):
            model.train()
            keep_frozen_statistics(model, recipe)
            step, shown = _counts(training, micro, size)
            forward = _live(training, model, _batch(training, step, size, model), backward=True) - learnt // factor
            model.eval()
            seen = _live(training, model, _batch(training, shown, size, model), backward=False)
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    scratch, saving = (SCRATCH * weights, WRITTEN * weights) if training.device.type == "cpu" else (0, 0)
    grown = OVERHEAD if training.device.type == "cpu" else 1.0
    pictures = WAITING * _share(training) * channels * size**2 * 4 if training.device.type == "cpu" else 0
    return Need(micro, weights, learnt + _state(training), int(grown * max(0, forward)) + scratch, pictures,
                int(grown * seen) + scratch, saving)


def _counts(training: Training, micro: int, size: int) -> tuple[int, int]:
    """The pictures that a step and a validation batch have at most: no more than there are."""
    held = 0 if training.val is None else len(training.val)
    return min(micro, _share(training), len(training.train)), min(_validation_batch(micro, size), max(1, held))


def _state(training: Training) -> int:
    """Bytes that a step adds beside gradients: the optimiser's state, the best weights, the average that is shown."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in training.model.state_dict().values())
    return int(checkpoint_size(training) - weights)


def available_memory(device: torch.device) -> int | None:
    """The bytes that can still be allocated on `device`; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    known = [value for value in (_free_of_machine(), *_free_of_groups()) if value is not None]
    return min(known, default=None)


def _free_of_machine(information: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = information.read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_of_groups(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What the limits of this process's control groups (both versions) leave; file caches count as free."""
    try:
        rows = [line.split(":", 2) for line in own.read_text("utf-8").splitlines()]
    except OSError:
        return
    for _, controllers, path in (row for row in rows if len(row) == 3):
        if controllers not in ("", "memory"):
            continue
        root, names = (groups, ("memory.max", "memory.current", "inactive_file")) if not controllers else (
            groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
        place = root / path.lstrip("/")
        for folder in (place, *place.parents):
            if folder == root.parent:
                break
            try:
                limit = (folder / names[0]).read_text("utf-8").strip()
                used = int((folder / names[1]).read_text("utf-8"))
                rows_of = dict(line.split() for line in (folder / "memory.stat").read_text("utf-8").splitlines())
            except (OSError, ValueError):
                continue
            if limit.isdigit() and int(limit) < 1 << 60:
                yield max(0, int(limit) - used + int(rows_of.get(names[2], 0)))


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors made within it that are alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple[Any, ...] = (),
                           named: Mapping[str, Any] | None = None) -> Any:
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return

        def gone(_: object) -> None:
            self.now -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _live(training: Training, model: nn.Module, batch: dict[str, Tensor], backward: bool) -> int:
    """The largest number of bytes alive in a pass over `batch` beyond it; with the backward pass gradients are too."""
    with _Live() as counted:
        if backward:
            training.task.loss(model, batch)["loss"].backward()
        else:
            with torch.inference_mode():
                model(batch["image"])
    model.zero_grad(set_to_none=True)
    return int(counted.peak)


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy without content: parameters and buffers are replaced while it is made, so that no memory is needed."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in model.parameters()}
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _batch(training: Training, count: int, size: int, model: nn.Module) -> dict[str, Tensor]:
    """A batch of the shape that training has, where `model` is."""
    weight = next(model.parameters())
    image = torch.zeros(count, training.preprocess.channels, size, size, device=weight.device, dtype=weight.dtype)
    label = torch.zeros(count, dtype=torch.long, device=weight.device)
    batch = {"image": image.contiguous(memory_format=hardware.memory_format(training.recipe)), "label": label}
    if training.recipe.mixup > 0:
        batch |= {"label_b": label, "weight": torch.ones(count, device=weight.device)}
    return batch


def _trial(training: Training, micro: int) -> int | None:
    """The peak in bytes of a step and a validation batch on the device itself; None where they do not fit.

    0 where the device does not tell its peak. Nothing is stepped, and statistics and random state are put back.
    """
    device, recipe, size = training.device, training.recipe, training.preprocess.size
    step, shown = _counts(training, micro, size)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    try:
        with _kept(training), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            state = torch.empty(_state(training), dtype=torch.uint8, device=device)
            training.model.train()
            keep_frozen_statistics(training.model, recipe)
            with hardware.autocast(recipe):
                losses = training.task.loss(training.model, _batch(training, step, size, training.model))
            losses["loss"].backward()
            del losses
            training.model.eval()
            with hardware.autocast(recipe), torch.inference_mode():
                training.model(_batch(training, shown, size, training.model)["image"])
            del state
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        return None
    return torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else 0


@contextmanager
def _kept(training: Training) -> Iterator[None]:
    """Puts modes, buffers and gradients of the network back as they were."""
    modes = {module: module.training for module in training.model.modules()}
    buffers = list(training.model.buffers())
    copies = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        training.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, kept in zip(buffers, copies, strict=True):
                buffer.copy_(kept)
        for module, mode in modes.items():
            module.training = mode
        if training.device.type == "cuda":
            torch.cuda.empty_cache()


def rough_bound(training: Training) -> int:
    """A bound on a step's bytes from the layers' output shapes alone, which the record of the run needs anyway."""
    preprocess, micro, share = training.preprocess, training.recipe.micro_batch, _share(training)
    rows = cost(training.model, (preprocess.channels, preprocess.size, preprocess.size)).rows
    outputs = sum(math.prod(row.output) for row in rows) * 4
    waiting = WAITING * share * preprocess.channels * preprocess.size**2 * 4
    largest = max(ROUGH * min(micro, share), _validation_batch(micro, preprocess.size))
    return outputs * largest + waiting + (2 + SCRATCH) * checkpoint_size(training)


def _too_large(training: Training, need: Need, free: int) -> MachineError:
    recipe, size = training.recipe, training.preprocess.size
    room = int(free * (1 - MARGIN))
    advice = ["Choose a smaller network", *(["--set recompute=blocks"] if recipe.recompute == "none" else [])]
    for side in (size * part // 8 for part in (7, 6, 5, 4, 3, 2)):
        smaller = needed(training, 1, side) if side >= 8 else None
        if smaller is not None and smaller.peak <= room:
            advice.append(f"--set input_size={side} (needs about {_gb(smaller.peak)})")
            break
    if need.pictures > room // 2:
        fits = max(1, recipe.batch_size * max(0, room - need.peak + need.pictures) // max(1, need.pictures))
        advice.append(f"--set batch_size={fits}")
    return MachineError(
        f"{recipe.network} on {size}x{size} pictures: not even one picture at a time fits into memory",
        f"It needs about {_gb(need.peak)} beyond its weights; {_gb(free)} are free on {training.device}, of which "
        f"{100 * MARGIN:.0f} % are left as a margin.",
        ", or ".join(advice) + ".", need.lines())


def _pictures(count: int) -> str:
    return "one picture" if count == 1 else f"{count} pictures"


def _gb(size: int | None) -> str:
    return f"{cast(int, size) / 1e9:.2g} GB" if (size or 0) < 99.5e9 else f"{cast(int, size) / 1e9:.0f} GB"
