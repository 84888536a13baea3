"""Densely connected networks: the counts that the paper prints, layers by their formulas, dropout, the start."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.recompute import recomputable
from layerwise.models import build, densenet, reported
from layerwise.models.densenet import DenseBlock, bottleneck_layer, dense_layer, transition
from layerwise.models.shapes import cost, stage_shapes
from tests.model_counts import COUNTS
from tests.test_resnet import batch_norm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_hand(depths, growth_rate, first, bottleneck, compression, stem, classes):
    """Parameters and multiply-adds from section 3's description, as sums over the layers.

    `stem`: (weights of a map's kernel in the first convolution, its output pixels, parameters of its normalisation);
    without normalisation no pooling follows it.
    """
    pixels = stem[1] // 4 if stem[2] else stem[1]
    parameters, operations, channels = first * stem[0] + stem[2], first * stem[0] * stem[1], first
    for number, depth in enumerate(depths):
        for _ in range(depth):
            inner = 4 * growth_rate if bottleneck else channels
            weights = 9 * inner * growth_rate + (channels * inner if bottleneck else 0)
            parameters += 2 * channels + weights + (2 * inner if bottleneck else 0)
            operations += pixels * weights
            channels += growth_rate
        parameters += 2 * channels  # of the transition, or of the last activation
        if number + 1 < len(depths):
            compressed = int(compression * channels)
            parameters += channels * compressed
            operations += pixels * channels * compressed
            channels, pixels = compressed, pixels // 4
    return parameters + channels * classes + classes, operations + channels * classes


CIFAR = (27, 32 * 32, 0)
HAND = {
    f"densenet{100 if depth > 40 else 40}_k{k}": ((depth - 4) // 3, k, 16, False, 1.0)
    for depth, k in ((40, 12), (100, 12), (100, 24))
} | {f"densenet_bc{depth}_k{k}": ((depth - 4) // 6, k, 2 * k, True, 0.5)
     for depth, k in ((40, 12), (100, 12), (250, 24), (190, 40))}  # fmt: skip


@pytest.mark.parametrize("name", HAND)
def test_cifar_counts_by_hand(name):
    layers, growth_rate, first, bottleneck, compression = HAND[name]
    counted = by_hand(3 * (layers,), growth_rate, first, bottleneck, compression, CIFAR, 10)
    assert counted == COUNTS[name][:2]


@pytest.mark.parametrize(
    ("name", "depths", "growth_rate"),
    [("densenet161", (6, 12, 36, 24), 48), ("densenet264", (6, 12, 64, 48), 32), ("densenet121", (6, 12, 24, 16), 32)],
)
def test_imagenet_counts_by_hand(name, depths, growth_rate):
    stem = (3 * 49, 112 * 112, 4 * growth_rate)
    counted = by_hand(depths, growth_rate, 2 * growth_rate, True, 0.5, stem, 1000)
    assert counted == COUNTS[name][:2]


PRINTED = {"densenet40_k12": 1.0, "densenet100_k12": 7.0, "densenet100_k24": 27.2, "densenet_bc100_k12": 0.8,
           "densenet_bc250_k24": 15.3, "densenet_bc190_k40": 25.6}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_table_2_prints_these_millions(name):
    assert round(COUNTS[name][0] / 1e6, 1) == PRINTED[name]


def test_what_others_call_densenet40_and_100_is_not_table_2():
    """Compression without bottlenecks: it fails on the printed 1.0 and 7.0 million."""
    assert round(COUNTS["densenet_c40_k12"][0] / 1e6, 1) == 0.6
    assert round(COUNTS["densenet_c100_k12"][0] / 1e6, 1) == 4.1
    assert by_hand((12, 12, 12), 12, 24, False, 0.5, CIFAR, 10) == COUNTS["densenet_c40_k12"][:2]
    assert by_hand((32, 32, 32), 12, 24, False, 0.5, CIFAR, 10) == COUNTS["densenet_c100_k12"][:2]


@pytest.mark.parametrize("name", densenet.VARIANTS)
def test_depth_is_in_the_name(name):
    with torch.device("meta"):
        model = build(name)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    # The paper's own contradiction: 2 (6 + 12 + 64 + 48) + 5 are 265 layers, table 1 calls the network DenseNet-264.
    assert len(layers) == int(re.findall(r"\d+", name)[0]) + (name == "densenet264")


def test_table_1():
    stages = stage_shapes("densenet121")
    assert list(stages.values()) == [
        (64, 112, 112), (64, 56, 56), (256, 56, 56), (128, 28, 28), (512, 28, 28), (256, 14, 14), (1024, 14, 14),
        (512, 7, 7), (1024, 7, 7), (1024, 7, 7)]  # fmt: skip
    assert stage_shapes("densenet161")["activation"] == (2208, 7, 7)
    assert stage_shapes("densenet201")["activation"] == (1920, 7, 7)


def test_stages_of_the_cifar_networks():
    assert list(stage_shapes("densenet40_k12").values()) == [
        (16, 32, 32), (160, 32, 32), (160, 16, 16), (304, 16, 16), (304, 8, 8), (448, 8, 8), (448, 8, 8)]  # fmt: skip
    assert stage_shapes("densenet_bc100_k12")["activation"] == (342, 8, 8)


def test_every_layer_of_a_block_sees_all_maps_before_it():
    """Eq. 2 by hand, with bottlenecks; left out one map, it is another function."""
    layers = {f"layer_{index}": bottleneck_layer(6 + 4 * index, 4, 0.0) for index in range(3)}
    block = DenseBlock(layers).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    maps = [torch.randn(4, 6, 5, 5, dtype=torch.float64)]
    for layer in layers.values():
        inner = batch_norm(torch.cat(maps, 1), layer.bottleneck.bn).clamp(min=0)
        inner = F.conv2d(inner, layer.bottleneck.conv.weight)
        inner = batch_norm(inner, layer.composite.bn).clamp(min=0)
        maps.append(F.conv2d(inner, layer.composite.conv.weight, padding=1))
    found = block(maps[0])
    torch.testing.assert_close(found, torch.cat(maps, 1))
    maps[1] = torch.zeros_like(maps[1])
    assert not torch.allclose(layers["layer_2"](tuple(maps[:3])), found[:, -4:])


def test_a_layer_without_bottleneck_and_a_transition():
    layer, between = dense_layer(6, 4, 0.0).double(), transition(6, 3, 0.0).double()
    x = torch.randn(4, 6, 5, 5, dtype=torch.float64)
    activated = batch_norm(x, layer.bn).clamp(min=0)
    torch.testing.assert_close(layer((x,)), F.conv2d(activated, layer.conv.weight, padding=1))
    torch.testing.assert_close(between(x), F.avg_pool2d(F.conv2d(activated, between.conv.weight), 2))


def test_dropout_follows_every_convolution_but_the_first():
    """Section 4.2. Its rate is an argument; 0 by default."""
    for name in ("densenet40_k12", "densenet_bc100_k12"):
        model = build(name, num_classes=3, dropout=0.2)
        kinds = [type(module) for module in model.features.modules() if isinstance(module, nn.Conv2d | nn.Dropout)]
        assert kinds[1:] == [nn.Conv2d, nn.Dropout] * (len(kinds) // 2)
        assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.2}
        x = torch.randn(2, 3, 8, 8)
        assert not torch.equal(model(x), model(x))
        still = build(name, num_classes=3)
        assert torch.equal(still(x), still(x))


def test_memory_format_does_not_matter():
    model, images = build("densenet_bc40_k12", num_classes=5).eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images)
        found = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_start_after_he():
    for module in build("densenet_bc100_k12").modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 3000:
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / module.weight[0].numel()), rel=0.08)
        elif isinstance(module, nn.Conv2d):
            assert module.bias is None


def test_what_is_computed_again_is_the_part_that_is_concatenated():
    with torch.device("meta"):
        assert len(recomputable(build("densenet_bc100_k12").features)) == 48
        assert len(recomputable(build("densenet40_k12").features)) == 36


def test_reported_errors_of_table_2():
    assert [one.error for one in reported("densenet_bc190_k40")] == [3.46, 17.18]


def test_the_table_of_layers_adds_up_with_dropout():
    assert cost(build("densenet_bc40_k12", dropout=0.2)).parameters == COUNTS["densenet_bc40_k12"][0]
