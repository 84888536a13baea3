"""The paper's training protocols, shared by its tables, figures and ablations, so that a network is trained once.

`imagenet` is section 5 for AlexNet; `cifar` is that of the four-layer network, of which the paper tells nothing but
what was switched off, so that it is the one of the layer files (models/four_layer.py); `local` is the files' own for
their networks of 13 and 11 %. `small` is what stands for all of them on Fashion-MNIST.

What the paper leaves open, and how it is closed here, stands in OPEN_IMAGENET and OPEN_CIFAR, which rows carry.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

from layerwise.experiments.experiment import Curve, Measured, Results, Row, Verdict, less
from layerwise.experiments.judges import Judge
from layerwise.recipe import Recipe
from layerwise.recipes.presets import NOTES, preset

OPEN_IMAGENET = NOTES["alexnet-imagenet"].deviations  # the preset's own, which `imagenet` goes on from
OPEN_CIFAR = (
    "the four-layer network is not described: taken from the author's published layer files, without normalisation",
    "its training is not described: batches of 128, momentum 0.9, mean picture subtracted, as in those files",
)
OPEN_LOCAL = (
    "taken for the networks of the author's layer files that state the same 13 % and 11 %",
    "470 epochs with drops after 450 and 460 for both, as the 11 % file says; the 13 % file: 160, 140 and 150",
    "weight decay 0.004 on all weights; the files: on the locally connected and fc layers only",
    "one rate for weights and biases, as in AlexNet; the files have twice the rate for biases",
    "crops of 24 and their mirrors, ten of them at the test, after the description of the files",
)
SMALL_STEPS = 1200  # 2.8 epochs of 55,000 pictures, 31 of 5,000
FEW = 5000  # training pictures of what overfits
SEEN = 0.35  # points: two standard errors of a difference of two errors near 40 % on 150,000 pictures
FILES_RATE = 0.001  # the layer files' own
SMALL_RATE = 0.003  # fastest of 0.001, 0.003, 0.01, 0.03 in 300 steps on Fashion-MNIST with ReLU
SAME = 0.5  # points within which a printed error counts as reproduced: another seed, crop and plateau


def imagenet(network: str, data: str = "imagenet-2010") -> Recipe:
    """Section 5 for a network, on centred raw pixels of 0 to 255 (section 2); most of the experiments are on 2010."""
    return replace(preset("alexnet-imagenet"), network=network, data=data, std="raw", precision="fp32")


def cifar(network: str) -> Recipe:
    """CIFAR-10 for the four-layer network, without any regularisation: batches of 128, momentum 0.9, a constant rate.

    CIFAR's pictures stay as they are; other data sets' are enlarged to 32x32.
    """
    return replace(
        imagenet(network, "cifar10"), name="four-layer-cifar", channels=0, input_size=32, resize="squash", resize_to=0,
        crop="none", scale_range=(256, 480), flip=False, colour="none", schedule="constant", duration=40,
        learning_rate=FILES_RATE, weight_decay=0, validation=5000, protocol="single",
    )  # fmt: skip


def local(network: str) -> Recipe:
    """CIFAR-10 as the layer files of 13 and 11 % train: random 24x24 parts and mirrors, ten views at the test."""
    return replace(
        cifar(network), name="four-layer-local", input_size=24, resize="short-side", resize_to=32, crop="scale",
        scale_range=(32, 32), flip=True, schedule="steps", duration=470, milestones=(450, 460), weight_decay=0.004,
        protocol="ten-crop",
    )  # fmt: skip


def small(recipe: Recipe, network: str) -> Recipe:
    """`recipe` on Fashion-MNIST with a four-layer network for 28x28, 1,200 steps of 128.

    The rate falls to a tenth after 5/6. Weight decay is the paper recipe's; 5,000 pictures are held out.
    Fashion-MNIST's pictures stay as they are; others', in a smoke run, are enlarged to 28x28.
    """
    return replace(
        cifar(network), name="four-layer-small", seed=recipe.seed, data="fashion-mnist", input_size=28,
        unit="iterations", duration=SMALL_STEPS, evaluate_every=SMALL_STEPS // 4, plateau_patience=SMALL_STEPS,
        schedule="steps", milestones=(SMALL_STEPS * 5 // 6,), weight_decay=recipe.weight_decay,
        learning_rate=SMALL_RATE,
    )  # fmt: skip


def imagenet_row(network: str) -> Row:
    """A row that trains `network` on ILSVRC-2010 and tests it with ten crops."""
    return Row((imagenet(network),), open_points=OPEN_IMAGENET)


def few(recipe: Recipe, network: str) -> Recipe:
    """`small` on 5,000 training pictures, at a constant rate: 31 epochs, so that a network can overfit.

    The other 55,000 are the held-out ones; they are looked at every 100 steps, for the time of convergence.
    """
    return replace(small(recipe, network), name="four-layer-few", validation=60_000 - FEW, evaluate_every=100,
                   schedule="constant", milestones=())  # fmt: skip


def lower_early(low: str, high: str, part: Mapping[str, float]) -> Judge:
    """Judges whether `low` has the lower mean training error over the first `part` (by scale) of the steps."""
    def judge(results: Results) -> Verdict:
        found = {row: tuple(Measured(seed, {"early": early(curve, part[results.schedule])})
                            for seed, curve in enumerate(results.curves(row))) for row in (low, high)}  # fmt: skip
        verdict = less(low, high, "early")(Results(results.scale, found))
        return Verdict(verdict.word, f"mean training error over the first {part[results.schedule]:.2g} of the steps: "
                                     f"{verdict.because}")

    return judge


def early(curve: Curve, part: float) -> float:
    """The mean training error of the readings in the first `part` of a training."""
    last = max(point["step"] for point in curve)
    told = [point["training_error"] for point in curve if "training_error" in point]
    first = [point["training_error"] for point in curve
             if "training_error" in point and point["step"] <= part * last]  # fmt: skip
    return statistics.fmean(first or told[:1])


def gaps(results: Results, row: str) -> tuple[float, ...]:
    """Test error less training error at the end, in points, of each seed: how far the row overfits."""
    pairs = zip(results.numbers(row), results.numbers(row, "training_error"), strict=False)
    return tuple(test - training for test, training in pairs)


def overfits_more(row: str, than: str) -> Judge:
    """Judges whether `row` overfits more than `than`, beyond the noise."""
    def judge(results: Results) -> Verdict:
        found = {one: tuple(Measured(seed, {"gap": gap}) for seed, gap in enumerate(gaps(results, one)))
                 for one in (row, than)}  # fmt: skip
        verdict = less(than, row, "gap")(Results(results.scale, found))
        return Verdict(verdict.word, f"test above training error, points: {verdict.because}")

    return judge


def converged(curve: Curve, within: float = 1.0) -> float | None:
    """The first step whose validation error is at most `within` points above the lowest of the run; None without."""
    told = [(point["step"], point["validation_error"]) for point in curve if "validation_error" in point]
    lowest = min((error for _, error in told), default=0.0)
    return next((step for step, error in told if error <= lowest + within), None)
