"""Pooling layers against loops in numpy; gradients against differences in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from layerwise.layers.pooling import LpPool2d, MixedPool2d, RoIPool, SpatialPyramidPool, StochasticPool2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def by_windows(x: torch.Tensor, kernel_size: int, stride: int, function) -> np.ndarray:
    """`function` of the values of each window."""
    n, c, height, width = x.shape
    result = np.empty((n, c, (height - kernel_size) // stride + 1, (width - kernel_size) // stride + 1))
    for at in np.ndindex(*result.shape):
        top, left = at[2] * stride, at[3] * stride
        result[at] = function(x[at[0], at[1], top : top + kernel_size, left : left + kernel_size].numpy().ravel())
    return result


def test_overlapping_pooling_is_torchs_own():
    """AlexNet, section 3.4: z = 3 and s = 2; the traditional s = z = 2 gives maps of the same size, not the same."""
    x = maps(2, 3, 13, 15)
    overlapping = nn.MaxPool2d(3, stride=2)(x)
    np.testing.assert_array_equal(overlapping.numpy(), by_windows(x, 3, 2, np.max))
    traditional = nn.MaxPool2d(2, stride=2)(x)
    assert traditional.shape == overlapping.shape
    assert not torch.equal(traditional, overlapping)


@pytest.mark.parametrize("p", [1, 2, 3, 2.5, 12, math.inf])
@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (3, 2)])
def test_lp_against_loops(p, kernel_size, stride):
    x = maps(2, 3, 7, 6)
    norm = by_windows(x, kernel_size, stride, lambda values: np.linalg.norm(values, p))
    np.testing.assert_allclose(LpPool2d(p, kernel_size, stride)(x).numpy(), norm, rtol=1e-12)


def test_why_not_torchs_lp_pooling():
    x = maps(1, 1, 4, 4)
    torch.testing.assert_close(nn.LPPool2d(2, 2)(x), LpPool2d(2, 2)(x))
    assert not torch.allclose(nn.LPPool2d(3, 2)(x), LpPool2d(3, 2)(x), rtol=1e-2)  # signs of odd powers
    assert nn.LPPool2d(2.5, 2)(x).isnan().any()
    torch.testing.assert_close(nn.LPPool2d(math.inf, 2)(x), LpPool2d(math.inf, 2)(x))  # here they agree
    assert nn.LPPool2d(100, 2)(torch.full((1, 1, 2, 2), 30.0)).isinf()


def test_lp_of_zeros_has_no_gradient():
    zeros = torch.zeros(1, 1, 2, 2, requires_grad=True)
    LpPool2d(2, 2)(zeros).sum().backward()
    assert torch.equal(zeros.grad, torch.zeros(1, 1, 2, 2))


def test_a_high_power_neither_overflows_nor_vanishes():
    x = torch.tensor([[1.0, -30.0], [2.0, 3.0]])[None, None]
    assert LpPool2d(100, 2)(x).item() == pytest.approx(30)
    assert LpPool2d(100, 2)(x / 1e3).item() == pytest.approx(0.03)
    assert torch.linalg.vector_norm(x, 100).isinf()  # the control: without the scale


def test_lp_gradients():
    for p in (1, 2, 3.5, math.inf):
        assert torch.autograd.gradcheck(LpPool2d(p, 3, 2), [maps(1, 2, 5, 5).requires_grad_()])


def test_mixed_pooling_draws_a_method_for_each_map():
    x, layer = maps(40, 50, 4, 4), MixedPool2d(2)
    largest, average = by_windows(x, 2, 2, np.max), by_windows(x, 2, 2, np.mean)
    drawn = layer(x).numpy()
    took_largest = np.isclose(drawn, largest).all((2, 3))
    assert (took_largest ^ np.isclose(drawn, average).all((2, 3))).all()
    assert abs(took_largest.mean() - 0.5) < 4 * 0.5 / math.sqrt(2000)
    for axis in (0, 1):  # neither a whole picture nor a map of all pictures has one method
        assert 0 < took_largest.mean(axis).min() <= took_largest.mean(axis).max() < 1
    np.testing.assert_allclose(layer.eval()(x).numpy(), (largest + average) / 2, rtol=1e-12)


def test_mixed_pooling_gradients():
    x, layer = maps(1, 3, 4, 4).requires_grad_(), MixedPool2d(3, 1)

    def drawn(values):
        torch.manual_seed(0)
        return layer(values)

    assert torch.autograd.gradcheck(drawn, [x])
    assert torch.autograd.gradcheck(layer.eval(), [x])


def test_mixed_pooling_in_the_mean_is_its_evaluation():
    x, layer = maps(1, 2, 4, 4), MixedPool2d(3, 1)
    mean = layer(x.expand(4000, -1, -1, -1)).mean(0)
    error = (mean - layer.eval()(x)[0]).abs().max()
    assert error < 0.1
    assert (nn.MaxPool2d(3, 1)(x)[0] - mean).abs().max() > 2 * error  # the control


def test_stochastic_pooling_draws_by_the_activations():
    """Zeiler & Fergus 2013, figure 1's window: 1.6, 2.4 and zeros are drawn with 0.4, 0.6 and never."""
    window = torch.tensor([[0.0, 1.6, 0.0], [0.0, 0.0, 2.4], [0.0, -5.0, 0.0]], dtype=torch.float64)
    layer, draws = StochasticPool2d(3), 20_000
    drawn = layer(window.expand(draws, 1, 3, 3)).ravel()
    assert set(drawn.unique().tolist()) == {1.6, 2.4}
    deviation = math.sqrt(0.4 * 0.6 / draws)
    assert abs((drawn == 1.6).double().mean() - 0.4) < 4 * deviation
    assert layer.eval()(window[None, None]).item() == pytest.approx(0.4 * 1.6 + 0.6 * 2.4)
    assert abs(drawn.mean().item() - layer(window[None, None]).item()) < 4 * 0.8 * deviation


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_stochastic_pooling_never_draws_a_zero_beside_an_activation(dtype):
    x = maps(2, 3, 60, 60).relu().to(dtype)
    drawn = StochasticPool2d(3, 2)(x)
    largest = nn.MaxPool2d(3, 2)(x)
    assert ((drawn > 0) == (largest > 0)).all()
    assert drawn.dtype == dtype


