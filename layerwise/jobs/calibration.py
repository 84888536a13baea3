"""What `layerwise calibrate` does: fits the temperature on one split, judges it on another, keeps it in the model file.

The temperature is used only where it is asked for (`layerwise predict --calibrated`): answers stay as they were tested.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from layerwise import modelfile, rundir
from layerwise.checkpoint import replace_durably
from layerwise.console import number, percent
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions
from layerwise.evaluation.calibrate import Calibration, calibrate
from layerwise.jobs.assessment import SPLITS, Question, asked_samples
from layerwise.modelfile import ModelFile
from layerwise.report.page import require_new_svg, standalone_reliability

KEY = HOME = "calibration"
FORMAT = 1


def calibrate_model(path: Path, fit: str, report: str, question: Question, figure: Path | None = None) -> Calibration:
    """Fits on `fit` and judges on `report`, each a split's name or other data; writes the temperature to the file.

    Of a run the result and its reliability figure are saved in `calibration/`; `figure` is where the figure is written
    besides. Raises InputError where both are the same pictures, or `figure` exists or is no SVG file.
    """
    if figure is not None:
        require_new_svg(figure)
    found = modelfile.read(path)
    protocol = question.protocol or (found.recipe.protocol if found.recipe else "single")
    options = EvaluateOptions(protocol, data=found.recipe.data if found.recipe else "")
    made = calibrate(found, _samples(fit, found, question), _samples(report, found, question), options)
    kept = {"temperature": made.temperature, "fitted_on": made.fitted_on, "protocol": made.protocol}
    modelfile.write(found.path, dataclasses.replace(found, provenance=found.provenance | {KEY: kept}))
    record = {"format": FORMAT, "sha256": found.sha256, **json.loads(json.dumps(made.to_json()))}
    drawing = standalone_reliability(record).encode()
    if path.is_dir():
        home = path / HOME
        home.mkdir(exist_ok=True)
        replace_durably(home / "reliability.svg", drawing)
        rundir.write_json(home / "result.json", record)
    if figure is not None:
        replace_durably(figure, drawing)
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
