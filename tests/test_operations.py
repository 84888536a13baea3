"""What a training costs: the pictures of each data set, those held out, and those that a data set validates on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layerwise.experiments import operations
from layerwise.experiments.operations import operations_text, passes, pictures
from layerwise.jobs.causes import training_pictures
from layerwise.recipes.presets import preset

ALEXNET = replace(preset("alexnet-imagenet"), data="imagenet-2010")


@pytest.mark.parametrize(("data", "train", "held", "validated"), [
    ("imagenet-2010", 1_261_406, 0, 50_000), ("imagenet", 1_281_167, 0, 50_000),
    ("imagenet-fall2009", 4_450_000, 445_000, 445_000),  # no validation pictures of its own: a tenth is held out
])
def test_an_epoch_of_each_imagenet(data: str, train: int, held: int, validated: int) -> None:
    recipe = replace(ALEXNET, data=data)
    assert passes(recipe) == pytest.approx(90 * (6 * (train - held) + 2 * validated))
    if data != "imagenet-fall2009":
        assert training_pictures(recipe) == pictures(recipe) == train


def test_a_published_validation_set_is_not_held_out_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    whole = passes(ALEXNET)
    monkeypatch.setattr(operations, "VALIDATED", {})
    assert passes(ALEXNET) < 0.95 * whole


def test_the_cifar_protocol() -> None:
    assert passes(preset("resnet-cifar")) == 6 * 64_000 * 128 + 2 * 5_000 * 64
    large, small = (replace(preset("fast"), data="/photographs", input_size=side) for side in (224, 32))
    assert (pictures(large), pictures(small)) == (1_281_167, 50_000), "of other data the number is not known"


@pytest.mark.parametrize(("amount", "told"), [
    (2.0184e15, "2.02 PFLOP"), (999.4e15, "999 PFLOP"), (999.9e15, "1 EFLOP"), (999.9e9, "1 TFLOP"), (5e8, "0.5 GFLOP"),
])
def test_the_prefix_is_that_of_the_rounded_number(amount: float, told: str) -> None:
    assert operations_text(amount) == told
