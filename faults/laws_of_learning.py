"""E3: laws of schedules, averages, gradients, optimisers and networks."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from faults.cases import CLASSES, SEEDS, close, generator, recipe_of
from layerwise.data import order
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models import build
from layerwise.recipe import Recipe
from layerwise.tasks.classify import Classify
from layerwise.training.average import Average
from layerwise.training.optimiser import (
    build_optimiser,
    clip_gradients,
    gradient_norm,
    optimiser_tensors,
    parameter_groups,
    restore_optimiser,
    set_rate,
)
from layerwise.training.schedule import Schedule


# The course of the learning rate.
def a_schedule(kind: str, data: Any) -> tuple[Schedule, Recipe]:
    """A schedule with drawn times, and its recipe."""
    count, batch = data.draw(st.integers(10, 400)), data.draw(st.integers(2, 64))
    steps = math.ceil(count / batch)
    recipe = recipe_of(schedule=kind, unit="epochs", duration=data.draw(st.integers(2, 9)), batch_size=batch,
                       milestones=(1.0,) if kind == "steps" else (),
                       warmup=data.draw(st.sampled_from(("none", "steps"))),
                       warmup_length=data.draw(st.sampled_from((0.5, 1.0))), warmup_rate=0.0, learning_rate=0.1)
    return Schedule(recipe, count, steps), recipe


def rates_stay_below_the_peak(kind: str, data: Any) -> None:
    """From 0 to the scaled peak, at every step."""
    schedule, recipe = a_schedule(kind, data)
    for step in range(schedule.steps_at(schedule.total_samples)):
        rate = schedule.rate(min(step * schedule.batch, schedule.total_samples))
        assert -1e-15 <= rate <= recipe.learning_rate * schedule.scale * (1 + 1e-12)


def rates_are_proportional(kind: str, data: Any) -> None:
    """Twice the rate of the recipe is twice the rate of each step."""
    schedule, recipe = a_schedule(kind, data)
    twice = Schedule(dataclasses.replace(recipe, learning_rate=0.2), schedule.samples_per_epoch,
                     schedule.batches_per_epoch)
    seen = data.draw(st.integers(0, schedule.total_samples))
    assert math.isclose(twice.rate(seen), 2 * schedule.rate(seen), rel_tol=1e-12, abs_tol=1e-300)


def a_schedule_goes_on(kind: str, data: Any) -> None:
    """A state that is restored gives the same rates and the same end."""
    schedule, recipe = a_schedule(kind, data)
    draws = generator(data)
    other = Schedule(recipe, schedule.samples_per_epoch, schedule.batches_per_epoch)
    for seen in range(0, schedule.total_samples, schedule.samples_per_epoch):
        schedule.observe_validation_error(seen, draws.random())
    other.restore(schedule.state())
    seen = data.draw(st.integers(0, schedule.total_samples))
    assert other.rate(seen) == schedule.rate(seen)
    assert other.finished(seen) == schedule.finished(seen)


def steps_and_samples_agree(kind: str, data: Any) -> None:
    """The samples at the end of k iterations are those of k steps."""
    schedule, recipe = a_schedule(kind, data)
    counted = Schedule(dataclasses.replace(recipe, unit="iterations"), schedule.samples_per_epoch,
                       schedule.batches_per_epoch)
    step = data.draw(st.integers(0, 100))
    assert counted.steps_at(counted.samples_at(step)) == step


# The average of the weights.
def average_in_closed_form(data: Any) -> None:
    """a_n = sum over t of (1 - d_t) * product of later d * w_t, in exact fractions."""
    decay, steps = data.draw(st.sampled_from((0.5, 0.9, 0.999))), data.draw(st.integers(1, 30))
    model = nn.Linear(2, 1).double()
    values = generator(data).normal(size=(steps + 1, 3))
    set_weights(model, values[0])
    average = Average(model, decay)
    expected = [Fraction(value) for value in values[0]]
    for step, value in enumerate(values[1:]):
        set_weights(model, value)
        average.update(model)
        d = min(Fraction(decay), Fraction(1 + step, 10 + step))
        expected = [d * a + (1 - d) * Fraction(w) for a, w in zip(expected, value, strict=True)]
    found = torch.cat([one.flatten() for one in average.state_tensors().values()])
    close(found, torch.tensor([float(one) for one in expected], dtype=torch.float64))
    assert average.count == steps


def average_goes_on(data: Any) -> None:
    """Restored, it takes the next step to the bit."""
    values = generator(data).normal(size=(4, 3))
    model = nn.Linear(2, 1).double()
    set_weights(model, values[0])
    one, other = Average(model, 0.9), Average(model, 0.9)
    set_weights(model, values[1])
    one.update(model)
    other.restore({name: tensor.clone() for name, tensor in one.state_tensors().items()}, one.count)
    set_weights(model, values[2])
    one.update(model)
    other.update(model)
    assert all(torch.equal(one.state_tensors()[name], other.state_tensors()[name]) for name in one.state_tensors())


def set_weights(model: nn.Module, values: Any) -> None:
    """Gives the two parameters of a small network the first two values and the rest."""
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), (values[:2], values[2:]), strict=True):
            parameter.copy_(torch.tensor(part).view_as(parameter))


# Gradients of a batch, however it is cut.
def a_batch(data: Any, most: int = 24) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network without batch normalisation, pictures and labels, in float64."""
    torch.manual_seed(data.draw(SEEDS))
    count = data.draw(st.integers(2, most))
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, CLASSES)).double()
    return model, torch.randn(count, 5, dtype=torch.float64), torch.randint(0, CLASSES, (count,))


