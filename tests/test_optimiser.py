"""Update rules against numpy in float64, parameter groups, freezing, exact state, averages, clipping."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from layerwise.average import Average
from layerwise.errors import InputError
from layerwise.optimiser import (
    InsideSGD,
    build_optimiser,
    clip_gradients,
    describe_groups,
    freeze,
    gradient_norm,
    keep_frozen_statistics,
    optimiser_tensors,
    parameter_groups,
    restore_optimiser,
    set_rate,
    unfreeze,
)
from layerwise.presets import preset
from layerwise.recipe import Recipe

Array = NDArray[np.float64]
FAST = replace(preset("fast"), weight_decay=0.01)


def network(seed: int = 0) -> nn.Sequential:
    """A small network with the names, batch normalisations and dropout of the real ones; pictures (N, 1, 6, 6)."""
    torch.manual_seed(seed)
    parts: dict[str, nn.Module] = {
        "conv1": nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()),
        "conv10": nn.Conv2d(3, 2, 3, bias=False),
    }
    model = nn.Sequential()
    model.add_module("features", nn.Sequential())
    for name, part in parts.items():
        model.get_submodule("features").add_module(name, part)
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)))
    return model


def learn(model: nn.Module, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
    """Steps `first` to `last` on random pictures that depend on the step alone."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(5, 1, 6, 6, generator=generator)
        labels = torch.randint(0, 4, (5,), generator=generator)
        torch.manual_seed(step)  # dropout
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        set_rate(optimiser, 0.05 / (1 + step))
        optimiser.step()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


# --- the rules, in the step, against numpy ----------------------------------------------------------------------------

RATES = (0.1, 0.1, 0.01, 0.3)  # a drop and a rise tell the two velocities apart


def sgd(w: Array, grad: Callable[[Array], Array], recipe: Recipe) -> Array:
    """Outside: v = mu v + d, w -= rate v. Inside: v = mu v - rate d, w += v (Krizhevsky et al. 2012, section 5)."""
    velocity, mu, inside = np.zeros_like(w), recipe.momentum, recipe.velocity == "inside"
    for rate in RATES:
        d = grad(w) + recipe.weight_decay * w
        velocity = mu * velocity - rate * d if inside else mu * velocity + d
        if inside:
            w = w + (mu * velocity - rate * d if recipe.nesterov else velocity)
        else:
            w = w - rate * (d + mu * velocity if recipe.nesterov else velocity)
    return w


def adagrad(w: Array, grad: Callable[[Array], Array], recipe: Recipe) -> Array:
    total = np.zeros_like(w)
    for rate in RATES:
        d = grad(w) + recipe.weight_decay * w
        total = total + d**2
        w = w - rate * d / (np.sqrt(total) + recipe.epsilon)
    return w


def adadelta(w: Array, grad: Callable[[Array], Array], recipe: Recipe) -> Array:
    square, moved, rho, epsilon = np.zeros_like(w), np.zeros_like(w), recipe.beta2, recipe.epsilon
    for rate in RATES:
        d = grad(w) + recipe.weight_decay * w
        square = rho * square + (1 - rho) * d**2
        change = np.sqrt(moved + epsilon) / np.sqrt(square + epsilon) * d
        moved = rho * moved + (1 - rho) * change**2
        w = w - rate * change
    return w


def rmsprop(w: Array, grad: Callable[[Array], Array], recipe: Recipe) -> Array:
    square, velocity = np.zeros_like(w), np.zeros_like(w)
    for rate in RATES:
        d = grad(w) + recipe.weight_decay * w
        square = recipe.beta2 * square + (1 - recipe.beta2) * d**2
        velocity = recipe.momentum * velocity + d / (np.sqrt(square) + recipe.epsilon)
        w = w - rate * velocity
    return w


def adam(w: Array, grad: Callable[[Array], Array], recipe: Recipe) -> Array:
    """Adam decays through the gradient, AdamW the weights themselves."""
    first, second, mu, beta2 = np.zeros_like(w), np.zeros_like(w), recipe.momentum, recipe.beta2
    for step, rate in enumerate(RATES, start=1):
        d = grad(w)
        if recipe.optimiser == "adamw":
            w = w - rate * recipe.weight_decay * w
        else:
            d = d + recipe.weight_decay * w
        first, second = mu * first + (1 - mu) * d, beta2 * second + (1 - beta2) * d**2
        w = w - rate * first / (1 - mu**step) / (np.sqrt(second / (1 - beta2**step)) + recipe.epsilon)
    return w


