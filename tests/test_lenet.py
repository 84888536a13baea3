"""LeCun's networks: connections and parameters as printed, their own layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.models.lenet import TABLE_1989, TABLE_1990, TABLE_1998, PositionBias, RadialBasis
from layerwise.models.shapes import cost


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def connections(name: str) -> int:
    """Counted as in LeCun's papers: each unit's inputs and its bias."""
    model_rows, total = cost(name).rows, 0
    for row in model_rows:
        units = math.prod(row.output)
        has_bias = row.kind in ("PositionBias", "Linear") or (row.kind.endswith("Conv2d") and name != "lenet1989")
        total += row.multiply_adds + units * has_bias + 5 * units * (row.kind == "Subsampling")
        total += 84 * units * (row.kind == "RadialBasis")
    return total


@pytest.mark.parametrize(("name", "printed"), [("lenet1989", 64_660), ("lenet1990", 98_442), ("lenet5_1998", 340_908)])
def test_connections_as_printed_by_lecun(name, printed):
    assert connections(name) == printed


def test_lenets_layers_as_printed():
    def counts(name):
        found: dict[str, int] = {}
        for row in cost(name).rows:
            layer = row.name.split(".")[1]
            found[layer] = found.get(layer, 0) + row.parameters
        return {layer: count for layer, count in found.items() if count}

    assert counts("lenet1989") == {"H1": 1068, "H2": 2592, "H3": 5790, "output": 310}
    assert counts("lenet1990") == {"H1": 104, "H2": 8, "H3": 512, "H4": 24, "output": 1930}
    assert counts("lenet5_1998") == {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48_120, "F6": 10_164}
    assert counts("lenet5") == {"C1": 156, "C3": 1516, "C5": 48_120, "F6": 10_164, "output": 850}


def test_tables_of_connections():
    assert [len(row) for row in TABLE_1989] == [8] * 12
    assert sum(len(row) for row in TABLE_1990) == 20
    assert [len(row) for row in TABLE_1998] == [3] * 6 + [4] * 9 + [6]
    for table in (TABLE_1990, TABLE_1998):  # every input is used alike, no two maps of more than one input are the same
        uses = [i for row in table for i in row]
        assert len({uses.count(i) for i in set(uses)}) == 1
    assert len(set(TABLE_1998)) == 16


def test_position_bias_takes_one_size():
    layer = PositionBias(2, 3)
    nn.init.normal_(layer.bias)
    x = torch.randn(4, 2, 3, 3)
    assert torch.equal(layer(x), x + layer.bias[None])
    with pytest.raises(InputError, match="a map of 2x1x1 reaches a layer with a bias for each unit of 2x3x3"):
        layer(torch.randn(4, 2, 1, 1))  # it would broadcast


def test_radial_basis_is_minus_the_squared_distance():
    layer = RadialBasis(12)
    x = torch.randn(3, 84)
    expected = [[-sum((x[n, j] - layer.codes[c, j]) ** 2 for j in range(84)) for c in range(12)] for n in range(3)]
    torch.testing.assert_close(layer(x), torch.tensor(expected))
    assert layer.codes.unique().tolist() == [-1, 1]
    assert len(layer.codes.unique(dim=0)) == 12
    assert torch.equal(layer.codes, RadialBasis(12).codes)
    assert torch.equal(layer(layer.codes).argmax(1), torch.arange(12))
