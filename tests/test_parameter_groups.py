"""Which parameters are trained and at which rate: every one in exactly one group; frozen ones stay bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from layerwise.errors import InputError
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset
from layerwise.training.optimiser import (
    build_optimiser,
    describe_groups,
    freeze,
    keep_frozen_statistics,
    parameter_groups,
    set_rate,
    unfreeze,
)
from tests.small_network import differing, learn, network, snapshot

FAST = replace(preset("fast"), weight_decay=0.01)


# --- groups -----------------------------------------------------------------------------------------------------------


def grouped(model: nn.Module, recipe: Recipe) -> dict[str, list[str]]:
    return {group["label"]: group["names"] for group in parameter_groups(model, recipe)}


def test_weights_are_decayed_and_scales_shifts_and_biases_are_not() -> None:
    assert grouped(network(), FAST) == {
        "weight decay 0.01": ["features.conv1.0.weight", "features.conv10.weight", "head.3.weight"],
        "no weight decay": [
            "features.conv1.1.weight", "features.conv1.1.bias", "head.1.weight", "head.1.bias", "head.3.bias",
        ],
    }  # fmt: skip
    everything = [name for name, _ in network().named_parameters()]
    assert grouped(network(), replace(FAST, weight_decay_on="all")) == {"weight decay 0.01": everything}
    assert grouped(network(), replace(FAST, weight_decay=0)) == {"no weight decay": everything}


@given(
    st.sampled_from(["weights", "all"]),
    st.lists(st.sampled_from(["features", "features.conv1", "features.conv1.0", "head", "head.3.weight"]), unique=True),
    st.sampled_from([(), ("features.conv1",), ("all-but-head",)]),
    st.sampled_from([0.0, 3.0]),
)
def test_every_parameter_that_is_trained_is_in_exactly_one_group(
    decayed: str, slow: list[str], frozen: tuple[str, ...], unfreeze_at: float
) -> None:
    recipe = replace(
        FAST, weight_decay_on=decayed, slow=tuple(f"{prefix}=0.{len(prefix)}" for prefix in slow), freeze=frozen,
        unfreeze_at=unfreeze_at,
    )  # fmt: skip
    model = network()
    stopped = freeze(model, recipe)
    groups = parameter_groups(model, recipe)
    names = sorted(name for group in groups for name in group["names"])
    assert names == sorted(
        name for name, _ in model.named_parameters() if name not in stopped or unfreeze_at
    )
    for group in groups:
        assert [model.get_parameter(name) is own for name, own in zip(group["names"], group["params"], strict=True)]
        assert len(group["params"]) == len(group["names"])


def test_slow_prefixes_are_whole_parts_of_names_and_the_longest_counts() -> None:
    recipe = replace(FAST, slow=("features=0.5", "features.conv1=0.1"), weight_decay=0)
    found = {name: group["factor"] for group in parameter_groups(network(), recipe) for name in group["names"]}
    assert found["features.conv1.0.weight"] == 0.1
    assert found["features.conv10.weight"] == 0.5
    assert found["head.3.weight"] == 1.0


def test_the_rate_reaches_each_group_times_its_factor() -> None:
    recipe = replace(FAST, slow=("features=0.1",), momentum=0, nesterov=False, weight_decay=0)
    model = network()
    before = snapshot(model)
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimiser, 0.5)
    optimiser.step()
    torch.testing.assert_close(model.get_parameter("features.conv10.weight"), before["features.conv10.weight"] - 0.05)
    torch.testing.assert_close(model.get_parameter("head.3.weight"), before["head.3.weight"] - 0.5)


def test_the_banner_lists_each_group_with_its_count_and_rate() -> None:
    groups = parameter_groups(network(), replace(FAST, slow=("features=0.1",)))
    assert describe_groups(groups, 0.2) == [
        "weight decay 0.01, rate x 0.1: 2 tensors, 81 parameters, learning rate 0.02",
        "no weight decay, rate x 0.1: 2 tensors, 6 parameters, learning rate 0.02",
        "no weight decay: 3 tensors, 20 parameters, learning rate 0.2",
        "weight decay 0.01: 1 tensor, 32 parameters, learning rate 0.2",
    ]


@pytest.mark.parametrize(
    ("act", "field"),
    [(freeze, "freeze"), (parameter_groups, "slow")],
)
def test_prefixes_that_the_network_does_not_have_are_refused(act: Callable[..., Any], field: str) -> None:
    wrong = ("features.conv2", "heads", "features.conv")
    values = wrong if field == "freeze" else tuple(f"{prefix}=0.1" for prefix in wrong)
    with pytest.raises(InputError, match=f"{field}: the network has no parameters of these names") as caught:
        act(network(), replace(FAST, **{field: values}))
    assert len(caught.value.details) == 3
    assert "did you mean 'features.conv1'" in caught.value.details[0]
    assert caught.value.details[1].startswith("heads, did you mean 'head'")
    assert "Its parts are features.conv1, features.conv10, head.1, head.3." in caught.value.mend


# --- freezing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefixes", "still"),
    [
        (("features.conv1",), ["features.conv1."]),
        (("all-but-head",), ["features."]),
        (("features", "head.1"), ["features.", "head.1."]),
        (("features.conv1.1.weight", "features.conv1.1.bias"), ["features.conv1.1."]),
    ],
)
def test_frozen_tensors_and_statistics_stay_bit_for_bit(prefixes: tuple[str, ...], still: list[str]) -> None:
    model, recipe = network(), replace(FAST, freeze=prefixes)
    names = freeze(model, recipe)
    assert names == [name for name, _ in model.named_parameters() if name.startswith(tuple(still))]
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    before = snapshot(model)
    model.train()
    keep_frozen_statistics(model, recipe)
    learn(model, optimiser, 0, 3)
    changed = differing(before, snapshot(model))
    assert sorted(changed) == sorted(name for name in before if not name.startswith(tuple(still)))


def test_without_keeping_them_the_statistics_do_change() -> None:
    """The negative control of the test above."""
    model, recipe = network(), replace(FAST, freeze=("all-but-head",))
    freeze(model, recipe)
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    before = snapshot(model)
    model.train()
    learn(model, optimiser, 0, 3)
    assert {"features.conv1.1.running_mean", "features.conv1.1.num_batches_tracked"} <= set(
        differing(before, snapshot(model))
    )


def test_only_batch_normalisations_of_frozen_layers_are_put_into_evaluation_mode() -> None:
    model, recipe = network(), replace(FAST, freeze=("features",))
    freeze(model, recipe)
    model.train()
    assert keep_frozen_statistics(model, recipe) == ["features.conv1.1"]
    assert [name for name, module in model.named_modules() if not module.training] == ["features.conv1.1"]
    assert keep_frozen_statistics(network(), FAST) == []


def test_unfreezing_trains_the_same_groups_on() -> None:
    model, recipe = network(), replace(FAST, freeze=("all-but-head",), unfreeze_at=2)
    names = freeze(model, recipe)
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    before = snapshot(model)
    model.train()
    keep_frozen_statistics(model, recipe)
    learn(model, optimiser, 0, 3)
    assert all(name.startswith("head") for name in differing(before, snapshot(model)))
    assert unfreeze(model, recipe) == names
    model.train()
    assert keep_frozen_statistics(model, recipe) == []
    learn(model, optimiser, 3, 4)
    assert differing(before, snapshot(model)) == list(before)


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(InputError, match="freeze=features,head: no parameter is left to train"):
        freeze(network(), replace(FAST, freeze=("features", "head")))
    assert freeze(network(), FAST) == []
