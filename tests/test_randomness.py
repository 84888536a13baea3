"""Random numbers: well distributed, independent, and a pure function of (seed, epoch, sample, stage, counter)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from layerwise import randomness
from layerwise.randomness import GOLDEN, derived_seed, mix, normal, permutation, random_bits, uniform

Uniform = Callable[[int, int, NDArray[np.int64], str, int], NDArray[np.float64]]
MANY = np.arange(20_000, dtype=np.int64)
LEAST = 1e-4  # the p-value below which a test calls the numbers not random; the seeds are fixed, so this is no lottery


def test_mix_is_the_published_splitmix64() -> None:
    """The first outputs of SplitMix64 for the seed 1234567, as its reference implementation prints them."""
    states = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * GOLDEN
    assert mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def suspicions(draw: Uniform) -> list[str]:
    """What speaks against `draw` being uniform and independent in each of its arguments."""
    found = []
    for seed, epoch, stage in ((0, 0, "crop"), (1, 7, "flip"), (2**40, 3, "order")):
        values = draw(seed, epoch, MANY, stage, 1)[:, 0]
        if stats.kstest(values, "uniform").pvalue < LEAST:
            found.append(f"not uniform: {seed} {epoch} {stage}")
        finest = np.floor(values * 2**40).astype(np.int64) % 64
        if stats.chisquare(np.bincount(finest, minlength=64)).pvalue < LEAST:
            found.append(f"low bits not uniform: {seed} {epoch} {stage}")
    first = draw(0, 0, MANY, "crop", 2)
    pairs = {
        "neighbouring samples": (first[:-1, 0], first[1:, 0]),
        "samples 1024 apart": (first[:-1024, 0], first[1024:, 0]),
        "counters": (first[:, 0], first[:, 1]),
        "epochs": (first[:, 0], draw(0, 1, MANY, "crop", 1)[:, 0]),
        "seeds": (first[:, 0], draw(1, 0, MANY, "crop", 1)[:, 0]),
        "seed and epoch": (draw(0, 1, MANY, "crop", 1)[:, 0], draw(1, 0, MANY, "crop", 1)[:, 0]),
        "stages": (first[:, 0], draw(0, 0, MANY, "flip", 1)[:, 0]),
    }
    for name, (one, other) in pairs.items():
        cells = np.bincount((one * 16).astype(np.int64) * 16 + (other * 16).astype(np.int64), minlength=256)
        if stats.chisquare(cells).pvalue < LEAST:
            found.append(f"not independent: {name}")
    return found


def test_uniform_numbers_are_uniform_and_independent() -> None:
    assert suspicions(uniform) == []


def no_finaliser(seed: int, epoch: int, samples: NDArray[np.int64], stage: str, count: int) -> NDArray[np.float64]:
    """A Weyl sequence: SplitMix64 without its finaliser."""
    key = np.uint64(derived_seed(seed, epoch, stage))
    steps = samples[:, None].astype(np.uint64) * np.uint64(count) + np.arange(count, dtype=np.uint64)
    return (steps * GOLDEN + key >> np.uint64(11)).astype(np.float64) * 2.0**-53


def without_stage(seed: int, epoch: int, samples: NDArray[np.int64], stage: str, count: int) -> NDArray[np.float64]:
    return uniform(seed, epoch, samples, "", count)


def seed_plus_epoch(seed: int, epoch: int, samples: NDArray[np.int64], stage: str, count: int) -> NDArray[np.float64]:
    return uniform(seed + epoch, 0, samples, stage, count)


@pytest.mark.parametrize(
    ("weak", "suspicion"),
    [
        (no_finaliser, "not independent: neighbouring samples"),
        (without_stage, "not independent: stages"),
        (seed_plus_epoch, "not independent: seed and epoch"),
    ],
)
def test_a_weak_hash_is_found_out(weak: Uniform, suspicion: str) -> None:
    """Negative control of the test above."""
    assert suspicion in suspicions(weak)


def test_one_flipped_bit_of_the_sample_flips_half_the_bits() -> None:
    bits = random_bits(0, 0, MANY[:512], "crop")[:, 0]
    for bit in range(0, 40, 3):
        other = random_bits(0, 0, MANY[:512] ^ (1 << bit), "crop")[:, 0]
        flipped = np.unpackbits((bits ^ other).view(np.uint8)).mean()
        assert abs(flipped - 0.5) < 0.02, bit


def test_uniform_stays_below_one_and_normal_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extreme bits, which no sample is known to draw."""
    extremes = np.array([[0], [2**64 - 1]], dtype=np.uint64)
    monkeypatch.setattr(randomness, "random_bits", lambda *_: extremes)
    lowest, highest = uniform(0, 0, MANY[:2], "crop")[:, 0]
    assert (lowest, highest) == (0.0, 1 - 2.0**-53)
    least, most = normal(0, 0, MANY[:2], "crop")[:, 0]
    assert -9 < least < -8
    assert most == pytest.approx(-least, rel=1e-9)


