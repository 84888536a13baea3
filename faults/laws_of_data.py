"""E3: laws of random numbers, of the order of an epoch, of pictures and recipes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from faults.cases import CLASSES, SEEDS, generator, recipe_of, samples
from layerwise.data import order, resize, splits
from layerwise.randomness import derived_seed, permutation
from layerwise.recipe import Recipe


# Random numbers: a pure function of seed, epoch, sample and stage.
def subset(draw: Callable[..., Any], data: Any) -> None:
    """A sample's numbers do not depend on which others are asked for, nor in which order."""
    seed, epoch = data.draw(SEEDS), data.draw(st.integers(0, 999))
    wanted = generator(data).permutation(data.draw(st.integers(1, 40)))
    assert np.array_equal(draw(seed, epoch, np.arange(40), "law", 3)[wanted], draw(seed, epoch, wanted, "law", 3))


def prefix(draw: Callable[..., Any], data: Any) -> None:
    """More numbers of a sample begin with the fewer."""
    seed, count = data.draw(SEEDS), data.draw(st.integers(1, 9))
    assert np.array_equal(draw(seed, 0, np.arange(9), "law", 9)[:, :count], draw(seed, 0, np.arange(9), "law", count))


def apart(draw: Callable[..., Any], data: Any) -> None:
    """Another seed, epoch or stage gives other numbers."""
    seed, epoch = data.draw(SEEDS), data.draw(st.integers(0, 999))
    found = [draw(*numbers, np.arange(8), stage).tobytes()
             for *numbers, stage in ((seed, epoch, "a"), (seed + 1, epoch, "a"), (seed, epoch + 1, "a"),
                                     (seed, epoch, "b"))]
    assert len(set(found)) == 4


def is_permutation(data: Any) -> None:
    """Each position once, the same again."""
    seed, size = data.draw(SEEDS), data.draw(st.integers(1, 300))
    found = permutation(seed, 1, size)
    assert np.array_equal(np.sort(found), np.arange(size))
    assert np.array_equal(found, permutation(seed, 1, size))


def seeds_are_unambiguous(data: Any) -> None:
    """Parts that are split otherwise give another seed."""
    words = st.text("ab1", min_size=1, max_size=5)
    a, b = data.draw(words), data.draw(words)
    assert derived_seed(0, a + b) != derived_seed(0, a, b)
    assert 0 <= derived_seed(0, a, b) < 2**63


# The order of an epoch.
def an_epoch(balance: str, data: Any) -> None:
    """As many as there are pictures, each one of them; a permutation where nothing is balanced."""
    split, recipe = samples(data), recipe_of(balance=balance, seed=data.draw(SEEDS))
    found = order.epoch_order(split, recipe, data.draw(st.integers(0, 99)))
    assert len(found) == len(split)
    assert set(found.tolist()) <= set(range(len(split)))
    if balance in ("none", "loss"):
        assert len(set(found.tolist())) == len(split)


def rates_add_up(balance: str, data: Any) -> None:
    """The classes' parts of an epoch are 1 together, and equal with `sampler`."""
    found = order.draw_rates(samples(data), recipe_of(balance=balance))
    assert math.isclose(found.sum(), 1, rel_tol=1e-12)
    assert balance != "sampler" or np.allclose(found, 1 / CLASSES, rtol=1e-12)


def weights_keep_the_rate(balance: str, data: Any) -> None:
    """The mean weight over the pictures is 1."""
    split = samples(data)
    assert math.isclose(order.class_weights(split, recipe_of(balance=balance))[split.labels].mean(), 1, rel_tol=1e-5)


def batches_are_the_order(data: Any) -> None:
    """Batches one after the other are the order; none has one picture alone, none more than one too many."""
    count, size = data.draw(st.integers(2, 200)), data.draw(st.integers(2, 50))
    found = order.epoch_batches(np.arange(count), size)
    assert np.array_equal(np.concatenate(found), np.arange(count))
    assert all(2 <= len(one) <= size + 1 for one in found)
    assert all(len(one) == size for one in found[:-2])


def repeats_count(data: Any) -> None:
    """How often a picture came before, by counting."""
    drawn = generator(data).integers(0, 6, data.draw(st.integers(1, 40)))
    assert order.repeats(drawn).tolist() == [drawn[:at].tolist().count(one) for at, one in enumerate(drawn.tolist())]


def shares_are_the_batch(workers: int, data: Any) -> None:
    """The processes' shares in the order of their ranks are the batch, whatever their number."""
    batch, size = np.arange(data.draw(st.integers(0, 70))), data.draw(st.sampled_from((1, 2, 4)))
    places = [order.Place(0, 0, rank, size, workers) for rank in range(size)]
    shares = [place.share(batch) for place in places]
    assert np.array_equal(np.concatenate(shares), batch)
    if workers:  # who computes with whom does not depend on the number of processes
        alone = order.Place(0, 0, 0, 1, workers).worker(batch)
        assert np.array_equal(np.concatenate([place.worker(batch) for place in places]), alone)
    else:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def a_part_is_held_out(data: Any) -> None:
    """Two parts are the whole, and another order of the pictures holds out the same ones."""
    split, seed = samples(data, 2), data.draw(SEEDS)
    train, held = splits.hold_out(split, 0.25, seed)
    assert sorted([*train.ids, *held.ids]) == sorted(split.ids)
    turned = split.subset(generator(data).permutation(len(split)), "train")
    assert set(splits.hold_out(turned, 0.25, seed)[1].ids) == set(held.ids)


# Pictures.
def picture(data: Any) -> Any:
    """A small picture, grey or RGB."""
    shape = (data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30)), data.draw(st.sampled_from((1, 3))))
    return generator(data).integers(0, 256, shape, dtype=np.uint8)


def one_colour_stays(interpolation: str, data: Any) -> None:
    """A picture of one colour has it at every size."""
    value, image = data.draw(st.integers(0, 255)), picture(data)
    found = resize.resize_to(np.full_like(image, value), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)),
                             interpolation)
    assert (found == value).all()


def sides(interpolation: str, data: Any) -> None:
    """The shorter or the longer side is what was asked for."""
    image, side = picture(data), data.draw(st.integers(1, 40))
    assert min(resize.resize_short_side(image, side, interpolation).shape[:2]) == side
    assert max(resize.fit_inside(image, side, interpolation).shape[:2]) == side


def grey_is_grey(data: Any) -> None:
    """Grey to RGB and back is the same picture."""
    grey = picture(data)[:, :, :1]
    assert np.array_equal(resize.to_channels(resize.to_channels(grey, 3), 1), grey)


def crops_of_crops(data: Any) -> None:
    """A central part of even margins is that of a larger central part."""
    image = generator(data).integers(0, 256, (20, 20, 1), dtype=np.uint8)
    inner = 2 * data.draw(st.integers(1, 5))
    outer = inner + 2 * data.draw(st.integers(0, 5))
    assert np.array_equal(resize.centre_crop(resize.centre_crop(image, outer, outer), inner, inner),
                          resize.centre_crop(image, inner, inner))


def recipes_come_back(data: Any) -> None:
    """A recipe that is written and read is equal, with an equal hash; another seed has another hash."""
    recipe = recipe_of(seed=data.draw(st.integers(0, 2**31 - 1)), learning_rate=data.draw(st.floats(1e-6, 10)),
                       batch_size=data.draw(st.integers(1, 4096)), momentum=data.draw(st.floats(0, 0.99)))
    again = Recipe.from_json(recipe.to_json(), "law")
    assert again == recipe
    assert again.hash == recipe.hash != dataclasses.replace(recipe, seed=recipe.seed + 1).hash
