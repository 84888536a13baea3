"""docs/results.md says what `results/` holds, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from layerwise import rundir
from layerwise.errors import InputError
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset
from layerwise.report import ledger

ROOT = Path(__file__).resolve().parents[1]


def made_up_run(where: Path, seed: int, error: float, **fields: object) -> Path:
    """A run's directory with the files that the ledger reads."""
    recipe = dataclasses.replace(preset("digits"), seed=seed, **fields)
    tested = where / "evaluations" / f"test-{recipe.protocol}"
    tested.mkdir(parents=True)
    (where / "recipe.json").write_text(recipe.to_json())
    rundir.write_json(where / "run.json", {
        "format": 1, "state": "finished", "branches": [], "seconds": 90.0, "notes": ["a note"],
        "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "made up", "threads": 1, "precision": "fp32", "system": "Linux"}})
    line = {"kind": "val", "epoch": 30.0, "error": 0.02, "loss": 0.1}
    (where / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    rundir.write_json(tested / "result.json", {
        "split": "test", "samples": 359, "unreadable": 0, "protocol": {"name": "single", "description": "once"},
        "metrics": {"error": error, "error_interval": [error / 2, error * 2]}, "data": {"name": "digits"},
        "models": [{"path": "somewhere", "sha256": "ab" * 32, "recipe_hash": "cd" * 32, "seed": seed}]})
    return where


def test_the_page_is_that_of_the_results_kept_here() -> None:
    assert (ROOT / ledger.PAGE).read_text("utf-8") == ledger.page(ROOT), "run python -m layerwise.report.ledger"


def test_a_changed_result_makes_the_page_stale(tmp_path: Path) -> None:
    """The negative control."""
    ledger.keep(made_up_run(tmp_path / "run", 0, 0.01), "a/b", tmp_path)
    page = ledger.page(tmp_path)
    file = tmp_path / "results" / "a" / "b" / "seed0" / "metrics.json"
    file.write_text(file.read_text().replace("0.01", "0.02"))
    assert ledger.page(tmp_path) != page


def test_seeds_are_one_row_with_mean_and_deviation(tmp_path: Path) -> None:
    for seed, error in ((0, 0.01), (1, 0.02), (2, 0.03)):
        ledger.keep(made_up_run(tmp_path / str(seed), seed, error, learning_rate=0.25, threads=2), "a/b", tmp_path)
    page = ledger.page(tmp_path)
    assert "test error 2.00 +- 1.00 (mean and standard deviation of 3 seeds), median 2.00, 1.00 to 3.00" in page
    assert ("layerwise train resnet20 digits --recipe digits --set learning_rate=0.25 --set threads=2 --seeds 3"
            in page)
    assert "| 2 | 3.00 | 1.50 to 6.00 | 2.00 | 1.5 | `abababababab` |" in page
    assert "somewhere" not in (tmp_path / "results" / "a" / "b" / "seed0" / "metrics.json").read_text()


def test_what_is_not_finished_or_not_tested_is_not_kept(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", 0, 0.01)
    rundir.update_run(run, {"state": "interrupted"})
    with pytest.raises(InputError, match="not a finished, unbranched run"):
        ledger.keep(run, "a/b", tmp_path)


@pytest.mark.parametrize("other", ["test-all-mirror", "test-centre"])  # `--data photos/test`, `--protocol centre`
def test_what_is_kept_is_the_runs_own_test(tmp_path: Path, other: str) -> None:
    run = made_up_run(tmp_path / "run", 0, 0.01)
    added = run / "evaluations" / other / "result.json"
    added.parent.mkdir()
    own = run / "evaluations" / f"test-{preset('digits').protocol}" / "result.json"
    record = json.loads(own.read_text())
    rundir.write_json(added, record | {"metrics": record["metrics"] | {"error": 0.9}})
    kept = ledger.keep(run, "a/b", tmp_path)
    assert json.loads((kept / "metrics.json").read_text())["metrics"]["error"] == 0.01
    own.unlink()
    with pytest.raises(InputError, match="with an evaluation of its test split"):
        ledger.keep(run, "a/b", tmp_path)


def test_every_kept_recipe_is_one_that_is_read(tmp_path: Path) -> None:
    kept = list((ROOT / "results").glob("*/*/seed*/recipe.json"))
    assert kept
    for file in kept:
        recipe = Recipe.from_json(file.read_text("utf-8"), str(file))
        metrics = json.loads((file.parent / "metrics.json").read_text("utf-8"))
        assert metrics["models"][0]["recipe_hash"] == recipe.hash
        assert metrics["split"] == "test"
