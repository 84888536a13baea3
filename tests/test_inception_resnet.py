"""Inception-ResNet: sizes of the figures, counts by hand, scaled residuals, and where the paper contradicts itself."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from layerwise.models import build, inception_resnet
from layerwise.models.inception_resnet import ScaledResidual, block_a, block_with
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@cache
def on_meta(name, **arguments):
    with torch.device("meta"):
        return build(name, **arguments)


@pytest.mark.parametrize(
    ("name", "channels", "depths"),
    [
        ("inception_resnet_v1", (256, 896, 1792), (5, 10, 5)),
        ("inception_resnet_v2_figures", (384, 1152, 2144), (5, 10, 5)),
        ("inception_resnet_v2", (320, 1088, 2080), (10, 20, 10)),
    ],
)
def test_sizes_and_depths(name, channels, depths):
    shapes, features = stage_shapes(name), on_meta(name).features
    at_35, at_17, at_8 = ((c, side, side) for c, side in zip(channels, (35, 17, 8), strict=True))
    expected = {"stem": at_35, "inception_resnet_a": at_35, "reduction_a": at_17, "inception_resnet_b": at_17}
    expected |= {"reduction_b": at_8, "inception_resnet_c": at_8}
    assert {stage: shape for stage, shape in shapes.items() if stage != "conv_7b"} == expected
    assert ("conv_7b" in shapes) == (name == "inception_resnet_v2")
    assert tuple(len(features.get_submodule(f"inception_resnet_{letter}")) for letter in "abc") == depths


def unit(inputs, outputs, weights):
    return inputs * outputs * weights + 2 * outputs


def linear(inputs, outputs):
    return inputs * outputs + outputs


def test_parameters_of_v1_by_hand():
    """Figures 7 and 10 to 15; every convolution but the linear one has scale and shift in place of a bias."""
    stem = unit(3, 32, 9) + unit(32, 32, 9) + unit(32, 64, 9) + unit(64, 80, 1) + unit(80, 192, 9) + unit(192, 256, 9)
    a = 3 * unit(256, 32, 1) + 3 * unit(32, 32, 9) + linear(96, 256)
    reduction_a = unit(256, 384, 9) + unit(256, 192, 1) + unit(192, 192, 9) + unit(192, 256, 9)
    b = 2 * unit(896, 128, 1) + 2 * unit(128, 128, 7) + linear(256, 896)
    reduction_b = 3 * unit(896, 256, 1) + unit(256, 384, 9) + 3 * unit(256, 256, 9)
    c = 2 * unit(1792, 192, 1) + 2 * unit(192, 192, 3) + linear(384, 1792)
    total = stem + 5 * a + reduction_a + 10 * b + reduction_b + 5 * c + linear(1792, 1000)
    assert cost("inception_resnet_v1").parameters == total == 22_756_328


def test_multiply_adds_of_v1_by_hand():
    stem = 149**2 * 3 * 32 * 9 + 147**2 * (32 * 32 * 9 + 32 * 64 * 9) + 73**2 * 64 * 80 + 71**2 * 80 * 192 * 9
    stem += 35**2 * 192 * 256 * 9
    a = 35**2 * (3 * 256 * 32 + 3 * 32 * 32 * 9 + 96 * 256)
    reduction_a = 17**2 * (256 * 384 * 9 + 192 * 256 * 9) + 35**2 * (256 * 192 + 192 * 192 * 9)
    b = 17**2 * (2 * 896 * 128 + 2 * 128 * 128 * 7 + 256 * 896)
    reduction_b = 17**2 * (3 * 896 * 256 + 256 * 256 * 9) + 8**2 * (256 * 384 * 9 + 2 * 256 * 256 * 9)
    c = 8**2 * (2 * 1792 * 192 + 2 * 192 * 192 * 3 + 384 * 1792)
    total = stem + 5 * a + reduction_a + 10 * b + reduction_b + 5 * c + 1792 * 1000
    assert cost("inception_resnet_v1").multiply_adds == total == 6_206_361_696


def test_parameters_of_the_figures_of_v2_by_hand():
    stem = unit(3, 32, 9) + unit(32, 32, 9) + unit(32, 64, 9) + unit(64, 96, 9)
    stem += 2 * unit(160, 64, 1) + 2 * unit(64, 96, 9) + 2 * unit(64, 64, 7) + unit(192, 192, 9)
    a = 3 * unit(384, 32, 1) + unit(32, 32, 9) + unit(32, 48, 9) + unit(48, 64, 9) + linear(128, 384)
    reduction_a = unit(384, 384, 9) + unit(384, 256, 1) + unit(256, 256, 9) + unit(256, 384, 9)
    b = unit(1152, 192, 1) + unit(1152, 128, 1) + unit(128, 160, 7) + unit(160, 192, 7) + linear(384, 1152)
    reduction_b = 3 * unit(1152, 256, 1) + unit(256, 384, 9) + 2 * unit(256, 288, 9) + unit(288, 320, 9)
    c = 2 * unit(2144, 192, 1) + unit(192, 224, 3) + unit(224, 256, 3) + linear(448, 2144)
    total = stem + 5 * a + reduction_a + 10 * b + reduction_b + 5 * c + linear(2144, 1000)
    assert cost("inception_resnet_v2_figures").parameters == total == 32_433_928


def test_multiply_adds_of_the_figures_of_v2_by_hand():
    stem = 149**2 * 3 * 32 * 9 + 147**2 * (32 * 32 * 9 + 32 * 64 * 9) + 73**2 * 64 * 96 * 9
    stem += 73**2 * (2 * 160 * 64 + 2 * 64 * 64 * 7) + 71**2 * 2 * 64 * 96 * 9 + 35**2 * 192 * 192 * 9
    a = 35**2 * (3 * 384 * 32 + 32 * 32 * 9 + 32 * 48 * 9 + 48 * 64 * 9 + 128 * 384)
    reduction_a = 17**2 * (384 * 384 * 9 + 256 * 384 * 9) + 35**2 * (384 * 256 + 256 * 256 * 9)
    b = 17**2 * (1152 * 192 + 1152 * 128 + 128 * 160 * 7 + 160 * 192 * 7 + 384 * 1152)
    reduction_b = 17**2 * (3 * 1152 * 256 + 256 * 288 * 9) + 8**2 * (256 * 384 + 256 * 288 + 288 * 320) * 9
    c = 8**2 * (2 * 2144 * 192 + 192 * 224 * 3 + 224 * 256 * 3 + 448 * 2144)
    total = stem + 5 * a + reduction_a + 10 * b + reduction_b + 5 * c + 2144 * 1000
    assert cost("inception_resnet_v2_figures").multiply_adds == total == 9_257_953_632


def test_maps_that_figures_17_and_19_print_cannot_be_added():
    shapes = stage_shapes("inception_resnet_v2_figures")
    assert shapes["reduction_a"][0] == 384 + 384 + 384 == 1152  # figure 17 prints 1154: fails
    assert shapes["reduction_b"][0] == 1152 + 384 + 288 + 320 == 2144  # figure 19 prints 2048: fails
    shapes = stage_shapes("inception_resnet_v1")  # figures 11 and 13 print 896 and 1792: hold
    assert (shapes["reduction_a"][0], shapes["reduction_b"][0]) == (896, 1792)


@pytest.mark.parametrize("block", [block_a(12, (2, 3, 4), 0.3), block_with(7, 12, (2, 3, 4, 5), 0.3)])
def test_a_block_adds_the_scaled_residual(block):
    block = block.double().eval()
    maps = torch.randn(2, 12, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        residual = block.linear(block.branches(maps))
        torch.testing.assert_close(block(maps), (maps + 0.3 * residual).relu(), rtol=1e-12, atol=1e-12)
        assert not torch.allclose(block(maps), (maps + residual).relu())  # the control: unscaled
        block.scale = 0.0
        assert torch.equal(block(maps), maps.relu())


def test_no_normalisation_on_the_sums():
    block = block_with(3, 12, (2, 3, 4, 5), 0.2)
    assert block.linear.bias is not None
    assert [name for name, m in block.named_modules() if isinstance(m, nn.BatchNorm2d) and "branches" not in name] == []


def test_scales():
    def scales(model):
        blocks = [module for module in model.modules() if isinstance(module, ScaledResidual)]
        return [block.scale for block in blocks]

    assert scales(on_meta("inception_resnet_v1")) == [0.17] * 5 + [0.10] * 10 + [0.20] * 5
    own = on_meta("inception_resnet_v1", scales=(0.1, 0.2, 0.3))
    assert scales(own) == [0.1] * 5 + [0.2] * 10 + [0.3] * 5
    assert own.architecture["arguments"]["scales"] == [0.1, 0.2, 0.3]
    assert scales(on_meta("inception_resnet_v2"))[-2:] == [0.20, 1.0]


def test_the_last_block_of_v2_alone_has_no_relu():
    blocks = [m for m in on_meta("inception_resnet_v2").modules() if isinstance(m, ScaledResidual)]
    assert [type(block.relu) for block in blocks] == [nn.ReLU] * 39 + [nn.Identity]
    blocks = [m for m in on_meta("inception_resnet_v1").modules() if isinstance(m, ScaledResidual)]
    assert {type(block.relu) for block in blocks} == {nn.ReLU}
    ends = inception_resnet.block_with(3, 6, (2, 2, 2, 2), 1.0, nn.Identity).eval()
    assert (ends(torch.randn(1, 6, 4, 4)) < 0).any()


def test_arguments():
    model = on_meta("inception_resnet_v1", dropout=0.3, num_classes=5, in_channels=1)
    assert model.head.dropout.p == 0.3
    assert model(torch.empty(2, 1, 96, 96, device="meta")).shape == (2, 5)
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}