RULES: dict[str, tuple[Recipe, Callable[[Array, Callable[[Array], Array], Recipe], Array]]] = {
    "sgd": (replace(FAST, nesterov=False), sgd),
    "sgd without momentum": (replace(FAST, nesterov=False, momentum=0), sgd),
    "nesterov": (FAST, sgd),
    "inside": (replace(FAST, nesterov=False, velocity="inside"), sgd),
    "inside, the paper's": (replace(FAST, nesterov=False, velocity="inside", weight_decay=0.0005), sgd),
    "inside nesterov": (replace(FAST, velocity="inside"), sgd),
    "adagrad": (replace(FAST, optimiser="adagrad"), adagrad),
    "adadelta": (replace(FAST, optimiser="adadelta", beta2=0.9, epsilon=1e-6), adadelta),
    "rmsprop": (replace(FAST, optimiser="rmsprop", beta2=0.99), rmsprop),
    "adam": (replace(FAST, optimiser="adam"), adam),
    "adamw": (replace(FAST, optimiser="adamw"), adam),
}


def bowl(w: Array) -> Array:
    """The gradient of sum(k w^2 / 2 + w^4 / 4)."""
    gradient: Array = np.arange(1.0, 7.0).reshape(2, 3) * w + w**3
    return gradient


def stepped(recipe: Recipe, start: Array) -> Array:
    """The weights after RATES by the optimiser itself."""
    weight = nn.Parameter(torch.tensor(start))
    group = {"params": [weight], "names": ["weight"], "weight_decay": recipe.weight_decay, "factor": 1.0}
    optimiser = build_optimiser([group], recipe)
    for rate in RATES:
        weight.grad = torch.tensor(bowl(weight.detach().numpy()))
        set_rate(optimiser, rate)
        optimiser.step()
    return weight.detach().numpy()


@pytest.mark.parametrize("rule", RULES)
def test_a_step_is_the_rule_by_hand(rule: str) -> None:
    recipe, by_hand = RULES[rule]
    start = np.linspace(-1.0, 1.2, 6).reshape(2, 3)
    expected = by_hand(start, bowl, recipe)
    np.testing.assert_allclose(stepped(recipe, start), expected, rtol=1e-12, atol=1e-14)
    # The control: another weight decay is another result, so the comparison sees it.
    other = stepped(replace(recipe, weight_decay=recipe.weight_decay * 2), start)
    assert np.abs(other - expected).max() > 1e-9