def slopes(model: nn.Module, task: Classify, parts: list[tuple[Tensor, Tensor]], whole: int) -> Tensor:
    """The gradient added up over parts, each weighed by its pictures, as the loop does."""
    total = torch.zeros(sum(one.numel() for one in model.parameters()), dtype=torch.float64)
    for images, labels in parts:
        if len(labels):
            loss = task._mixed(model(images), {"label": labels}).mean() * (len(labels) / whole)
            total += torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))])
    return total


def accumulation(kind: str, data: Any) -> None:
    """Micro-batches, the last one short, give the gradient of the whole batch."""
    model, images, labels = a_batch(data)
    size = data.draw(st.integers(1, len(labels)))
    task = Classify(kind=kind)
    parts = list(zip(images.split(size), labels.split(size), strict=True))
    close(slopes(model, task, parts, len(labels)), slopes(model, task, [(images, labels)], len(labels)))


def ranks(kind: str, data: Any) -> None:
    """So do the shares of any number of processes, of which some may be empty."""
    model, images, labels = a_batch(data, 6)
    size, task = data.draw(st.integers(1, 8)), Classify(kind=kind)
    shares = [order.Place(0, 0, rank, size).share(np.arange(len(labels))) for rank in range(size)]
    close(slopes(model, task, [(images[share], labels[share]) for share in shares], len(labels)),
          slopes(model, task, [(images, labels)], len(labels)))


def order_of_a_batch(kind: str, data: Any) -> None:
    """So does the batch in another order."""
    model, images, labels = a_batch(data)
    turned, task = torch.randperm(len(labels)), Classify(kind=kind)
    close(slopes(model, task, [(images[turned], labels[turned])], len(labels)),
          slopes(model, task, [(images, labels)], len(labels)))


def mixed_labels(kind: str, data: Any) -> None:
    """The loss of mixed pictures is linear in the weight of the first label."""
    model, images, labels = a_batch(data)
    others, task = labels.flip(0), Classify(kind=kind)
    weight = torch.rand(len(labels), dtype=torch.float64)
    logits = model(images).detach()
    alone = [task._losses(logits, one) for one in (labels, others)]
    found = task._mixed(logits, {"label": labels, "label_b": others, "weight": weight}).mean()
    close(found, (weight * alone[0] + (1 - weight) * alone[1]).mean())


# Optimisers.
def an_optimiser(kind: str, data: Any, rate: float = 0.1) -> tuple[nn.Module, torch.optim.Optimizer, Recipe]:
    """A small network and an optimiser of a kind, after two steps."""
    velocity = "inside" if kind == "inside" else "outside"
    recipe = recipe_of(optimiser="sgd" if kind == "inside" else kind, velocity=velocity, momentum=0.9, nesterov=False,
                       weight_decay=0.01)
    torch.manual_seed(data.draw(SEEDS))
    model = nn.Linear(3, 2).double()
    optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
    for _ in range(2):
        step(model, optimiser, rate)
    return model, optimiser, recipe


