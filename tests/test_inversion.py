"""Pictures made from codes: minima worked out by hand, and codes that hold all or nothing of a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.explain.inversion import Objective, inversion
from tests.left_as_it_was import Breaks, breaking, left_as_it_was, small

FREE = Objective(alpha_weight=0.0, variation_weight=0.0, bound=2.5)


def test_regularisers_by_hand() -> None:
    """Values 2, -4 over 0, 2 in units of 2: 1, -2, 0, 1; steps down -1, 3 and to the right -3, 1."""
    picture = torch.tensor([[2.0, -4.0], [0.0, 2.0]]).reshape(1, 1, 2, 2)
    aim = Objective(alpha=3.0, alpha_weight=4.0, beta=2.0, variation_weight=0.0, bound=2.0)
    assert aim.regularisers(picture).tolist() == [4.0 * (1 + 8 + 0 + 1) / 4]
    aim = Objective(alpha_weight=0.0, beta=2.0, variation_weight=4.0, bound=2.0)
    assert aim.regularisers(picture).tolist() == [4.0 * ((1 + 9) + 9 + 1 + 0) / 4]
    aim = Objective(alpha_weight=0.0, beta=1.0, variation_weight=4.0, bound=2.0)
    assert float(aim.regularisers(picture)) == pytest.approx(10**0.5 + 3 + 1, rel=1e-5)
    assert Objective(bound=1.0).regularisers(torch.zeros(3, 2, 4, 4)).tolist() == [0, 0, 0]
    flat = torch.zeros(1, 1, 3, 3, requires_grad=True)
    Objective(beta=1.0, bound=1.0).regularisers(flat).sum().backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


def test_a_code_that_holds_all_gives_the_picture_back() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    pictures = torch.randn(2, 1, 5, 5)
    found = inversion(model, pictures, "0", FREE, steps=400)
    np.testing.assert_allclose(found.pictures, pictures.numpy(), atol=0.01)
    assert found.errors.max() < 1e-4
    assert found.history.shape == (400, 2)
    assert found.history[0].min() > 0.5  # it began far away


def test_the_minimum_by_hand() -> None:
    """|x - c|^2 / |c|^2 + w |x|^2 / n is smallest at x = c / (1 + w |c|^2 / n), for alpha = 2 and a bound of 1."""
    model = nn.Sequential(nn.Identity())
    picture = torch.tensor([[3.0, -1.0], [0.5, 2.0]]).reshape(1, 1, 2, 2)
    aim = Objective(alpha=2.0, alpha_weight=0.7, variation_weight=0.0, bound=1.0)
    factor = 1 + 0.7 * float(picture.square().sum()) / 4
    found = inversion(model, picture, "0", aim, steps=600)
    np.testing.assert_allclose(found.pictures, picture.numpy() / factor, atol=2e-3)
    assert found.errors[0] == pytest.approx((1 - 1 / factor) ** 2, abs=2e-3)
    assert not np.allclose(found.pictures, picture.numpy(), atol=0.1)  # the control: without the weight


def test_what_the_code_lost_does_not_come_back() -> None:
    """A code that keeps the first channel: the second stays the noise that it began with, or becomes flat."""
    model = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False))
    model[0].weight.data = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    picture = 2.5 * torch.randn(1, 2, 6, 6)
    found = inversion(model, picture, "0", FREE, steps=300)
    np.testing.assert_allclose(found.pictures[:, 0], picture[:, 0].numpy(), atol=0.02)
    assert np.abs(found.pictures[:, 1]).max() < 1.0
    smooth = inversion(model, picture, "0", Objective(alpha_weight=0.0, variation_weight=0.1, bound=2.5), steps=300)
    assert np.abs(np.diff(smooth.pictures[:, 1])).max() < np.abs(np.diff(found.pictures[:, 1])).max() / 3


def test_pictures_do_not_mix_and_the_seed_decides() -> None:
    model, pictures = small(), torch.randn(2, 2, 8, 8)
    both = inversion(model, pictures, "5", steps=20)
    first = inversion(model, pictures[:1], "5", steps=20)
    np.testing.assert_allclose(both.pictures[0], first.pictures[0], atol=1e-3)
    again = inversion(model, pictures, "5", steps=20)
    np.testing.assert_array_equal(both.pictures, again.pictures)
    assert not np.allclose(inversion(model, pictures, "5", steps=20, seed=1).pictures, both.pictures)


def test_the_network_is_left_as_it_was_also_after_an_exception() -> None:
    model, pictures = small(), torch.randn(2, 2, 8, 8)
    with left_as_it_was(model):
        assert inversion(model, pictures, "5", steps=5).errors.shape == (2,)
    with left_as_it_was(model), torch.no_grad():
        inversion(model, pictures, "8", steps=5)
    broken = nn.Sequential(Breaks(3), small())
    with breaking(broken):
        inversion(broken, pictures, "1.5", steps=5)


def test_the_bound_is_that_of_the_pictures_where_none_is_given() -> None:
    """The same as with their largest absolute value, and the same for pictures ten times as large."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False))
    picture = torch.randn(1, 1, 6, 6)
    found = inversion(model, picture, "0", steps=30)
    known = Objective(bound=float(picture.abs().max()))
    np.testing.assert_array_equal(inversion(model, picture, "0", known, steps=30).pictures, found.pictures)
    large = inversion(model, 10 * picture, "0", steps=30)
    np.testing.assert_allclose(large.pictures, 10 * found.pictures, rtol=1e-2, atol=1e-2)
    fixed = inversion(model, 10 * picture, "0", known, steps=30)  # the control
    assert not np.allclose(fixed.pictures, 10 * found.pictures, rtol=1e-2, atol=1e-2)


def test_what_cannot_be_inverted_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    model[0].weight.data.zero_()
    model[0].bias.data.fill_(-1.0)
    picture = torch.randn(1, 1, 4, 4)
    with pytest.raises(InputError, match="layer 1 answers a picture with nothing but 0"):
        inversion(model, picture, "1")
    with pytest.raises(InputError, match="steps=0: a picture needs at least one"):
        inversion(model, picture, "0", steps=0)
    with pytest.raises(InputError, match="'conv' is no layer"):
        inversion(model, picture, "conv")
