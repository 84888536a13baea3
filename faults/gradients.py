"""E1: every own block and loss has right first and second derivatives.

Every module class of layerwise/layers and layerwise/models that is no whole network must have a case below; one that
has none is a violation. Each is checked in float64 with torch's gradcheck and gradgradcheck in slow mode, which compare
with differences: over its input and 1 to 12 entries of each parameter (random places), and 6 random linear combinations
of the outputs. Batch normalisation uses its batch's statistics, and draws are the same each time.
"""

from __future__ import annotations

import inspect
import math
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import layerwise.layers
import layerwise.models
from faults.goal import Control, Goal, Outcome
from layerwise.layers import backpropagation, factorised, identity, transposed
from layerwise.layers.branches import Branches
from layerwise.layers.drop_connect import DropConnect, DropConnectReLU
from layerwise.layers.locally_connected import LocallyConnected2d
from layerwise.layers.maxout import Maxout
from layerwise.layers.partial import PartialConv2d
from layerwise.layers.pooling import LpPool2d, MixedPool2d, RoIPool, SpatialPyramidPool, StochasticPool2d
from layerwise.layers.recompute import RecomputedAlone
from layerwise.layers.repeatable import AdaptiveAvgPool2d, AdaptiveMaxPool2d
from layerwise.layers.response_norm import ResponseNorm
from layerwise.layers.same_padding import SamePadding
from layerwise.layers.separable import SeparableConv2d
from layerwise.layers.squash import ScaledTanh
from layerwise.layers.subsampling import Subsampling
from layerwise.models import (
    airnet,
    costs,
    densenet,
    highway,
    inception_resnet,
    lenet,
    mobilenet_v2,
    nasnet,
    preact_resnet,
    resnet,
    resnext,
    wide_resnet,
    xception,
)
from layerwise.models.dense import Dense
from layerwise.models.network import Network
from layerwise.tasks import losses
from layerwise.tasks.classify import Classify

# Files without a block: here only so that a block which one of them gets is seen to have no case.
WITHOUT_BLOCKS = (backpropagation, costs, factorised, identity, transposed)
ENTRIES, ALTOGETHER, OUTPUTS = 12, 60, 6
# Without a forward of their own, or made of others: there is nothing to be checked.
BASES = (RecomputedAlone, resnet.Residual, nasnet.Cell, Network)
Make = Callable[[], tuple[Callable[..., Tensor], tuple[Tensor, ...]]]


def maps(*shape: int) -> Tensor:
    """Values of a map, drawn."""
    return torch.randn(*shape, dtype=torch.float64)


def on(module: Callable[[], nn.Module], *shape: int) -> Make:
    """A module on maps of a shape."""
    return lambda: (module(), (maps(*shape),))


def residual(block: type[nn.Module], in_channels: int = 2, width: int = 1) -> Make:
    """A residual block that halves the map and has a projection."""
    return on(lambda: block(in_channels, width, 2, resnet.shortcut_b), 2, in_channels, 4, 4)


def cell(kind: type[nasnet.Cell]) -> Make:
    """A cell of NASNet on two maps."""
    return lambda: (kind(2, 1, nasnet.squeeze(2, 1), 1), (maps(1, 2, 4, 4), maps(1, 2, 4, 4)))


