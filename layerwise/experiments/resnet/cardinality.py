"""From the history: cardinality against width and depth, ResNeXt (Xie, Girshick, Dollar, Tu, He 2016).

    layerwise reproduce resnet/cardinality --scale paper    # 100 epochs of ImageNet each

Costs in EFLOP at paper scale (128 million pictures): 3.1 to 3.3 each with 50 layers, 6.0 and 6.1 (101 layers), 11.9
(64x4d), 8.8 (WRN-50-2, ResNet-152).

Protocol of its section 4: batches of 256, momentum 0.9, weight decay 1e-4, rate 0.1 divided by 10 three times, crops
of random area and shape, colour augmentation; one crop of 224 from the shorter side 256. Left open: the epochs of the
drops, closed as 30, 60 and 90 of 100. The printed errors are its tables 3 and 4. 1x64d is the ResNet with the stride in
the 3x3. Deviation: none beyond the fields that a small run lists.
"""

from __future__ import annotations

from dataclasses import replace

from layerwise.experiments.experiment import Claim, Results, Row, Verdict, every, less
from layerwise.experiments.judges import each, ordered
from layerwise.models.costs import costs
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset

TITLE = "History: cardinality against width and depth (ResNeXt)"


def aggregated(network: str) -> Recipe:
    """The protocol of ResNeXt on ImageNet for a network."""
    return replace(preset("resnet-imagenet"), network=network, precision="fp32", mean="per-channel", std="per-channel",
                   crop="resized", unit="epochs", duration=100, evaluate_every=1, schedule="steps",
                   milestones=(30, 60, 90), plateau_patience=5, protocol="centre")  # fmt: skip


OPEN = ("the rate falls after 30, 60 and 90 of 100 epochs: the paper says three times",)
CARDINALITIES = ("resnet50_v1_5", "resnext50_2x40d", "resnext50_4x24d", "resnext50_8x14d", "resnext50_32x4d")
DEEPER = ("resnet101_v1_5", "resnext101_32x4d", "resnext101_64x4d")
AGAINST = ("wide_resnet50_2", "resnet152_v1_5")
ABSENT = "cited from the paper; a network of this width, depth and cardinality is not in this library"
ROWS = {
    **{network: Row((aggregated(network),), differs=OPEN) for network in (*CARDINALITIES, *DEEPER, *AGAINST)},
    **{row: Row(unmeasured=ABSENT) for row in ("resnet200", "resnet101_1x100d", "resnext101_2x64d")},
}
PAPER: dict[str, dict[str, float | str]] = {
    "resnet50_v1_5": {"error": 23.9},
    "resnext50_2x40d": {"error": 23.0},
    "resnext50_4x24d": {"error": 22.6},
    "resnext50_8x14d": {"error": 22.3},
    "resnext50_32x4d": {"error": 22.2},
    "resnet101_v1_5": {"error": 22.0},
    "resnext101_32x4d": {"error": 21.2},
    "resnext101_64x4d": {"error": 20.4},
    "resnet200": {"error": 21.7},
    "resnet101_1x100d": {"error": 21.3},
    "resnext101_2x64d": {"error": 20.7},
}
COLUMNS = ("parameters", "error", "training_error")


def same_cost(results: Results) -> Verdict:
    """Whether the cardinalities of 50 layers cost the same within 5 %; counted, not measured."""
    counted = {network: costs()[network] for network in CARDINALITIES}
    parameters = [one.parameters for one in counted.values()]
    operations = [one.multiply_adds for one in counted.values()]
    spread = [100 * (max(values) / min(values) - 1) for values in (parameters, operations)]
    told = (f"{min(parameters) / 1e6:.1f} to {max(parameters) / 1e6:.1f} million parameters ({spread[0]:.1f} %), "
            f"{min(operations) / 1e9:.2f} to {max(operations) / 1e9:.2f} billion multiply-adds ({spread[1]:.1f} %)")
    return Verdict("holds" if max(spread) <= 5 else "fails", told)


CLAIMS = {
    "same-cost": Claim(
        "Cardinality raises accuracy without more parameters or operations: the five cost the same (the history).",
        same_cost,
    ),
    "more-is-better": Claim(
        "The larger the cardinality, the lower the error, at the same cost (the history, on ResNeXt).",
        ordered(*reversed(CARDINALITIES)),
    ),
    "beats-resnet": Claim(
        "ResNeXt is better than ResNet, of 50 and of 101 layers (the history, on ResNeXt).",
        each(less("resnext50_32x4d", "resnet50_v1_5"), less("resnext101_32x4d", "resnet101_v1_5")),
    ),
    "beats-width-and-depth": Claim(
        "Raising the cardinality is better than raising width or depth: ResNeXt-101 with 8.0 billion multiply-adds "
        "beats WRN-50-2 with 11.4 and ResNet-152 with 11.5 (the history; the pairs are ours).",
        every(less("resnext101_32x4d", "wide_resnet50_2"), less("resnext101_32x4d", "resnet152_v1_5")),
    ),
}
