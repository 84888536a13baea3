"""Residual networks: blocks by their formulas, the three options, what the paper says in its text."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.errors import InputError
from layerwise.models import build, reported
from layerwise.models.network import another
from layerwise.models.resnet import (
    BasicBlock,
    Bottleneck,
    BottleneckV1_5,
    OneLayerBlock,
    PlainBlock,
    ResNetCifar,
    ThreeLayerBlock,
    shortcut_a,
    shortcut_b,
    shortcut_c,
    zero_last_scales,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch_norm(maps: torch.Tensor, bn: nn.BatchNorm2d) -> torch.Tensor:
    """By the formula, with the batch's statistics."""
    mean, var = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
    return (maps - mean) / (var + bn.eps).sqrt() * bn.weight[:, None, None] + bn.bias[:, None, None]


@pytest.mark.parametrize(
    ("block", "kernels", "strides"),
    [
        (OneLayerBlock, (3,), (2,)),
        (BasicBlock, (3, 3), (2, 1)),
        (PlainBlock, (3, 3), (2, 1)),
        (ThreeLayerBlock, (3, 3, 3), (2, 1, 1)),
        (Bottleneck, (1, 3, 1), (2, 1, 1)),
        (BottleneckV1_5, (1, 3, 1), (1, 2, 1)),
    ],
)
def test_a_block_is_its_formula(block, kernels, strides):
    module = block(6, 8, 2, shortcut_b).double()
    for name, parameter in module.named_parameters():
        if "bn" in name:
            nn.init.normal_(parameter)
    x = torch.randn(4, 6, 7, 7, dtype=torch.float64)
    layers, y = getattr(module, "plain" if block is PlainBlock else "residual"), x
    for number, (kernel, stride) in enumerate(zip(kernels, strides, strict=True), 1):
        y = F.conv2d(y, layers.get_parameter(f"conv{number}.weight"), stride=stride, padding=kernel // 2)
        y = batch_norm(y, layers.get_submodule(f"bn{number}"))
        y = y.clamp(min=0) if number < len(kernels) else y
    plain = y
    if block is not PlainBlock:
        y = y + batch_norm(F.conv2d(x, module.shortcut.conv.weight, stride=2), module.shortcut.bn)
    torch.testing.assert_close(module(x), y.clamp(min=0))
    if block is not PlainBlock:  # the control: without the shortcut it is another function
        assert not torch.allclose(module(x), plain.clamp(min=0))


@pytest.mark.parametrize(("stride", "size"), [(1, 5), (2, 5), (2, 6)])
def test_option_a_against_numpy(stride, size):
    x = torch.randn(2, 3, size, size, dtype=torch.float64, requires_grad=True)
    expected = np.zeros((2, 8, math.ceil(size / stride), math.ceil(size / stride)))
    expected[:, :3] = x.detach().numpy()[:, :, ::stride, ::stride]
    shortcut = shortcut_a(3, 8, stride)
    assert list(shortcut.parameters()) == []
    np.testing.assert_array_equal(shortcut(x).detach().numpy(), expected)
    channels_last = x.detach().contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(shortcut(channels_last).numpy(), expected)
    assert torch.autograd.gradcheck(shortcut, [x])


def test_the_three_options():
    assert isinstance(shortcut_a(8, 8, 1), nn.Identity)
    assert isinstance(shortcut_b(8, 8, 1), nn.Identity)
    assert shortcut_b(8, 16, 1).conv.weight.shape == (16, 8, 1, 1)
    assert shortcut_c(8, 8, 1).conv.weight.shape == (8, 8, 1, 1)


def test_option_c_has_13_more_projections_than_b():
    with torch.device("meta"):
        b, c = (
            sum(key.endswith("shortcut.conv") for key, _ in build(n).named_modules())
            for n in ("resnet34", "resnet34_c")
        )
    assert (b, c) == (3, 16)


def test_weights_of_figure_5():
    def weights(block, in_channels, width, shortcut):
        return sum(
            m.weight.numel() for m in block(in_channels, width, 1, shortcut).modules() if isinstance(m, nn.Conv2d)
        )

    assert weights(BasicBlock, 64, 64, shortcut_b) == 73_728
    assert weights(Bottleneck, 256, 64, shortcut_b) == 69_632
    assert weights(Bottleneck, 256, 64, shortcut_c) == 135_168


def test_a_block_that_is_zero_is_the_identity():
    x = torch.rand(2, 8, 5, 5)
    block = BasicBlock(8, 8, 1, shortcut_b)
    assert not torch.allclose(block(x), x)
    zero_last_scales(block)
    assert torch.equal(block(x), x)


def test_zero_last_scales_touches_the_last_scale_of_each_branch_and_nothing_else():
    model = build("resnet20")
    before = {key: p.clone() for key, p in model.named_parameters()}
    assert zero_last_scales(model) == 9
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert changed == {f"features.conv{i}_x.conv{i}_{j}.residual.bn2.weight" for i in (2, 3, 4) for j in (1, 2, 3)}
    assert not any(model.get_parameter(key).any() for key in changed)


def test_zero_last_scales_refuses_a_plain_network():
    with pytest.raises(InputError, match="the network has no residual branches"):
        zero_last_scales(build("plain20"))


def test_weights_start_after_he():
    for name in ("resnet18", "resnet20"):
        model = build(name)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
                assert module.weight.std().item() == pytest.approx(math.sqrt(2 / module.weight[0].numel()), rel=0.08)
            elif isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all()
                assert not module.bias.any()
        assert not model.head.fc.bias.any()


def test_signals_are_healthy_in_plain_34():
    """Section 4.1: forward signals have non-zero variances, backward gradients healthy norms."""
    model, ratios, stds = build("plain34", num_classes=10), [], []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda layer, inputs, output: stds.append(output.std().item()))
    F.cross_entropy(model(torch.randn(8, 3, 64, 64)), torch.arange(8)).backward()
    ratios = [m.weight.grad.norm().item() for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert 0.9 < min(stds) <= max(stds) < 1.1
    assert 1e-3 < min(ratios) <= max(ratios) < 1e3


def test_widths_are_an_argument_of_the_cifar_networks():
    model = build("resnet20", widths=[4, 8, 16])
    assert model.architecture["arguments"]["widths"] == [4, 8, 16]
    assert model.head.fc.in_features == 16


def test_a_block_that_does_not_divide_the_stage_is_our_mistake():
    with pytest.raises(AssertionError, match="do not divide"):
        ResNetCifar(2, ThreeLayerBlock)


def test_widths_that_fall():
    with pytest.raises(InputError, match="widths: a stage of 8 channels follows one of 16"):
        build("resnet20", widths=(16, 8, 4))


def state_of(blocks):
    """Names, values, the printed layers and the next random number: all that tells two makings apart."""
    values = [(key, value.tolist()) for block in blocks for key, value in block.state_dict().items()]
    return values, repr(blocks), torch.rand(3).tolist()


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck, PlainBlock])
def test_another_block_is_a_block_made_again(block):
    def make():
        return block(16, 16 // block.expansion, 1, shortcut_a)

    torch.manual_seed(3)
    made = [make(), make(), make()]
    told = state_of(made)
    torch.manual_seed(3)
    first = make()
    repeated = [first, another(first), another(first)]
    assert state_of(repeated) == told
    torch.manual_seed(3)
    first = make()
    copies = [first, copy.deepcopy(first), copy.deepcopy(first)]  # control: copied weights are not new ones
    assert state_of(copies) != told


def test_another_block_shares_nothing_with_the_first():
    first = BasicBlock(8, 8, 1, shortcut_a)
    twin = another(first)
    before = {key: value.clone() for key, value in first.state_dict().items()}
    twin.residual[0].register_forward_hook(lambda *_: None)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.add_(1)
    twin.eval().requires_grad_(False)
    assert all(torch.equal(value, before[key]) for key, value in first.state_dict().items())
    assert all(module.training for module in first.modules())
    assert all(parameter.requires_grad for parameter in first.parameters())
    assert twin.residual[0]._forward_hooks
    assert not first.residual[0]._forward_hooks


def test_of_resnet110_the_best_of_five_runs_is_reported():
    """Table 6: 6.43 (6.61 +- 0.16); of the others there was one run."""
    assert [one.measure for one in reported("resnet110")] == ["top-1, best of 5 runs"]
    assert reported("resnet110")[0].error == 6.43
    assert [one.measure for one in reported("resnet56")] == ["top-1"]
