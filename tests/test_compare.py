"""Paired comparison of two evaluations: the test, the interval, the verdict; and what can't be compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from layerwise.errors import InputError
from layerwise.evaluation.protocols import PROTOCOLS
from layerwise.jobs.compare import compare, paired_interval

NAMES = ("cat", "dog")


def evaluation(folder: Path, right: list[bool], protocol: str = "single", first: int = 0) -> Path:
    """A saved evaluation in which the pictures first, first + 1, ... of class cat are answered right or wrong."""
    folder.mkdir(parents=True)
    wrong = right.count(False)
    classes = [{"name": name, "support": len(right) if name == "cat" else 0, "precision": None, "recall": None,
                "f1": None, "reason": None} for name in NAMES]  # fmt: skip
    record = {"format": 1, "split": "test", "samples": len(right), "unreadable": 0, "ignored": 0,
              "protocol": PROTOCOLS[protocol].to_json(), "classes": classes, "worst": [], "models": [],
              "notes": [], "data": {}, "versions": {}, "hardware": {},
              "confusion": [[len(right) - wrong, wrong], [0, 0]],
              "metrics": {"error": wrong / len(right), "error_interval": [0, 1], "loss": None}}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(record))
    with open(folder / "predictions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "true", "predicted"])
        rows.writerows([f"{first + n}.png", "cat", "cat" if good else "dog"] for n, good in enumerate(right))
    return folder


def test_a_difference_beyond_the_noise(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [True] * 60 + [False] * 40)
    b = evaluation(tmp_path / "b", [True] * 55 + [False] * 5 + [True] * 30 + [False] * 10)
    found = compare(a, b)
    assert (found.only_a_right, found.only_b_right, found.images) == (5, 30, 100)
    assert found.difference == pytest.approx(found.error_b - found.error_a) == pytest.approx(-0.25)
    assert found.p == pytest.approx(binomtest(5, 35).pvalue)
    assert found.interval[1] < 0
    assert found.verdict.startswith(f"{b} is better than {a} on these images (p = ")
    assert compare(b, a).verdict == found.verdict


def test_inside_the_noise(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [True] * 60 + [False] * 40)
    b = evaluation(tmp_path / "b", [True] * 58 + [False] * 2 + [True] * 3 + [False] * 37)
    found = compare(a, b)
    assert found.verdict == "no difference beyond the noise of 100 images (p = 1)"
    assert found.interval[0] < 0 < found.interval[1]
    assert found.to_json()["verdict"] == found.verdict


def test_the_interval_covers() -> None:
    """Of 2,000 simulated pairs with a true difference of 5 points, about 95 % of the intervals hold it."""
    random = np.random.default_rng(0)
    n, p_a, p_b = 300, 0.06, 0.11  # parts of the images that only a, only b has right
    draws = random.multinomial(n, [p_a, p_b, 1 - p_a - p_b], size=2000)
    held = [low <= p_a - p_b <= high for low, high in (paired_interval(int(x), int(y), n) for x, y, _ in draws)]
    assert 0.935 < np.mean(held) < 0.97


def test_other_protocols_are_noted(tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", [True, False]), evaluation(tmp_path / "b", [True, True], "mirror")
    assert compare(a, b).notes[0].startswith("the protocols differ: single and mirror")


def test_other_images_and_labels_are_refused(tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", [True, False]), evaluation(tmp_path / "b", [True, False], first=1)
    with pytest.raises(InputError, match="not the same images with the same labels") as caught:
        compare(a, b)
    assert caught.value.details == (f"0.png: only in {a}", f"2.png: only in {b}")
    c = evaluation(tmp_path / "c", [True, False])
    (c / "predictions.csv").write_text("id,true,predicted\n0.png,dog,dog\n1.png,cat,dog\n")
    with pytest.raises(InputError, match=r"0\.png: 'cat' in .*, 'dog' in "):
        compare(a, c)


def test_a_run_stands_for_its_one_test(tmp_path: Path) -> None:
    run = tmp_path / "run"
    evaluation(run / "evaluations" / "test-single", [True, False])
    evaluation(run / "evaluations" / "val-single", [True, True])
    assert compare(run, run).images == 2
    evaluation(run / "evaluations" / "test-mirror", [True, True], "mirror")
    with pytest.raises(InputError, match="has 2 evaluations"):
        compare(run, run)


@pytest.mark.parametrize(("text", "says"), [
    (None, "there is no such file"), ("", "no image was predicted"), ("a,b\n1,2\n", "not a table of predictions"),
    ("id,true,predicted\n", "no image was predicted"),
])
def test_damaged_predictions(text: str | None, says: str, tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [True, False])
    (a / "predictions.csv").unlink()
    if text is not None:
        (a / "predictions.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        compare(a, a)
