"""Convolutions in shapes that fill tiles: the same answers and gradients, where the rule says so, nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from layerwise import hardware, models
from layerwise.recipes.presets import preset
from layerwise.training import tiles
from layerwise.training.tiles import by_columns, fill_tiles, in_strips, over_positions

BF16 = replace(preset("fast"), device="cpu", precision="bf16", memory_format="channels-last", compile="no")
WAYS = ("in_strips", "over_positions", "by_columns")
Pair = tuple[int, int]


@pytest.fixture(autouse=True)
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AMX: the arithmetic is there on every processor, only its speed is not."""
    monkeypatch.setattr(hardware, "has_tiles", lambda: True)


def answered(maps: Tensor, weight: Tensor, bias: Tensor, stride: Pair, padding: Pair, together: int) -> list[Tensor]:
    """The convolution's answer, then the gradients of a fixed sum over it to maps, weights and bias."""
    inputs = [part.clone().requires_grad_() for part in (maps, weight, bias)]
    if together:
        answer = in_strips(*inputs, stride, padding, together)
    elif weight.shape[2:] == (1, 1):
        answer = over_positions(*inputs, stride)
    else:
        answer = conv2d(*inputs, stride, padding)
    slope = torch.linspace(-1, 1, answer.numel(), dtype=answer.dtype).reshape(answer.shape)
    return [answer.detach(), *torch.autograd.grad(answer, inputs, slope)]


