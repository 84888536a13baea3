"""What `layerwise calibrate` does: fits the temperature on one split, judges it on another, keeps it in the model file.

The temperature is used only where it is asked for (`layerwise predict --calibrated`): answers stay as they were tested.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from layerwise import modelfile
from layerwise.console import number, percent
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions
from layerwise.evaluation.calibrate import Calibration, calibrate
from layerwise.jobs.assessment import SPLITS, Question, asked_samples
from layerwise.modelfile import ModelFile

KEY = "calibration"


def calibrate_model(path: Path, fit: str, report: str, question: Question) -> Calibration:
    """Fits on `fit` and judges on `report`, each a split's name or other data; writes the temperature to the file.

    Raises InputError where both are the same pictures.
    """
    found = modelfile.read(path)
    protocol = question.protocol or (found.recipe.protocol if found.recipe else "single")
    options = EvaluateOptions(protocol, data=found.recipe.data if found.recipe else "")
    made = calibrate(found, _samples(fit, found, question), _samples(report, found, question), options)
    kept = {"temperature": made.temperature, "fitted_on": made.fitted_on, "protocol": made.protocol}
    modelfile.write(found.path, dataclasses.replace(found, provenance=found.provenance | {KEY: kept}))
    return made


def _samples(where: str, found: ModelFile, question: Question) -> Samples:
    named = {"on": where, "data": ""} if where in SPLITS else {"on": "", "data": where}
    return asked_samples(dataclasses.replace(question, **named), found)  # type: ignore[arg-type]


def kept_temperature(found: ModelFile) -> float:
    """The temperature that `calibrate_model` wrote. Raises InputError where there is none."""
    kept = found.provenance.get(KEY)
    temperature = kept.get("temperature") if isinstance(kept, dict) else None
    if not isinstance(temperature, float):
        raise InputError(f"{found.path}: is not calibrated", mend=f"layerwise calibrate {found.path}")
    return temperature


def calibration_lines(made: Calibration) -> list[str]:
    """The effect of the temperature for people."""
    before, after = made.before, made.after
    rows = (("calibration error", before.calibration_error, after.calibration_error),
            ("largest calibration error", before.max_calibration_error, after.max_calibration_error))
    lines = [f"temperature {made.temperature:.4f}, fitted on {made.fitted_on['samples']:,} pictures of "
             f"{made.fitted_on['split']}; on {made.reported_on['samples']:,} of {made.reported_on['split']}:"]
    lines += [f"{words}: {percent(old)} before, {percent(new)} after ({made.bins} bins)" for words, old, new in rows]
    plain = (("loss", before.loss, after.loss), ("Brier score", before.brier, after.brier))
    lines += [f"{words}: {number(old)} before, {number(new)} after" for words, old, new in plain]
    return [*lines, f"error {percent(made.error)}, which a temperature does not change",
            *(f"note: {text}" for text in made.notes)]