def classify() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Cross-entropy with smoothed labels of mixed pictures."""
    labels = {"label": torch.tensor([0, 2, 1]), "label_b": torch.tensor([1, 1, 0]),
              "weight": torch.tensor([0.7, 0.2, 1.0], dtype=torch.float64)}
    return lambda logits: Classify(label_smoothing=0.1)._mixed(logits, labels), (maps(3, 4),)


def of_logits(loss: Callable[[Tensor, Tensor], Tensor]) -> Make:
    """A loss of logits and labels."""
    return lambda: (lambda logits: loss(logits, torch.tensor([0, 2, 1])), (maps(3, 4),))


CASES: dict[str, Make] = {
    "Subsampling": on(lambda: Subsampling(2), 2, 2, 4, 4),
    "SeparableConv2d": on(lambda: SeparableConv2d(2, 3, 3, 2, 1, bias=True), 1, 2, 4, 4),
    "PartialConv2d": on(lambda: PartialConv2d(3, ((0, 1), (1, 2), (0, 1, 2)), 2, stride=2), 1, 3, 4, 4),
    "Maxout": on(lambda: Maxout(2), 2, 4, 2, 2),
    "SamePadding": on(lambda: SamePadding(3, 2), 1, 2, 3, 3),
    "LpPool2d": on(lambda: LpPool2d(3.0, 2), 1, 2, 4, 4),
    "LpPool2d of 1": on(lambda: LpPool2d(1.0, 2), 1, 2, 4, 4),
    "LpPool2d of infinity": on(lambda: LpPool2d(float("inf"), 2), 1, 2, 4, 4),
    "MixedPool2d": on(lambda: MixedPool2d(2), 2, 2, 4, 4),
    "MixedPool2d tested": on(lambda: MixedPool2d(2).eval(), 2, 2, 4, 4),
    "StochasticPool2d": lambda: (StochasticPool2d(2), (maps(2, 2, 4, 4).abs() + 0.1,)),
    "StochasticPool2d tested": lambda: (StochasticPool2d(2).eval(), (maps(2, 2, 4, 4).abs() + 0.1,)),
    "SpatialPyramidPool": on(lambda: SpatialPyramidPool((1, 2)), 1, 2, 5, 4),
    "AdaptiveAvgPool2d": on(lambda: AdaptiveAvgPool2d(2), 1, 2, 5, 4),
    "AdaptiveMaxPool2d": on(lambda: AdaptiveMaxPool2d(2), 1, 2, 5, 4),
    "RoIPool": lambda: ((lambda pool: lambda one: pool(one, torch.tensor([[0.0, 0, 0, 3, 3], [1, 1, 2, 4, 4]])))(
        RoIPool((2, 2), 1.0)), (maps(2, 1, 5, 5),)),
    "ResponseNorm": on(lambda: ResponseNorm(3, 0.1), 1, 5, 2, 3),
    "ResponseNorm in groups": on(lambda: ResponseNorm(3, 0.1, groups=2), 2, 6, 2, 2),
    "ScaledTanh": on(ScaledTanh, 2, 7),
    "Branches": on(lambda: Branches(nn.Conv2d(2, 1, 1), nn.Conv2d(2, 2, 3, padding=1)), 1, 2, 3, 3),
    "LocallyConnected2d": on(lambda: LocallyConnected2d(2, 2, (4, 4), 2, 1, 1, 2), 1, 2, 4, 4),
    "DropConnect": on(lambda: DropConnect(4, 3), 3, 4),
    "DropConnectReLU": on(lambda: DropConnectReLU(4, 3), 3, 4),
    "DropConnectReLU tested": on(lambda: DropConnectReLU(4, 3).eval(), 3, 4),
    "ShiftNorm": on(lambda: airnet.ShiftNorm(2), 3, 2, 2, 2),
    "Scaled": on(lambda: airnet.Scaled(0.1), 3, 4),
    "Dense": on(lambda: Dense(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 3, 2)), 1, 2, 5, 5),
    "Concatenated": lambda: ((lambda layer: lambda a, b: layer((a, b)))(densenet.dense_layer(3, 2, 0.0).double()),
                             (maps(2, 2, 3, 3), maps(2, 1, 3, 3))),
    "DenseBlock": on(lambda: densenet.DenseBlock({"one": densenet.bottleneck_layer(2, 1, 0.3),
                                                  "two": densenet.dense_layer(3, 1, 0.3)}), 2, 2, 3, 3),
    "Highway": on(lambda: highway.Highway(2), 1, 2, 3, 3),
    "ScaledResidual": on(lambda: inception_resnet.ScaledResidual(
        Branches(nn.Conv2d(2, 1, 1), nn.Conv2d(2, 1, 3, padding=1)), 2, 2, 0.2), 2, 2, 3, 3),
    "PositionBias": on(lambda: lenet.PositionBias(2, 3), 1, 2, 3, 3),
    "RadialBasis": on(lambda: lenet.RadialBasis(3), 1, 84),
    "LinearBottleneck": on(lambda: mobilenet_v2.LinearBottleneck(
        2, mobilenet_v2.Row(2, 3, 1, 2), 2, mobilenet_v2.USUAL), 2, 2, 4, 4),
    "InvertedResidual": on(lambda: mobilenet_v2.InvertedResidual(
        2, mobilenet_v2.Row(2, 2, 1, 1), 1, mobilenet_v2.USUAL), 2, 2, 3, 3),
    "PathReduction": on(lambda: nasnet.PathReduction(2, 3), 2, 2, 4, 4),
    "NormalCell": cell(nasnet.NormalCell),
    "ReductionCell": cell(nasnet.ReductionCell),
    "SkippedReductionCell": cell(nasnet.SkippedReductionCell),
    "BorderedReductionCell": cell(nasnet.BorderedReductionCell),
    "Cells": on(lambda: _cells(), 2, 2, 4, 4),
    "AuxiliaryPool": on(lambda: nasnet.AuxiliaryPool(1), 1, 2, 5, 6),
    "AuxiliaryPool of another size": on(lambda: nasnet.AuxiliaryPool(2), 1, 2, 4, 5),
    "PreactivationUnit": on(lambda: preact_resnet.basic_unit(2, 2, 1), 2, 2, 3, 3),
    "ProjectionUnit": on(lambda: preact_resnet.ProjectionUnit(preact_resnet.bottleneck(2, 1, 2), 2), 2, 2, 4, 4),
    "ZeroPaddedIdentity": on(lambda: resnet.ZeroPaddedIdentity(2, 2), 1, 2, 4, 4),
    **{block.__name__: residual(block) for block in (
        resnet.BasicBlock, resnet.OneLayerBlock, resnet.ThreeLayerBlock, resnet.Bottleneck, resnet.BottleneckV1_5,
        resnet.PlainBlock, resnet.PlainBottleneck, wide_resnet.WideBottleneck)},
    **{block.__name__: residual(block, 2, 64 // math.gcd(block.group_width, 64)) for block in (
        resnext.GroupedBottleneck, *resnext.GroupedBottleneck.__subclasses__())},
    "WideUnit": on(lambda: wide_resnet.WideUnit(2, 0.3), 2, 2, 3, 3),
    "WideProjectionUnit": on(lambda: wide_resnet.WideProjectionUnit(2, 3, 2, 0.3), 2, 2, 4, 4),
    "Sum": on(lambda: xception.halving_block(2, 2, 3), 2, 2, 4, 4),
    "squared error": of_logits(losses.squared_error),
    "hinge": of_logits(losses.hinge),
    "squared hinge": of_logits(losses.squared_hinge),
    "contrastive": lambda: (lambda a, b: losses.contrastive(a, b, torch.tensor([True, False, True]), 9.0),
                            (maps(3, 4), maps(3, 4))),
    "cross-entropy": lambda: classify(),
}


def _cells() -> nn.Module:
    cells = nasnet.Cells()
    cells.add_module("stem", nn.Conv2d(2, 2, 1))
    cells.add_module("cell_0", nasnet.NormalCell(2, 1, nasnet.squeeze(2, 1), 1))
    return cells


def own_blocks() -> set[str]:
    """The names of all module classes of our own that compute something and are no whole networks."""
    found: set[str] = set()
    for package in (layerwise.layers, layerwise.models):
        for one in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = sys.modules.get(one.name)
            if module is None:  # nothing above has a case of it
                found.add(one.name)
                continue
            found |= {name for name, kind in inspect.getmembers(module, inspect.isclass)
                      if kind.__module__ == one.name and issubclass(kind, nn.Module) and not name.startswith("_")
                      and kind not in BASES and not issubclass(kind, Network)}
    return found


def derivatives(make: Make) -> str:
    """What is wrong with a case's first or second derivatives, in words, or ""."""
    torch.manual_seed(3)
    function, inputs = make()
    parameters: dict[str, Tensor] = {}
    if isinstance(function, nn.Module):
        function.double()
        parameters = {name: one.detach() for name, one in function.named_parameters()}
        parameters = {name: one + 0.3 * torch.randn_like(one) for name, one in parameters.items()}
    entries = min(ENTRIES, max(1, ALTOGETHER // max(1, len(parameters))))
    places = [torch.randperm(one.numel())[:entries] for one in parameters.values()]
    with torch.no_grad():
        torch.manual_seed(5)
        size = _flat(function, inputs, parameters).numel()
    mixture = torch.randn(size, min(size, OUTPUTS), dtype=torch.float64)

    def combined(*values: Tensor) -> Tensor:
        torch.manual_seed(5)  # the same draws each time
        given = {name: one.flatten().index_put((place,), value).view_as(one) for (name, one), place, value
                 in zip(parameters.items(), places, values[len(inputs):], strict=True)}
        return _flat(function, values[:len(inputs)], given) @ mixture

    free = [*(one.clone().requires_grad_() for one in inputs),
            *(one.flatten()[place].clone().requires_grad_() for one, place in zip(parameters.values(), places,
                                                                                   strict=True))]
    for check, name in ((torch.autograd.gradcheck, "first"), (torch.autograd.gradgradcheck, "second")):
        try:
            if not combined(*free).requires_grad:
                return "the output does not depend on the inputs"
            check(combined, free)
        except RuntimeError as error:
            if name == "second" and "does not require grad" in str(error):
                continue  # it is piecewise linear: its first derivative is constant
            return f"{name} derivative: {' '.join(str(error).split())[:200]}"
    return ""


def _flat(function: Callable[..., Any], inputs: tuple[Tensor, ...], parameters: dict[str, Tensor]) -> Tensor:
    found = torch.func.functional_call(function, parameters, inputs) if isinstance(function, nn.Module) else (
        function(*inputs))
    assert isinstance(found, Tensor)
    return found.flatten()


def gradients(trials: int, folder: Path) -> Outcome:
    """Checks `trials` of the cases, spread over all of them."""
    missing = sorted(own_blocks() - CASES.keys())
    wrong = [f"{name}: has no case" for name in missing]
    step = max(1, len(CASES) // max(1, trials))
    chosen = list(CASES)[::step][:trials]
    wrong += [f"{name}: {found}" for name in chosen if (found := derivatives(CASES[name]))]
    return Outcome(len(chosen), tuple(wrong), f"{len(CASES)} cases, {len(own_blocks())} block classes of our own")


class _WrongFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values**3

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2.9 * ctx.saved_tensors[0] ** 2 * gradients[0]


class _WrongSecond(_WrongFirst):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].detach() ** 2 * gradients[0]


def _caught(function: type[torch.autograd.Function], word: str) -> Callable[[Path], Outcome]:
    def attempt(folder: Path) -> Outcome:
        found = derivatives(lambda: (function.apply, (maps(3),)))
        return Outcome(1, (found,) if found.startswith(word) else ())
    return attempt


def without_a_case(folder: Path) -> Outcome:
    """A block's case is missing."""
    missing = own_blocks() - (CASES.keys() - {"Highway"})
    return Outcome(1, tuple(missing))


GOALS = (Goal(
    "E1", "every gradient, twice", "no violations, no block without a case", len(CASES), 3, gradients,
    (Control("a first derivative 3 % wrong", _caught(_WrongFirst, "first")),
     Control("a second derivative left out", _caught(_WrongSecond, "second")),
     Control("a block without a case", without_a_case))),)
