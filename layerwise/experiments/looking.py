"""What measurements inside trained networks share: network and pictures ready to be shown, lists over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.data.loader import plain_batches
from layerwise.data.source import Samples
from layerwise.experiments.experiment import Results, Subject, Verdict
from layerwise.models.network import Network
from layerwise.randomness import permutation

BATCH = 256


def device() -> torch.device:
    """Where networks are looked into: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network(subject: Subject, run: int = 0) -> Network:
    """The trained network of a run, on `device()`, in evaluation mode."""
    return subject.models[run].model.to(device()).eval()


def drawn(samples: Samples, most: int, seed: int = 0) -> Samples:
    """At most so many of the samples, drawn at random and always the same for a seed; all of them for 0."""
    if not most or most >= len(samples):
        return samples
    return samples.subset(np.sort(permutation(seed, 0, len(samples), "looking")[:most]), samples.name)


def batches(subject: Subject, samples: Samples, run: int = 0) -> Iterator[dict[str, Any]]:
    """The samples in batches as the run's network sees them at a test: `image` (N, C, H, W), `label`, on `device()`."""
    for batch in plain_batches(samples, subject.models[run].preprocess, BATCH):
        if len(batch["label"]):
            yield batch | {"image": batch["image"].to(device()), "label": batch["label"].to(device())}


def at_once(subject: Subject, samples: Samples, run: int = 0) -> tuple[Tensor, Tensor]:
    """All samples together: images (N, C, H, W) and labels (N), on `device()`."""
    parts = list(batches(subject, samples, run))
    return torch.cat([part["image"] for part in parts]), torch.cat([part["label"] for part in parts])


def mean_over_seeds(results: Results, row: str, name: str) -> list[float]:
    """A list of numbers, one a layer, averaged over the seeds; empty where the row was not measured."""
    lists = [one.numbers.get(name) for one in results.rows.get(row, ())]
    found = [[float(value) for value in values if isinstance(value, int | float)]
             for values in lists if isinstance(values, list)]
    return [statistics.fmean(values) for values in zip(*found, strict=True)] if found else []


def within_row(row: str, smaller: str, larger: str) -> Callable[[Results], Verdict]:
    """Judges whether one number of a row is smaller than another of the same row, seed by seed.

    The mean of the differences must lie beyond two standard errors; one seed is judged as it stands.
    """
    def judge(results: Results) -> Verdict:
        gaps = []
        for one in results.rows.get(row, ()):
            more, fewer = one.numbers.get(larger), one.numbers.get(smaller)
            if isinstance(more, int | float) and isinstance(fewer, int | float):
                gaps.append(more - fewer)
        if not gaps:
            return Verdict("not measured", f"no result of {row}")
        gap = statistics.fmean(gaps)
        told = f"{row}: {larger} - {smaller} = {gap:+.2f}"
        if len(gaps) < 2:
            return Verdict("holds" if gap > 0 else "fails", f"{told} (one seed, so no deviation)")
        noise = 2 * statistics.stdev(gaps) / math.sqrt(len(gaps))
        told += f" +- {noise:.2f} (two standard errors, {len(gaps)} seeds)"
        if abs(gap) <= noise:
            return Verdict("inside the noise", told)
        return Verdict("holds" if gap > 0 else "fails", told)

    return judge
