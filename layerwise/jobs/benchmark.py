"""`layerwise bench`: the time of a network on this machine, or a refusal to name one.

Warm-up first, the device synchronised around every repetition, the median and the 95th percentile of single
repetitions, the threads stated. Spread is the interquartile range over the median; above the bound a row has no number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from layerwise import hardware, models
from layerwise.errors import InputError, ToleranceError, amount
from layerwise.jobs.layer_table import known
from layerwise.layers.recompute import recompute_blocks
from layerwise.models import shapes
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.presets import preset
from layerwise.training.fused import fuse_normalisation

WARM_UP_SECONDS = 0.5
WARM_UP_REPEATS = 3
COMPILED = {"yes": "compiled", "no": "not compiled", "norm": "batch normalisation compiled"}
# The fields of a recipe that a pass depends on; another would be ignored.
FIELDS = ("device", "precision", "memory_format", "recompute", "compile", "threads", "deterministic")


@dataclass(frozen=True)
class BenchOptions:
    """Batch sizes as "1,8,32"; whether the backward pass is timed too; side in pixels (0: published); bound of the
    spread; settings of the machine's fields."""

    batches: str = "1,8,32"
    training: bool = False
    size: int = 0
    repeats: int = 30
    max_spread: float = 0.25
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchRow:
    """One batch size: seconds of the median and 95th percentile, spread; no numbers where it varied too much."""

    batch: int
    spread: float
    median: float | None
    p95: float | None

    @property
    def median_text(self) -> str:
        return "refused" if self.median is None else f"{1000 * self.median:.2f}"

    @property
    def p95_text(self) -> str:
        return "refused" if self.p95 is None else f"{1000 * self.p95:.2f}"

    @property
    def rate_text(self) -> str:
        return "refused" if self.median is None else f"{self.batch / self.median:,.1f}"


@dataclass(frozen=True)
class BenchReport:
    """The rows and what they were measured with; `intensity` is floating-point operations a byte moved, by batch."""

    network: str
    what: str
    input: tuple[int, int, int]
    rows: tuple[BenchRow, ...]
    max_spread: float
    repeats: int
    hardware: dict[str, Any]
    versions: dict[str, str]
    multiply_adds: int
    intensity: dict[int, float]
    ridge: float | None

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What stands below the table."""
        machine = self.hardware
        found = [
            f"{self.network}, {self.what}, input {'x'.join(map(str, self.input))}, {self.repeats} repetitions after "
            "warm-up, synchronised",
            f"{machine['device']} ({machine['cpu']}), {amount(machine['threads'], 'threads')} of {machine['cores']} "
            f"cores, {machine['precision']}, {machine['memory_format']}, "
            f"{COMPILED[machine['compile']]}, torch {self.versions['torch']}",
            f"{self.multiply_adds:,} multiply-adds an image",
        ]
        bound = [batch for batch, value in self.intensity.items() if self.ridge is not None and value < self.ridge]
        if bound and self.ridge is not None:
            found.append(
                f"memory-bound at batch {', '.join(map(str, bound))}: {self.intensity[bound[0]]:.0f} operations a byte "
                f"moved, this machine balances at {self.ridge:.0f}; fewer multiply-adds need not be faster"
            )
        return found


def bench(network: str, options: BenchOptions) -> BenchReport:
    """Times `network` (a name, a model file or a run) at each batch size.

    Raises InputError for a bad batch list or network. Rows that vary by more than `max_spread` carry no number:
    `require_steady` turns them into an error after the table is printed.
    """
    batches = _batch_sizes(options.batches)
    ignored = [setting for setting in options.settings if setting.partition("=")[0].strip() not in FIELDS]
    recipe = changed(preset("fast"), options.settings)
    check(recipe)
    if ignored:
        raise InputError(f"--set {ignored[0]}: no pass depends on it", f"What does is {', '.join(FIELDS)}.",
                         "Leave it out; `layerwise tune` times whole steps of a recipe.", ignored)
    recipe = hardware.resolve(recipe)
    check(recipe)
    if recipe.compile == "norm" and not options.training:
        raise InputError("compile=norm: a forward pass alone does not depend on it",
                         mend="Time the training's passes with --training, or set compile=no.")
    device = hardware.prepare(recipe)
    name, model, shape = _network(network, options.size, device)
    model = model.to(memory_format=hardware.memory_format(recipe))  # type: ignore[call-overload]
    fuse_normalisation(model, replace(recipe, network=name))
    if recipe.recompute == "blocks":
        recompute_blocks(model.features)
    called = cast(nn.Module, torch.compile(model, dynamic=False)) if recipe.compile == "yes" else model
    rows = []
    for batch in batches:
        run = _step(called, recipe, (batch, *shape), options.training)
        rows.append(_row(batch, measure(run, device, options.repeats), options.max_spread))
    cost = shapes.cost(model, shape)
    moved = {batch: _bytes_moved(cost, batch) for batch in batches}
    factor = 3 if options.training else 1  # the backward pass costs twice the forward pass
    what = "forward and backward pass" if options.training else "forward pass"
    return BenchReport(
        name, what, shape, tuple(rows), options.max_spread,
        options.repeats, hardware.describe(recipe), hardware.versions(), cost.multiply_adds,
        {batch: factor * 2.0 * cost.multiply_adds * batch / (factor * moved[batch]) for batch in batches},
        machine_balance(device),
    )  # fmt: skip


def require_steady(report: BenchReport) -> None:
    """Raises ToleranceError where a row varied too much to be a number."""
    refused = [f"batch {row.batch}: spread {100 * row.spread:.0f} %" for row in report.rows if row.median is None]
    if refused:
        raise ToleranceError(
            f"{report.network}: the times of {len(refused)} of {len(report.rows)} batch sizes vary by more than "
            f"{100 * report.max_spread:.0f} % (interquartile range over median)",
            "A median of such times says more about what else runs on the machine than about the network.",
            "Stop other work and run it again, with a larger --repeats, or allow more with --max-spread.",
            refused,
        )


def measure(run: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls of `run` after the warm-up; the device is synchronised around each."""
    end = time.perf_counter() + WARM_UP_SECONDS
    count = 0
    while count < WARM_UP_REPEATS or time.perf_counter() < end:
        run()
        _synchronise(device)
        count += 1
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        _synchronise(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _row(batch: int, seconds: Sequence[float], max_spread: float) -> BenchRow:
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    spread = (high - low) / median
    if spread > max_spread:
        return BenchRow(batch, spread, None, None)
    return BenchRow(batch, spread, median, statistics.quantiles(seconds, n=20, method="inclusive")[-1])


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _batch_sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or not 1 <= int(part) <= 65_536]
    if wrong:
        raise InputError(f"--batches {text}: {wrong[0]!r} is no batch size",
                         mend="Give numbers from 1 to 65536 with commas, as 1,8,32.")
    return list(dict.fromkeys(int(part) for part in parts))