def test_normal_numbers_are_normal() -> None:
    values = normal(3, 2, MANY, "colour", 3)
    assert values.shape == (20_000, 3)
    for column in values.T:
        assert stats.kstest(column, "norm").pvalue > LEAST
    assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.03


@given(
    seed=st.integers(-(2**70), 2**70),
    epoch=st.integers(0, 10**6),
    samples=st.lists(st.integers(0, 2**40), min_size=1, max_size=20),
    count=st.integers(1, 5),
)
def test_a_number_depends_on_nothing_but_its_own_arguments(
    seed: int, epoch: int, samples: list[int], count: int
) -> None:
    """Any company, any order, any number of further counters: the same number."""
    indices = np.array(samples, dtype=np.int64)
    together = uniform(seed, epoch, indices, "crop", count)
    for position in range(len(samples)):
        alone = uniform(seed, epoch, indices[position : position + 1], "crop", 5)
        assert np.array_equal(alone[0, :count], together[position])
    assert np.array_equal(uniform(seed, epoch, indices[::-1], "crop", count), together[::-1])


def test_the_numbers_of_a_published_recipe_never_change() -> None:
    """Golden values: another number here is another training everywhere."""
    assert uniform(0, 0, MANY[:2], "crop", 2).tolist() == [
        [0.2992903704374157, 0.9787654307153537],
        [0.07732434746858718, 0.2115956116744545],
    ]
    normals = normal(1, 2, MANY[:2], "colour")[:, 0].tolist()
    assert normals == pytest.approx([1.7793437103976206, 1.3587401276876303], rel=1e-12)
    assert permutation(0, 0, 10).tolist() == [0, 1, 4, 8, 3, 7, 6, 2, 5, 9]
    assert derived_seed(0, "weights") == 5681230749671811970


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_a_permutation_has_every_position_once(size: int) -> None:
    order = permutation(5, 3, size)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(size))


def test_permutations_are_random_and_differ_between_seeds_epochs_and_stages() -> None:
    firsts = np.bincount([permutation(0, epoch, 10)[0] for epoch in range(2000)], minlength=10)
    assert stats.chisquare(firsts).pvalue > LEAST
    base = permutation(0, 0, 1000)
    for other in (permutation(1, 0, 1000), permutation(0, 1, 1000), permutation(0, 0, 1000, "draw")):
        assert (base == other).sum() < 10
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.15
    assert np.array_equal(base, permutation(0, 0, 1000))


def test_derived_seeds_are_63_bits_and_unambiguous() -> None:
    seeds = [
        derived_seed(0, "dropout", 1),
        derived_seed(0, "dropout", 2),
        derived_seed(1, "dropout", 1),
        derived_seed(0, "dropout", "1"),
        derived_seed(0, "dropout1"),
        derived_seed(0, "drop", "out", 1),
        derived_seed(0),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(0, "step", int(np.int64(3))) == derived_seed(0, "step", 3)
    many = [derived_seed(0, "step", step) for step in range(1000)]
    assert max(many) > 2**62 > min(many)
    assert math.log2(sum(many) / 1000) == pytest.approx(62, abs=0.1)
