"""The start of large weights: the rule's own distribution, the same numbers on any number of threads."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

from layerwise.layers.initialise import he_normal
from layerwise.layers.large_weights import LARGE, PART, LargeWeights

SHAPE = (1024, 4224)  # above LARGE; with PART made small, several parts with a rest
RULES = {
    "normal": (lambda w: nn.init.normal_(w, std=0.01), lambda: stats.norm(0, 0.01)),
    "normal by position": (lambda w: nn.init.normal_(w, 1.0, 2.0), lambda: stats.norm(1, 2)),
    "uniform": (lambda w: nn.init.uniform_(w, -0.5, 0.25), lambda: stats.uniform(-0.5, 0.75)),
    "he": (lambda w: nn.init.kaiming_normal_(w, mode="fan_in", nonlinearity="relu"),
           lambda: stats.norm(0, math.sqrt(2 / SHAPE[1]))),
    "glorot": (nn.init.xavier_uniform_,
               lambda: stats.uniform(-math.sqrt(6 / sum(SHAPE)), 2 * math.sqrt(6 / sum(SHAPE)))),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr("layerwise.layers.large_weights.PART", 2**20)


@pytest.mark.parametrize("rule", RULES)
def test_the_distribution_is_the_rules(rule):
    fill, distribution = RULES[rule]
    torch.manual_seed(5)
    weight = torch.full(SHAPE, math.nan)
    with LargeWeights():
        fill(weight)
    picked = weight.view(-1)[:: 1009].double().numpy()
    assert stats.kstest(picked, distribution().cdf).pvalue > 1e-4
    assert stats.kstest(picked + 0.3 * distribution().std(), distribution().cdf).pvalue < 1e-4  # the control
    parts = weight.view(-1).split(2**20)
    assert not torch.equal(parts[0][:100], parts[1][:100])


def test_the_numbers_follow_the_seed_and_not_the_threads():
    found = []
    for seed, threads in ((1, 1), (1, 3), (2, 1)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        with LargeWeights():
            layer = nn.Sequential(nn.Linear(SHAPE[1], SHAPE[0]))
            he_normal(layer)
        torch.set_num_threads(before)
        found.append(layer[0].weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_weights_that_no_rule_fills_are_seen():
    with LargeWeights():
        large, small = nn.Linear(SHAPE[1], SHAPE[0]), nn.Linear(8, 8)
    assert large(torch.ones(SHAPE[1])).isnan().any()
    assert small.weight.isfinite().all()
    assert nn.Linear(SHAPE[1], SHAPE[0]).weight.isfinite().all()  # the control: outside, torch as ever


def test_smaller_weights_start_as_ever():
    assert LARGE <= PART
    torch.manual_seed(3)
    expected = nn.init.normal_(torch.empty(64, 64))
    torch.manual_seed(3)
    with LargeWeights():
        assert torch.equal(nn.init.normal_(torch.empty(64, 64)), expected)
