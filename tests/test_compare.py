"""Comparisons over the same images and over seeds: tests, intervals, verdicts; and what can't be compared."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_ind

from layerwise.cli import main
from layerwise.errors import InputError
from layerwise.evaluation.metrics import mcnemar
from layerwise.evaluation.protocols import PROTOCOLS
from layerwise.experiments import find, measured
from layerwise.jobs.compare import compare, compare_all, paired_interval
from layerwise.jobs.sides import read_side
from layerwise.recipes.presets import preset

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


def test_of_several_evaluations_that_under_the_recipes_protocol_is_meant(tmp_path: Path) -> None:
    """As after `evaluate RUN --protocol ten-crop`. Which one it is, is said; another one can be named."""
    a, b = tmp_path / "a", tmp_path / "b"
    for run in (a, b):
        evaluation(run / "evaluations" / "test-single", [True, False])
        evaluation(run / "evaluations" / "test-ten-crop", [True, True], "ten-crop")
        (run / "recipe.json").write_text(RECIPE.to_json())
    found = compare_all([a, b])
    assert [side.seeds[0].protocol for side in found.sides] == ["single", "single"]
    assert found.notes == tuple(f"{run}: of several evaluations test-single is meant; name another one's directory to "
                                "compare that" for run in (a, b))
    named = compare_all([a / "evaluations" / "test-ten-crop", b / "evaluations" / "test-ten-crop"])
    assert ([side.seeds[0].protocol for side in named.sides], named.notes) == (["ten-crop", "ten-crop"], ())
    (a / "recipe.json").unlink()
    with pytest.raises(InputError, match="has 2 evaluations"):
        compare_all([a, b])


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


RECIPE = replace(preset("digits"), protocol="single")


def runs(folder: Path, errors: dict[int, float], fingerprint: str = "ab", protocol: str = "single") -> Path:
    """A folder of runs seed0, seed1, ... with these test errors, of 100 pictures each."""
    for seed, error in errors.items():
        right = 100 - round(100 * error)
        place = evaluation(folder / f"seed{seed}" / "evaluations" / "test-single",
                           [True] * right + [False] * (100 - right), protocol)
        record = json.loads((place / "result.json").read_text())
        (place / "result.json").write_text(json.dumps(record | {"data": {"fingerprint": fingerprint}}))
        (folder / f"seed{seed}" / "recipe.json").write_text(replace(RECIPE, seed=seed).to_json())
    return folder


def kept(folder: Path, error: float, seed: int = 0, **changes: object) -> Path:
    """A kept result with a recipe, as in `results/`."""
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(replace(RECIPE, seed=seed).to_json())
    (folder / "metrics.json").write_text(json.dumps({
        "metrics": {"error": error, "loss": 0.1}, "protocol": {"name": "single"}, "data": {"fingerprint": "ab"},
    } | changes))
    return folder


def test_every_number_of_two_evaluations_has_its_interval(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [True] * 60 + [False] * 40)
    b = evaluation(tmp_path / "b", [True] * 55 + [False] * 5 + [True] * 30 + [False] * 10)
    found = compare(a, b, replicates=200)
    numbers = {one.name: one for one in found.numbers}
    assert set(numbers) == {"error", "macro_f1", "weighted_f1"}
    assert (numbers["error"].interval, numbers["error"].p) == (found.interval, found.p)
    assert numbers["macro_f1"].better == "b"
    assert numbers["macro_f1"].interval is not None
    assert numbers["macro_f1"].interval[0] > 0


def test_runs_over_seeds_by_welch(tmp_path: Path) -> None:
    a = runs(tmp_path / "a", {0: 0.10, 1: 0.12, 2: 0.11})
    b = runs(tmp_path / "b", {0: 0.30, 1: 0.33, 2: 0.31})
    found = compare_all([a, b])
    pair = found.pairs[0]
    assert (found.over, pair.test, pair.seeds, pair.images) == ("seeds", "Welch's t", (3, 3), 0)
    assert found.why == "a seed is a new draw, so the runs of two sides are independent"
    assert pair.p == pytest.approx(ttest_ind([0.30, 0.33, 0.31], [0.10, 0.12, 0.11], equal_var=False).pvalue)
    assert pair.verdict.startswith(f"{a} is better than {b} over 3 and 3 runs (p = ")
    assert found.to_json()["sides"][0]["numbers"]["error"]["mean"] == pytest.approx(0.11)


def test_seeds_inside_the_noise_are_not_marked(tmp_path: Path) -> None:
    a, b = runs(tmp_path / "a", {0: 0.10, 1: 0.20, 2: 0.15}), runs(tmp_path / "b", {0: 0.12, 1: 0.21, 2: 0.17})
    pair = compare_all([a, b]).pairs[0]
    assert pair.better == ""
    assert pair.verdict.startswith("no difference beyond the noise of 3 and 3 runs (p = 0.")
    asked = compare_all([a, b], pairing="paired")
    assert asked.pairs[0].test == "paired t"
    assert asked.why == "runs of one seed are compared with each other, as asked"
    assert asked.pairs[0].better == str(a)  # the negative control: the same numbers, paired, are no noise


def test_runs_that_drew_their_own_pictures_are_paired(tmp_path: Path) -> None:
    for side, more in (("a", 0.0), ("b", 0.02)):
        for seed, error in {0: 0.10, 1: 0.20, 2: 0.15}.items():
            runs(tmp_path / side, {seed: error + more + 0.01 * (seed == 1)}, fingerprint=f"split of {seed}")
    found = compare_all([tmp_path / "a", tmp_path / "b"])
    assert found.why.startswith("each seed drew its own test pictures")
    runs(tmp_path / "c", {0: 0.1, 1: 0.2, 2: 0.3}, fingerprint="other")
    with pytest.raises(InputError, match="the sides were tested on different pictures") as caught:
        compare_all([tmp_path / "a", tmp_path / "c"])
    assert caught.value.details[0].startswith("seed 0: ")


def test_sides_of_other_pictures_are_refused(tmp_path: Path) -> None:
    a = runs(tmp_path / "a", {0: 0.1, 1: 0.2})
    b = runs(tmp_path / "b", {0: 0.1, 1: 0.2}, fingerprint="cd")
    with pytest.raises(InputError, match="tested on different pictures"):
        compare_all([a, b])
    assert compare_all([a, runs(tmp_path / "c", {2: 0.1, 3: 0.2})]).pairs[0].images == 0


def test_three_sides_have_holms_correction(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [True] * 80 + [False] * 20)
    b = evaluation(tmp_path / "b", [True] * 70 + [False] * 30)
    c = evaluation(tmp_path / "c", [True] * 74 + [False] * 26)
    found = compare_all([a, b, c], replicates=50)
    assert [(pair.a, pair.b) for pair in found.pairs] == [(str(a), str(b)), (str(a), str(c)), (str(b), str(c))]
    plain = [mcnemar(10, 0), mcnemar(6, 0), mcnemar(0, 4)]
    assert [pair.p for pair in found.pairs] == pytest.approx(plain)
    assert [pair.adjusted for pair in found.pairs] == pytest.approx([3 * plain[0], 2 * plain[1], plain[2]])
    assert plain[1] < 0.05 < found.pairs[1].adjusted  # type: ignore[operator]  # marked alone, not as one of three
    assert [bool(pair.better) for pair in found.pairs] == [True, False, False]
    assert "after Holm's correction" in found.pairs[0].verdict
    assert found.pairs[0].numbers[1].adjusted is not None


def test_kept_results_and_lists_of_runs(tmp_path: Path) -> None:
    sides = [",".join(str(kept(tmp_path / f"{side}{seed}", error + 0.01 * seed, seed)) for seed in range(3))
             for side, error in (("a", 0.1), ("b", 0.2))]
    found = compare_all(sides)
    assert [len(side.seeds) for side in found.sides] == [3, 3]
    assert {one.name for one in found.pairs[0].numbers} == {"error", "loss"}
    loss = next(one for one in found.pairs[0].numbers if one.name == "loss")
    assert loss.note == "no deviation over the runs: nothing to test"


def test_a_reproduced_rows_percentages_are_fractions(tmp_path: Path) -> None:
    place = kept(tmp_path / "row", 0.0)
    (place / "metrics.json").write_text(json.dumps({
        "numbers": {"error": 8.5, "top5_error": 0.5, "parameters": 269722}, "protocol": {"name": "single"},
        "data": {"fingerprint": "ab"}}))
    assert read_side(place).seeds[0].numbers == pytest.approx({"error": 0.085, "top_5_error": 0.005})


def test_one_run_against_several(tmp_path: Path) -> None:
    a, b = kept(tmp_path / "a", 0.2), runs(tmp_path / "b", {0: 0.10, 1: 0.11, 2: 0.12})
    found = compare_all([a, b])
    assert found.pairs[0].test == "Student's t, one run against several"
    assert found.notes == (f"{a} is one run: its deviation is taken to be the other's",)
    alone = compare_all([a, kept(tmp_path / "c", 0.1)])
    assert alone.pairs[0].verdict == "no test over 1 and 1 runs: one run on each side: no deviation"


def test_runs_of_several_recipes_and_protocols_are_noted(tmp_path: Path) -> None:
    a = runs(tmp_path / "a", {0: 0.1, 1: 0.2})
    (a / "seed1" / "recipe.json").write_text(replace(RECIPE, seed=1, learning_rate=0.7).to_json())
    b = runs(runs(tmp_path / "b", {0: 0.1}), {1: 0.2}, protocol="mirror")
    notes = compare_all([a, b]).notes
    assert notes[0] == f"the runs of {a} were not made by one recipe: their deviation is not of seeds alone"
    assert notes[1] == f"the runs of {b} were tested under different protocols: mirror, single"


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    a, b = runs(tmp_path / "a", {0: 0.1, 1: 0.2}), runs(tmp_path / "b", {0: 0.1, 2: 0.2})
    with pytest.raises(InputError, match="--pairing paired: the sides don't have the same seeds") as caught:
        compare_all([a, b], pairing="paired")
    assert caught.value.details == (f"{a}: seeds 0, 1", f"{b}: seeds 0, 2")
    with pytest.raises(InputError, match="2 runs, without one table of predictions"):
        compare_all([a, b], over="images")
    with pytest.raises(InputError, match="2 runs stand on two sides"):
        compare_all([a, a])
    with pytest.raises(InputError, match="seed 0 is there twice"):
        compare_all([f"{a},{b}", a])
    with pytest.raises(InputError, match="compare: one side given"):
        compare_all([a])
    with pytest.raises(InputError, match="--over pictures: no such choice"):
        compare_all([a, b], over="pictures")
    with pytest.raises(InputError, match="--pairing pair: no such choice, did you mean 'paired'"):
        compare_all([a, b], pairing="pair")
    bad = kept(tmp_path / "bad", 0.1, protocol="single")
    with pytest.raises(InputError, match="not a kept result"):
        compare_all([bad, a])
    none = kept(tmp_path / "none", 0.1, metrics={"loss": 0.1})
    with pytest.raises(InputError, match="no error that both have"):
        compare_all([none, a])


def test_rows_of_experiments_are_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = find("resnet/table-6")
    for row, error in (("resnet20", 10.0), ("resnet32", 8.0)):
        for seed in range(3):
            cell = measured.cell(experiment, row, "small", seed)
            place = Path("results/measured") / measured.key(cell.recipes[0])
            place.mkdir(parents=True)
            (place / "recipe.json").write_text(cell.recipes[0].to_json())
            (place / "metrics.json").write_text(json.dumps({
                "numbers": {"error": error + 0.1 * seed}, "protocol": {"name": "single"},
                "data": {"fingerprint": "ab"}}))
    found = compare_all(["resnet/table-6/resnet20", "resnet/table-6/resnet32@small"])
    assert found.pairs[0].better == "resnet/table-6/resnet32@small"
    with pytest.raises(InputError, match="not measured at the scale paper") as caught:
        compare_all(["resnet/table-6/resnet20@paper", "resnet/table-6/resnet32"])
    assert caught.value.mend == "layerwise reproduce resnet/table-6 --scale paper --rows resnet20"
    with pytest.raises(InputError, match="has no row resnet2o, did you mean 'resnet32' or 'resnet20'"):
        compare_all(["resnet/table-6/resnet2o", "resnet/table-6/resnet32"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = evaluation(tmp_path / "a", [True] * 60 + [False] * 40)
    b = evaluation(tmp_path / "b", [True] * 55 + [False] * 5 + [True] * 30 + [False] * 10)
    assert main(["compare", str(a), str(b)]) == 0
    seen = capsys.readouterr()
    assert "McNemar's exact test" in seen.out
    assert "only A right 5, only B right 30 of 100 images" in seen.out
    assert next(line for line in seen.out.splitlines() if line.startswith("macro f1")).endswith(" B")
    assert "it speaks of these weights" in seen.err
    c = evaluation(tmp_path / "c", [True] * 58 + [False] * 2 + [True] * 3 + [False] * 37)
    assert main(["compare", str(a), str(c)]) == 0
    assert next(line for line in capsys.readouterr().out.splitlines() if line.startswith("macro f1")).endswith(" -")
    one, other = runs(tmp_path / "d", {0: 0.1, 1: 0.2}), runs(tmp_path / "e", {0: 0.1, 1: 0.2})
    assert main(["compare", str(one), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["over"], found["pairs"][0]["test"]) == ("seeds", "Welch's t")
