"""Networks made for known weights: no random number is drawn, and the compiler is not imported for their shapes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from layerwise import models
from layerwise.layers.unfilled import LARGE, FilledOnce, Unfilled
from tests.nan_memory import nan_memory

NETWORKS = ("lenet5", "resnet20", "nin", "vgg11", "maxout")
HEAVY = ("torch._dynamo", "scipy", "matplotlib", "sympy")
SHAPES = """import sys, torch
from layerwise import models
from layerwise.models.resnet import ResNetCifar
with torch.device("meta"):
    {made}
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])"""


@pytest.mark.parametrize("name", NETWORKS)
def test_no_random_number_is_drawn(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        before = torch.random.get_rng_state()
        with torch.device("meta"):
            shapes = models.build(name).state_dict()
        with Unfilled():
            unfilled = models.build(name).state_dict()
        assert torch.equal(torch.random.get_rng_state(), before)
        plain = models.build(name).state_dict()
        assert not torch.equal(torch.random.get_rng_state(), before)
    for made in (shapes, unfilled):
        assert {entry: value.shape for entry, value in made.items()} == {k: v.shape for k, v in plain.items()}


def test_the_guard_ends_with_its_block() -> None:
    """The negative control: without it the same layer has random weights."""
    weight = torch.zeros(4, 4)
    with Unfilled():
        nn.init.kaiming_normal_(weight)
        nn.init.uniform_(tensor=weight)
        weight.normal_()
    assert not weight.any()
    nn.init.kaiming_normal_(weight)
    assert weight.all()


@pytest.mark.parametrize(("made", "imported"), [
    ("models.build('resnet20')", ""), ("ResNetCifar(3)", "torch._dynamo"),
    ("torch.empty_like(torch.empty(2))", "sympy"),
])
def test_shapes_need_no_compiler(made: str, imported: str) -> None:
    command = [sys.executable, "-c", SHAPES.format(made=made)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert imported in done.stdout if imported else done.stdout.strip() == "[]"


def test_predicting_imports_nothing_heavy() -> None:
    text = f"import sys, layerwise.jobs.answers; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_neither_torch_nor_numpy() -> None:
    text = "import sys, layerwise.cli; print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torchs_own_fill_of_large_weights_is_left_out() -> None:
    side = int(LARGE**0.5) + 1
    with nan_memory(), FilledOnce():
        large, small = nn.Linear(side, side), nn.Linear(8, 8)
        ruled = nn.init.kaiming_uniform_(torch.zeros(side, side), nonlinearity="relu")
    assert large.weight.isnan().all()
    assert small.weight.isfinite().all()
    assert ruled.all()  # a network's own rule is never left out
    with nan_memory():
        assert nn.Linear(side, side).weight.isfinite().all()  # the control: without it, torch as ever
