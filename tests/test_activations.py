"""Non-linearities and dropout that are torch's own: each against its formula in numpy, with its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

Formula = Callable[[np.ndarray], np.ndarray]
PRELU = nn.PReLU(3, init=0.25)

# The survey's (Yin, Wang, Wang 2015) eqs. 2 to 5; ELU: Clevert et al. 2016, eqs. 15 and 16; PReLU: He et al. 2015,
# "Delving deep into rectifiers", eq. 1, with one coefficient a map that starts at 0.25.
FORMULAS: dict[str, tuple[nn.Module, Formula, Formula]] = {
    "sigmoid": (nn.Sigmoid(), lambda y: 1 / (1 + np.exp(-y)), lambda y: np.exp(-y) / (1 + np.exp(-y)) ** 2),
    "tanh": (
        nn.Tanh(),
        lambda y: (np.exp(y) - np.exp(-y)) / (np.exp(y) + np.exp(-y)),
        lambda y: 4 / (np.exp(y) + np.exp(-y)) ** 2,
    ),
    "softsign": (nn.Softsign(), lambda y: y / (1 + abs(y)), lambda y: 1 / (1 + abs(y)) ** 2),
    "relu": (nn.ReLU(), lambda y: np.maximum(0, y), lambda y: (y > 0).astype(float)),
    "elu": (
        nn.ELU(),
        lambda y: np.where(y > 0, y, np.exp(np.minimum(y, 0)) - 1),
        lambda y: np.where(y > 0, 1, np.exp(np.minimum(y, 0))),
    ),
    "prelu": (PRELU, lambda y: np.maximum(0, y) + 0.25 * np.minimum(0, y), lambda y: np.where(y > 0, 1, 0.25)),
}


def values() -> torch.Tensor:
    return 3 * torch.randn(4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_derivative_by_the_formula(name):
    layer, formula, derivative = FORMULAS[name]
    y = values().requires_grad_()
    layer.double()(y).sum().backward()
    np.testing.assert_allclose(layer(y).detach().numpy(), formula(y.detach().numpy()), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(y.grad.numpy(), derivative(y.detach().numpy()), rtol=1e-11, atol=1e-15)


def test_no_formula_fits_another_layer():
    """The control: the tolerance above tells all of them apart."""
    y = values()
    for name, (layer, _, _) in FORMULAS.items():
        for other, (_, formula, _) in FORMULAS.items():
            agrees = np.allclose(layer.double()(y).detach().numpy(), formula(y.numpy()), rtol=1e-12, atol=1e-15)
            assert agrees == (name == other)


def test_prelu_learns_one_coefficient_a_map():
    y = values()
    layer = nn.PReLU(3, init=0.25).double()
    layer(y).sum().backward()
    np.testing.assert_allclose(layer.weight.grad.numpy(), np.minimum(0, y.numpy()).sum((0, 2, 3)), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda a: nn.functional.prelu(y, a), [layer.weight])


def test_dropout_keeps_the_expectation():
    """Krizhevsky et al. 2012, section 4.2, halves the outputs at test; torch doubles those it keeps in training."""
    torch.manual_seed(0)
    layer, y = nn.Dropout(0.5), torch.full((100_000,), 3.0)
    dropped = layer(y)
    assert set(dropped.unique().tolist()) == {0.0, 6.0}
    assert abs((dropped == 0).float().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(100_000)
    assert torch.equal(layer.eval()(y), y)
    assert not torch.equal(nn.Dropout(0.25)(y).unique(), dropped.unique())  # the control


def test_dropout_has_the_same_mask_backwards():
    torch.manual_seed(0)
    y = torch.ones(1000, requires_grad=True)
    dropped = nn.Dropout(0.5)(y)
    dropped.sum().backward()
    assert torch.equal(y.grad, dropped.detach())
