"""Pre-activation: units by their formulas, the first and the last one, counts by hand."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.errors import InputError
from layerwise.models import build, preact_resnet
from layerwise.models.preact_resnet import (
    PreactivationUnit,
    ProjectionUnit,
    basic_unit,
    bottleneck_unit,
    first_basic_unit,
    first_bottleneck_unit,
)
from layerwise.models.resnet import zero_last_scales
from layerwise.models.shapes import stage_shapes
from tests.model_counts import COUNTS
from tests.test_resnet import batch_norm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def start_anywhere(module: nn.Module) -> nn.Module:
    for parameter in module.double().parameters():
        nn.init.normal_(parameter)
    return module


def weigh(maps, layers, first, strides):
    """conv_first, then bn, relu, conv for each further layer."""
    for number, stride in enumerate(strides, 1):
        if number > 1:
            maps = batch_norm(maps, layers.get_submodule(f"bn{number}")).clamp(min=0)
        weight = layers.get_parameter(f"conv{number}.weight")
        maps = F.conv2d(maps, weight, stride=stride, padding=weight.shape[-1] // 2)
    return maps


X = (4, 8, 6, 6)


def test_an_identity_unit_adds_the_maps_as_they_are():
    """y = x + F(x), F beginning with BN and ReLU; nothing follows the sum (figure 1b)."""
    for unit, width, strides in ((basic_unit, 8, (1, 1)), (bottleneck_unit, 2, (1, 1, 1))):
        module, x = start_anywhere(unit(8, width, 1)), torch.randn(X, dtype=torch.float64)
        assert isinstance(module.shortcut, nn.Identity)
        activated = batch_norm(x, module.residual.bn1).clamp(min=0)
        branch = weigh(activated, module.residual, 1, strides)
        torch.testing.assert_close(module(x), x + branch)
        assert not torch.allclose(module(x), activated + branch)  # the control: an activated shortcut


def test_a_projection_takes_activated_maps():
    module, x = start_anywhere(bottleneck_unit(8, 4, 2)), torch.randn(X, dtype=torch.float64)
    assert isinstance(module, ProjectionUnit)
    activated = batch_norm(x, module.activation.bn).clamp(min=0)
    shortcut = F.conv2d(activated, module.shortcut.weight, stride=2)
    torch.testing.assert_close(module(x), shortcut + weigh(activated, module.residual, 1, (2, 1, 1)))
    raw = F.conv2d(x, module.shortcut.weight, stride=2)
    assert not torch.allclose(module(x), raw + weigh(activated, module.residual, 1, (2, 1, 1)))


def test_the_first_unit_has_no_activation_of_its_own():
    """The appendix: the activation after conv1 comes before the paths part."""
    x = torch.randn(X, dtype=torch.float64)
    module = start_anywhere(first_basic_unit(8, 8, 1))
    torch.testing.assert_close(module(x), x + weigh(x, module.residual, 1, (1, 1)))
    module = start_anywhere(first_bottleneck_unit(8, 4, 1))
    torch.testing.assert_close(
        module(x), F.conv2d(x, module.shortcut.weight) + weigh(x, module.residual, 1, (1, 1, 1))
    )


def test_the_signal_reaches_any_unit_by_sums_alone():
    """Eq. 4: x_L = x_l + sum of F(x_i) between two changes of dimensions."""
    units = [start_anywhere(basic_unit(4, 4, 1)) for _ in range(5)]
    x = maps = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    total = x.clone()
    for unit in units:
        total += unit.residual(maps)
        maps = unit(maps)
    torch.testing.assert_close(maps, total)


@pytest.mark.parametrize("name", preact_resnet.VARIANTS)
def test_units_and_the_last_activation(name):
    with torch.device("meta"):
        model = build(name)
    layers = [key for key, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len([key for key in layers if "shortcut" not in key]) == int(re.findall(r"\d+", name)[0])
    units = [module for module in model.modules() if isinstance(module, PreactivationUnit | ProjectionUnit)]
    assert "bn1" not in dict(units[0].residual.named_children())
    assert isinstance(units[0], PreactivationUnit)
    activations = [key for key, _ in model.features.activation.named_children()]
    assert activations == ["bn", "relu"]
    pads = sum(type(unit.shortcut).__name__ == "ZeroPaddedIdentity" for unit in units)
    assert pads == (2 if name == "preact_resnet110" else 0)  # "two on CIFAR", section 2


def test_stages():
    assert list(stage_shapes("preact_resnet164").values()) == [
        (16, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (256, 8, 8)]  # fmt: skip
    assert list(stage_shapes("preact_resnet200").values()) == [
        (64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7), (2048, 7, 7)]  # fmt: skip


def by_hand(n: int) -> tuple[int, int, int]:
    """A CIFAR network of bottlenecks: parameters, multiply-adds, and parameters without normalisation."""
    parameters, operations, norms, channels = 27 * 16, 27 * 16 * 1024, 2 * 16, 16
    for stage, width in enumerate((16, 32, 64)):
        pixels = 1024 // 4**stage
        for unit in range(n):
            weights = channels * width + 9 * width * width + 4 * width * width
            weights += 4 * width * channels if unit == 0 else 0
            parameters, operations = parameters + weights, operations + weights * pixels
            norms += 2 * (2 * width + (channels if stage + unit else 0))
            channels = 4 * width
    norms += 2 * channels
    return parameters + norms + 2570, operations + 2560, parameters + 2570


@pytest.mark.parametrize(("name", "n"), [("preact_resnet164", 18), ("preact_resnet1001", 111)])
def test_counts_by_hand(name, n):
    assert by_hand(n)[:2] == COUNTS[name][:2]


def test_imagenet_counts_from_those_of_2015():
    """The same convolutions: the projections lose their batch normalisation, each unit's last one comes first."""
    before, after = COUNTS["resnet152"], COUNTS["preact_resnet152"]
    assert before[1] == after[1]
    projections = 2 * (256 + 512 + 1024 + 2048)  # no longer normalised
    assert before[0] - after[0] == projections
    sixteen = 16 * (2 * 512 * 128 + 9 * 128 * 128)
    assert COUNTS["preact_resnet200"][1] - after[1] == sixteen * 28 * 28
    assert COUNTS["preact_resnet200"][0] - after[0] == sixteen + 16 * 2 * (512 + 128 + 128)


def test_parameters_that_the_paper_prints():
    """1.7 million for 110 and 164 layers holds. 10.2 million for 1001 layers holds for the convolutions and the fully
    connected layer, and fails, by 10.3, with the scales and shifts of batch normalisation."""
    assert round(COUNTS["preact_resnet110"][0] / 1e6, 1) == 1.7
    assert round(COUNTS["preact_resnet164"][0] / 1e6, 1) == 1.7
    assert round(COUNTS["preact_resnet1001"][0] / 1e6, 1) == 10.3
    assert round(by_hand(111)[2] / 1e6, 1) == 10.2


def test_110_counts_like_that_of_2015():
    assert COUNTS["preact_resnet110"][:2] == COUNTS["resnet110"][:2]


def test_widths_are_an_argument():
    model = build("preact_resnet164", widths=(4, 8, 16))
    assert model.head.fc.in_features == 64


def test_no_branch_ends_in_normalisation():
    with pytest.raises(InputError, match="no residual branches that end in batch normalisation"):
        zero_last_scales(build("preact_resnet110", num_classes=3))


def test_weights_start_after_he():
    for module in build("preact_resnet164").modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 3000:
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / module.weight[0].numel()), rel=0.08)
