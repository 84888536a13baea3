"""Training steps of five networks: the command's own loop against what a user types, and against the best by hand.

    python benchmarks/training.py [--rounds 3] [--seconds 4] [--steps 0] [--networks resnet18 ...] [--save FILE]
                                  [--speed-run airnet] [--tries 1]

*plain* is a bare eager loop, contiguous (NCHW), fp32, the C library's default allocator; *best* is the fastest of
memory format x allocator by hand over the same bare loop, with bf16 where the processor has it, compiled too with
--compile. Both take their pictures from one tensor in memory, so that the command's side alone pays for order,
augmentation, records and checks; the checkpoint at its end is left out, for in a run there is one a minute. What
compile=auto becomes depends on a training's length: pictures of 224 stand for ImageNet's, small ones for their sets'.
Each round of each side is a fresh process with two untimed steps, of which the first waits for the compiler; sides
take turns. After the first round only plain, the command and the best by hand go on. --steps 0: as many steps as
--seconds hold, by the second of the untimed. The roofline is measured in the same run (peaks.py), by the same clock.
Beside the images a second of the clock stand those of the processor's time: where other work shares the machine only
these can be compared. With --tries above 1 a side that had less than 95 % of the cores is measured again, at most so
often, and the try with most of them is kept (quiet.py).

Exit status 4 where a median ratio to plain, by the clock, is below its must. The musts were set on two cores with
AVX512-BF16, whose arithmetic in bf16 is 1.8 times that in fp32; they stand for every machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peaks import peaks, roofline
from quiet import Watch, in_words, most_of, quietest
from torch.nn.functional import cross_entropy

import layerwise.train as command
from layerwise import allocator, hardware, models
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet, Samples
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.signals import Signals
from layerwise.training.fused import compiled_for
from layerwise.training.memory import activation_bytes
from layerwise.training.preparation import RunOptions
from layerwise.training.state import Training, assemble

PLAIN = "contiguous default"
BY_HAND = ("contiguous kept", "channels-last default", "channels-last kept")
MOST_STEPS = 200
NOISE_BYTES = 1 << 25


@dataclass(frozen=True)
class Case:
    """A row of the table: the pictures of a step, and the ratios that must be and should be reached."""

    channels: int
    side: int
    batch: int
    must: float  # times plain
    aim: float  # times plain
    aim_of_best: float
    pictures: int  # of the training that the step belongs to: compile=auto depends on its length


IMAGENET, FASHION, CIFAR = 1_281_167, 60_000, 50_000
CASES = {
    "resnet50": Case(3, 224, 16, 3.1, 4.0, 1.25, IMAGENET),
    "resnet18": Case(3, 224, 16, 2.8, 3.3, 1.15, IMAGENET),
    "speed-run": Case(3, 32, 1024, 4.5, 6.0, 1.2, CIFAR),
    "resnet20": Case(3, 32, 128, 1.9, 3.0, 1.5, CIFAR),
    "lenet5": Case(1, 32, 128, 1.0, 4.0, 3.7, FASHION),
}
Rates = dict[str, float]


def nothing() -> tuple[float, float]:
    """Seconds that are left out: none."""
    return 0.0, 0.0


def timed(batch: int, run: Callable[[], int], left_out: Callable[[], tuple[float, float]] = nothing) -> Rates:
    """Images a second of `run`, which returns its steps, by the clock and the processor, without what is left out.

    Beside them the share of the cores' time that went elsewhere.
    """
    watch = Watch()
    images = run() * batch
    clock, processor, elsewhere = watch.spent()
    less = left_out()
    return {"clock": images / (clock - less[0]), "processor": images / (processor - less[1]), "elsewhere": elsewhere}


def chosen_steps(options: argparse.Namespace, seconds: float) -> int:
    """How many steps are timed where one takes `seconds`."""
    return int(options.steps) or max(1, min(MOST_STEPS, round(options.seconds / seconds)))


class Until(Signals):
    """Ends the loop as Ctrl-C does, once the training has gone that many steps: compiled once, it then goes on."""

    def __init__(self, training: Training, step: int) -> None:
        super().__init__()
        self.training, self.step = training, step

    @property
    def received(self) -> int | None:  # type: ignore[override]
        return signal.SIGINT if self.training.position.step >= self.step else None

    @received.setter
    def received(self, value: int | None) -> None:
        """What it is set to says nothing here."""


def recipe_of(network: str, case: Case, threads: int, settings: Sequence[str] = ()) -> Recipe:
    """The recipe `fast` on this network, its machine's fields as `layerwise train` resolves them for its pictures."""
    asked = changed(preset("fast"), [
        f"network={network}", f"batch_size={case.batch}", f"threads={threads}", "validation=0",
        f"input_size={case.side}", f"channels={case.channels}", "checkpoint_seconds=100000", *settings])
    recipe = hardware.resolve(asked)
    if asked.compile == "auto":
        recipe = dataclasses.replace(recipe, compile=compiled_for(recipe, case.pictures))
    return changed(recipe, ["unit=iterations"])


