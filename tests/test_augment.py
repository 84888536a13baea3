"""Augmentation: each rule as its paper says, whole batches equal to single pictures, draws spread as they should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from layerwise.data import augment
from layerwise.data.augment import (
    Colour,
    Draws,
    augment_batch,
    augment_picture,
    check_augmentation,
    colour_shift,
    draw,
    fit_colour,
    mix,
    pad_and_crop,
    resample,
    resized_box,
    whole_batches,
)
from layerwise.data.preprocess import fit_preprocess
from layerwise.errors import InputError
from layerwise.randomness import uniform
from tests.random_samples import in_memory, recipe

LEAST = 1e-4
KEYS = np.arange(4000, dtype=np.int64)
CROPS = {
    "none": {"crop": "none"},
    "pad": {"crop": "pad", "pad": 3},
    "resized": {"crop": "resized", "resize": "squash", "input_size": 10},
    "scale": {"crop": "scale", "scale_range": (11, 19), "resize": "short-side", "resize_to": 12, "input_size": 10},
    "square": {"crop": "square", "scale_range": (12, 12), "resize": "short-side", "resize_to": 12, "input_size": 10},
}


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def test_pad_and_crop_takes_the_window_at_the_drawn_offset() -> None:
    images = noise(25, 6, 7, 3)
    offsets = np.array([(top, left) for top in range(5) for left in range(5)])
    draws = Draws((offsets + 0.5) / 5, np.arange(25) % 2 == 1)
    colour = np.array([1, 2, 3], np.uint8)
    cropped = pad_and_crop(images, draws, 2, colour)
    for image, (top, left), flip, found in zip(images, offsets, draws.flip, cropped, strict=True):
        padded = np.empty((10, 11, 3), np.uint8)
        padded[:] = colour
        padded[2:8, 2:9] = image
        window = padded[top : top + 6, left : left + 7]
        assert np.array_equal(found, window[:, ::-1] if flip else window)
    assert np.array_equal(cropped[12], images[12]), "the centre, not flipped, is the picture itself"


def test_the_border_is_about_zero_after_normalisation() -> None:
    preprocess = fit_preprocess(in_memory(20), recipe())
    border = np.broadcast_to(preprocess.pad_colour, (1, 12, 12, 3)).copy()
    assert preprocess.normalise(torch.from_numpy(border)).abs().max() < 0.5 / 255 / preprocess.std.min() + 1e-6


def test_the_border_is_black_where_the_recipe_says_so() -> None:
    samples = in_memory(4)
    assert samples.images is not None
    white = np.full_like(samples.images, 255)
    corners = {}
    for colour in ("mean", "black"):
        chosen = recipe(crop="pad", pad=3, pad_with=colour)
        preprocess = fit_preprocess(samples, chosen)
        found = augment_batch(white, Draws(np.zeros((4, 2)), np.zeros(4, bool)), chosen, preprocess)
        corners[colour] = found[:, 0, 0]
        assert np.array_equal(found[0], augment_picture(white[0], Draws(np.zeros((4, 2)), np.zeros(4, bool)), 0,
                                                        chosen, preprocess))
    assert not corners["black"].any()
    assert (corners["mean"] == preprocess.pad_colour).all()
    assert corners["mean"].any()


@pytest.mark.parametrize("crop", ["none", "pad"])
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_whole_batches_equal_single_pictures(crop: str, channels: tuple[int, int]) -> None:
    samples = in_memory(33, channels=channels[0])
    chosen = recipe(channels=channels[1], **CROPS[crop])
    preprocess = fit_preprocess(samples, chosen)
    assert whole_batches(chosen, preprocess)
    assert samples.images is not None
    draws = draw(chosen, 4, np.arange(33))
    together = augment_batch(samples.images, draws, chosen, preprocess)
    single = [augment_picture(image, draws, at, chosen, preprocess) for at, image in enumerate(samples.images)]
    assert np.array_equal(together, np.stack(single))
    moved = draw(chosen, 5, np.arange(33))
    assert not np.array_equal(together, augment_batch(samples.images, moved, chosen, preprocess))


def test_augmentation_leaves_the_data_as_it_was() -> None:
    samples = in_memory(8)
    assert samples.images is not None
    before = samples.images.copy()
    samples.images.setflags(write=False)
    for crop in ("none", "pad"):
        chosen = recipe(**CROPS[crop])
        augment_batch(samples.images, draw(chosen, 0, np.arange(8)), chosen, fit_preprocess(samples, chosen))
    assert np.array_equal(samples.images, before)


@pytest.mark.parametrize("crop", sorted(CROPS))
def test_draws_are_spread_evenly_and_independent(crop: str) -> None:
    draws = draw(recipe(**CROPS[crop]), 0, KEYS)
    assert draws.crop.shape == (4000, augment.NUMBERS[crop])
    assert stats.binomtest(int(draws.flip.sum()), 4000).pvalue > LEAST
    for column in draws.crop.T:
        assert stats.kstest(column, "uniform").pvalue > LEAST
        assert abs(np.corrcoef(column, draws.flip)[0, 1]) < 0.06
    if crop == "pad":
        offsets = np.bincount((draws.crop[:, 0] * 7).astype(int) * 7 + (draws.crop[:, 1] * 7).astype(int))
        assert len(offsets) == 49
        assert stats.chisquare(offsets).pvalue > LEAST


def test_no_flip_means_none() -> None:
    assert not draw(recipe(flip=False), 0, KEYS).flip.any()


def test_flips_in_turns_show_both_sides_in_any_two_epochs() -> None:
    in_turns = [draw(recipe(flip_turns="alternate"), epoch, KEYS).flip for epoch in range(4)]
    assert stats.binomtest(int(in_turns[0].sum()), len(KEYS)).pvalue > LEAST
    assert np.array_equal(in_turns[1], ~in_turns[0])
    assert np.array_equal(in_turns[2], in_turns[0])
    assert np.array_equal(in_turns[3], in_turns[1])
    drawn = [draw(recipe(), epoch, KEYS).flip for epoch in range(2)]
    assert np.array_equal(drawn[0], in_turns[0])
    assert 0.4 < (drawn[1] == drawn[0]).mean() < 0.6  # the control: chance shows half of the pictures one side twice
    assert np.array_equal(draw(recipe(flip_turns="alternate"), 1, KEYS[7:9]).flip, in_turns[1][7:9])


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    area_min=st.floats(0.01, 1),
    key=st.integers(0, 10**6),
)
def test_a_resized_box_lies_in_the_picture(height: int, width: int, area_min: float, key: int) -> None:
    numbers = uniform(0, 0, np.array([key]), "crop", 40)[0]
    top, left, down, across = resized_box(height, width, area_min, numbers)
    assert top >= 0
    assert left >= 0
    assert 1 <= down <= height - top
    assert 1 <= across <= width - left
    assert (top, left, down, across) == resized_box(height, width, area_min, numbers)


def test_resized_boxes_have_the_area_and_aspect_asked_for() -> None:
    """Area uniform in [0.08, 1] and aspect log-uniform in [3/4, 4/3] where every try fits, and anywhere within."""
    numbers = uniform(0, 0, KEYS, "crop", 40)
    boxes = np.array([resized_box(3000, 3000, 0.08, row) for row in numbers], dtype=np.float64)
    areas, ratios = boxes[:, 2] * boxes[:, 3] / 3000**2, boxes[:, 3] / boxes[:, 2]
    assert 0.079 < areas.min() < 0.09
    assert areas.max() <= 1
    assert ratios.min() > 0.749
    assert ratios.max() < 1.335
    fits = areas < 0.7  # an area below 3/4 fits at every aspect, so the first try is taken
    first = (0.08 + 0.92 * numbers[:, 0]) < 0.7
    assert np.array_equal(areas[first], areas[fits & first])
    assert stats.kstest((areas[first] - 0.08) / 0.62, "uniform").pvalue > LEAST
    logs = np.log(ratios[first]) / math.log(4 / 3)
    assert stats.kstest((logs + 1) / 2, "uniform").pvalue > LEAST
    places = boxes[first, 0] / (3000 - boxes[first, 2])
    assert stats.kstest(places, "uniform").pvalue > LEAST


@pytest.mark.parametrize(
    ("shape", "box"),
    [((100, 1000), (0, 433, 100, 133)), ((1000, 100), (433, 0, 133, 100)), ((1, 1), (0, 0, 1, 1))],
)
def test_after_ten_tries_the_largest_centre_is_taken(shape: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert resized_box(*shape, 1.0, np.full(40, 0.5)) == box


@pytest.mark.parametrize("channels", [1, 3])
def test_the_random_resized_crop_of_a_picture(channels: int) -> None:
    samples = in_memory(5, size=30, channels=channels)
    chosen = recipe(**CROPS["resized"], flip=False)
    preprocess = fit_preprocess(samples, chosen)
    assert not whole_batches(chosen, preprocess)
    draws = draw(chosen, 0, np.arange(5))
    for at in range(5):
        image = samples.read(at)
        top, left, down, across = resized_box(30, 30, 0.08, draws.crop[at])
        expected = resample(image[top : top + down, left : left + across], 10, 10, "bilinear")
        assert np.array_equal(augment_picture(image, draws, at, chosen, preprocess), expected)


def test_the_shorter_side_is_drawn_from_its_whole_range_and_then_cropped() -> None:
    samples = in_memory(3, size=30)
    chosen = recipe(**CROPS["scale"], flip=False)
    preprocess = fit_preprocess(samples, chosen)
    image = noise(40, 30, 3)
    for number, side in ((0.0, 11), (1 - 2**-53, 19), (0.5, 15)):
        resized = resample(image, (40 * side + 15) // 30, side, "bilinear")
        for at in (0.0, 1 - 2**-53):
            draws = Draws(np.array([[number, at, at]]), np.array([False]))
            found = augment_picture(image, draws, 0, chosen, preprocess)
            expected = resized[:10, :10] if at == 0 else resized[-10:, -10:]
            assert np.array_equal(found, expected)
    sides = 11 + (draw(chosen, 0, KEYS).crop[:, 0] * 9).astype(int)
    assert stats.chisquare(np.bincount(sides - 11, minlength=9)).pvalue > LEAST


def test_a_square_crop_comes_from_the_middle_square_alone() -> None:
    """AlexNet, section 2: the central 256x256 is cut out first, so the ends of a long picture are never seen."""
    samples, last = in_memory(3, size=30), 1 - 2**-53
    square, scale = (recipe(**CROPS["square"] | {"crop": crop}, flip=False) for crop in ("square", "scale"))
    preprocess = fit_preprocess(samples, square)
    for image, first in ((noise(12, 20, 3), (0, 4)), (noise(20, 12, 3), (4, 0))):
        for numbers, moved in (((0.0, 0.0), (0, 0)), ((0.5, last), (1, 2)), ((last, last), (2, 2))):
            top, left = first[0] + moved[0], first[1] + moved[1]
            draws = Draws(np.array([[0.0, *numbers]]), np.array([False]))
            found = augment_picture(image, draws, 0, square, preprocess)
            assert np.array_equal(found, image[top : top + 10, left : left + 10])
        ends = augment_picture(image, draws, 0, scale, preprocess)
        assert np.array_equal(ends, image[-10:, -10:]), "the control: from the whole picture they are"


@pytest.mark.parametrize("crop", sorted(CROPS))
def test_flipped_is_the_mirror_of_not_flipped(crop: str) -> None:
    samples = in_memory(3, size=10)
    chosen = recipe(**CROPS[crop])
    preprocess = fit_preprocess(samples, chosen)
    numbers = draw(chosen, 0, np.arange(3)).crop
    straight, mirrored = (
        augment_picture(samples.read(1), Draws(numbers, np.full(3, flip)), 1, chosen, preprocess)
        for flip in (False, True)
    )
    assert np.array_equal(mirrored, straight[:, ::-1])
    assert not np.array_equal(mirrored, straight)


def test_principal_colours_are_those_of_the_covariance() -> None:
    samples = in_memory(20)
    assert samples.images is not None
    samples.images[..., 1] = samples.images[..., 0] // 2 + samples.images[..., 1] // 2
    colour = fit_colour(samples, fit_preprocess(samples, recipe()))
    covariance = np.cov(samples.images.reshape(-1, 3).T / 255, bias=True)
    assert np.allclose(colour.vectors @ np.diag(colour.values) @ colour.vectors.T, covariance, atol=1e-12)
    assert np.allclose(colour.vectors.T @ colour.vectors, np.eye(3))
    assert (np.diff(colour.values) <= 0).all()
    assert (colour.vectors[np.abs(colour.vectors).argmax(axis=0), range(3)] > 0).all()


def test_principal_colours_need_colours() -> None:
    samples = in_memory(4, channels=1)
    with pytest.raises(InputError, match="colour=pca with grey pictures"):
        fit_colour(samples, fit_preprocess(samples, recipe()))


def test_colour_shifts_have_the_covariance_of_the_rule() -> None:
    """Shift = P (a * l), a ~ N(0, sigma): covariance sigma^2 P diag(l^2) P^T on the 0..1 scale, before std divides."""
    angle = 0.7
    vectors = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1.0]])
    colour = Colour(vectors, np.array([0.2, 0.02, 0.005]))
    chosen = recipe(colour="pca", colour_sigma=0.1)
    std = np.array([0.2, 0.3, 0.4], np.float32)[:, None, None]
    shifts = colour_shift(colour, chosen, std, 0, KEYS)
    assert shifts.shape == (4000, 3, 1, 1)
    assert shifts.dtype == np.float32
    raw = shifts[:, :, 0, 0] * std[:, 0, 0]
    along = raw @ vectors / (0.1 * colour.values)
    for column in along.T:
        assert stats.kstest(column, "norm").pvalue > LEAST
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.06
    assert np.array_equal(colour_shift(colour, chosen, std, 0, KEYS[7:9]), shifts[7:9]), "whatever the batch"


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_weights_are_beta_distributed(alpha: float) -> None:
    images = torch.zeros(4000, 1, 1, 1)
    weights = mix(images, torch.zeros(4000, dtype=torch.int64), recipe(mixup=alpha), 0, KEYS)["weight"]
    assert weights.dtype == torch.float32
    assert stats.kstest(weights.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > LEAST
    assert stats.kstest(weights.double().numpy(), stats.beta(alpha * 2, alpha).cdf).pvalue < LEAST


@pytest.mark.parametrize("number", [1, 2, 5])
def test_mixup_pairs_each_picture_with_the_next(number: int) -> None:
    images = torch.rand(number, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(number)
    mixed = mix(images, labels, recipe(mixup=0.4), 0, KEYS[:number])
    for at in range(number):
        weight, partner = mixed["weight"][at], (at + 1) % number
        assert torch.allclose(mixed["image"][at], weight * images[at] + (1 - weight) * images[partner], atol=1e-6)
        assert (mixed["label"][at], mixed["label_b"][at]) == (at, partner)


def test_what_cannot_be_augmented_is_said() -> None:
    samples = in_memory(3, size=16)
    fits = recipe(crop="scale", scale_range=(12, 14))
    with pytest.raises(InputError, match="scale_range starts at 12, below the network's input of 16 pixels") as error:
        check_augmentation(fits, fit_preprocess(samples, fits), None)
    assert "--set scale_range=16,16" in str(error.value)
    with pytest.raises(InputError, match="colour=pca needs the training set's principal colours"):
        check_augmentation(recipe(colour="pca"), fit_preprocess(samples, recipe()), None)
