"""Exact accounts of unreadable pictures (B2): listed = seen + quarantined, class by class, in training and evaluation.

Each picture has one colour of its own, so that one served in another's place is seen.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from faults.folders import cache_in
from faults.goal import Control, Goal, Outcome
from layerwise import models
from layerwise.data.layout import Layout
from layerwise.data.loader import training_batches
from layerwise.data.opening import DataOptions, find_layout, open_data
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.jobs.assessment import result_lines
from layerwise.modelfile import ModelFile
from layerwise.recipes.presets import preset

SHARES = (0.0, 0.01, 0.1, 0.5, 1.0)
CLASSES = ("ant", "bee", "cat")
EACH = 40  # pictures a class in training, a quarter of it in test
SIDE = 20
Colours = dict[str, tuple[int, int, int]]
RECIPE = dataclasses.replace(preset("fast"), batch_size=16)
BREAKS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data[:-40], lambda data: b"", lambda data: b"<!DOCTYPE html>404", lambda data: bytes(len(data)),
    lambda data: data[:50] + b"\xff" + data[51:])


def colour(number: int) -> tuple[int, int, int]:
    """A colour that no other picture has."""
    return 40 + number % 12 * 16, 40 + number // 12 % 12 * 16, 40 + number // 144 * 16


def made(root: Path, share: float, seed: int) -> set[str]:
    """A folder with this share of bad pictures in each split; returns their ids."""
    random, bad, number = np.random.default_rng(seed), set[str](), 0
    for split, each in (("train", EACH), ("test", EACH // 4)):
        names = [f"{split}/{label}/{index}.png" for label in CLASSES for index in range(each)]
        chosen = set(random.permutation(len(names))[: round(share * len(names))].tolist())
        for place, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (SIDE, SIDE), colour(number)).save(root / name)
            number += 1
            if place in chosen:
                (root / name).write_bytes(BREAKS[place % len(BREAKS)]((root / name).read_bytes()))
                bad.add(name)
    return bad


def said(problem: InputError, bad: set[str], what: str) -> list[str]:
    """Whether the refusal names each bad picture and no other."""
    text = "\n".join(map(str, problem.details))
    named = {name for name in bad if name in text}
    if named != bad or len(problem.details) != len(bad):
        return [f"{what}: the refusal names {len(named)} of {len(bad)} bad pictures, in {len(problem.details)} lines"]
    return []


def right(samples: Samples, expected: Colours, what: str) -> list[str]:
    """Whether each picture is its own, and has the label of its folder."""
    wrong = [name for index, name in enumerate(samples.ids)
             if not (samples.read(index) == np.array(expected[name], np.uint8)).all()
             or samples.class_names[samples.labels[index]] != name.split("/")[1]]
    return [f"{what}: {name} is another picture or has another label" for name in wrong]


def training(root: Path, bad: set[str], listed: dict[str, list[str]], expected: Colours) -> list[str]:
    """What is wrong with the accounts of training."""
    every = [name for names in listed.values() for name in names]
    problems: list[str] = []
    try:
        open_data(str(root), DataOptions())
        problems += [f"training: {len(bad)} bad pictures, not refused"] * bool(bad)
    except InputError as problem:
        problems += said(problem, bad, "training") if bad else [f"training: refused without a bad picture: {problem}"]
    try:
        data = open_data(str(root), DataOptions(bad_images="skip"))
    except InputError as problem:
        return problems + said(problem, set(every), "training, nothing left")
    kept = [name for samples in data.splits.values() for name in samples.ids]
    if sorted([*kept, *bad]) != sorted(every):
        problems.append(f"training: {len(every)} listed, {len(kept)} kept, {len(bad)} bad")
    notes = "\n".join(data.notes)
    problems += [f"training: {name} is not in the notes" for name in bad if name not in notes]
    if bad and f"{len(bad)} of {len(every)} pictures can't be opened and were left out" not in notes:
        problems.append("training: the notes do not count what was left out")
    for split, samples in data.splits.items():
        problems += right(samples, expected, f"training, {split}")
    batches = list(training_batches(data.train, RECIPE, fit_preprocess(data.train, RECIPE), 0, 0, workers=1))
    seen = Counter(int(label) for batch in batches for label in batch["label"])
    wanted = Counter(CLASSES.index(name.split("/")[1]) for name in listed["train"] if name not in bad)
    if seen != wanted or any(batch["bad"] for batch in batches):
        problems.append(f"training: an epoch saw the classes {dict(seen)}, expected {dict(wanted)}")
    return problems


def evaluation(layout: Layout, bad: set[str], names: list[str], expected: Colours) -> list[str]:
    """What is wrong with the accounts of evaluation, of files that were readable when the folder was listed."""
    samples, problems = layout.samples("test", DataOptions().rules), list[str]()
    torch.manual_seed(0)
    network = models.build("resnet20", len(CLASSES), 3, widths=(4, 4, 8)).eval()
    grey = Samples("train", CLASSES, np.zeros(2, np.int64), ("a", "b"),
                   np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8))
    model = ModelFile(network, CLASSES, fit_preprocess(grey, RECIPE), path=Path("model"), sha256="0" * 64)
    try:
        evaluate(model, samples, EvaluateOptions(threads=1))
        problems += [f"evaluation: {len(bad)} bad pictures, not refused"] * bool(bad)
    except InputError as problem:
        problems += said(problem, bad, "evaluation") if bad else [f"evaluation: refused, nothing is bad: {problem}"]
        if bad and f"{len(bad)} of {len(names)} pictures" not in problem.what:
            problems.append(f"evaluation: refused without its denominator: {problem.what}")
    result = evaluate(model, samples, EvaluateOptions(bad_images="skip", threads=1))
    assert result.evidence is not None
    counts = Counter(name.split("/")[1] for name in names if name not in bad)
    if result.samples + result.unreadable != len(names) or result.unreadable != len(bad):
        problems.append(f"evaluation: {len(names)} listed, {result.samples} counted, {result.unreadable} unreadable")
    if sorted(result.evidence.ids) != sorted(set(names) - bad) or np.sum(result.confusion) != len(names) - len(bad):
        problems.append("evaluation: other pictures were counted than the good ones")
    if [int(sum(row)) for row in result.confusion] != [counts[name] for name in CLASSES]:
        problems.append("evaluation: another histogram of the labels")
    lines = "\n".join(result_lines(result))
    if f"{result.samples:,} pictures" not in lines or (bad and f"unreadable: {len(bad)} pictures" not in lines):
        problems.append(f"evaluation: printed without its denominator: {lines}")
    return problems + right(samples.subset([i for i, name in enumerate(samples.ids) if name not in bad], "test"),
                            expected, "evaluation")


def accounts(trials: int, folder: Path) -> Outcome:
    """B2: training and evaluation in turn, with each share of bad pictures."""
    problems: list[str] = []
    pictures = 0
    with cache_in(folder / "cache"):
        for trial in range(trials):
            root, share = folder / "set", SHARES[trial // 2 % len(SHARES)]
            bad = made(root, share, trial)
            names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
            listed = {split: [name for name in names if name.startswith(split)] for split in ("train", "test")}
            order = [f"{split}/{label}/{index}.png" for split, each in (("train", EACH), ("test", EACH // 4))
                     for label in CLASSES for index in range(each)]
            expected = {name: colour(number) for number, name in enumerate(order)}
            if trial % 2:
                tested = {name for name in bad if name.startswith("test")}
                found = evaluation(find_layout(str(root)), tested, listed["test"], expected)
            else:
                found = training(root, bad, listed, expected)
            pictures += len(listed["test"]) if trial % 2 else len(names)
            problems += [f"{share:.0%} bad: {one}" for one in found]
            shutil.rmtree(root)
    return Outcome(trials, tuple(problems), f"{pictures:,} pictures accounted for")


def next_one(folder: Path) -> Outcome:
    """The control: a reader that serves the next file in place of a bad one, with the bad one's label."""
    def served(samples: Samples, index: int) -> object:
        for step in range(len(samples)):
            try:
                return read(samples, (index + step) % len(samples))
            except InputError:
                continue
        raise InputError("nothing can be opened")

    root, read = folder / "set", Samples.read
    bad = made(root, 0.1, 0)
    samples = find_layout(str(root)).samples("test", DataOptions().rules)
    shown = {tuple(int(level) for level in np.asarray(served(samples, index))[0, 0]) for index in range(len(samples))}
    tested = sum(name.startswith("test") for name in bad)
    lost = len(samples) - len(shown)
    return Outcome(len(samples), (f"{lost} pictures were served twice, in place of {tested} bad ones",) * bool(lost))


GOALS = (
    Goal("B2", "exact accounts of 0, 1, 10, 50, 100 % bad files, training and evaluation",
         "listed = seen + quarantined; label histogram exact; evaluation refuses by default, with its denominator",
         50, 10, accounts, (Control("the next file is served instead", next_one),)),
)
