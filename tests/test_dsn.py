"""The deeply supervised network: companions at each convolution, their counts and gradients, squared hinge."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.models import build
from layerwise.models.network import SupervisedNetwork, own_parameters
from layerwise.models.shapes import cost, stage_shapes
from layerwise.tasks.classify import Classify


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch(count: int = 3) -> dict[str, torch.Tensor]:
    return {"image": torch.randn(count, 3, 8, 8), "label": torch.arange(count) % 3}


def test_the_network_is_nins_but_for_the_last_relu():
    ours, theirs = cost("dsn"), cost("nin")
    assert [row.name.rsplit(".", 1)[1] for row in ours.rows if row.parameters] == [
        row.name.rsplit(".", 1)[1] for row in theirs.rows if row.parameters]  # fmt: skip
    assert (ours.parameters, ours.multiply_adds) == (theirs.parameters, theirs.multiply_adds)
    kinds = {name: [row.kind for row in cost(name).rows].count("ReLU") for name in ("dsn", "nin")}
    assert kinds == {"dsn": 8, "nin": 9}
    assert not any("head.relu" in row.name for row in ours.rows)


def test_companions_count_what_they_see():
    """192 maps of 32x32, 16x16 and 8x8, each to ten classes; left out of the network's own parameters."""
    with torch.device("meta"):
        model = build("dsn")
    assert isinstance(model, SupervisedNetwork)
    counts = {name: sum(p.numel() for p in head.parameters()) for name, head in model.auxiliary.items()}
    assert counts == {f"conv{i}": 192 * side**2 * 10 + 10 for i, side in ((1, 32), (2, 16), (3, 8))}
    assert sum(counts.values()) == 2_580_510
    assert own_parameters(model) == 966_986
    shapes = stage_shapes("dsn")
    assert [shapes[name] for name in counts] == [(192, 32, 32), (192, 16, 16), (192, 8, 8)]


def test_companions_see_the_convolution_before_relu():
    model, images = build("dsn", num_classes=3, input_side=8).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        logits, answers = model.with_auxiliary(images)
        maps = model.features.conv1(images)
        assert torch.equal(logits, model(images))
        assert torch.equal(answers["conv1"], model.auxiliary["conv1"](maps))
        assert not torch.equal(answers["conv1"], model.auxiliary["conv1"](maps.relu()))  # the control
    assert list(answers) == ["conv1", "conv2", "conv3"]
    assert all(answer.shape == (2, 3) for answer in answers.values())


def test_without_companions_the_head_alone_teaches_the_layers():
    model = build("dsn", num_classes=3, input_side=8).eval()
    alone = Classify(kind="squared-hinge")
    supervised = Classify(kind="squared-hinge", auxiliary_weight=0.5)
    given = batch()
    alone.loss(model, given)["loss"].backward()
    assert all(p.grad is None for p in model.auxiliary.parameters())
    first = model.features.conv1.weight.grad.clone()
    model.zero_grad(set_to_none=True)
    supervised.loss(model, given)["loss"].backward()
    assert all(p.grad.any() for p in model.auxiliary.parameters())
    assert not torch.allclose(model.features.conv1.weight.grad, first)


def test_the_companions_loss_is_the_squared_hinge():
    model, given = build("dsn", num_classes=3, input_side=8).eval(), batch()
    with torch.no_grad():
        logits, answers = model.with_auxiliary(given["image"])
        signs = 2 * nn.functional.one_hot(given["label"], 3) - 1

        def by_hand(scores):
            return (1 - signs * scores).clamp_min(0).square().sum(1).mean()

        expected = by_hand(logits) + 0.5 * sum(by_hand(answer) for answer in answers.values())
        found = Classify(kind="squared-hinge", auxiliary_weight=0.5).loss(model, given)["loss"]
    torch.testing.assert_close(found, expected)


def test_the_sides_of_the_companions_follow_the_pooling():
    for side in (8, 12, 28, 32, 33):
        with torch.device("meta"):
            model = build("dsn", input_side=side)
            answers = model.with_auxiliary(torch.empty(1, 3, side, side))[1]
        assert [answer.shape for answer in answers.values()] == [(1, 10)] * 3


def test_other_pictures_go_through_without_the_companions():
    model = build("dsn", num_classes=3, input_side=8).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 20, 20)).shape == (1, 3)
        with pytest.raises(RuntimeError):
            model.with_auxiliary(torch.randn(1, 3, 20, 20))


def test_weights_start_apart_for_network_and_companions():
    model = build("dsn", num_classes=3, input_side=8)
    assert model.features.conv2.weight.std().item() == pytest.approx(0.05, rel=0.05)
    companion = model.auxiliary["conv1"].svm.weight
    assert companion.abs().max() <= (6 / (192 * 64 + 3)) ** 0.5
    assert not model.head.cccp6.bias.any()