def step(model: nn.Module, optimiser: torch.optim.Optimizer, rate: float) -> None:
    """A step on a loss whose gradient depends on the weights alone."""
    optimiser.zero_grad()
    sum((parameter**3).sum() + parameter.sum() for parameter in model.parameters()).backward()
    set_rate(optimiser, rate)
    optimiser.step()


def an_optimiser_goes_on(kind: str, data: Any) -> None:
    """Restored from its tensors, its next step is the same to the bit."""
    model, optimiser, recipe = an_optimiser(kind, data)
    again = nn.Linear(3, 2).double()
    again.load_state_dict(model.state_dict())
    other = build_optimiser(parameter_groups(again, recipe), recipe)
    restore_optimiser(other, {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser).items()})
    step(model, optimiser, 0.05)
    step(again, other, 0.05)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def no_rate_no_step(kind: str, data: Any) -> None:
    """At a rate of 0 no weight moves, whatever the optimiser remembers; adadelta and the velocity inside included.

    With the velocity inside what is remembered goes on: there the first steps have no rate either.
    """
    model, optimiser, _ = an_optimiser(kind, data, 0.0 if kind == "inside" else 0.1)
    before = [parameter.clone() for parameter in model.parameters()]
    step(model, optimiser, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def velocity_inside_is_outside(data: Any) -> None:
    """At a constant rate both forms of momentum are one rule."""
    seed = data.draw(SEEDS)
    found = []
    for velocity in ("inside", "outside"):
        torch.manual_seed(seed)
        model = nn.Linear(3, 2).double()
        recipe = recipe_of(optimiser="sgd", velocity=velocity, nesterov=False, momentum=0.9, weight_decay=0.01)
        optimiser = build_optimiser(parameter_groups(model, recipe), recipe)
        for _ in range(5):
            step(model, optimiser, 0.01)
        found.append(torch.cat([one.detach().flatten() for one in model.parameters()]))
    close(found[0], found[1])


def clipping(data: Any) -> None:
    """The norm is at most the limit, the direction stays, and a small gradient is left as it is."""
    torch.manual_seed(data.draw(SEEDS))
    parameters = [nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(3)]
    limit = data.draw(st.floats(0.01, 10))
    for parameter in parameters:
        parameter.grad = torch.randn(3, dtype=torch.float64)
    before = torch.cat([parameter.grad.clone() for parameter in parameters if parameter.grad is not None])
    norm = clip_gradients(parameters, limit)
    close(norm, before.norm())
    after = torch.cat([parameter.grad for parameter in parameters if parameter.grad is not None])
    assert float(gradient_norm(parameters)) <= min(limit, float(norm)) * (1 + 1e-12)
    close(after / after.norm(), before / before.norm())
    assert norm > limit or torch.allclose(after, before, rtol=2e-4)


# Networks that are tested, and recipes.
@cache
def network(name: str) -> nn.Module:
    """A network in evaluation mode and float64."""
    torch.manual_seed(0)
    return build(name, num_classes=CLASSES, in_channels=1).double().eval()


def alone_as_in_company(name: str, data: Any) -> None:
    """A picture's answer does not depend on the others of its batch, nor on their order or memory format."""
    torch.manual_seed(data.draw(SEEDS))
    side = 28 if name.endswith("_28") else 32
    images = torch.randn(data.draw(st.integers(2, 4)), 1, side, side, dtype=torch.float64)
    turned = torch.randperm(len(images))
    with torch.inference_mode():
        answered = network(name)(images)
        close(network(name)(images[:1]), answered[:1], 1e-10)
        close(network(name)(images[turned]), answered[turned], 1e-10)
        close(network(name)(images.contiguous(memory_format=torch.channels_last)), answered, 1e-10)


def groups_are_apart(data: Any) -> None:
    """Response normalisation in groups is that of each group alone."""
    torch.manual_seed(data.draw(SEEDS))
    maps = torch.randn(2, 2 * data.draw(st.integers(1, 6)), 2, 2, dtype=torch.float64)
    close(ResponseNorm(alpha=0.1, groups=2)(maps), torch.cat([ResponseNorm(alpha=0.1)(one) for one in maps.chunk(2, 1)],
                                                            1))