def test_stochastic_pooling_against_loops():
    x = maps(2, 3, 7, 5).relu()
    x[0, 0] = 0
    layer = StochasticPool2d(3, 2)
    drawn = layer(x).numpy()
    assert by_windows(x, 3, 2, len).shape == drawn.shape
    for at in np.ndindex(*drawn.shape):
        assert drawn[at] in x[at[0], at[1], 2 * at[2] : 2 * at[2] + 3, 2 * at[3] : 2 * at[3] + 3]
    expected = by_windows(x, 3, 2, lambda a: (a**2).sum() / a.sum() if a.any() else 0.0)
    np.testing.assert_allclose(layer.eval()(x).numpy(), expected, rtol=1e-12)


def test_stochastic_pooling_gradients():
    x = (maps(1, 2, 4, 4).abs() + 0.1).requires_grad_()
    layer = StochasticPool2d(2)
    layer(x).sum().backward()
    assert torch.equal(torch.nn.functional.avg_pool2d(x.grad, 2), torch.full((1, 2, 2, 2), 0.25).double())
    assert set(x.grad.unique().tolist()) == {0.0, 1.0}  # the gradient goes to the activation that was drawn
    assert torch.autograd.gradcheck(layer.eval(), [x])


def pyramid_by_loops(x: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    height, width = x.shape[2:]
    vector = []
    for n in levels:
        for c, i, j in np.ndindex(x.shape[1], n, n):
            rows = slice(math.floor(i * height / n), math.ceil((i + 1) * height / n))
            columns = slice(math.floor(j * width / n), math.ceil((j + 1) * width / n))
            vector.append(x[:, c, rows, columns].max((1, 2)))
    return np.stack(vector, 1)


@pytest.mark.parametrize("size", [(13, 13), (10, 10), (7, 18)])
def test_spatial_pyramid_against_loops(size):
    x = maps(2, 3, *size)
    found = SpatialPyramidPool((6, 3, 2, 1))(x)
    assert found.shape == (2, 3 * 50)  # "totally 50 bins" (section 3.1)
    np.testing.assert_array_equal(found.numpy(), pyramid_by_loops(x.numpy(), (6, 3, 2, 1)))
    assert torch.equal(found[:, -3:], x.amax((2, 3)))


def test_spatial_pyramid_gradients():
    assert torch.autograd.gradcheck(SpatialPyramidPool((3, 2, 1)), [maps(1, 2, 5, 4).requires_grad_()])


def test_section_2_3s_windows_are_the_bins_where_they_fit():
    """Windows of ceil(a / n) at stride floor(a / n) (section 2.3): for a = 13 the same bins; for a = 10, n = 6 not."""
    x = maps(1, 2, 13, 13)
    for n in (3, 2, 1):
        assert torch.equal(nn.MaxPool2d(math.ceil(13 / n), 13 // n)(x).flatten(1), SpatialPyramidPool((n,))(x))
    assert nn.MaxPool2d(math.ceil(10 / 6), 10 // 6)(x[:, :, :10, :10]).shape[2:] == (9, 9)


def roi_by_loops(x: np.ndarray, regions: list[tuple[float, ...]], size: tuple[int, int], scale: float) -> np.ndarray:
    """Every position of every sub-window, one after the other."""
    result = np.zeros((len(regions), x.shape[1], *size))
    for r, (n, *corners) in enumerate(regions):
        x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(corner * scale) + 0.5), corner)) for corner in corners)
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for c, i, j in np.ndindex(x.shape[1], *size):
            values = [
                x[int(n), c, row, column]
                for row in range(y1 + math.floor(i * height / size[0]), y1 + math.ceil((i + 1) * height / size[0]))
                for column in range(x1 + math.floor(j * width / size[1]), x1 + math.ceil((j + 1) * width / size[1]))
                if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
            ]
            result[r, c, i, j] = max(values, default=0.0)
    return result


