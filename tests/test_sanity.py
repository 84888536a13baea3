"""Maps under redrawn weights: rank correlations by hand, one method that passes and one that must not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.explain.attribution import gradients, saliency
from layerwise.explain.sanity import Randomised, depends, rank_correlation, sanity
from tests.left_as_it_was import Breaks, breaking, left_as_it_was, small

IMAGES = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(7))


def method(model: nn.Module) -> np.ndarray:
    return saliency(gradients(model, IMAGES, [[0], [1]]))


def edges(model: nn.Module) -> np.ndarray:
    """Looks like an explanation and does not look at the network."""
    return IMAGES.diff(dim=3).abs().numpy()


def test_rank_correlation_by_hand() -> None:
    one = np.array([1.0, 2.0, 3.0])
    assert rank_correlation(one, np.array([10.0, 200.0, 3000.0])) == pytest.approx(1.0)
    assert rank_correlation(one, np.array([3.0, 2.0, -1.0])) == pytest.approx(-1.0)
    assert rank_correlation(one, np.array([2.0, 1.0, 3.0])) == pytest.approx(0.5)  # 1 - 6 * 2 / (3 * 8)
    assert rank_correlation(one, np.zeros(3)) == 0.0
    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, (2, 6, 7)).astype(float)  # many ties
    known = scipy.stats.spearmanr(first.ravel(), second.ravel()).statistic
    assert rank_correlation(first, second) == pytest.approx(known)


def test_layers_are_redrawn_from_the_last_to_the_first() -> None:
    model = small()
    rows = sanity(model, IMAGES, method)
    assert [row.layer for row in rows] == ["8", "4", "1", "0"]
    assert depends(rows)
    assert all(-1 <= row.correlation <= 1 for row in rows)
    assert rows == sanity(model, IMAGES, method)
    assert rows != sanity(model, IMAGES, method, seed=1)
    assert sanity(model, IMAGES, method, most=1) == rows[-1:]
    assert sanity(model, IMAGES, method, most=2) == (rows[1], rows[3])
    assert sanity(model, IMAGES, method, most=9) == rows


def test_each_row_keeps_the_layers_before_it() -> None:
    seen: list[list[bool]] = []
    model = small()
    weights = [model[layer].weight.detach().clone() for layer in (0, 1, 4, 8)]

    def look(network: nn.Module) -> np.ndarray:
        own = [network[layer].weight for layer in (0, 1, 4, 8)]
        seen.append([torch.equal(one, other) for one, other in zip(own, weights, strict=True)])
        for one, other in zip(own, weights, strict=True):
            assert float(one.detach().std()) == pytest.approx(float(other.std()), rel=0.75, abs=1e-6)
        return method(network)

    sanity(model, IMAGES, look)
    # Batch normalisation's weights are all 1: with a deviation of 0 they stay, and its shifts of 0 too.
    assert seen == [[True] * 4, [True, True, True, False], [True, True, False, False], [True, True, False, False],
                    [False, True, False, False]]


def test_a_method_that_does_not_look_at_the_network_is_found() -> None:
    rows = sanity(small(), IMAGES, edges)
    assert [row.correlation for row in rows] == pytest.approx([1.0] * 4)
    assert not depends(rows)
    assert not depends([Randomised("0", -0.9)])  # the same edges, the other way round


def test_the_network_is_left_as_it_was_also_after_an_exception() -> None:
    model = small()
    with left_as_it_was(model):
        sanity(model, IMAGES, method)
    model = small(Breaks(3))
    with left_as_it_was(model[:9]), pytest.raises(KeyError):
        sanity(model, IMAGES, method)
    broken = nn.Sequential(Breaks(0), small())
    with breaking(broken):
        sanity(broken, IMAGES, method)


def test_a_constant_map_is_an_error() -> None:
    with pytest.raises(InputError, match="a map of the trained network is constant"):
        sanity(small(), IMAGES, lambda model: np.zeros((2, 8, 8)))
