"""Maxout against numpy; gradients against differences in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerwise.layers.maxout import Maxout


@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 4), (2, 6, 4, 5)])
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_the_largest_of_neighbouring_channels(shape, pieces):
    z = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.stack([z.numpy()[:, i : i + pieces].max(1) for i in range(0, 6, pieces)], 1)
    np.testing.assert_array_equal(Maxout(pieces)(z).numpy(), expected)
    # the control: every 6/pieces-th channel is another grouping
    if pieces > 1:
        strided = np.stack([z.numpy()[:, i :: 6 // pieces].max(1) for i in range(6 // pieces)], 1)
        assert not np.array_equal(Maxout(pieces)(z).numpy(), strided)


def test_the_gradient_goes_to_the_largest():
    z = torch.randn(2, 6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.autograd.gradcheck(Maxout(3), (z,))
    Maxout(3)(z).sum().backward()
    assert torch.equal(z.grad.sum(1), torch.full((2, 3, 3), 2.0, dtype=torch.float64))
    assert set(z.grad.unique().tolist()) == {0.0, 1.0}


def test_two_linear_pieces_are_an_absolute_value():
    """Section 4: maxout is any convex, piecewise linear function of its input."""
    x = torch.linspace(-2, 2, 9)[:, None]
    assert torch.equal(Maxout(2)(torch.cat([x, -x], 1)), x.abs())


def test_memory_format_does_not_matter():
    z = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    last = z.contiguous(memory_format=torch.channels_last)
    assert torch.equal(Maxout(2)(last), Maxout(2)(z))


def test_channels_that_do_not_divide():
    with pytest.raises(RuntimeError, match="unflatten"):
        Maxout(4)(torch.zeros(1, 6, 2, 2))
    with pytest.raises(AssertionError, match="at least one piece"):
        Maxout(0)
