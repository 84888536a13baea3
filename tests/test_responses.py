"""Standard deviations of responses, against numbers worked out by hand and against all outputs kept at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from layerwise import models
from layerwise.errors import InputError
from layerwise.explain.order import executed, mode, normalised, replaced, watched
from layerwise.explain.responses import responses


class Scale(nn.Module):
    """3x3 convolution that passes on its map times `factor`, batch normalisation without effect but `shift`."""

    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.dirac_(self.conv.weight)
        self.conv.weight.data *= factor
        self.bn = nn.BatchNorm2d(1, eps=0.0)
        nn.init.constant_(self.bn.bias, shift)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.bn(self.conv(maps)).relu()
        return output


def test_responses_by_hand() -> None:
    """Pixels 0 and 2 have deviation 1: three times as much after the first, 3 + 1 and -1 + ReLU in the second."""
    model = nn.Sequential(Scale(3.0), Scale(-1.0, shift=4.0))
    images = torch.tensor([0.0, 2.0]).repeat(8).reshape(2, 1, 2, 4)
    first, second = responses(model, [{"image": images[:1]}, {"image": images[1:]}])
    assert (first.layer, second.layer) == ("0.conv", "1.conv")
    assert (first.mean, first.deviation) == (3.0, 3.0)  # 0 and 6
    assert (second.mean, second.deviation) == (1.0, 3.0)  # 4 and -2: before the ReLU, which would make it 4 and 0
    after = torch.tensor([4.0, 0.0]).std(correction=0)
    assert second.deviation != after  # the negative control: measured behind the ReLU it would be 2


def test_deviation_counts_the_maps_means_and_within_does_not() -> None:
    """Two maps, constant at 1 and at 5: deviation 2 over all values, 0 within the maps."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))
    nn.init.zeros_(model[0].weight)
    model[0].bias.data = torch.tensor([1.0, 5.0])
    (only,) = responses(model, [{"image": torch.randn(3, 1, 4, 4)}])
    assert (only.mean, only.deviation, only.within) == (3.0, 2.0, 0.0)


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1, 4, 4, 2, 1)])
def test_streamed_sums_equal_those_of_all_at_once(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = models.build("resnet20", in_channels=1).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 100.0)  # a mean far above the deviation, which careless sums would lose
    images = torch.randn(12, 1, 12, 12)
    kept: dict[str, torch.Tensor] = {}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    with watched(layers, lambda name, module, entered, left: kept.update({name: left.double()})), torch.no_grad():
        model(images)
    found = responses(model, [{"image": part} for part in images.split(sizes)])
    assert len(found) == 19
    for one in found:
        values = kept[_norm_of(one.layer)]
        assert one.deviation == pytest.approx(float(values.std(correction=0)), rel=1e-5)
        assert one.within == pytest.approx(math.sqrt(float(values.var((0, 2, 3), correction=0).mean())), rel=1e-5)


def _norm_of(layer: str) -> str:
    head, _, last = layer.rpartition(".")
    return f"{head}.{last.replace('conv', 'bn')}"


def test_every_3x3_layer_of_the_figure_once_and_in_order() -> None:
    """Figure 7's networks have 19, 55 and 109 3x3 layers: all layers but the fully connected one."""
    for name, layers in (("plain20", 19), ("resnet56", 55), ("resnet110", 109)):
        model = models.build(name)
        found = responses(model, [{"image": torch.randn(2, 3, 8, 8)}])
        assert len(found) == layers
        assert found[0].layer == "features.conv1.conv"
        assert found[-1].layer.startswith("features.conv4_x.")
        assert model.training  # as it was


def test_projections_are_not_compared_and_bottlenecks_count_their_middle() -> None:
    model = models.build("resnet50", num_classes=3)
    found = responses(model, [{"image": torch.randn(1, 3, 32, 32)}])
    assert len(found) == 16
    assert all(one.layer.endswith("residual.conv2") for one in found)


def test_what_cannot_be_compared_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 5), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(InputError, match="no convolution with a 3x3 kernel"):
        responses(model, [{"image": torch.randn(1, 1, 8, 8)}])
    with pytest.raises(InputError, match="no pictures"):
        responses(model, [{"image": torch.randn(0, 1, 8, 8)}])


def test_hooks_and_modes_are_restored_after_an_exception() -> None:
    model = models.build("resnet20", in_channels=1)
    model.features.conv1.eval()
    modes = [module.training for module in model.modules()]

    def broken() -> object:
        yield {"image": torch.randn(1, 1, 8, 8)}
        raise KeyError("data went away")

    with pytest.raises(KeyError):
        responses(model, broken())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())


def test_the_batch_normalisation_is_found_by_its_tensor() -> None:
    """Not by what stands next: in a pre-activated network it is the block's second one that takes conv1's output."""
    model = models.build("preact_resnet110", in_channels=1)
    follows = normalised(model, torch.randn(1, 1, 8, 8))
    unit = "features.conv2_x.conv2_2.residual."
    assert follows[f"{unit}conv1"] == f"{unit}bn2"
    assert f"{unit}conv2" not in follows  # its output is added


def test_order_of_the_computation() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.second(self.first(maps))
            return output

    assert executed(Backwards(), torch.randn(1, 1, 2, 2)) == ("first", "second")


def test_replaced_modules_are_back_as_the_same_objects() -> None:
    model = models.build("resnet20")
    before = {name: id(module) for name, module in model.named_modules()}
    def fail() -> None:
        with replaced(model, {"features.conv1.conv": nn.Identity()}):
            assert isinstance(model.get_submodule("features.conv1.conv"), nn.Identity)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert {name: id(module) for name, module in model.named_modules()} == before


def test_modes_are_back_one_by_one() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()

    def fail() -> None:
        with mode(model, training=True):
            assert model[1].training
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert (model[0].training, model[1].training) == (True, False)