@pytest.mark.parametrize("nesterov", [False, True])
def test_inside_and_outside_agree_at_a_constant_rate_only(nesterov: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    start = np.linspace(-1.0, 1.2, 6).reshape(2, 3)
    outside = replace(FAST, nesterov=nesterov)
    inside = replace(outside, velocity="inside")
    assert np.abs(stepped(outside, start) - stepped(inside, start)).max() > 1e-3
    monkeypatch.setitem(globals(), "RATES", (0.1,) * 4)
    np.testing.assert_allclose(stepped(outside, start), stepped(inside, start), rtol=1e-12)


def test_the_optimisers_are_torchs_own_but_the_inside_form() -> None:
    recipes = {rule: recipe for rule, (recipe, _) in RULES.items()}
    kinds = {rule: type(build_optimiser(parameter_groups(network(), recipes[rule]), recipes[rule])) for rule in RULES}
    assert kinds.pop("inside") is kinds.pop("inside nesterov") is kinds.pop("inside, the paper's") is InsideSGD
    assert {kind.__module__.split(".")[0] for kind in kinds.values()} == {"torch"}


def test_inside_sgd_takes_no_closure() -> None:
    optimiser = build_optimiser(parameter_groups(network(), FAST), replace(FAST, velocity="inside"))
    with pytest.raises(AssertionError, match="takes no closure"):
        optimiser.step(lambda: 0.0)


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


# --- state ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rule", RULES)
def test_continuing_after_a_restore_is_bit_identical(rule: str, layout: torch.memory_format, tmp_path: Path) -> None:
    recipe = replace(RULES[rule][0], freeze=("features.conv1",), unfreeze_at=3, slow=("features=0.3",))

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = network().to(memory_format=layout)
        freeze(model, recipe)
        return model, build_optimiser(parameter_groups(model, recipe), recipe)

    whole, optimiser = fresh()
    learn(whole, optimiser, 0, 3)
    save_file(optimiser_tensors(optimiser), tmp_path / "state.safetensors")
    weights = snapshot(whole)
    unfreeze(whole, recipe)
    learn(whole, optimiser, 3, 6)

    endings = {}
    for name in ("restored", "forgotten"):
        model, again = fresh()
        model.load_state_dict(weights)
        if name == "restored":
            restore_optimiser(again, load_file(tmp_path / "state.safetensors"))
        unfreeze(model, recipe)
        learn(model, again, 3, 6)
        endings[name] = differing(snapshot(whole), snapshot(model)), optimiser_tensors(again)
    assert endings["restored"][0] == []
    assert differing(optimiser_tensors(optimiser), endings["restored"][1]) == []
    if rule != "sgd without momentum":
        assert endings["forgotten"][0]  # the control: without the state the end is another


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq", "step"])
def test_each_part_of_the_state_matters(key: str) -> None:
    """The negative control: one entry of Adam's state zeroed, and the end is another."""
    recipe = replace(FAST, optimiser="adam")
    model = network()
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    learn(model, optimiser, 0, 3)
    tensors = {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser).items()}
    other = copy.deepcopy(model)
    again = build_optimiser(parameter_groups(other, recipe), recipe)
    damaged = {name: tensor * 0 if name.endswith(f"/{key}") else tensor for name, tensor in tensors.items()}
    restore_optimiser(again, damaged)
    learn(model, optimiser, 3, 5)
    learn(other, again, 3, 5)
    assert differing(snapshot(model), snapshot(other))


def test_the_state_is_keyed_by_the_names_of_parameters() -> None:
    model, recipe = network(), replace(FAST, optimiser="adam")
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    assert optimiser_tensors(optimiser) == {}
    learn(model, optimiser, 0, 2)
    tensors = optimiser_tensors(optimiser)
    assert {name.rpartition("/")[0] for name in tensors} == {name for name, _ in model.named_parameters()}
    assert {name.rpartition("/")[2] for name in tensors} == {"step", "exp_avg", "exp_avg_sq"}
    assert tensors["head.3.weight/step"].item() == 2
    json.dumps([str(group["names"]) for group in optimiser.param_groups])


def test_a_state_of_another_network_is_refused_and_nothing_is_changed() -> None:
    model = network()
    optimiser = build_optimiser(parameter_groups(model, FAST), FAST)
    learn(model, optimiser, 0, 1)
    before = {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser).items()}
    wrong = {"head.3.weight/momentum_buffer": torch.zeros(3), "tail.weight/momentum_buffer": torch.zeros(1)}
    with pytest.raises(InputError, match="optimiser state: it is not this run's") as caught:
        restore_optimiser(optimiser, before | wrong)
    assert caught.value.details == (
        "head.3.weight/momentum_buffer: shape (3,), expected (4, 8)",
        "tail.weight/momentum_buffer: no such parameter is trained here",
    )
    assert differing(before, optimiser_tensors(optimiser)) == []


def test_a_state_of_adagrad_must_be_whole() -> None:
    model, recipe = network(), replace(FAST, optimiser="adagrad")
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    with pytest.raises(InputError, match=r"head.3.bias: step, sum missing"):
        restore_optimiser(optimiser, {n: t for n, t in optimiser_tensors(optimiser).items() if "head.3.bias" not in n})


# --- average ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.0])
def test_the_average_is_its_closed_form(decay: float) -> None:
    """a_n = a_0 prod d_t + sum_t (1 - d_t) w_t prod_{s > t} d_s, with d_t = min(decay, (1 + t) / (10 + t))."""
    model = network().double()
    courses = [snapshot(model)]
    average = Average(model, decay)
    for step in range(15):
        generator = torch.Generator().manual_seed(step)
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype) + 1)
        average.update(model)
        courses.append(snapshot(model))
    decays = np.minimum(decay, (1 + np.arange(15)) / (10 + np.arange(15)))
    weights = [np.prod(decays), *((1 - decays[t]) * np.prod(decays[t + 1 :]) for t in range(15))]
    assert sum(weights) == pytest.approx(1)
    for name, tensor in average.state_tensors().items():
        if tensor.is_floating_point():
            expected = sum(weight * course[name].numpy() for weight, course in zip(weights, courses, strict=True))
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-10, atol=1e-12)
        else:
            assert torch.equal(tensor, courses[-1][name])
    assert average.count == 15
    assert average.state_tensors().keys() == model.state_dict().keys()


