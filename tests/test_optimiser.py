"""The update rules against numpy in float64, and their state: continuing after a restore is exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from layerwise.errors import InputError
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset
from layerwise.training.optimiser import (
    InsideSGD,
    build_optimiser,
    clip_gradients,
    freeze,
    gradient_norm,
    optimiser_tensors,
    parameter_groups,
    restore_optimiser,
    set_rate,
    unfreeze,
)
from tests.small_network import differing, learn, network, snapshot

Array = NDArray[np.float64]
FAST = replace(preset("fast"), weight_decay=0.01)


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


def test_a_gradient_in_another_memory_order_is_the_same_gradient() -> None:
    """torch's fused kernel alone would take it number by number as it lies; that is the control."""
    torch.manual_seed(0)
    start, slopes = torch.randn(6, 5, 3, 3), torch.randn(4, 6, 5, 3, 3)
    ends = []
    for kind in ("ours", "one operation after the other", "fused alone"):
        weight = nn.Parameter(start.clone().contiguous(memory_format=torch.channels_last))
        group = {"params": [weight], "names": ["weight"], "weight_decay": 0.01, "factor": 1.0}
        optimiser = build_optimiser([group], FAST) if kind == "ours" else torch.optim.SGD(
            [weight], lr=0.1, momentum=FAST.momentum, nesterov=FAST.nesterov, weight_decay=0.01, fused="fused" in kind)
        for slope in slopes:
            weight.grad = slope.clone()  # contiguous, where the weight is channels-last
            optimiser.param_groups[0]["lr"] = 0.1
            optimiser.step()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)
    assert float((ends[2] - ends[1]).abs().max()) > 0.1


def test_inside_sgd_takes_no_closure() -> None:
    optimiser = build_optimiser(parameter_groups(network(), FAST), replace(FAST, velocity="inside"))
    with pytest.raises(AssertionError, match="takes no closure"):
        optimiser.step(lambda: 0.0)


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


def test_a_restore_replaces_the_whole_state() -> None:
    model = network()
    optimiser = build_optimiser(parameter_groups(model, FAST), FAST)
    learn(model, optimiser, 0, 1)
    one = {name: tensor for name, tensor in optimiser_tensors(optimiser).items() if name.startswith("head.3.weight/")}
    restore_optimiser(optimiser, one)
    assert optimiser_tensors(optimiser).keys() == one.keys()


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


def test_a_largest_norm_of_0_clips_nothing() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([weight], 0.0).item() == 5
    assert weight.grad.tolist() == [3.0, 4.0]


def test_the_norm_shows_a_gradient_that_is_not_finite_and_there_may_be_none() -> None:
    weight = nn.Parameter(torch.ones(3))
    assert gradient_norm([weight]).item() == 0
    assert clip_gradients([weight], 1.0).item() == 0
    weight.grad = torch.tensor([1.0, float("nan"), 1.0])
    assert not torch.isfinite(gradient_norm(iter([weight])))
