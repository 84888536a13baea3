"""Gradients, Grad-CAM, integrated gradients and occlusion: answers worked out by hand, and captum's where it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.explain import attribution
from layerwise.explain.attribution import grad_cam, gradients, integrated_gradients, saliency
from layerwise.explain.occlusion import blurred, occlusion
from tests.left_as_it_was import Breaks, breaking, left_as_it_was, small

PICTURES = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(5))
CLASSES = [[0, 2], [1, 0]]


def linear(*rows: tuple[float, ...]) -> nn.Sequential:
    """Logits are sums of the pixels, weighted by each row; pictures of 1 x 1 x len(row)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(rows[0]), len(rows), bias=False))
    model[1].weight.data = torch.tensor(rows)
    return model


def test_gradient_and_saliency_by_hand() -> None:
    model = linear((1.0, -2.0, 3.0), (0.0, 5.0, 0.0))
    found = gradients(model, torch.rand(2, 1, 1, 3), [[0, 1], [1, 1]])
    assert found[0].reshape(2, 3).tolist() == [[1, -2, 3], [0, 5, 0]]
    assert found[1].reshape(2, 3).tolist() == [[0, 5, 0], [0, 5, 0]]
    assert saliency(found)[0].reshape(2, 3).tolist() == [[1, 2, 3], [0, 5, 0]]
    channels = np.array([1.0, -4.0, 2.0], np.float32).reshape(1, 1, 3, 1, 1)
    assert saliency(channels).tolist() == [[[[4.0]]]]  # the largest over the channels, not their sum


def test_grad_cam_by_hand() -> None:
    """Two maps of 2x2: weights 1 and -1 for class 0, so that map 0 less map 1 is shown where it is above 0."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    model[0].weight.data = torch.tensor([2.0, 1.0]).reshape(2, 1, 1, 1)
    model[3].weight.data = 4.0 * torch.tensor([[1.0, -1.0], [-1.0, 0.0]])  # the mean pooling divides by 4
    picture = torch.tensor([[3.0, -1.0], [0.0, 5.0]]).reshape(1, 1, 2, 2)
    found = grad_cam(model, picture, [[0, 1]], "0")
    assert found[0, 0].tolist() == [[3, 0], [0, 5]]  # 2x - x
    assert found[0, 1].tolist() == [[0, 2], [0, 0]]  # -2x
    large = grad_cam(model, picture.repeat_interleave(4, 2).repeat_interleave(4, 3), [[0]], "1")  # one value a map
    assert large.shape == (1, 1, 8, 8)
    assert np.ptp(large) == 0


def test_grad_cam_takes_the_mean_gradient_of_a_map() -> None:
    """The head weights the four positions differently: 1, 2, 3, 6; their mean 3 is the map's weight."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    model[2].weight.data = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    picture = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).reshape(1, 1, 2, 2)
    assert grad_cam(model, picture, [[0]], "0")[0, 0].tolist() == [[3, 6], [0, 1.5]]


