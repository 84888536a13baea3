"""Splits of one set of samples into parts: stratified, and a pure function of the seed and the samples' ids."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.randomness import uniform


def hold_out(samples: Samples, part: float, seed: int) -> tuple[Samples, Samples]:
    """(train, val): `part` of the samples held out, with the classes in the same proportions.

    `part` below 1 is a fraction, from 1 on a number of pictures. Which ones depends on the seed and each picture's id
    alone: another order of the samples holds out the same ones. Both keep the order of `samples`. Every class with at
    least two pictures keeps at least one for training. Raises InputError where nothing or everything would be held out.
    """
    whole = 0 if not np.isfinite(part) else int(part) if part >= 1 else round(part * len(samples))
    if not np.isfinite(part) or part <= 0 or (part >= 1 and part != int(part)):
        raise InputError(
            f"validation={part} is not a part",
            "It is a fraction below 1 or a whole number of pictures.",
            "Set validation=0.1.",
        )
    counts = np.array(samples.class_counts)
    possible = int(np.maximum(counts - 1, 0).sum())
    if whole < 1 or whole > possible:
        raise InputError(
            f"validation={part} of {len(samples)} pictures would hold out {whole}",
            f"At least 1 must be held out, and one of each class must stay for training: at most {possible} here.",
            "Choose another part, or add a val folder.",
        )
    held = _draw(samples, _shares(counts, whole), seed, "hold-out")
    return samples.subset(np.flatnonzero(~held), "train"), samples.subset(np.flatnonzero(held), "val")


def divide(samples: Samples, split: str, seed: int) -> dict[str, Samples | None]:
    """The splits "train", "val" and "test" for "80/10/10": stratified, seeded; a part of 0 is None.

    Raises InputError where `split` isn't three percentages that sum to 100, or a part would get no picture.
    """
    _, val, test = parse_split(split)
    counts = np.array(samples.class_counts)
    parts: dict[str, Samples | None] = {"val": None, "test": None}
    left = np.ones(len(samples), dtype=bool)
    for name, percent in (("test", test), ("val", val)):
        number = round(percent / 100 * len(samples))
        if not percent:
            continue
        room = np.maximum(np.bincount(samples.labels[left], minlength=len(counts)) - 1, 0)
        if number < 1 or number > room.sum():
            raise InputError(
                f"--split {split} of {len(samples)} pictures would leave {number} for {name}",
                f"Each part needs at least 1, and one of each class must stay for training ({room.sum()} can go).",
                "Choose other parts, or add pictures.",
            )
        shares = np.minimum(_shares(counts, number), room)
        for _ in range(number - int(shares.sum())):  # what small classes could not give
            shares[np.argmax(room - shares)] += 1
        remaining = np.flatnonzero(left)
        held = remaining[_draw(samples.subset(remaining, name), shares, seed, f"split-{name}")]
        parts[name] = samples.subset(held, name)
        left[held] = False
    return {"train": samples.subset(np.flatnonzero(left), "train"), **parts}


def parse_split(split: str) -> tuple[float, float, float]:
    """(train, val, test) in percent from "80/10/10"; InputError where it isn't that."""
    try:
        numbers = [float(part) for part in split.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(0 <= number <= 100 for number in numbers) or abs(sum(numbers) - 100) > 1e-6:
        raise InputError(
            f"--split {split!r} is not a split",
            "It is three percentages, train/val/test, that sum to 100.",
            "Give --split 80/10/10, or --split 80/0/20 for no val.",
        )
    if numbers[0] <= 0:
        raise InputError(f"--split {split!r} leaves nothing to train on", mend="Give --split 80/10/10.")
    return numbers[0], numbers[1], numbers[2]


def _shares(counts: NDArray[np.int64], whole: int) -> NDArray[np.int64]:
    """How many of `whole` each class gives: proportional, largest remainders first, each class keeping one."""
    limit = np.maximum(counts - 1, 0)
    exact = np.asarray(counts * (whole / int(counts.sum())))
    shares: NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), limit)
    while shares.sum() < whole:
        room = shares < limit
        if not room.any():
            break
        shares[np.argmax(np.where(room, exact - shares, -np.inf))] += 1
    return shares


def _draw(samples: Samples, shares: NDArray[np.int64], seed: int, stage: str) -> NDArray[np.bool_]:
    """(N,) which samples are drawn: in each class those with the smallest random keys."""
    names = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in samples.ids]
    ids = np.array([int.from_bytes(digest[:7], "little") for digest in names], dtype=np.int64)
    keys = uniform(seed, 0, ids, stage)[:, 0]
    held = np.zeros(len(samples), dtype=bool)
    for label, share in enumerate(shares):
        members = np.flatnonzero(samples.labels == label)
        held[members[np.lexsort((ids[members], keys[members]))[:share]]] = True
    return held
