"""`layerwise reject` on a trained network: the curve's figures against the saved predictions; messages; the figure."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import layerwise
from layerwise.errors import InputError
from layerwise.jobs.assessment import Question
from layerwise.jobs.reject import RULES, reject
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training.preparation import RunOptions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = changed(preset("digits"), ["network=lenet5", "input_size=32", "resize=squash", "duration=2",
                                        "warmup_length=0.5"])
    return layerwise.train(recipe, RunOptions(out=tmp_path_factory.mktemp("reject") / "run", quiet=True))


def by_hand(run: Path, target: float) -> tuple[int, int]:
    """The most answers that can be kept with an error of at most `target`, and how many are wrong, from the CSV."""
    rows = []
    table = (run / "evaluations" / "test-single" / "predictions.csv").read_text("utf-8")
    for row in csv.DictReader(table.splitlines()):
        lead = float(row["top1_probability"]) - float(row["top2_probability"])
        rows.append((lead, row["correct"] == "0"))
    kept = [(sum(lead >= limit for lead, _ in rows), sum(wrong for lead, wrong in rows if lead >= limit))
            for limit, _ in rows]
    return max(one for one in kept if one[1] <= target * one[0])


@pytest.mark.parametrize("target", [0.05, 0.01])
def test_the_figures_are_those_of_the_saved_predictions(run: Path, target: float) -> None:
    found = reject(run, "difference", (target,), Question(), None)
    point = found.curve.rejection_at(target)
    assert point is not None
    assert (point.kept, point.errors) == by_hand(run, target)
    assert found.curve.points[0].rejected == 0
    assert f"error of at most {100 * target:.2f} %" in found.lines()[1]
    assert json.loads(json.dumps(found.to_json()))["asked"] == [{"error": target, "rejected": point.rejected}]


def test_the_rules_differ(run: Path) -> None:
    points = {rule: reject(run, rule, (), Question(), None).curve.points for rule in RULES}
    assert len({tuple(point.threshold for point in found) for found in points.values()}) > 1
    assert len({found[0].error for found in points.values()}) == 1  # with everything answered they agree


def test_the_figure_is_well_formed_and_nothing_is_written_over(run: Path, tmp_path: Path) -> None:
    figure = tmp_path / "curve.svg"
    reject(run, "difference", (0.01,), Question(), figure)
    text = "".join(ElementTree.fromstring(figure.read_text("utf-8")).itertext())
    assert "rejected (%)" in text
    assert "error of the answers (%)" in text
    with pytest.raises(InputError, match=r"curve\.svg: exists"):
        reject(run, "difference", (), Question(), figure)


def test_messages(run: Path) -> None:
    with pytest.raises(InputError, match="--rule diference: is not a rule, did you mean 'difference'"):
        reject(run, "diference", (), Question(), None)
    with pytest.raises(InputError, match="--error 5: expected a fraction"):
        reject(run, "largest", (0.01, 5.0), Question(), None)