CASES: list[tuple[Pair, Pair, Pair, Pair]] = [
    ((3, 3), (1, 1), (1, 1), (5, 4)), ((3, 3), (2, 2), (1, 1), (8, 7)), ((3, 3), (2, 2), (1, 1), (7, 8)),
    ((1, 7), (1, 1), (0, 3), (6, 9)), ((5, 3), (2, 1), (2, 0), (9, 5)), ((4, 4), (3, 3), (0, 0), (10, 9)),
    ((2, 2), (1, 1), (0, 0), (3, 3)), ((3, 3), (2, 3), (2, 2), (6, 6)), ((11, 11), (4, 4), (2, 2), (20, 23)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
@pytest.mark.parametrize("together", [1, 2, 6])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_strips_answer_and_learn_as_maps_by_themselves(
    kernel: Pair, stride: Pair, padding: Pair, size: Pair, together: int, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    maps = torch.randn(6, 4, *size, dtype=torch.double).contiguous(memory_format=memory_format)
    weight, bias = torch.randn(5, 4, *kernel, dtype=torch.double), torch.randn(5, dtype=torch.double)
    expected = answered(maps, weight, bias, stride, padding, 0)
    found = answered(maps, weight, bias, stride, padding, together)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_without_zeros_between_them_maps_would_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the one above: what would come out if a strip's maps touched."""
    maps, weight = torch.randn(2, 1, 3, 3, dtype=torch.double), torch.ones(1, 1, 3, 3, dtype=torch.double)
    expected = conv2d(maps, weight, None, 1, 1)
    torch.testing.assert_close(in_strips(maps, weight, None, (1, 1), (1, 1), 2), expected)
    touching = conv2d(torch.cat([maps[:1], maps[1:]], dim=3), weight, None, 1, 1)
    assert not torch.allclose(torch.cat(touching.split(3, dim=3)), expected)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
def test_a_1x1_kernel_is_a_layer_over_positions(stride: Pair) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(3, 4, 5, 7, dtype=torch.double), torch.randn(6, 4, 1, 1, dtype=torch.double)
    bias = torch.randn(6, dtype=torch.double)
    inputs = [part.clone().requires_grad_() for part in (maps, weight, bias)]
    answer = conv2d(*inputs, stride)
    slope = torch.linspace(-1, 1, answer.numel(), dtype=answer.dtype).reshape(answer.shape)
    expected = [answer.detach(), *torch.autograd.grad(answer, inputs, slope)]
    for one, other in zip(answered(maps, weight, bias, stride, (0, 0), 0), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), [
    *(case for case in CASES if case[1][1] > 1), ((7, 7), (2, 2), (3, 3), (16, 18)), ((3, 3), (2, 2), (0, 0), (9, 10)),
    ((3, 3), (1, 2), (1, 1), (9, 9)), ((5, 6), (2, 3), (1, 2), (11, 17)), ((1, 9), (1, 4), (0, 8), (3, 21)),
])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_strides_columns_as_channels_answer_and_learn_the_same(
    kernel: Pair, stride: Pair, padding: Pair, size: Pair, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 2, *size, dtype=torch.double).contiguous(memory_format=memory_format)
    inputs = [torch.randn(5, 2, *kernel, dtype=torch.double).requires_grad_(),
              torch.randn(5, dtype=torch.double).requires_grad_()]
    answers = conv2d(maps, *inputs, stride, padding), by_columns(maps, *inputs, stride, padding)
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-11, atol=1e-11)
    slope = torch.linspace(-1, 1, answers[0].numel(), dtype=torch.double).reshape(answers[0].shape)
    for one, other in zip(*(torch.autograd.grad(answer, inputs, slope) for answer in answers), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    # the control: a window that began a column later would answer otherwise
    moved = by_columns(maps.roll(-1, 3), *inputs, stride, padding)
    assert not torch.allclose(moved, answers[0])


def learnt(model: nn.Module, images: Tensor, precision: torch.dtype | None) -> dict[str, Tensor]:
    """The gradients of a step, in double precision."""
    model.train()
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        loss = nn.functional.cross_entropy(model(images).float(), torch.arange(len(images)) % 3)
    loss.backward()
    return {name: value.grad.double() for name, value in model.named_parameters() if value.grad is not None}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """How far two steps' gradients lie apart, as a share of the second's length."""
    return float(sum(((one[name] - other[name]) ** 2).sum() for name in other) ** 0.5
                 / sum((other[name] ** 2).sum() for name in other) ** 0.5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11", "airnet"])
def test_a_network_learns_what_it_learnt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No further from the step in fp32 than torch's own convolutions in bf16 are, but for a tenth."""
    side = 32 if name == "airnet" else 64
    torch.manual_seed(1)
    images = torch.randn(8, 3, side, side).contiguous(memory_format=torch.channels_last)
    head = {"map_side": 2, "hidden_features": 32} if name == "vgg11" else {}
    calls: list[str] = []
    for way in WAYS:
        real = getattr(tiles, way)
        monkeypatch.setattr(tiles, way, lambda *words, way=way, real=real: calls.append(way) or real(*words))

    def network() -> nn.Module:
        torch.manual_seed(0)
        model = models.build(name, num_classes=3, **head).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.apply(lambda layer: setattr(layer, "p", 0.0) if isinstance(layer, nn.Dropout) else None)

    exact = learnt(network(), images, None)
    usual = learnt(network(), images, torch.bfloat16)
    assert not calls
    ours = network()
    assert fill_tiles(ours, BF16) > 0
    found = learnt(ours, images, torch.bfloat16)
    assert set(calls) == (set(WAYS) if "resnet" in name else {"in_strips"})
    assert found.keys() == usual.keys()
    assert distance(found, exact) <= 1.1 * distance(usual, exact)
    assert distance(found, {name: -value for name, value in exact.items()}) > 1  # the control


@pytest.mark.parametrize(("channels", "kernel", "size", "count", "expected"), [
    ((512, 512), 3, 7, 16, "in_strips"), ((64, 64), 3, 56, 16, ""), ((16, 16), 3, 8, 16, ""),
    ((64, 128), 3, 6, 8, "in_strips"), ((512, 512), 3, 7, 9, ""), ((256, 64), 1, 9, 3, "over_positions"),
    ((64, 256), 1, 9, 16, ""),
])
def test_where_it_pays(channels: Pair, kernel: int, size: int, count: int, expected: str,
                       monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for way in WAYS:
        monkeypatch.setattr(tiles, way, lambda *words, way=way: calls.append(way))
    layer = nn.Conv2d(*channels, kernel, padding=kernel // 2)
    assert fill_tiles(layer, BF16) == 1
    maps = torch.zeros(count, channels[0], size, size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(maps)
        with torch.no_grad():  # evaluation is torch's own convolution everywhere
            layer(maps)
    layer(maps)  # and so is a layer kept out of autocast
    assert calls == [expected] * bool(expected)


@pytest.mark.parametrize(("channels", "kernel", "stride", "learns", "taken"), [
    (3, 7, 2, False, True), (1, 11, 4, False, True), (3, 3, 1, False, False), (6, 7, 2, False, False),
    (3, 2, 2, False, False), (3, 7, 2, True, False),  # last: someone wants the picture's gradient
])
def test_columns_are_channels_in_first_layers_with_a_stride(channels: int, kernel: int, stride: int, learns: bool,
                                                            taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = tiles.by_columns
    monkeypatch.setattr(tiles, "by_columns", lambda *words: calls.append("by_columns") or real(*words))  # type: ignore[func-returns-value]
    layer = nn.Conv2d(channels, 64, kernel, stride)
    assert fill_tiles(layer, BF16) == 1
    maps = torch.randn(2, channels, 30, 30, requires_grad=learns)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(maps).sum().backward()
    assert calls == ["by_columns"] * taken
    assert (maps.grad is not None) == learns


def test_only_where_tiles_multiply_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fill_tiles(models.build("resnet20"), BF16) > 0
    for other in ({"precision": "fp32"}, {"device": "cuda:0"}, {"compile": "yes"}, {"memory_format": "contiguous"}):
        model = models.build("resnet20")
        assert fill_tiles(model, replace(BF16, **other)) == 0
        assert not any("_conv_forward" in vars(layer) for layer in model.modules())
    monkeypatch.setattr(hardware, "has_tiles", lambda: False)
    assert fill_tiles(models.build("resnet20"), BF16) == 0


def test_groups_dilation_and_other_borders_stay_torchs() -> None:
    layers = nn.Sequential(nn.Conv2d(128, 128, 1, groups=2), nn.Conv2d(128, 128, 3, dilation=2),
                           nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
                           nn.Conv2d(128, 128, 3, padding="same"))
    assert fill_tiles(layers, BF16) == 0
