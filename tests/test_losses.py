"""Losses against numpy by hand, their gradients against differences, and sums of tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.tasks.classify import Classify
from layerwise.tasks.losses import OTHERS, contrastive, hinge, squared_error, squared_hinge, targets
from layerwise.tasks.sums import Part, Sum

SCORES = np.array([[2.0, -0.5, 0.3], [-1.0, 0.2, -3.0], [0.9, 1.5, 1.1]])
LABELS = np.array([0, 1, 2])


def by_hand(name: str, scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """Class by class."""
    losses = []
    for row, label in zip(scores, labels, strict=True):
        total = 0.0
        for c, score in enumerate(row):
            t = 1 if c == label else -1
            missing = max(0.0, 1 - t * score)
            total += {"squared-error": 0.5 * (score - t) ** 2, "hinge": missing, "squared-hinge": missing**2}[name]
        losses.append(total)
    return losses


@pytest.mark.parametrize("name", OTHERS)
def test_against_loops(name):
    found = OTHERS[name](torch.from_numpy(SCORES), torch.from_numpy(LABELS)).numpy()
    np.testing.assert_allclose(found, by_hand(name, SCORES, LABELS), rtol=1e-12)
    # the controls: the other losses, and other labels, give other numbers
    for other in OTHERS.keys() - {name}:
        assert not np.allclose(found, by_hand(other, SCORES, LABELS))
    assert not np.allclose(found, by_hand(name, SCORES, LABELS[::-1]))


def test_first_row_by_hand():
    """Scores 2, -0.5, 0.3 for class 0: distances 1, 0.5, 1.3 to the targets; margins missed 0, 0.5, 1.3."""
    row, label = torch.from_numpy(SCORES[:1]), torch.tensor([0])
    assert squared_error(row, label).item() == pytest.approx(0.5 * (1 + 0.25 + 1.69))
    assert hinge(row, label).item() == pytest.approx(1.8)
    assert squared_hinge(row, label).item() == pytest.approx(0.25 + 1.69)
    assert targets(row, label).tolist() == [[1, -1, -1]]


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_by_differences(name):
    scores = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: OTHERS[name](values, torch.tensor([0, 3, 1, 1, 2])), [scores])


def test_contrastive_by_hand():
    """A 3-4-5 triangle: alike 25/2; different with margin 7: (7 - 5)^2 / 2; beyond a margin of 4 nothing."""
    a, b = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    alike, different = torch.tensor([False]), torch.tensor([True])
    assert contrastive(a, b, alike).item() == 12.5
    assert contrastive(a, b, different, 7.0).item() == 2
    assert contrastive(a, b, different, 4.0).item() == 0
    both = contrastive(a.expand(2, 2), b.expand(2, 2), torch.tensor([0, 1]), 7.0)
    assert both.tolist() == [12.5, 2]


def test_contrastive_gradients():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    different = torch.tensor([0, 1, 0, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda x, y: contrastive(x, y, different, 2.0), [a, b])
    same = torch.ones(1, 3, requires_grad=True)
    contrastive(same, torch.ones(1, 3), torch.tensor([True])).sum().backward()
    assert torch.equal(same.grad, torch.zeros(1, 3))


def test_contrastive_pulls_and_pushes():
    """Eqs. 5 and 6: alike ones attract each other, different ones repel each other within the margin."""
    a, b = torch.tensor([[0.0, 0.0]] * 3, requires_grad=True), torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    contrastive(a, b, torch.tensor([False, True, True]), 2.0).sum().backward()
    assert (-a.grad).tolist() == [[1, 0], [-1, 0], [0, 0]]


@dataclass(frozen=True)
class Brightness:
    """A second task for the same network: the first logit is the mean of the picture."""

    def loss(self, model: nn.Module, batch: dict) -> dict[str, torch.Tensor]:
        return {"loss": (model(batch["image"])[:, 0] - batch["image"].mean((1, 2, 3))).square().mean()}

    def evaluate(self, model: nn.Module, batches: Iterable[dict]) -> dict[str, float]:
        batches = list(batches)
        total = sum(self.loss(model, batch)["loss"].item() * len(batch["image"]) for batch in batches)
        return {"loss": total / sum(len(batch["image"]) for batch in batches)}


SUM = Sum((Part("classes", Classify()), Part("brightness", Brightness(), 0.25)))


def model_and_batch() -> tuple[nn.Module, dict]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), {"image": torch.randn(4, 3, 2, 2),
                                                           "label": torch.tensor([0, 2, 1, 1])}  # fmt: skip


def test_the_loss_of_a_sum_is_the_weighted_sum():
    model, batch = model_and_batch()
    found = SUM.loss(model, batch)
    one, two = Classify().loss(model, batch), Brightness().loss(model, batch)
    assert found.keys() == {"loss", "classes/loss", "classes/errors", "brightness/loss"}
    torch.testing.assert_close(found["loss"], one["loss"] + 0.25 * two["loss"])
    assert torch.equal(found["classes/errors"], one["errors"])
    # the control: without its weight it is another number
    assert not torch.allclose(found["loss"], one["loss"] + two["loss"])
    weight = model[1].weight
    gradients = [torch.autograd.grad(loss["loss"], weight)[0] for loss in (found, one, two)]
    torch.testing.assert_close(gradients[0], gradients[1] + 0.25 * gradients[2])


def test_a_sum_is_evaluated_part_by_part():
    model, batch = model_and_batch()
    halves = [{key: value[half] for key, value in batch.items()} for half in (slice(0, 1), slice(1, 4))]
    found = SUM.evaluate(model, halves)
    one, two = Classify().evaluate(model, [batch]), Brightness().evaluate(model, [batch])
    assert found["loss"] == pytest.approx(one["loss"] + 0.25 * two["loss"])
    assert found["classes/error"] == one["error"]
    assert found["brightness/loss"] == pytest.approx(two["loss"])
    with pytest.raises(AssertionError, match="not by an iterator"):
        SUM.evaluate(model, iter(halves))


def test_one_task_with_weight_1_is_that_task():
    model, batch = model_and_batch()
    assert torch.equal(Sum((Part("classes", Classify()),)).loss(model, batch)["loss"],
                       Classify().loss(model, batch)["loss"])  # fmt: skip


@pytest.mark.parametrize(("parts", "message"), [
    ((), "there is none"),
    ((Part("a", Classify()), Part("b", Classify()), Part("a", Classify())), "a stands 2 times"),
    ((Part("a", Classify(), -1.0),), "a has weight -1.0"),
    ((Part("a", Classify(), float("nan")),), "a has weight nan"),
])  # fmt: skip
def test_what_has_no_sum(parts, message):
    with pytest.raises(InputError, match="these tasks have no sum\n  - " + re.escape(message)):
        Sum(parts)
