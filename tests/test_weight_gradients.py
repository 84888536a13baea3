"""Weights' gradients as products of matrices: the same sums, where the rule says so, and nothing else changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from layerwise import hardware, models
from layerwise.recipes.presets import preset
from layerwise.training import weight_gradients
from layerwise.training.weight_gradients import by_product, multiply_windows, pays

BF16 = replace(preset("fast"), device="cpu", precision="bf16", compile="no")


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AMX: the arithmetic is there on every processor, only its speed is not."""
    monkeypatch.setattr(hardware, "has_tiles", lambda: True)


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), [
    ((1, 1), (1, 1), (0, 0), (5, 6)), ((1, 1), (2, 2), (0, 0), (7, 6)), ((3, 3), (1, 1), (1, 1), (5, 4)),
    ((3, 3), (2, 2), (1, 1), (8, 7)), ((1, 7), (1, 1), (0, 3), (6, 9)), ((5, 3), (2, 1), (2, 0), (9, 5)),
    ((4, 4), (3, 3), (0, 0), (10, 9)),
])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_is_the_convolutions(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
                                          size: tuple[int, int], memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 4, *size, dtype=torch.double).contiguous(memory_format=memory_format)
    weight = torch.randn(6, 4, *kernel, dtype=torch.double, requires_grad=True)
    answer = nn.functional.conv2d(maps, weight, None, stride, padding)
    slope = torch.randn_like(answer)
    (expected,) = torch.autograd.grad(answer, weight, slope)
    found = by_product(maps, slope, kernel, stride, padding)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wrong = by_product(maps.flip(0), slope, kernel, stride, padding)  # the control: other pictures, another gradient
    assert not torch.allclose(wrong, expected)


def learnt(model: nn.Module, images: Tensor, precision: torch.dtype | None) -> dict[str, Tensor]:
    """The gradients of a step, in double precision."""
    model.train()
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        loss = nn.functional.cross_entropy(model(images).float(), torch.arange(len(images)) % 3)
    loss.backward()
    return {name: value.grad.double() for name, value in model.named_parameters() if value.grad is not None}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, num_classes=3)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """How far two steps' gradients lie apart, as a share of the second's length."""
    return float(sum(((one[name] - other[name]) ** 2).sum() for name in other) ** 0.5
                 / sum((other[name] ** 2).sum() for name in other) ** 0.5)


@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("mobilenet_v2", 64), ("vgg11", 64)])
def test_a_network_learns_what_it_learnt(name: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No further from the step in fp32 than torch's own convolutions in bf16 are, but for a tenth."""
    torch.manual_seed(1)
    images = torch.randn(6, 3, side, side).contiguous(memory_format=torch.channels_last)
    head = {"map_side": 2, "hidden_features": 32} if name == "vgg11" else {}
    calls: list[int] = []
    real = weight_gradients.by_product
    monkeypatch.setattr(weight_gradients, "by_product", lambda *words: calls.append(1) or real(*words))

    def network() -> nn.Module:
        torch.manual_seed(0)
        return models.build(name, num_classes=3, **head).apply(
            lambda layer: setattr(layer, "p", 0.0) if isinstance(layer, nn.Dropout) else None)

    exact = learnt(network(), images, None)
    usual = learnt(network(), images, torch.bfloat16)
    assert not calls
    ours = network()
    assert multiply_windows(ours, BF16) > 0
    found = learnt(ours, images, torch.bfloat16)
    assert calls
    assert found.keys() == usual.keys()
    assert distance(found, exact) <= 1.1 * distance(usual, exact)
    assert distance(found, {name: -value for name, value in exact.items()}) > 1  # the control


@pytest.mark.parametrize(("weight", "positions", "product"), [
    ((512, 512, 3, 3), 49, True), ((256, 64, 1, 1), 3136, False), ((64, 256, 1, 1), 3136, True),
    ((64, 64, 3, 3), 3136, False), ((16, 16, 3, 3), 64, False), ((128, 64, 3, 3), 36, True),
])
def test_where_it_pays(weight: tuple[int, ...], positions: int, product: bool) -> None:
    assert pays(weight, positions) is product


def test_only_where_tiles_multiply_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert multiply_windows(built("resnet20"), BF16) > 0
    for other in ({"precision": "fp32"}, {"device": "cuda:0"}, {"compile": "yes"}):
        model = built("resnet20")
        assert multiply_windows(model, replace(BF16, **other)) == 0
        assert not any("_conv_forward" in vars(layer) for layer in model.modules())
    monkeypatch.setattr(hardware, "has_tiles", lambda: False)
    assert multiply_windows(built("resnet20"), BF16) == 0


def test_groups_dilation_and_other_borders_stay_torchs() -> None:
    layers = nn.Sequential(nn.Conv2d(128, 128, 1, groups=2), nn.Conv2d(128, 128, 3, dilation=2),
                           nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
                           nn.Conv2d(128, 128, 3, padding="same"))
    assert multiply_windows(layers, BF16) == 0


def test_frozen_weights_and_evaluation_take_torchs_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(128, 64, 1)
    assert multiply_windows(layer, BF16) == 1
    monkeypatch.setattr(weight_gradients._Convolution, "apply", lambda *words: pytest.fail("by products"))
    maps = torch.randn(2, 128, 3, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            layer(maps)
        layer.weight.requires_grad_(False)
        layer(maps).sum().backward()
        layer.weight.requires_grad_(True)
        with pytest.raises(pytest.fail.Exception, match="by products"):
            layer(maps)


def test_biases_and_maps_get_their_gradients() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(128, 64, 3, padding=1)
    ours = nn.Conv2d(128, 64, 3, padding=1)
    ours.load_state_dict(plain.state_dict())
    assert multiply_windows(ours, BF16) == 1
    maps = torch.randn(2, 128, 5, 5)
    slopes = []
    for layer in (plain, ours):
        into = maps.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (layer(into).float() ** 2).sum().backward()
        bias = layer.get_parameter("bias")
        slopes.append([part.grad for part in (into, bias, layer.weight)])
    for expected, found in zip(*slopes, strict=True):
        assert found is not None
        assert expected is not None
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
