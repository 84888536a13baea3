"""AirNet: its layers by hand, a start that copies, logits over nine, a normalisation without a scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from layerwise.models import build, names
from layerwise.models.airnet import VARIANTS, ShiftNorm, dirac_convolution
from layerwise.models.shapes import cost, stage_shapes


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "widths", "sides"),
    [("airnet", (64, 256, 256), (31, 15, 7, 3)), ("airnet95", (128, 384, 384), (31, 15, 7, 3))],
)
def test_layers_by_hand(name: str, widths: tuple[int, ...], sides: tuple[int, ...]) -> None:
    """Two 3x3 convolutions a stage, the first before the pooling and the second behind it."""
    found = {row.name: row for row in cost(name).rows if row.parameters}
    whiten = found["features.whiten"]
    assert (whiten.output, whiten.parameters, whiten.multiply_adds) == ((24, 31, 31), 24 * 12 + 24, 961 * 24 * 12)
    before = 24
    for number, width in enumerate(widths, 1):
        first, second = (found[f"features.stage{number}.conv{at}"] for at in (1, 2))
        assert first.output == (width, sides[number - 1], sides[number - 1])
        assert second.output == (width, sides[number], sides[number])
        assert (first.parameters, second.parameters) == (9 * before * width, 9 * width * width)
        before = width
    assert found["head.fc"].parameters == 10 * before
    assert stage_shapes(name)["stage3"] == (widths[2], 3, 3)


def test_the_narrow_one_takes_grey_pictures_of_28_and_all_take_other_sizes() -> None:
    assert stage_shapes("airnet_narrow")["whiten"] == (8, 27, 27)
    assert stage_shapes("airnet_narrow")["stage3"][1:] == (3, 3)
    assert build("airnet_narrow", in_channels=3)(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert set(VARIANTS) <= set(names())


def test_the_last_pooling_is_the_sources_window_at_its_size() -> None:
    model, images = build("airnet_narrow").eval(), torch.randn(2, 1, 28, 28)
    maps = model.features(images)
    torch.testing.assert_close(model.head.pool(maps), nn.MaxPool2d(3)(maps))


def test_a_convolution_starts_by_copying_its_input() -> None:
    conv, maps = dirac_convolution(3, 8), torch.randn(2, 3, 5, 5)
    answer = conv(maps)
    torch.testing.assert_close(answer[:, :3], maps)
    assert not torch.allclose(answer[:, 3:6], maps)  # the control: the others are random
    assert conv.weight[3:].std().item() == pytest.approx(1 / 27**0.5 / 3**0.5, rel=0.2)
    torch.testing.assert_close(dirac_convolution(4, 4)(torch.ones(1, 4, 3, 3)), torch.ones(1, 4, 3, 3))


def test_logits_are_a_ninth_of_the_last_layers() -> None:
    model, images = build("airnet_narrow").eval(), torch.randn(2, 1, 28, 28)
    before = model.head[:3](model.features(images))
    torch.testing.assert_close(model(images), before / 9)
    assert "0.111" in repr(model.head.scale)


def by_hand(maps: Tensor, shift: Tensor) -> Tensor:
    mean = maps.mean((0, 2, 3), keepdim=True)
    spread = ((maps - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (maps - mean) / (spread + 1e-5).sqrt() + shift[:, None, None]


def test_the_normalisation_learns_a_shift_and_no_scale() -> None:
    norm, maps = ShiftNorm(3), 5 * torch.randn(4, 3, 6, 6) + 2
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, -1.0, 0.5]))
    torch.testing.assert_close(norm(maps), by_hand(maps, norm.bias))
    torch.testing.assert_close(norm.running_mean, 0.4 * maps.mean((0, 2, 3)))  # 0.6 of the old, which was 0
    torch.testing.assert_close(norm(maps.contiguous(memory_format=torch.channels_last)), by_hand(maps, norm.bias))
    norm.reset_parameters()
    assert not norm.bias.any()
    assert norm.running_mean is not None
    assert not norm.running_mean.any()


def test_every_normalisation_of_the_network_has_no_scale() -> None:
    norms = [module for module in build("airnet").modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 6
    assert [name for norm in norms for name in norm.state_dict() if name == "weight"] == []
    assert all(norm.weight.eq(1).all() and not norm.weight.requires_grad for norm in norms)


def test_the_shift_is_in_the_second_derivative() -> None:
    """torch's batch normalisation without a scale leaves it out; gradgradcheck finds that."""
    inputs = [torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True),
              torch.randn(2, dtype=torch.float64, requires_grad=True)]
    norm = ShiftNorm(2).double()

    def shifted(maps: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"bias": bias}, (maps,))

    assert torch.autograd.gradgradcheck(shifted, inputs)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradgradcheck(lambda maps, bias: nn.functional.batch_norm(maps, None, None, None, bias, True),
                                     inputs)
