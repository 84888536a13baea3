"""Maximum pooling of compile=norm: the bits of torch's layer, where it is possible, nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from layerwise import models
from layerwise.recipes.presets import preset
from layerwise.training import fused, pooling
from layerwise.training.fused import fuse_normalisation
from layerwise.training.pooling import Highest, can_pool

BF16 = replace(preset("fast"), device="cpu", precision="bf16", memory_format="channels-last", compile="norm",
               network="airnet", channels=3, input_size=32)
REAL = fused._compiled
SHAPES = [(2, 8, 8, 8), (3, 24, 7, 9), (1, 100, 5, 6), (2, 3, 2, 3), (4, 64, 31, 31)]


def as_written(loop: Callable[..., Any]) -> Callable[..., Any]:
    return loop


def pooled(maps: Tensor, compiled: Callable[..., Any] | None) -> tuple[Tensor, Tensor]:
    """The answer and the slope that comes back, by our loops or (None) by torch's layer."""
    maps = maps.clone().requires_grad_()
    answer = max_pool2d(maps, 2) if compiled is None else Highest.apply(maps, compiled)  # type: ignore[no-untyped-call]
    slope = torch.linspace(-1, 2, answer.numel()).reshape(answer.shape).to(answer.dtype)
    return answer.detach(), torch.autograd.grad(answer, maps, slope)[0]


def some(shape: tuple[int, ...], values: int = 0) -> Tensor:
    """Maps of normal numbers, or of so many different integers, which are often equal."""
    torch.manual_seed(0)
    maps = torch.randint(values, shape) - values // 2 if values else torch.randn(shape)
    return maps.bfloat16().contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [0, 3])
def test_the_bits_are_those_of_torchs_layer(shape: tuple[int, ...], values: int,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    maps = some(shape, values)
    expected = pooled(maps, None)
    found = pooled(maps, as_written)
    assert all(itertools.starmap(torch.equal, zip(found, expected, strict=True)))
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    if values and maps.numel() > 100:  # the control: of equals the last would be another one
        first = pooling._highest
        monkeypatch.setattr(pooling, "_highest", lambda windows: (
            first(windows)[0], 3 - first(windows.flip(2, 4))[1]))
        assert not torch.equal(pooled(maps, as_written)[1], expected[1])


def test_what_is_no_number_stays_so() -> None:
    maps = some((2, 4, 6, 6))
    maps[0, 1, 3, 2] = maps[1, 0, 0, 0] = float("nan")
    answer = pooled(maps, as_written)[0]
    assert torch.equal(answer.isnan(), pooled(maps, None)[0].isnan())
    assert int(answer.isnan().sum()) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiled_loops_serve_networks_of_all_sizes() -> None:
    """With three compilations each at most: torch's limit, behind which loops run as they are written, is eight."""
    if missing := fused.missing_for_compiler():
        pytest.skip(f"torch's compiler can't work here: {missing}")
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    torch._dynamo.utils.counters.clear()
    for shape in ((16, 64, 31, 31), (16, 256, 15, 15), (5, 256, 7, 7), (4, 64, 56, 56), (8, 128, 28, 20)):
        maps = some(shape, 5)
        assert all(itertools.starmap(torch.equal, zip(pooled(maps, REAL), pooled(maps, None), strict=True))), shape
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6


@pytest.mark.parametrize(("layer", "can"), [
    (nn.MaxPool2d(2), True), (nn.MaxPool2d((2, 2), (2, 2)), True), (nn.MaxPool2d(3, 2), False),
    (nn.MaxPool2d(2, 1), False), (nn.MaxPool2d(2, padding=1), False), (nn.MaxPool2d(2, dilation=2), False),
    (nn.MaxPool2d(2, ceil_mode=True), False), (nn.MaxPool2d(2, return_indices=True), False), (nn.AvgPool2d(2), False),
])
def test_which_layers_it_is_for(layer: nn.Module, can: bool) -> None:
    assert can_pool(layer) == can


def test_a_network_takes_it_in_training_where_maps_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_compiled", as_written)
    monkeypatch.setattr(fused, "missing_for_compiler", lambda: "")
    calls: list[tuple[int, ...]] = []
    real = pooling._highest
    monkeypatch.setattr(pooling, "_highest", lambda windows: calls.append(tuple(windows.shape)) or real(windows))  # type: ignore[func-returns-value]
    torch.manual_seed(0)
    model = models.build("airnet").to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    assert fuse_normalisation(model, BF16) == 6
    images = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def learnt(fewest: int) -> list[Tensor]:
        monkeypatch.setattr(fused, "FEWEST", fewest)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            model(images).float().logsumexp(1).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    learnt(1)
    assert calls == [(8, 15, 2, 15, 2, 64), (8, 7, 2, 7, 2, 256), (8, 3, 2, 3, 2, 256)]
    learnt(1 << 20)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(images)
    model(images)  # in fp32
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        model(images)
    assert len(calls) == 3