def test_running_statistics_are_averaged_too() -> None:
    model = network()
    average = Average(model, 0.9)
    optimiser = build_optimiser(parameter_groups(model, FAST), FAST)
    learn(model, optimiser, 0, 2)
    average.update(model)
    mean = average.state_tensors()["features.conv1.1.running_mean"]
    torch.testing.assert_close(mean, 0.9 * model.get_buffer("features.conv1.1.running_mean"))  # d_0 = 0.1, from 0
    assert average.state_tensors()["features.conv1.1.num_batches_tracked"].item() == 2


def test_the_average_does_not_follow_the_model_by_itself_and_can_be_copied_out() -> None:
    model, other = network(0), network(1)
    average = Average(model, 0.9)
    before = {name: tensor.clone() for name, tensor in average.state_tensors().items()}
    with torch.no_grad():
        model.get_parameter("head.3.weight").add_(1)
    assert differing(before, average.state_tensors()) == []
    average.copy_to(other)
    assert differing(before, snapshot(other)) == []
    with torch.no_grad():
        other.get_parameter("head.3.weight").add_(1)
    assert differing(before, average.state_tensors()) == []


def test_the_average_is_restored_bit_for_bit(tmp_path: Path) -> None:
    model = network()
    average, again = Average(model, 0.99), Average(network(1), 0.99)
    optimiser = build_optimiser(parameter_groups(model, FAST), FAST)
    learn(model, optimiser, 0, 2)
    average.update(model)
    save_file(average.state_tensors(), tmp_path / "average.safetensors")
    again.restore(load_file(tmp_path / "average.safetensors"), average.count)
    forgotten = Average(network(1), 0.99)
    forgotten.restore(load_file(tmp_path / "average.safetensors"), 0)
    learn(model, optimiser, 2, 4)
    for one in (average, again, forgotten):
        one.update(model)
    assert differing(average.state_tensors(), again.state_tensors()) == []
    assert differing(average.state_tensors(), forgotten.state_tensors())  # the control: the count matters


def test_an_average_of_another_network_is_refused() -> None:
    average = Average(network(), 0.9)
    tensors = dict(average.state_tensors())
    tensors["head.3.weight"] = torch.zeros(2, 2)
    tensors["tail.weight"] = tensors.pop("head.3.bias")
    with pytest.raises(InputError, match="averaged weights: they are not this model's") as caught:
        average.restore(tensors, 1)
    assert caught.value.details == (
        "head.3.bias: missing",
        "head.3.weight: (2, 2) torch.float32, expected (4, 8) torch.float32",
        "tail.weight: not in the model",
    )
    assert average.count == 0


# --- clipping ---------------------------------------------------------------------------------------------------------


def slopes(model: nn.Module) -> Array:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat([gradient.flatten() for gradient in gradients]).double().numpy()


@pytest.mark.parametrize("factor", [0.25, 0.999, 1.001, 4.0])
def test_clipping_scales_all_gradients_to_the_norm_and_leaves_smaller_ones(factor: float) -> None:
    model = network()
    nn.functional.cross_entropy(model(torch.randn(5, 1, 6, 6)), torch.arange(5) % 4).backward()
    before = slopes(model)
    norm = float(np.linalg.norm(before))
    assert gradient_norm(model.parameters()).item() == pytest.approx(norm, rel=1e-5)
    assert clip_gradients(model.parameters(), factor * norm).item() == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(slopes(model), before * min(1.0, factor), rtol=1e-4)
    if factor > 1:
        assert (slopes(model) == before).all()


def test_the_norm_shows_a_gradient_that_is_not_finite_and_there_may_be_none() -> None:
    weight = nn.Parameter(torch.ones(3))
    assert gradient_norm([weight]).item() == 0
    assert clip_gradients([weight], 1.0).item() == 0
    weight.grad = torch.tensor([1.0, float("nan"), 1.0])
    assert not torch.isfinite(gradient_norm(iter([weight])))
