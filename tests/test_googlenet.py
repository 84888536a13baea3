"""GoogLeNet: table 1 of the paper as it prints it, its auxiliary heads, and what the published variant changes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.layers.response_norm import ResponseNorm
from layerwise.models import build, googlenet
from layerwise.models.shapes import cost, stage_shapes

SHAPES = {
    "conv1": (64, 112, 112), "pool1": (64, 56, 56), "conv2": (192, 56, 56), "pool2": (192, 28, 28),
    "inception_3a": (256, 28, 28), "inception_3b": (480, 28, 28), "pool3": (480, 14, 14),
    "inception_4a": (512, 14, 14), "inception_4b": (512, 14, 14), "inception_4c": (512, 14, 14),
    "inception_4d": (528, 14, 14), "inception_4e": (832, 14, 14), "pool4": (832, 7, 7),
    "inception_5a": (832, 7, 7), "inception_5b": (1024, 7, 7),
}  # fmt: skip
# Table 1: params in K (1,024 weights, no biases), ops in M (multiply-adds).
PRINTED = {
    "conv1": (2.7, 34), "conv2": (112, 360), "inception_3a": (159, 128), "inception_3b": (380, 304),
    "inception_4a": (364, 73), "inception_4b": (437, 88), "inception_4c": (463, 100), "inception_4d": (580, 119),
    "inception_4e": (840, 170), "inception_5a": (1072, 54), "inception_5b": (1388, 71), "fc": (1000, 1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@cache
def on_meta(name="googlenet", **arguments):
    with torch.device("meta"):
        return build(name, **arguments)


def same(name):
    return {stage: shape for stage, shape in stage_shapes(name).items() if not stage.startswith("norm")}


@pytest.mark.parametrize("name", googlenet.VARIANTS)
def test_sizes_of_table_1(name):
    assert same(name) == SHAPES


def test_sizes_of_table_1_need_pools_that_round_up():
    with torch.device("meta"):
        model = build("googlenet")
    for pool in (model.features.pool1, model.features.pool2, model.features.pool3, model.features.pool4):
        pool.ceil_mode = False
    sides = [stage_shapes(model, (3, 224, 224))[f"pool{i}"][1] for i in (1, 2, 3, 4)]
    assert sides == [55, 27, 13, 6]  # the control, and what graphs without the rounding have


def test_the_printed_counts_of_table_1_hold_but_for_three():
    rows = cost("googlenet").rows
    holds = {"params": [], "ops": []}
    for stage, (params, ops) in PRINTED.items():
        own = [row for row in rows if stage in row.name.split(".")]
        weights = sum(row.parameters - row.output[0] for row in own if row.multiply_adds)
        if weights / 1024 == pytest.approx(params, rel=0.02):
            holds["params"].append(stage)
        if sum(row.multiply_adds for row in own) / 1e6 == pytest.approx(ops, abs=1):
            holds["ops"].append(stage)
    assert set(PRINTED) - set(holds["params"]) == {"conv1", "inception_4c", "inception_5a"}
    assert set(PRINTED) - set(holds["ops"]) == {"conv1", "inception_5a"}


def test_22_layers_with_parameters():
    """Section 5: 22 layers deep when only layers with parameters are counted; a module is two deep."""
    with_parameters = {row.name.split(".")[1] for row in cost("googlenet").rows if row.parameters}
    modules = [name for name in with_parameters if name.startswith("inception")]
    assert len(modules) == 9
    assert 2 * len(modules) + len(["conv1", "conv2 reduce", "conv2", "fc"]) == 22


def test_true_5x5_kernels():
    sides = [layer.kernel_size[0] for layer in on_meta().features.modules() if isinstance(layer, nn.Conv2d)]
    assert (sides.count(5), sides.count(3)) == (9, 10)
    sides = [
        layer.kernel_size[0] for layer in on_meta("googlenet_3x3").features.modules() if isinstance(layer, nn.Conv2d)
    ]
    assert (sides.count(5), sides.count(3)) == (0, 19)


def test_response_norm_without_batch_norm_and_the_reverse():
    def count(name, kind):
        return sum(isinstance(layer, kind) for layer in on_meta(name).modules())

    assert (count("googlenet", ResponseNorm), count("googlenet", nn.BatchNorm2d)) == (2, 0)
    assert (count("googlenet_3x3", ResponseNorm), count("googlenet_3x3", nn.BatchNorm2d)) == (0, 59)
    assert {m.eps for m in on_meta("googlenet_3x3").modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_a_module_is_the_concatenation_of_its_branches():
    module = googlenet.inception(googlenet.PAPER_PARTS, 4, (2, 3, 5, 2, 3, 1)).double()
    maps = torch.randn(2, 4, 6, 6, dtype=torch.float64)

    def conv(layer, inputs):
        return F.conv2d(inputs, layer.conv.weight, layer.conv.bias, padding=layer.conv.weight.shape[-1] // 2).relu()

    expected = [
        conv(module.branch1.layer1, maps),
        conv(module.branch2.layer2, conv(module.branch2.layer1, maps)),
        conv(module.branch3.layer2, conv(module.branch3.layer1, maps)),
        conv(module.branch4.layer1, F.max_pool2d(maps, 3, 1, 1)),
    ]
    assert module.branch3.layer2.conv.weight.shape == (3, 2, 5, 5)
    torch.testing.assert_close(module(maps), torch.cat(expected, 1), rtol=1e-12, atol=1e-12)
    swapped = torch.cat([*expected[2:], *expected[:2]], 1)  # the control: another order
    assert not torch.allclose(module(maps), swapped)


def test_auxiliary_heads():
    model = on_meta()
    assert {stage: sum(p.numel() for p in head.parameters()) for stage, head in model.auxiliary.items()} == {
        "inception_4a": 128 * 512 + 128 + 2048 * 1024 + 1024 + 1024 * 1000 + 1000,
        "inception_4d": 128 * 528 + 128 + 2048 * 1024 + 1024 + 1024 * 1000 + 1000,
    }
    assert sum(p.numel() for p in model.parameters()) == 13_378_280
    # Section 5: "4x4x512 output for the (4a), and 4x4x528 for the (4d) stage"
    assert model.auxiliary.inception_4a.pool(torch.empty(1, 512, 14, 14, device="meta")).shape == (1, 512, 4, 4)
    logits, answers = model.with_auxiliary(torch.empty(2, 3, 224, 224, device="meta"))
    assert logits.shape == answers["inception_4a"].shape == answers["inception_4d"].shape == (2, 1000)


def test_the_variant_s_auxiliary_heads_take_any_size():
    image = torch.empty(2, 3, 96, 96, device="meta")
    assert on_meta("googlenet_3x3").with_auxiliary(image)[1]["inception_4a"].shape == (2, 1000)
    with pytest.raises(RuntimeError):  # the control: the paper's are made for 14x14 maps
        on_meta("googlenet").with_auxiliary(image)
    assert sum(p.numel() for p in on_meta("googlenet_3x3").parameters()) == 13_004_888


def test_dropout_before_the_last_layers():
    """Sections 5 and 6: 40 % and 70 %; torchvision's GoogLeNet has 20 % and 70 %."""
    for name, last in (("googlenet", 0.4), ("googlenet_3x3", 0.2)):
        parts = [layer.p for layer in on_meta(name).modules() if isinstance(layer, nn.Dropout)]
        assert parts == [last, 0.7, 0.7]
        model = on_meta(name, dropout=0.1, auxiliary_dropout=0.3)
        assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.1, 0.3, 0.3]
        assert model.architecture["arguments"]["auxiliary_dropout"] == 0.3


def test_start():
    model = build("googlenet", num_classes=3)
    layer = model.features.inception_5b.branch2.layer2.conv
    assert layer.weight.std().item() == pytest.approx((2 / (192 * 9)) ** 0.5, rel=0.02)
    assert all(not layer.bias.any() for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
