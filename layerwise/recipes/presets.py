"""The named recipes, each with its source, its deviations from the paper and whether it was measured.

Every preset states every field. `layerwise recipe NAME` prints one, `layerwise train ... --recipe NAME` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from layerwise.errors import InputError, nearest
from layerwise.recipe import Recipe

_FAST = Recipe(
    name="fast",
    network="resnet20",
    data="fashion-mnist",
    seed=0,
    start_from="",
    freeze=(),
    slow=(),
    unfreeze_at=0,
    zero_init_last_scale=False,
    whiten="none",
    split="",
    validation=0.1,
    balance="none",
    bad_images="stop",
    exif="apply",
    max_pixels=89_478_485,
    channels=0,
    input_size=0,
    resize="none",
    resize_to=0,
    interpolation="bilinear",
    mean="per-channel",
    std="per-channel",
    crop="pad",
    pad=2,
    pad_with="mean",
    flip=True,
    flip_turns="drawn",
    crop_area_min=0.08,
    scale_range=(256, 480),
    colour="none",
    colour_sigma=0.1,
    mixup=0,
    unit="epochs",
    duration=10,
    evaluate_every=1,
    schedule="one-cycle",
    milestones=(),
    decay_factor=0.1,
    plateau_patience=5,
    plateau_threshold=0.001,
    plateau_drops=3,
    warmup="none",
    warmup_length=2,
    warmup_rate=0,
    warmup_error=0.8,
    optimiser="sgd",
    learning_rate=0.2,
    reference_batch=128,
    batch_size=128,
    micro_batch=0,
    virtual_workers=0,
    batch_norm="process",
    momentum=0.9,
    nesterov=True,
    velocity="outside",
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=5e-4,
    weight_decay_on="weights",
    loss="cross-entropy",
    auxiliary_weight=0,
    label_smoothing=0,
    ema=0,
    clip_norm=0,
    non_finite="stop",
    select="last",
    protocol="mirror",
    device="auto",
    precision="auto",
    memory_format="auto",
    recompute="none",
    compile="auto",
    threads=0,
    deterministic=True,
    checkpoint_seconds=60,
)

_SPEED_RUN = replace(
    _FAST,
    name="speed-run",
    network="airnet_narrow",
    validation=5000,
    whiten="first",
    pad_with="black",
    flip_turns="alternate",
    duration=5,
    evaluate_every=5,
    warmup_length=1.25,
    learning_rate=0.8,
    reference_batch=256,
    batch_size=256,
    label_smoothing=0.1,
)

_DIGITS = replace(
    _FAST,
    name="digits",
    data="digits",
    pad=1,
    flip=False,  # mirrored digits are not digits
    duration=30,
    evaluate_every=2,
    warmup_length=6,
    learning_rate=0.1,
    reference_batch=64,
    batch_size=64,
    label_smoothing=0.05,
    protocol="single",
    threads=1,  # pictures of 8x8 are too small to share among cores
)

_RESNET_CIFAR = replace(
    _FAST,
    name="resnet-cifar",
    data="cifar10",
    validation=5000,
    mean="per-pixel",
    std="none",
    pad=4,
    unit="iterations",
    duration=64_000,
    evaluate_every=1000,
    schedule="steps",
    milestones=(32_000, 48_000),
    plateau_patience=5000,
    warmup_length=0,
    learning_rate=0.1,
    nesterov=False,
    weight_decay=1e-4,
    protocol="single",
)

_RESNET_IMAGENET = replace(
    _FAST,
    name="resnet-imagenet",
    network="resnet50",
    data="imagenet",
    channels=3,
    input_size=224,
    resize="short-side",
    resize_to=256,
    mean="per-pixel",
    std="none",
    crop="scale",
    scale_range=(256, 480),
    colour="pca",
    unit="iterations",
    duration=600_000,
    evaluate_every=5000,
    schedule="plateau",
    plateau_patience=25_000,
    warmup_length=0,
    learning_rate=0.1,
    reference_batch=256,
    batch_size=256,
    nesterov=False,
    weight_decay=1e-4,
    protocol="ten-crop",
)

_ALEXNET_IMAGENET = replace(
    _FAST,
    name="alexnet-imagenet",
    network="alexnet",
    data="imagenet",
    channels=3,
    input_size=227,
    resize="short-side",
    resize_to=256,
    mean="per-pixel",
    std="raw",  # "centered raw RGB values" (section 2), for which its small weights are made
    crop="square",  # "cropped out the central 256x256 patch" (section 2)
    scale_range=(256, 256),
    colour="pca",
    duration=90,
    schedule="plateau",
    plateau_patience=5,
    warmup_length=0,
    learning_rate=0.01,
    nesterov=False,
    velocity="inside",
    protocol="ten-crop",
)

_FINE_TUNE = replace(
    _FAST,
    name="fine-tune",
    network="resnet18",
    data="",
    slow=("features=0.1",),
    validation=0.2,
    input_size=224,
    channels=3,
    resize="short-side",
    resize_to=256,
    crop="resized",
    crop_area_min=0.35,
    duration=20,
    schedule="cosine",
    warmup="steps",
    warmup_length=1,
    learning_rate=0.02,
    reference_batch=64,
    batch_size=32,
    weight_decay=1e-4,
    label_smoothing=0.1,
    select="best",
    protocol="centre",
)

PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (_DIGITS, _FAST, _SPEED_RUN, _RESNET_CIFAR, _RESNET_IMAGENET, _ALEXNET_IMAGENET, _FINE_TUNE)
}


@dataclass(frozen=True)
class PresetNote:
    """What is said of a preset: what it is for, where it comes from, how open points of the paper were closed
    ("deviations" where they differ from it), and whether its result was measured here, elsewhere or not run."""

    summary: str
    source: str
    deviations: tuple[str, ...]
    status: str  # measured here | measured elsewhere | not run

    def __str__(self) -> str:
        lines = [self.summary, f"Source: {self.source}", f"Status: {self.status}"]
        lines += [f"Deviation: {text}" for text in self.deviations or ("none",)]
        return "\n".join(lines)


NOTES: dict[str, PresetNote] = {
    "digits": PresetNote(
        "A small residual network on scikit-learn's 1,797 handwritten digits of 8x8 pixels; a minute on two cores.",
        "this project",
        (),
        "measured here",
    ),
    "fast": PresetNote(
        "Small pictures in ten epochs: the learning rate rises for two and falls to zero.",
        "this project",
        (),
        "measured here",
    ),
    "speed-run": PresetNote(
        "Small pictures in five epochs, for 93 % on Fashion-MNIST in the fewest seconds of a processor.",
        "this project, after the CIFAR-10 speed runs: Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU (2024)",
        (),
        "measured here",
    ),
    "resnet-cifar": PresetNote(
        "The residual networks' CIFAR-10 training: 64,000 steps of 128, rate 0.1 divided by 10 at 32,000 and 48,000.",
        "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition (2015), section 4.2",
        (
            "5,000 of the 50,000 training pictures are held out, as where the paper chose the schedule; "
            "set validation=0 to train on all",
            "weight decay on the weights of convolutions and the fc layer only: the paper does not say",
            "one process with one batch of 128 for batch normalisation; the paper had two GPUs of 64",
            "resnet110 starts at 0.01 in the paper: set warmup=training-error and warmup_rate=0.01; "
            "the steps of the warm-up count in the 32,000",
        ),
        "not run",
    ),
    "resnet-imagenet": PresetNote(
        "The residual networks' ImageNet training: batches of 256, rate 0.1 divided by 10 at plateaus, ten crops.",
        "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition (2015), section 3.4",
        (
            "plateau: no fall of the validation error by 0.001 within 25,000 steps, three times; the paper gives no "
            "criterion; it ends after the third, or at 600,000 steps",
            "the mean picture is that of the centre crops at shorter side 256; the paper does not say",
            "batch normalisation is tested with moving averages; the authors averaged over a large batch afterwards",
            "weight decay on the weights of convolutions and the fc layer only: the paper does not say",
            "colour augmentation with eigenvalues of colours on the 0..1 scale: the paper names no scale",
        ),
        "not run",
    ),
    "alexnet-imagenet": PresetNote(
        "AlexNet's training: batches of 128, rate 0.01 divided by 10 at three plateaus, rate inside the velocity.",
        "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks (2012), "
        "sections 4 and 5",
        (
            "crops of 227: the first layer gives 55x55 maps from 227, not from the 224 that are printed",
            "plateau: no fall of the validation error by 0.001 within 5 epochs, three times; the paper: by hand",
            "training ends at the plateau after the third drop, at 90 epochs at the latest; the paper: roughly 90",
            "weight decay on the weights of convolutions and fc layers only: the paper writes its rule for weights",
            "colour augmentation with eigenvalues of colours on the 0..1 scale: the paper names no scale",
        ),
        "not run",
    ),
    "fine-tune": PresetNote(
        "From a trained model to your own pictures: a new head, the layers before it at a tenth of the rate. "
        "Needs start_from and data.",
        "this project",
        (),
        "not run",
    ),
}


def preset(name: str) -> Recipe:
    """The preset called `name`. Raises InputError with the nearest names where there is none."""
    if name not in PRESETS:
        raise InputError(
            f"recipe {name!r}: there is no such preset{nearest(name, PRESETS)}",
            "A recipe is used by its exact name, never by a guess.",
            f"Use one of: {', '.join(PRESETS)}.",
        )
    return PRESETS[name]