def command_side(network: str, case: Case, options: argparse.Namespace, settings: Sequence[str] = ()) -> Rates:
    """The training command's loop with its defaults, changed by `settings`, on noise."""
    # Two batches, and more of small pictures: a real epoch of theirs, at whose end the loop writes, has hundreds.
    batches = max(2, min(MOST_STEPS, NOISE_BYTES // (case.batch * case.channels * case.side**2)))
    count, noise = case.batch * batches, np.random.default_rng(0)
    shape = (count, case.side, case.side, case.channels)
    samples = Samples(name="train", class_names=tuple(map(str, range(10))), labels=noise.integers(0, 10, count),
                      ids=tuple(map(str, range(count))), images=noise.integers(0, 256, shape, dtype=np.uint8))
    data = DataSet(name="noise", train=samples, val=None, test=None, notes=(), licence="none: noise")
    recipe = dataclasses.replace(recipe_of(network, case, options.threads, settings), warmup_length=0)
    preprocess = fit_preprocess(samples, recipe)
    saved, really = [0.0, 0.0], command.save

    def save(training: Training) -> None:
        if training.device.type == "cuda":
            torch.cuda.synchronize(training.device)  # the last step is the loop's, not the checkpoint's
        clock, processor = time.perf_counter(), time.process_time()
        really(training)
        saved[:] = [time.perf_counter() - clock, time.process_time() - processor]

    def looped(training: Training, steps: int) -> Rates:
        def go() -> int:
            before = training.position.step
            command.loop(training, Until(training, before + steps), RunOptions(quiet=True))
            return training.position.step - before  # fewer where the training ends before

        return timed(case.batch, go, lambda: (saved[0], saved[1]))

    command.save = save  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as place:
        lasts = dataclasses.replace(recipe, duration=2 + MOST_STEPS, evaluate_every=2 + MOST_STEPS)
        training = assemble(Path(place), lasts, data, preprocess, None)
        with allocator.kept_buffers(activation_bytes(training), training.device.type):
            looped(training, 1)  # compiles: its seconds say nothing of a step's
            step = looped(training, 1)
            return looped(training, chosen_steps(options, case.batch / step["clock"]))


def bare_side(side: str, network: str, case: Case, options: argparse.Namespace) -> Rates:
    """A bare loop; `side` names memory format, allocator, precision and compiler."""
    torch.set_num_threads(options.threads)
    layout = torch.channels_last if "channels-last" in side else torch.contiguous_format
    model = models.build(network, num_classes=10, in_channels=case.channels)
    model.to(memory_format=layout)  # type: ignore[call-overload]
    model.train()
    forward = torch.compile(model) if "compiled" in side else model
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randn(case.batch, case.channels, case.side, case.side).contiguous(memory_format=layout)
    labels = torch.randint(10, (case.batch,))

    def run(count: int) -> int:
        for _ in range(count):
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled="bf16" in side):
                loss = cross_entropy(forward(images), labels)
            loss.backward()
            optimiser.step()
        return count

    with allocator.kept_buffers(1 << 40 if "kept" in side else 0):
        run(1)
        steps = chosen_steps(options, case.batch / timed(case.batch, lambda: run(1))["clock"])
        return timed(case.batch, lambda: run(steps))


def fresh(words: Sequence[str], options: argparse.Namespace) -> Any:
    """One side in a process of its own."""
    command_line = [sys.executable, __file__, "--case", *words, "--threads", str(options.threads),
                    "--seconds", str(options.seconds), "--steps", str(options.steps)]
    done = subprocess.run(command_line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(row: str, network: str, options: argparse.Namespace, found_peaks: dict[str, dict[str, float]]) -> Any:
    """All sides of one network in turns; medians, ranges, ratios, share of the roofline."""
    case = CASES[row]
    sides = ["command", PLAIN, *BY_HAND]
    sides += ["channels-last kept bf16"] * hardware.cpu_computes_bf16()
    sides += ["channels-last kept compiled"] * options.compile
    rounds: list[dict[str, Rates]] = []
    for turn in range(options.rounds):
        order = sides if turn % 2 else sides[::-1]
        rounds.append({side: quietest(lambda side=side: fresh([side, row, network], options),  # type: ignore[misc]
                                      lambda rates: rates["elsewhere"], options.tries) for side in order})
        if turn == 0:
            best = max(sides[1:], key=lambda side: rounds[0][side]["clock"])
            sides = list(dict.fromkeys(["command", PLAIN, best]))
    elsewhere = most_of(rates["elsewhere"] for one in rounds for rates in one.values())
    found: dict[str, Any] = {"network": network, **dataclasses.asdict(case), "best": best, "elsewhere": elsewhere}
    for which in ("clock", "processor"):
        ratios = [one["command"][which] / one[PLAIN][which] for one in rounds]
        rates = {side: statistics.median(one[side][which] for one in rounds if side in one) for side in rounds[0]}
        limit = roofline(found_peaks, network, (case.channels, case.side, case.side), which)
        found[which] = {
            "images_per_second": {side: round(rate, 2) for side, rate in rates.items()},
            "ratio_to_plain": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
            "ratio_to_best": statistics.median(one["command"][which] / one[best][which] for one in rounds),
            "roofline": limit, "share_of_roofline": rates["command"] / limit}
    return found


def told(one: dict[str, Any], which: str) -> str:
    """A row by the clock or by the processor's time, in words."""
    part = one[which]
    return (f"{part['ratio_to_plain']:.2f} of plain ({part['least']:.2f} to {part['most']:.2f}; must {one['must']:g}, "
            f"aim {one['aim']:g}), {part['ratio_to_best']:.2f} of best by hand ({one['best']}; aim "
            f"{one['aim_of_best']:g}), {part['images_per_second']['command']:.1f} images/s, "
            f"{100 * part['share_of_roofline']:.0f} % of the roofline {part['roofline']:.1f}; "
            f"{in_words(one['elsewhere'])}")


def met(one: dict[str, Any]) -> bool:
    """Whether the must is reached by the clock."""
    return bool(one["clock"]["ratio_to_plain"] >= one["must"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--speed-run", default="airnet", metavar="NETWORK", help="the speed-run network's name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each side in each round")
    parser.add_argument("--steps", type=int, default=0, help="timed steps of each side in each round; 0: by --seconds")
    parser.add_argument("--threads", type=int, default=hardware.cores())
    parser.add_argument("--compile", action="store_true", help="try torch.compile by hand as well (minutes)")
    parser.add_argument("--tries", type=int, default=1, help="of a side in a round, while the cores are not ours")
    parser.add_argument("--note", default="", help="kept in the file, as: the machine was busy")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE")
    parser.add_argument("--case", nargs=3, default=None, help="one side in this process, for the benchmark itself")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.tries) < 1 or not 0 <= options.steps <= MOST_STEPS or options.seconds <= 0:
        parser.error(f"--rounds and --tries must be at least 1, --steps from 0 to {MOST_STEPS}, --seconds above 0")
    if options.case:
        side, row, network = options.case
        if side == "peaks":
            print(json.dumps(peaks(options.threads)))
        else:
            print(json.dumps(command_side(network, CASES[row], options) if side == "command" else
                             bare_side(side, network, CASES[row], options)))
        return 0
    found: dict[str, Any] = {"benchmark": "training", "rounds": options.rounds, "threads": options.threads,
                             "note": options.note or "nothing said of other work on the machine"}
    highest = fresh(["peaks", "-", "-"], options)
    found["peaks"] = {name: {which: round(rate / 1e9, 1) for which, rate in rates.items()}
                      for name, rates in highest.items()}
    for name, rates in found["peaks"].items():
        print(f"peak, {name}: {rates['clock']:.0f} {'GB/s' if name == 'memory' else 'GFLOP/s'}", flush=True)
    for row in options.networks:
        network = options.speed_run if row == "speed-run" else row
        if network not in models.names():
            print(f"{row}: left out, there is no network {network!r} yet", flush=True)
            print(f"summary: training {row} | - | {CASES[row].must:g} | left out: no network {network!r}")
            continue
        one = measure(row, network, options, highest)
        name = f"{row} ({network})" if row != network else row
        for which in ("clock", "processor"):
            found[f"{name} batch {one['batch']}, by the {which}"] = told(one, which)
            print(f"{name} batch {one['batch']}, by the {which}: {told(one, which)}", flush=True)
        found.setdefault("measured", {})[row] = one
        print(f"summary: training {name} | {one['clock']['ratio_to_plain']:.2f} | {one['must']:g} | "
              f"{'ok' if met(one) else 'not'}", flush=True)
    missed = [row for row, one in found.get("measured", {}).items() if not met(one)]
    if missed and not hardware.cpu_computes_bf16():
        found["limits"] = ("the musts were set for a processor with AVX512-BF16; this one has no arithmetic in bf16: "
                           "channels-last and the allocator alone are left to gain by")
        print(f"missed: {', '.join(missed)}; {found['limits']}")
    found |= {"hardware": hardware.describe(recipe_of("lenet5", CASES["lenet5"], options.threads)),
              "versions": hardware.versions()}
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
