"""What `layerwise reject` does: error against rejection of a trained network, on labelled pictures.

LeCun et al. 1990, section 4: doubtful digits are left unanswered until 1 % of the answers are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwise import modelfile
from layerwise.checkpoint import replace_durably
from layerwise.console import interval, percent
from layerwise.errors import InputError, nearest
from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.evaluation.rejection import RejectionCurve, rejection_curve
from layerwise.jobs.assessment import Question, asked_samples
from layerwise.report.page import require_new_svg, standalone_rejection

RULES = ("difference", "largest", "second")  # those that probabilities can be judged by


@dataclass(frozen=True)
class Rejection:
    """The curve of a model on a split under a protocol, and the error rates (fractions) that were asked for."""

    curve: RejectionCurve
    model: str
    split: str
    protocol: str
    targets: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        asked = [{"error": target, "rejected": None if point is None else point.rejected}
                 for target in self.targets for point in [self.curve.rejection_at(target)]]
        return {"model": self.model, "split": self.split, "protocol": self.protocol, "asked": asked,
                "curve": self.curve.figure()}

    def lines(self) -> list[str]:
        """The curve at the error rates that were asked for, for people."""
        whole = self.curve.points[0]
        lines = [f"{self.split}, {self.curve.samples:,} pictures, protocol {self.protocol}, rule {self.curve.rule}: "
                 f"error {percent(whole.error)} with every picture answered"]
        for target in self.targets:
            point = self.curve.rejection_at(target)
            lines.append(f"error of at most {percent(target)}: no threshold reaches it" if point is None else
                         f"error of at most {percent(target)}: {percent(point.rejected)} rejected, {point.errors} of "
                         f"{point.kept:,} answers wrong (95 % interval {interval(point.interval)}), threshold "
                         f"{point.threshold:.4f}")
        return [*lines, "the threshold was chosen on these very pictures: on others the error will be higher"]


def reject(path: Path, rule: str, targets: tuple[float, ...], question: Question,
           figure: Path | None = None) -> Rejection:
    """The curve of the model at `path` under `rule`; `figure` is where it is drawn, as SVG.

    Raises InputError where the rule is not one of RULES, a target is no error rate or `figure` exists.
    """
    if rule not in RULES:
        raise InputError(f"--rule {rule}: is not a rule{nearest(rule, RULES)}",
                         mend=f"The rules are {', '.join(RULES)}.")
    if wrong := [f"--error {target:g}" for target in targets if not 0 <= target < 1]:
        raise InputError(f"{', '.join(wrong)}: expected a fraction from 0 to below 1", mend="One percent is 0.01.")
    if figure is not None:
        require_new_svg(figure)
    found = modelfile.read(path)
    protocol = question.protocol or (found.recipe.protocol if found.recipe else "single")
    samples = asked_samples(question, found)
    result = evaluate(found, samples, EvaluateOptions(protocol, bad_images=question.bad_images, data=question.data))
    assert result.evidence is not None, "an evaluation that was just made has its predictions"
    curve = rejection_curve(result.evidence.probabilities, result.evidence.columns.labels, rule)
    made = Rejection(curve, str(found.path), result.split, protocol, targets)
    if figure is not None:
        replace_durably(figure, standalone_rejection(curve.figure(), made.targets).encode())
    return made
