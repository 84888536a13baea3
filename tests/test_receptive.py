"""Receptive fields traced on the meta device, against the pixels that really change a unit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from layerwise.models import build, published_input
from layerwise.models.network import named
from layerwise.models.receptive import Fields
from layerwise.models.shapes import traced


class Shifted(nn.Module):
    """A sum of two branches that look at different places, one of them through a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(1, 1, 3, stride=2, padding=1)
        self.far = nn.Conv2d(1, 1, (1, 5), stride=2, padding=(0, 2))

    def forward(self, maps: Tensor) -> Tensor:
        shifted = nn.functional.pad(maps[:, :, 1:, 1:], (0, 1, 0, 1))
        return self.near(maps) + self.far(shifted)


NETWORKS = {
    "convolutions": nn.Sequential(nn.Conv2d(1, 1, 5, padding=2), nn.ReLU(), nn.Conv2d(1, 1, 3, stride=2, dilation=2)),
    "pooling": nn.Sequential(nn.Conv2d(1, 1, 3), nn.AvgPool2d(2), nn.Conv2d(1, 1, (1, 3)), nn.AvgPool2d(3, 2)),
    "branches": nn.Sequential(nn.Conv2d(1, 1, 3), Shifted(), nn.Conv2d(1, 1, 3)),
    "transposed": nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.ConvTranspose2d(1, 1, 4, stride=2)),
}


def seen(model: nn.Module, side: int) -> tuple[int, int]:
    """Height and width of the pixels on which a unit in the middle depends, by its gradient."""
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.3)
    picture = torch.rand(1, 1, side, side, dtype=torch.float64).requires_grad_()
    maps = model.double()(picture)
    maps[0, 0, maps.shape[2] // 2, maps.shape[3] // 2].backward()
    assert picture.grad is not None
    rows, columns = picture.grad[0, 0].abs().gt(0).nonzero().T
    return int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_field_holds_the_pixels_that_change_a_unit(name: str) -> None:
    model = NETWORKS[name]
    told = traced(model, (1, 41, 41))[-1].field
    assert told is not None
    found = seen(model, 41)
    assert (told[0], told[1]) == found if name != "transposed" else (told[0] >= found[0] and told[1] >= found[1])
    model[0].stride = (model[0].stride[0] + 1,) * 2  # the control: another network, another field
    assert traced(model, (1, 41, 41))[-1].field != told


@pytest.mark.parametrize(
    ("name", "layer", "field"),
    [
        ("alexnet", "features.pool5", (195, 195, 32)),
        ("resnet50", "features.conv5_x.conv5_3.relu", (483, 483, 32)),
        ("resnet18", "features.conv5_x.conv5_2.relu", (435, 435, 32)),
        ("lenet5", "features.C5.conv", (32, 32, 4)),
    ],
)
def test_published_fields(name: str, layer: str, field: tuple[int, int, int]) -> None:
    """The figures of Araujo et al. 2019, table 1 (alexnet 195, resnet50 483); LeNet-5's C5 sees the whole picture."""
    with torch.device("meta"):
        model = build(name)
    rows = {row.name: row.field for row in traced(model, published_input(name))}
    assert rows[layer] == field
    assert all(row is None for key, row in rows.items() if key.startswith("head.") and key != "head.pool")


def test_without_the_trace_there_is_no_field() -> None:
    picture = torch.empty(1, 1, 9, 9, device="meta")
    layer = named({"conv": nn.Conv2d(1, 1, 3, device="meta")})
    fields = Fields(picture)
    with torch.no_grad(), fields:
        inside = layer(picture)
    with torch.no_grad():
        outside = layer(picture)
    assert fields.of(inside) == (3, 3, 1)
    assert fields.of(outside) is None
