"""Temperature scaling (Guo et al. 2017, section 4.2): one number that makes probabilities mean what they say.

The temperature is fitted on one set of pictures by the likelihood, and judged on another. It never changes which class
is the most probable, so it changes no error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from layerwise.data.scan import scan_files
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions, Models, evaluate, softmax
from layerwise.evaluation.metrics import (
    BINS,
    LEAST,
    Bin,
    Floats,
    Integers,
    calibration_errors,
    loss,
    reliability,
    scores,
)
from layerwise.evaluation.result import Result

BOUNDS = (0.01, 100.0)


@dataclass(frozen=True)
class Reliability:
    """Calibration on one set: expected and maximum calibration error, loss (nats), Brier score, and the bins."""

    calibration_error: float | None
    max_calibration_error: float | None
    loss: float | None
    brier: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature and what it does on other pictures.

    `fitted_on` and `reported_on` name the splits, with the number of samples and the fingerprint.
    """

    temperature: float
    before: Reliability
    after: Reliability
    error: float | None
    bins: int
    fitted_on: dict[str, Any]
    reported_on: dict[str, Any]
    protocol: dict[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        return asdict(self)


def calibrate(models: Models, fit: Samples, report: Samples, options: EvaluateOptions) -> Calibration:
    """The temperature fitted on `fit`, with ECE, MCE, loss and Brier score before and after on `report`.

    Raises InputError where the two are the same pictures, and what `evaluate` raises.
    """
    notes = _overlap(fit, report)
    fitted, reported = evaluate(models, fit, options), evaluate(models, report, options)
    probabilities, labels = _answers(fitted)
    temperature = fit_temperature(probabilities, labels)
    if not fitted.metrics["errors"]:
        notes.append(f"all {len(labels)} pictures of {fit.name} are answered rightly, so they do not determine a "
                     "temperature: it stays 1")
    elif not BOUNDS[0] * 1.01 < temperature < BOUNDS[1] / 1.01:
        notes.append(f"the temperature {temperature:.3g} lies at the end of its range: {fit.name} "
                     f"({len(labels)} pictures) does not determine it")
    probabilities, labels = _answers(reported)
    return Calibration(
        temperature, measured(probabilities, labels), measured(scaled(probabilities, temperature), labels),
        reported.error, BINS, _of(fitted), _of(reported), reported.protocol.to_json(), tuple(notes),
    )  # fmt: skip


def fit_temperature(probabilities: Floats, labels: Integers) -> float:
    """The temperature in [0.01, 100] with the least loss of `probabilities` (N, C) for `labels` (N,).

    Where every answer is right the loss only falls towards T = 0: nothing is determined, and it is 1.
    """
    if (probabilities.argmax(axis=1) == labels).all():
        return 1.0
    logs = np.log(np.maximum(probabilities, LEAST))
    rows = np.arange(len(labels))

    def cost(log_temperature: float) -> float:
        scaled_logs = logs / np.exp(log_temperature)
        top = scaled_logs.max(axis=1)
        normaliser = top + np.log(np.exp(scaled_logs - top[:, None]).sum(axis=1))
        return float((normaliser - scaled_logs[rows, labels]).mean())

    # The loss is convex in 1 / T, so it has one valley in log T.
    found = minimize_scalar(cost, bounds=tuple(np.log(BOUNDS)), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(found.x))


def scaled(probabilities: Floats, temperature: float) -> Floats:
    """softmax(log p / T): for one network the same as dividing its logits by T. T = 1 changes not even the last bit."""
    return probabilities if temperature == 1 else softmax(np.log(np.maximum(probabilities, LEAST)) / temperature)


def measured(probabilities: Floats, labels: Integers) -> Reliability:
    """The calibration of `probabilities` (N, C) against `labels` (N,)."""
    columns = scores(probabilities, labels)
    bins = reliability(columns.confidence, columns.predicted == columns.labels)
    expected, largest = calibration_errors(bins)
    return Reliability(expected, largest, loss(columns.probability), float(columns.brier.mean()), bins)


def _answers(result: Result) -> tuple[Floats, Integers]:
    assert result.evidence is not None
    return result.evidence.probabilities, result.evidence.columns.labels


def _of(result: Result) -> dict[str, Any]:
    return {"split": result.split, "samples": result.samples, **result.data}


def _overlap(fit: Samples, report: Samples) -> list[str]:
    """Refuses two sets of which one lies within the other; fewer shared pictures are a note."""
    first, second = Counter(_contents(fit)), Counter(_contents(report))
    shared = (first & second).total()
    if fit.fingerprint == report.fingerprint or shared == min(len(fit), len(report)):
        raise InputError(
            f"{fit.name} and {report.name}: the temperature would be fitted and judged on the same pictures "
            f"({shared} shared)",
            "A temperature looks good on the pictures it was fitted on, whatever it does to others.",
            "Name different splits: layerwise calibrate RUN --fit val --report test",
        )
    return [f"{shared} pictures are in both {fit.name} and {report.name}"] if shared else []


def _contents(samples: Samples) -> list[str]:
    if samples.images is not None:
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in samples.images]
    assert samples.paths is not None
    return [found.sha256 for found in scan_files(samples.paths, samples.rules)]
