"""The presets: each is a complete recipe that passes its own checks, with the papers' numbers."""

from __future__ import annotations

import pytest

from layerwise.errors import InputError
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.presets import NOTES, PRESETS, preset

NAMES = ("digits", "fast", "speed-run", "resnet-cifar", "resnet-imagenet", "alexnet-imagenet", "fine-tune")


def test_the_presets_are_these() -> None:
    assert tuple(PRESETS) == NAMES
    assert all(recipe.name == name for name, recipe in PRESETS.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_no_null_field_and_reads_back_to_the_same_hash(name: str) -> None:
    text = preset(name).to_json()
    assert "null" not in text
    assert Recipe.from_json(text, name).hash == preset(name).hash


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fine-tune"])
def test_a_preset_passes_its_checks(name: str) -> None:
    assert problems_of(preset(name)) == ()
    broken = changed(preset(name), ["learning_rate=-1"])  # the control: the checks do look
    assert [line.split()[0] for line in problems_of(broken)] == ["learning_rate"]


def problems_of(recipe: Recipe) -> tuple[str, ...]:
    """What `check` has against a recipe."""
    try:
        check(recipe)
    except InputError as error:
        return error.details
    return ()


def test_fine_tune_asks_for_the_model_and_the_data() -> None:
    with pytest.raises(InputError) as caught:
        check(preset("fine-tune"))
    assert [detail.split()[0] for detail in caught.value.details] == ["data", "slow"]
    check(changed(preset("fine-tune"), ["start_from=model.safetensors", "data=photos"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_its_source_and_whether_it_was_measured(name: str) -> None:
    note = NOTES[name]
    assert note.status in ("measured here", "measured elsewhere", "not run")
    text = str(note)
    assert note.summary in text
    assert f"Source: {note.source}" in text
    assert f"Status: {note.status}" in text
    assert text.count("Deviation: ") == max(1, len(note.deviations))
    assert set(NOTES) == set(PRESETS)


def test_a_misspelt_preset_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"recipe 'resnet-cifr': there is no such preset, did you mean 'resnet-cifar'"):
        preset("resnet-cifr")
    with pytest.raises(InputError, match=f"Use one of: {', '.join(NAMES)}"):
        preset("zzz")


def test_resnet_cifar_is_the_papers() -> None:
    """He et al. 2015, section 4.2."""
    recipe = preset("resnet-cifar")
    assert (recipe.unit, recipe.duration, recipe.milestones) == ("iterations", 64_000, (32_000, 48_000))
    assert (recipe.schedule, recipe.decay_factor, recipe.learning_rate) == ("steps", 0.1, 0.1)
    assert (recipe.batch_size, recipe.reference_batch) == (128, 128)
    assert (recipe.optimiser, recipe.momentum, recipe.nesterov, recipe.velocity) == ("sgd", 0.9, False, "outside")
    assert (recipe.weight_decay, recipe.weight_decay_on) == (1e-4, "weights")
    assert (recipe.crop, recipe.pad, recipe.flip, recipe.colour, recipe.mixup) == ("pad", 4, True, "none", 0)
    assert (recipe.mean, recipe.std, recipe.protocol, recipe.select) == ("per-pixel", "none", "single", "last")
    assert (recipe.data, recipe.validation) == ("cifar10", 5000)
    assert (recipe.label_smoothing, recipe.ema, recipe.clip_norm, recipe.zero_init_last_scale) == (0, 0, 0, False)


def test_resnet_imagenet_is_the_papers() -> None:
    """He et al. 2015, section 3.4."""
    recipe = preset("resnet-imagenet")
    assert (recipe.unit, recipe.duration, recipe.schedule, recipe.decay_factor) == ("iterations", 6e5, "plateau", 0.1)
    assert (recipe.batch_size, recipe.reference_batch, recipe.learning_rate) == (256, 256, 0.1)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, False, 1e-4)
    assert (recipe.crop, recipe.scale_range, recipe.input_size) == ("scale", (256, 480), 224)
    assert (recipe.colour, recipe.colour_sigma, recipe.flip, recipe.mean) == ("pca", 0.1, True, "per-pixel")
    assert (recipe.std, recipe.protocol, recipe.channels) == ("none", "ten-crop", 3)


def test_alexnet_imagenet_is_the_papers() -> None:
    """Krizhevsky et al. 2012, sections 4 and 5; 227 instead of 224 is said in its note."""
    recipe = preset("alexnet-imagenet")
    assert (recipe.network, recipe.unit, recipe.duration) == ("alexnet", "epochs", 90)
    assert (recipe.schedule, recipe.plateau_drops, recipe.decay_factor) == ("plateau", 3, 0.1)
    assert (recipe.batch_size, recipe.reference_batch, recipe.learning_rate) == (128, 128, 0.01)
    assert (recipe.momentum, recipe.nesterov, recipe.velocity, recipe.weight_decay) == (0.9, False, "inside", 5e-4)
    assert (recipe.crop, recipe.scale_range, recipe.input_size, recipe.flip) == ("square", (256, 256), 227, True)
    assert (recipe.colour, recipe.colour_sigma, recipe.mean, recipe.std) == ("pca", 0.1, "per-pixel", "raw")
    assert recipe.protocol == "ten-crop"
    assert any("227" in text for text in NOTES["alexnet-imagenet"].deviations)


def test_digits_are_not_mirrored() -> None:
    assert not preset("digits").flip