REGIONS = [
    (0, 0, 0, 159, 127),  # the whole picture: its last pixel lies nearest to a position outside the map
    (1, 8, 8, 103, 71),  # halves
    (1, 33, 17, 120, 90),
    (0, 40, 40, 41, 41),  # smaller than the grid: sub-windows overlap
    (1, 50, 90, 20, 10),  # corners the wrong way round count as one position
    (0, -40, -25, 60, 200),  # sticks out
    (1, 300, 300, 400, 400),  # wholly outside
]


@pytest.mark.parametrize("size", [(7, 7), (2, 3), (1, 1)])
def test_roi_against_loops(size):
    x = maps(2, 3, 8, 10)
    found = RoIPool(size, 1 / 16)(x, torch.tensor(REGIONS, dtype=torch.float32)).numpy()
    np.testing.assert_array_equal(found, roi_by_loops(x.numpy(), REGIONS, size, 1 / 16))
    assert not found[-1].any()


def test_roi_rounds():
    """The control: corners cut down instead of rounded make other regions."""
    x, layer = maps(1, 1, 8, 8), RoIPool((2, 2), 1 / 16)
    region = torch.tensor([[0.0, 24, 24, 88, 88]])  # 1.5 and 5.5 become 2 and 6
    assert torch.equal(layer(x, region), layer(x, torch.tensor([[0.0, 32, 32, 96, 96]])))
    assert not torch.equal(layer(x, region), layer(x, torch.tensor([[0.0, 16, 16, 80, 80]])))


def test_one_region_is_a_pyramid_of_one_level():
    x = maps(1, 4, 9, 11)
    whole = RoIPool((3, 3), 1.0)(x, torch.tensor([[0.0, 0, 0, 10, 8]]))
    assert torch.equal(whole.flatten(1), SpatialPyramidPool((3,))(x))


def test_roi_gradients():
    x = maps(2, 2, 5, 6).requires_grad_()
    regions = torch.tensor([(0, 0, 0, 90, 70), (1, 10, 20, 50, 60), (1, 0, 0, 95, 40)], dtype=torch.float64)
    layer = RoIPool((2, 2), 1 / 16)
    assert torch.autograd.gradcheck(lambda values: layer(values, regions), [x])
    # eq. 4: a position sums the gradients of all sub-windows of all regions in which it is the largest
    weights = maps(3, 2, 2, 2)
    (layer(x, regions) * weights).sum().backward()
    expected = torch.zeros_like(x)
    pooled = layer(x, regions).detach()
    for r, c, i, j in np.ndindex(3, 2, 2, 2):
        n = int(regions[r, 0])
        at = (x[n, c] == pooled[r, c, i, j]).nonzero()
        assert len(at) == 1
        expected[n, c, at[0, 0], at[0, 1]] += weights[r, c, i, j]
    torch.testing.assert_close(x.grad, expected)


def test_no_region():
    x = maps(1, 2, 4, 4).requires_grad_()
    pooled = RoIPool((2, 2), 1.0)(x, torch.zeros(0, 5))
    assert pooled.shape == (0, 2, 2, 2)
    pooled.sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize("layer", [LpPool2d(2, 3, 2), MixedPool2d(2), StochasticPool2d(2), SpatialPyramidPool((2, 1))],
                         ids=lambda layer: type(layer).__name__)  # fmt: skip
def test_memory_format_does_not_matter(layer):
    x = maps(2, 3, 6, 6)
    torch.testing.assert_close(layer.eval()(x.contiguous(memory_format=torch.channels_last)), layer(x))


def test_what_is_no_norm():
    with pytest.raises(AssertionError, match="no norm"):
        LpPool2d(0.5, 2)
