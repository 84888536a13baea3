"""How much of the error each field of a recipe is expected to move, and who says so.

`layerwise why` puts the differences of two runs in this order. A number is one that a source printed, for its network
and data; elsewhere it is a hint at the size, not a prediction. Where no source is known the order is our judgement and
says so. Every field of `Recipe` stands here; a test holds that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALEXNET = "Krizhevsky et al. 2012"
RESNET = "He et al. 2015"
TRICKS = "T. He et al. 2019, Bag of Tricks"
PRIMITIVES = "Vryniotis 2021, ResNet-50 trained with TorchVision's primitives"
INCEPTION = "Szegedy et al. 2016, Rethinking the Inception Architecture, table 3"


@dataclass(frozen=True)
class Effect:
    """An expectation: `size` in points of top-1 error orders the differences; `source` says where it is from.

    `printed` says that a source printed this size; else it is our judgement. `comparable` is False where the numbers
    of the two sides measure different things, whatever the size.
    """

    size: float
    source: str
    printed: bool = True
    comparable: bool = True


def judged(size: float, why: str) -> Effect:
    """An effect for whose size no source is known to us."""
    return Effect(size, f"our judgement: {why}", printed=False)


_OTHER = Effect(100.0, "by definition: numbers on other pictures answer another question", False, False)
_MACHINE = judged(0.0, "changes the order of roundings, not the method")
_NEEDED = judged(0.0, "changes when something is written, not what is learned")
_DETAIL = judged(0.2, "a detail of a rule; usually within the spread of seeds")
_AUGMENTED = Effect(7.2, "Huang et al. 2017, DenseNet, table 2: ResNet-110 on CIFAR-10, crops and flips left out")
_BATCH = Effect(0.1, "Goyal et al. 2017: ResNet-50, batch 256 and 8192 with a scaled rate and a warm-up")
_LONGER = Effect(1.8, f"{PRIMITIVES}: 600 epochs for 90; no source is for other ratios")
_RATE = judged(2.0, "the first thing that is tuned; a wrong one costs everything")

FIELDS: Mapping[str, Effect] = {
    "name": judged(0.0, "a name"),
    "network": judged(3.0, "the network is what is compared"),
    "data": _OTHER,
    "seed": judged(0.0, "one draw; see the spread over seeds"),
    "start_from": Effect(1.7, f"{ALEXNET}, table 2: pre-trained on the Fall 2011 release, with a sixth layer"),
    "freeze": judged(3.0, "frozen layers do not learn"),
    "slow": judged(0.5, "layers at another rate"),
    "unfreeze_at": judged(1.0, "frozen layers do not learn"),
    "zero_init_last_scale": Effect(0.2, f"{TRICKS}, table 4, batch 256; 0.4 at batch 1024"),
    "split": _OTHER,
    "validation": judged(0.5, "pictures held out are not learned from"),
    "balance": judged(0.5, "another draw of the classes"),
    "bad_images": judged(0.1, "pictures left out"),
    "exif": judged(0.1, "turned pictures, where there are any"),
    "max_pixels": judged(0.1, "pictures left out"),
    "channels": judged(1.0, "colour is information"),
    "input_size": Effect(2.1, "Touvron et al. 2019, FixRes: ResNet-50 tested at 384 for 224, its head fine-tuned"),
    "resize": judged(0.5, "another shape or another part of the pictures"),
    "resize_to": Effect(0.2, f"{PRIMITIVES}: the shorter side at test"),
    "interpolation": _DETAIL,
    "mean": judged(0.1, "batch normalisation undoes most of it"),
    "std": judged(0.1, "batch normalisation undoes most of it"),
    "whiten": judged(0.2, "another first layer"),
    "crop": _AUGMENTED,
    "pad": _DETAIL,
    "pad_with": _DETAIL,
    "flip": _AUGMENTED,
    "flip_turns": _DETAIL,
    "crop_area_min": judged(0.5, "how hard the crops are"),
    "scale_range": Effect(1.4, "Simonyan and Zisserman 2015, VGG, table 3: sides of 256 to 512 for 256"),
    "colour": Effect(1.0, f"{ALEXNET}, section 4.1: more than 1"),
    "colour_sigma": _DETAIL,
    "mixup": Effect(0.8, f"{TRICKS}, table 6"),
    "unit": judged(0.0, "the length is told in pictures seen"),
    "duration": _LONGER,
    "evaluate_every": judged(0.1, "decides only with select=best or a plateau"),
    "schedule": Effect(0.8, f"{TRICKS}, table 6: cosine for steps"),
    "milestones": judged(0.5, "when the rate falls, as a part of the training"),
    "decay_factor": judged(0.5, "how far the rate falls"),
    "plateau_patience": judged(0.5, "when the rate falls"),
    "plateau_threshold": judged(0.5, "when the rate falls"),
    "plateau_drops": judged(0.5, "how far the rate falls"),
    "warmup": Effect(0.2, f"{TRICKS}, table 4, batch 256; 0.8 at batch 1024"),
    "warmup_length": _DETAIL,
    "warmup_rate": _DETAIL,
    "warmup_error": _DETAIL,
    "optimiser": judged(2.0, "another rule of update, with a rate of its own"),
    "learning_rate": _RATE,
    "reference_batch": _RATE,
    "batch_size": _BATCH,
    "virtual_workers": judged(0.1, "batch normalisation takes its statistics over a worker's part"),
    "batch_norm": judged(0.1, "whose pictures batch normalisation takes its statistics over"),
    "micro_batch": judged(0.1, "batch normalisation takes its statistics over it; see below"),
    "momentum": judged(0.5, "0.9 for 0 makes the rate ten times as large"),
    "nesterov": _DETAIL,
    "velocity": judged(0.1, "differs only where the rate changes"),
    "beta2": _DETAIL,
    "epsilon": _DETAIL,
    "weight_decay": Effect(0.5, f"{PRIMITIVES}: tuned"),
    "weight_decay_on": Effect(0.03, f"{TRICKS}, table 4, batch 256: no decay of biases and scales"),
    "loss": judged(1.0, "another thing is minimised"),
    "auxiliary_weight": Effect(0.4, INCEPTION),
    "label_smoothing": Effect(0.4, f"{TRICKS}, table 6; 0.3 in {INCEPTION}"),
    "ema": Effect(0.3, PRIMITIVES),
    "clip_norm": judged(0.2, "decides only where gradients are large"),
    "non_finite": judged(0.1, "a few batches left out"),
    "select": judged(0.3, "the best of many looks at the validation error is a little lucky"),
    "protocol": Effect(1.9, f"the ResNet authors' README and {RESNET}, table 3: ResNet-50, one crop and ten"),
    "device": _MACHINE,
    "precision": Effect(0.01, f"{TRICKS}, table 4, batch 256: half precision"),
    "memory_format": _MACHINE,
    "recompute": _MACHINE,
    "compile": _MACHINE,
    "threads": _MACHINE,
    "deterministic": _MACHINE,
    "checkpoint_seconds": _NEEDED,
}

# Errors in percent (top-1, ImageNet) with batch normalisation over so many pictures: Wu and He 2018, table 2.
SMALL_BATCHES = {32: 23.6, 16: 23.7, 8: 24.8, 4: 27.3, 2: 34.7}


def of_protocols(one: str, other: str) -> Effect:
    """What the literature says of one protocol for another: ten crops and multi-scale of the ResNets."""
    known = {
        frozenset(("centre", "ten-crop")): FIELDS["protocol"],
        frozenset(("ten-crop", "multi-scale")): Effect(2.1, f"{RESNET}, tables 3 and 4: ResNet-50"),
        frozenset(("centre", "multi-scale")): Effect(4.0, f"the README and {RESNET}, table 4: ResNet-50"),
    }
    return known.get(frozenset((one, other)), judged(0.3, "mirror images average a little"))


def of_micro_batches(one: int, other: int) -> Effect:
    """What fewer pictures a batch normalisation cost."""
    smallest, largest = min(SMALL_BATCHES), max(SMALL_BATCHES)

    def error(size: int) -> float:
        kept = [known for known in SMALL_BATCHES if known <= min(max(size, smallest), largest)]
        return SMALL_BATCHES[max(kept)]

    return Effect(round(abs(error(one) - error(other)), 1),
                  "Wu and He 2018, table 2: ResNet-50 with batch normalisation over 2 to 32 pictures")
