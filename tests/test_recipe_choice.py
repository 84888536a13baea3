"""All problems of the settings are told at once: one that can't be read hides no other."""

from __future__ import annotations

import pytest

from layerwise.errors import InputError
from layerwise.jobs.recipe_choice import applied, changed_recipe, for_training
from layerwise.recipes.presets import preset


def details(*settings: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        for_training("resnet20", "digits", "digits", settings)
    return error.value.details


def test_a_mistyped_field_hides_no_range_error() -> None:
    found = details("learnin_rate=0.1", "batch_size=0", "momentum=2", "seed=x")
    assert [line.split()[0].rstrip(":") for line in found] == ["learnin_rate", "seed", "batch_size", "momentum"]
    assert "did you mean 'learning_rate'" in found[0]
    assert "expected at least 1" in found[2]
    with pytest.raises(InputError, match="4 problems before the start"):
        for_training("resnet20", "digits", "digits", ["learnin_rate=0.1", "batch_size=0", "momentum=2", "seed=x"])
    with pytest.raises(InputError, match="2 problems before the start"):
        changed_recipe("digits", ["nothing", "batch_size=0"])


def test_one_kind_of_problem_is_told_as_before() -> None:
    with pytest.raises(InputError, match=r"--set: 1 problem\n  - learnin_rate: unknown field"):
        for_training("resnet20", "digits", "digits", ["learnin_rate=0.1"])
    with pytest.raises(InputError, match=r"recipe 'digits': 1 problem\n  - batch_size is '0'"):
        for_training("resnet20", "digits", "digits", ["batch_size=0"])


def test_contradictions_that_a_missing_setting_may_cause_are_not_told() -> None:
    """milestones after the end, where the longer duration is the setting that could not be read."""
    settings = ["schedule=steps", "milestones=500", "warmup=none", "warmup_length=0"]
    assert any("milestones" in line for line in details(*settings))  # the control: alone it is a contradiction
    assert [line.split()[0] for line in details(*settings, "duraton=1000")] == ["duraton:"]


def test_what_can_be_read_is_applied() -> None:
    recipe, problems = applied(preset("digits"), ["seed=5", "nothing", "seed=6"])
    assert recipe.seed == 5
    assert len(problems) == 1
    assert applied(preset("digits"), ["seed=5"]) == (recipe, [])


def test_a_misspelt_network_and_bad_settings_together() -> None:
    with pytest.raises(InputError) as error:
        for_training("resnet21", "digits", "digits", ["nothing", "batch_size=0"])
    assert [line.split()[0].rstrip(":") for line in error.value.details] == ["network", "nothing"]
