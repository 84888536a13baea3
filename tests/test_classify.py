"""Classification with each loss, with class weights, and with auxiliary heads: sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerwise.models.network import Network, SupervisedNetwork
from layerwise.tasks.classify import Classify
from layerwise.tasks.losses import OTHERS


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


def supervised() -> SupervisedNetwork:
    """Three stages, auxiliary heads after the first and the second."""
    torch.manual_seed(0)
    features = {"conv1": nn.Conv2d(2, 4, 3), "relu1": nn.ReLU(), "conv2": nn.Conv2d(4, 5, 3)}
    return SupervisedNetwork(features, {"all": head(5)}, {"conv1": head(4), "relu1": head(4)})


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randn(6, 2, 6, 6, generator=generator), "label": torch.tensor([0, 2, 1, 1, 0, 2])}


@pytest.mark.parametrize("kind", OTHERS)
def test_kind_is_the_loss_of_that_name(kind):
    model, pictures = supervised(), batch()
    found = Classify(kind=kind).loss(model, pictures)
    losses = OTHERS[kind](model(pictures["image"]), pictures["label"])
    torch.testing.assert_close(found["loss"], losses.mean())
    assert found["errors"] == (model(pictures["image"]).argmax(1) != pictures["label"]).sum()
    weights = (0.5, 1.0, 1.5)
    weighed = Classify(class_weights=weights, kind=kind).loss(model, pictures)["loss"]
    torch.testing.assert_close(weighed, (torch.tensor(weights)[pictures["label"]] * losses).mean())
    # the control: by default it is cross-entropy
    default = Classify().loss(model, pictures)["loss"]
    torch.testing.assert_close(default, cross_entropy(model(pictures["image"]), pictures["label"]))
    assert not torch.allclose(default, found["loss"])


@pytest.mark.parametrize("kind", ["cross-entropy", "squared-hinge"])
def test_auxiliary_heads_are_added_with_their_weight(kind):
    model, pictures = supervised(), batch()
    features = model.features
    first = features.conv1(pictures["image"])
    second = features.relu1(first)
    answers = [model.head(features.conv2(second)), model.auxiliary["conv1"](first), model.auxiliary["relu1"](second)]
    by_name = {"cross-entropy": cross_entropy, "squared-hinge": lambda s, t: OTHERS["squared-hinge"](s, t).mean()}
    losses = [by_name[kind](answer, pictures["label"]) for answer in answers]
    found = Classify(kind=kind, auxiliary_weight=0.3).loss(model, pictures)
    torch.testing.assert_close(found["loss"], losses[0] + 0.3 * (losses[1] + losses[2]))
    assert found["errors"] == (answers[0].argmax(1) != pictures["label"]).sum()  # the network's own, not the heads'
    assert not torch.allclose(found["loss"], losses[0])


def test_weight_0_leaves_auxiliary_heads_out():
    model, pictures = supervised(), batch()
    loss = Classify().loss(model, pictures)["loss"]
    torch.testing.assert_close(loss, cross_entropy(model(pictures["image"]), pictures["label"]))
    loss.backward()
    assert all(p.grad is None for p in model.auxiliary.parameters())
    Classify(auxiliary_weight=0.3).loss(model, pictures)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.auxiliary.parameters())


def test_auxiliary_heads_of_mixed_pictures():
    model = supervised()
    pictures = batch() | {"label_b": torch.tensor([1, 1, 0, 2, 2, 0]), "weight": torch.linspace(0, 1, 6)}
    logits, auxiliary = model.with_auxiliary(pictures["image"])

    def mixed(answer: torch.Tensor) -> torch.Tensor:
        one, two = (cross_entropy(answer, pictures[key], reduction="none") for key in ("label", "label_b"))
        return (pictures["weight"] * one + (1 - pictures["weight"]) * two).mean()

    found = Classify(auxiliary_weight=0.5).loss(model, pictures)
    assert found.keys() == {"loss"}
    torch.testing.assert_close(found["loss"], mixed(logits) + 0.5 * sum(map(mixed, auxiliary.values())))


def test_evaluation_leaves_auxiliary_heads_and_kind_out():
    model, pictures = supervised().eval(), batch()
    plain = Classify().evaluate(model, [pictures])
    assert Classify(kind="hinge", auxiliary_weight=0.3).evaluate(model, [pictures]) == plain
    assert plain["loss"] == pytest.approx(cross_entropy(model(pictures["image"]).double(), pictures["label"]).item())


def test_a_network_without_such_heads_has_no_auxiliary_loss():
    network = Network({"conv1": nn.Conv2d(2, 4, 3)}, {"all": head(4)})
    assert Classify().loss(network, batch())["loss"].isfinite()
    with pytest.raises(AttributeError, match="with_auxiliary"):
        Classify(auxiliary_weight=0.3).loss(network, batch())


def test_a_head_after_a_stage_that_does_not_exist():
    with pytest.raises(AssertionError, match=r"stages that do not exist: \['conv9'\]"):
        SupervisedNetwork({"conv1": nn.Conv2d(2, 4, 3)}, {"all": head(4)}, {"conv9": head(4)})