def _network(network: str, size: int, device: torch.device) -> tuple[str, nn.Module, tuple[int, int, int]]:
    if network not in models.names() and Path(network).exists():
        from layerwise import modelfile

        found = modelfile.read(network, device)
        model, side = found.model, size or found.preprocess.size
        shape = (found.preprocess.channels, side, side)
    else:
        shape = models.published_input(known(network))
        shape = (shape[0], size or shape[1], size or shape[2])
        model = models.build(network).to(device)
    if size:
        made = model.architecture
        shapes.check_input(made["name"], shape[0], size, int(made["arguments"]["num_classes"]), "--size")
    return network, model, shape


def _step(model: nn.Module, recipe: Recipe, shape: tuple[int, ...], training: bool) -> Callable[[], object]:
    device = torch.device(recipe.device)
    images = torch.rand(shape, device=device).contiguous(memory_format=hardware.memory_format(recipe))
    model.train(training)

    def forward() -> object:
        with torch.inference_mode(), hardware.autocast(recipe):
            return model(images)

    def step() -> object:
        model.zero_grad(set_to_none=True)
        with hardware.autocast(recipe):
            loss = model(images).float().square().mean()
        loss.backward()
        return loss

    return step if training else forward


def _bytes_moved(cost: shapes.Cost, batch: int) -> float:
    """Bytes of a forward pass at 4 a number: weights read once, each layer's output written and read once."""
    values = 0
    for row in cost.rows:
        count = 1
        for side in row.output:
            count *= side
        values += count
    return 4.0 * (cost.parameters + 2 * batch * values)


def machine_balance(device: torch.device) -> float | None:
    """Floating-point operations that the device does while it moves one byte, measured; None where that fails."""
    try:
        left = torch.rand(1024, 1024, device=device)
        block = torch.rand(8 * 2**20, device=device)
        target = torch.empty_like(block)
        compute = 2 * 1024**3 / statistics.median(measure(lambda: left @ left, device, 7))
        move = 2 * 4 * block.numel() / statistics.median(measure(lambda: target.copy_(block), device, 7))
    except (RuntimeError, MemoryError):
        return None
    return compute / move