def test_integrated_gradients_by_hand() -> None:
    """f = x * y: along the line from 0 each gets half of the product; with the gradient at the end each gets all."""
    class Product(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return (images[:, 0] * images[:, 1]).flatten(1)

    picture = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    found = integrated_gradients(Product(), picture, [[0]], steps=1)  # exact for a quadratic function
    assert found.attributions.flatten().tolist() == [6.0, 6.0]
    assert (found.differences.item(), found.gaps.item()) == (12.0, 0.0)
    last = gradients(Product(), picture, [[0]]) * picture.numpy()
    assert last.flatten().tolist() == [12.0, 12.0]  # the control: not complete
    other = integrated_gradients(Product(), picture, [[0]], baseline=1.0, steps=1)
    assert other.attributions.flatten().tolist() == [2 * 2.5, 3 * 2.0]
    assert other.differences.item() == 11.0


def test_attributions_add_up_with_enough_steps() -> None:
    gaps = [np.abs(integrated_gradients(small(), PICTURES, CLASSES, steps=steps).gaps).max() for steps in (2, 200)]
    assert gaps[1] < 0.01
    assert gaps[1] < gaps[0] / 10


def test_occlusion_by_hand() -> None:
    """Two classes whose logits differ by the first pixel's 2: covering it makes both probabilities one half."""
    model = linear((2.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    picture = torch.ones(1, 1, 1, 4)
    sure = 1 / (1 + np.exp(-2.0))
    found = occlusion(model, picture, [[0, 1]], window=1, stride=1)
    np.testing.assert_allclose(found.probabilities, [[sure, 1 - sure]], rtol=1e-6)
    np.testing.assert_allclose(found.drops[0, :, 0], [[sure - 0.5, 0, 0, 0], [0.5 - sure, 0, 0, 0]], atol=1e-7)
    # Windows of 2 in steps of 1 cover pixels 01, 12, 23: pixel 1 was covered twice, once with pixel 0.
    wide = occlusion(model, picture, [[0]], window=2, stride=1)
    np.testing.assert_allclose(wide.drops[0, 0, 0], np.array([1, 0.5, 0, 0]) * (sure - 0.5), atol=1e-7)
    # A square of the picture's own colour covers nothing.
    assert not occlusion(model, picture, [[0]], window=2, stride=1, cover=1.0).drops.any()


def test_a_square_shows_its_own_part_of_the_cover() -> None:
    """The cover has 3 where the picture has 1: under the square on the first pixel the logits differ by 6, not 2."""
    model = linear((2.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    picture, cover = torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4)
    cover[1, 0, 0, 0] = 3.0
    found = occlusion(model, picture, [[0], [0]], window=1, stride=1, cover=cover)
    assert not found.drops[0].any()  # covered by itself
    rise = 1 / (1 + np.exp(-6.0)) - 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(found.drops[1, 0, 0], [-rise, 0, 0, 0], atol=1e-7)


def test_a_blurred_cover_keeps_colours_and_loses_details() -> None:
    even = torch.full((1, 2, 9, 9), 0.25)
    torch.testing.assert_close(blurred(even, 2.0), even)  # mirrored at the border: a constant stays
    point = torch.zeros(1, 2, 9, 9)
    point[0, 1, 4, 4] = 1.0
    spread = blurred(point, 1.0)
    assert not spread[0, 0].any()  # one colour doesn't run into another
    beside = float(spread[0, 1, 4, 5] / spread[0, 1, 4, 4])
    np.testing.assert_allclose(beside, np.exp(-0.5), rtol=1e-4)


def test_the_last_squares_reach_the_border() -> None:
    """Side 5, windows of 2 in steps of 2: they begin at 0, 2 and 4, the last one cut off; with 3 and 2 at 0 and 2."""
    model = linear((0.0,) * 4 + (2.0,), (0.0,) * 5)
    picture = torch.ones(1, 1, 1, 5)
    drop = 1 / (1 + np.exp(-2.0)) - 0.5
    np.testing.assert_allclose(occlusion(model, picture, [[0]], 2, 2).drops[0, 0, 0], [0, 0, 0, 0, drop], atol=1e-7)
    np.testing.assert_allclose(occlusion(model, picture, [[0]], 3, 2).drops[0, 0, 0],
                               [0, 0, drop / 2, drop, drop], atol=1e-7)
    whole = occlusion(model, picture, [[0]], 9, 4)  # larger than the picture: one square over all of it
    np.testing.assert_allclose(whole.drops[0, 0, 0], [drop] * 5, atol=1e-7)


def test_more_squares_than_fit_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    once = occlusion(model, PICTURES, CLASSES, 3, 2)
    monkeypatch.setattr("layerwise.explain.occlusion.BATCH", 2)
    np.testing.assert_allclose(occlusion(model, PICTURES, CLASSES, 3, 2).drops, once.drops, atol=1e-6)


METHODS: dict[str, Callable[[nn.Module], object]] = {
    "gradients": lambda model: gradients(model, PICTURES, CLASSES),
    "grad_cam": lambda model: grad_cam(model, PICTURES, CLASSES, layer(model)),
    "integrated": lambda model: integrated_gradients(model, PICTURES, CLASSES, steps=3),
    "occlusion": lambda model: occlusion(model, PICTURES, CLASSES, 4, 2),
}


def layer(model: nn.Module) -> str:
    return "1.5" if isinstance(model[0], Breaks) else "5"


@pytest.mark.parametrize("name", METHODS)
def test_the_network_is_left_as_it_was_also_after_an_exception(name: str) -> None:
    model = small()
    with left_as_it_was(model), torch.no_grad():
        METHODS[name](model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with left_as_it_was(model):  # a network whose weights are all frozen has maps without gradients of their own
        METHODS[name](model)
    model = nn.Sequential(Breaks(0), small())
    with breaking(model):
        METHODS[name](model)
    model = small(Breaks(0 if name in ("gradients", "grad_cam") else 1))  # in the middle of the work
    model[9].eval()
    with breaking(model):
        METHODS[name](model)


@pytest.mark.parametrize("name", METHODS)
def test_pictures_and_classes_do_not_mix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = METHODS[name](small())
    found = both if isinstance(both, np.ndarray) else next(iter(vars(both).values()))
    monkeypatch.setitem(globals(), "PICTURES", PICTURES[1:])
    monkeypatch.setitem(globals(), "CLASSES", [[0]])
    one = METHODS[name](small())
    alone = one if isinstance(one, np.ndarray) else next(iter(vars(one).values()))
    np.testing.assert_allclose(found[1, 1], alone[0, 0], atol=1e-5)
    assert not np.allclose(found[1, 0], alone[0, 0], atol=1e-5)


def test_what_cannot_be_asked_is_said() -> None:
    model = small()
    with pytest.raises(InputError, match=r"classes of shape \(2,\) for 2 pictures"):
        gradients(model, PICTURES, torch.tensor([0, 1]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"classes from 0 to 3\n.*0 to 2"):
        gradients(model, PICTURES, [[0], [3]])
    with pytest.raises(InputError, match="layer 8 has no maps for Grad-CAM"):
        grad_cam(model, PICTURES, CLASSES, "8")
    with pytest.raises(InputError, match="'9999' is no layer of this network"):
        grad_cam(model, PICTURES, CLASSES, "9999")
    with pytest.raises(InputError, match="steps=0: the path needs at least one point"):
        integrated_gradients(model, PICTURES, CLASSES, steps=0)
    with pytest.raises(InputError, match="window=2, stride=3: pixels would be left uncovered"):
        occlusion(model, PICTURES, CLASSES, 2, 3)
    with pytest.raises(InputError, match=r"cover of shape \(1, .* for pictures of \(2, "):
        occlusion(model, PICTURES, CLASSES, 2, 1, PICTURES[:1])
    with pytest.raises(InputError, match=r"classes of shape \(2, 2\) for 1 pictures"):
        occlusion(model, PICTURES[:1], CLASSES, 2, 1)


def strong() -> nn.Sequential:
    """`small` with larger answers, beside which rounding is small."""
    model = small()
    model[8].weight.data *= 10
    return model


class Frozen(nn.Module):
    """The network as captum should see it: in evaluation mode, its answers through a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.function = strong().eval(), function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.network(images))


def test_captum_says_the_same() -> None:
    captum = pytest.importorskip("captum.attr")
    logits, probabilities = Frozen(lambda values: values), Frozen(lambda values: values.softmax(1))
    first = torch.tensor(CLASSES)[:, 0]
    pictures = PICTURES.clone().requires_grad_()
    known = {
        "gradients": captum.Saliency(logits).attribute(pictures, first, abs=False),
        "integrated": captum.IntegratedGradients(logits).attribute(PICTURES, 0.0, first, n_steps=16,
                                                                   method="riemann_middle"),
        "occlusion": captum.Occlusion(probabilities).attribute(PICTURES, (2, 3, 3), (2, 2, 2), target=first).mean(1),
        "grad_cam": captum.LayerAttribution.interpolate(
            captum.LayerGradCam(logits, logits.network[5]).attribute(PICTURES, first, relu_attributions=True),
            (8, 8), "bilinear")[:, 0],
    }  # fmt: skip
    model = strong()
    ours = {
        "gradients": gradients(model, PICTURES, CLASSES),
        "integrated": integrated_gradients(model, PICTURES, CLASSES, steps=16).attributions,
        "occlusion": occlusion(model, PICTURES, CLASSES, 3, 2).drops,
        "grad_cam": grad_cam(model, PICTURES, CLASSES, "5"),
    }
    for name, expected in known.items():
        theirs = expected.detach().numpy()
        assert np.abs(theirs).max() > 1e-3, name
        np.testing.assert_allclose(ours[name][:, 0], theirs, atol=2e-6, err_msg=name)
        assert not np.allclose(ours[name][:, 1], theirs, atol=1e-3), name  # the control: another class


def test_without_the_mode_the_answers_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control for evaluation mode: batch normalisation by the batch gives other gradients."""
    model = small()
    model[6].p = 0.0
    right = gradients(model, PICTURES, CLASSES)
    monkeypatch.setattr(attribution, "mode", lambda model, training: torch.enable_grad())
    assert not np.allclose(gradients(model, PICTURES, CLASSES), right, atol=1e-3)
