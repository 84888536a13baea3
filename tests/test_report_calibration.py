"""The reliability figure, on the page and as a file; what the page says of results that other weights gave."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from layerwise import modelfile
from layerwise.errors import InputError
from layerwise.evaluation.calibrate import Calibration, measured, scaled
from layerwise.jobs.assessment import Question
from layerwise.jobs.calibration import calibrate_model
from layerwise.report.page import report, standalone_reliability
from layerwise.report.run import read_run
from tests.page_parser import Page
from tests.synthetic_run import NAMES, make_run

SHA = "cd" * 32  # of the made-up evaluations


def record(**changes: object) -> dict[str, Any]:
    """What `layerwise calibrate` saves, of made-up answers."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=3, size=(400, 3))
    labels = np.where(random.random(400) < 0.7, logits.argmax(axis=1), random.integers(0, 3, 400))
    probabilities = scaled(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1.0)
    made = Calibration(1.75, measured(probabilities, labels), measured(scaled(probabilities, 1.75), labels), 0.2, 15,
                       {"split": "val", "samples": 180}, {"split": "test", "samples": 400}, {"name": "single"},
                       ("a note of the fit",))
    return {"format": 1, "sha256": SHA, **json.loads(json.dumps(made.to_json())), **changes}


def calibrated(place: Path, **changes: object) -> Path:
    run = make_run(place / "run")
    (run / "calibration").mkdir()
    (run / "calibration" / "result.json").write_text(json.dumps(record(**changes)), "utf-8")
    return run


def parsed(run: Path) -> Page:
    return Page(report(run).read_text("utf-8"))


def stated(run: Path, sha256: str) -> None:
    """The model file says that its tensors have this digest."""
    save_file({"model.features.conv1.0.weight": np.zeros((2, 1, 3, 3), np.float32)}, run / "model.safetensors",
              metadata={modelfile.HEADER: json.dumps({"sha256": sha256})})


def test_the_page_shows_a_saved_calibration(tmp_path: Path) -> None:
    found = parsed(calibrated(tmp_path))
    assert found.problems == []
    shown = found.texts["calibration"]
    before, after = (100 * record()[when]["calibration_error"] for when in ("before", "after"))
    for part in (f"before: ECE {before:.2f}\u202f%", f"after: ECE {after:.2f}\u202f%", "15 bins", "1.7500",
                 "confidence", "accuracy", "pictures", "180 pictures of val", "400 of test", "protocol single",
                 "a note of the fit", "Brier score"):
        assert part in shown, part
    assert "calibration" not in parsed(make_run(tmp_path / "control")).texts  # the control: none was saved


def test_bins_that_are_none_are_said_and_not_drawn(tmp_path: Path) -> None:
    run = calibrated(tmp_path, before={"bins": [{"lower": "0", "upper": 1, "count": 3}]})
    found = parsed(run)
    assert "calibration" not in found.texts
    assert "its bins are not those that a calibration writes" in found.texts["missing"]
    (run / "calibration" / "result.json").write_text("{", "utf-8")
    assert "the calibration is not shown" in parsed(run).texts["missing"]


def test_the_figure_as_a_file_stands_alone() -> None:
    drawn = standalone_reliability(record())
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    used = set(re.findall(r"var\((--[a-z-]+)\)", drawn))
    assert used
    assert all(f"{name}:" in drawn for name in used)
    assert "prefers-color-scheme: dark" in drawn
    text = "".join(root.itertext())
    assert "before: ECE" in text
    assert "after: ECE" in text
    # A bar for each bin: two panels with accuracy and pictures.
    assert drawn == standalone_reliability(record())
    with pytest.raises(InputError, match="holds no bins"):
        standalone_reliability(record(after={}))


def test_the_bars_are_as_high_as_the_bins_say() -> None:
    """Each bar's height in the drawing, against the accuracy that was put in."""
    made = record()
    heights = bar_heights(standalone_reliability(made))
    accuracies = [one["accuracy"] or 0 for one in made["before"]["bins"]]
    assert len(heights) == 60
    unit = max(heights[:15]) / max(accuracies)
    assert heights[:15] == pytest.approx([unit * each for each in accuracies], abs=0.5)
    changed = record()
    changed["before"]["bins"][-1]["accuracy"] = 0.1
    assert bar_heights(standalone_reliability(changed))[14] < heights[14] / 2  # the control


def bar_heights(drawn: str) -> list[float]:
    """Of all filled rectangles, in the order of drawing."""
    found = []
    for path in re.findall(r'<path d="([^"]+)"[^>]*style="fill: var\(--(?:accent|muted)\)', drawn):
        numbers = [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", path)]
        if path.count("L") == 3 and path.endswith("z"):
            found.append(max(numbers[1::2]) - min(numbers[1::2]))
    legend = 1  # the key of the first panel comes after its bars
    return [*found[:15], *found[15 + legend:]] if len(found) == 61 else found


def test_results_of_other_weights_are_labelled(tmp_path: Path) -> None:
    run = calibrated(tmp_path)
    stated(run, SHA)
    assert read_run(run).weights == SHA
    assert "of other weights" not in report(run).read_text("utf-8")
    stated(run, "12" * 32)
    found = parsed(run)
    assert "This evaluation is of other weights than model.safetensors holds now." in found.texts["result"]
    assert "This calibration is of other weights" in found.texts["calibration"]
    assert found.texts["evaluations"].count("of other weights") == 2


def test_the_pictures_of_each_class_are_counted_in_each_split(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "data").mkdir()
    for split, counts in (("train", 7), ("val", 3), ("test", 11)):
        rows = [f"{split}/{name}/{i}.png,{name}" for place, name in enumerate(NAMES)
                for i in range(counts * 100 + place)]
        (run / "data" / f"{split}.csv").write_text("\n".join(["id,label", *rows]) + "\n", "utf-8")
    shown = parsed(run).texts["data"]
    assert "classtrainingvalidationtest" in shown
    assert "trouser7013011,101" in shown
    (run / "data" / "val.csv").write_text("id\nx\n", "utf-8")
    assert "data/val.csv: can't be read" in parsed(run).texts["missing"]


def test_a_figure_is_never_written_over(tmp_path: Path) -> None:
    there = tmp_path / "a.svg"
    there.touch()
    for name, words in ((there, "exists"), (tmp_path / "b.png", "the figure is an SVG file"),
                        (tmp_path / "no" / "a.svg", "its directory does not exist")):
        with pytest.raises(InputError, match=words):
            calibrate_model(tmp_path / "none", "val", "test", Question(), name)


def test_bf16_kernels_are_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    weight = torch.linspace(-1, 1, 36).reshape(4, 1, 3, 3)
    shown = []
    for kind in (torch.float32, torch.bfloat16):
        save_torch({"model.features.conv1.0.weight": weight.to(kind).float().to(kind)}, run / "model.safetensors")
        found = parsed(run)
        assert "All 4 kernels" in found.texts["kernels"]
        shown.append(next(source for source, alt in found.images if "kernels" in alt))
    assert len(shown[1]) > 100
