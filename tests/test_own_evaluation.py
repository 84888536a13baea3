"""Which of its evaluations stands for a run: one of its own data, whatever `evaluate --data` adds beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layerwise.errors import InputError
from layerwise.jobs.main_job import closing_lines
from layerwise.jobs.sides import read_side
from layerwise.jobs.why import Ask, why
from layerwise.report.page import report
from layerwise.report.run import read_run, summary
from tests.page_parser import Page
from tests.synthetic_run import NAMES, change, evaluate, make_run


def also_tested(run: Path, *folders: str) -> None:
    """Evaluations as `evaluate --data` saves them: the other data's name stands before split and protocol."""
    for folder in folders:
        data, split, _ = folder.split("-")
        made = evaluate(run.parent / f"made-{folder}", "test", "single", NAMES, 30)
        change(made / "result.json", split=split, data={"name": data, "fingerprint": "00" * 32})
        made.rename(run / "evaluations" / folder)


def own(run: Path, *names: str) -> None:
    """Leaves the run these evaluations of its own data."""
    for folder in (run / "evaluations").iterdir():
        if folder.name not in names:
            shutil.rmtree(folder)


def test_the_number_of_a_run_is_of_its_own_data(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = summary(run)["evaluations"][0]["metrics"]
    also_tested(run, "digits-test-single", "test-all-single")
    found = read_run(run)
    assert found.headline is not None
    assert found.headline.name == "test-single"
    assert [one.name for one in found.evaluations] == ["test-single", "val-single", "digits-test-single",
                                                       "test-all-single"]
    told = summary(run)["evaluations"]
    assert told[0]["metrics"] == before
    assert [one["data"] for one in told] == ["synthetic", "synthetic", "digits", "test"]
    closing = [line for line in closing_lines(run) if line.startswith("test error")]
    assert [line.partition("protocol ")[2] for line in closing] == ["single", "single, of digits"]
    assert "of its own data" not in Page(report(run).read_text("utf-8")).texts["result"]


def test_a_number_of_other_data_alone_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    own(run)
    also_tested(run, "digits-test-single")
    assert ("The run was not tested on its own data: this is the evaluation digits-test-single, of digits."
            in Page(report(run).read_text("utf-8")).texts["result"])


@pytest.mark.parametrize(("own_ones", "others", "meant"), [
    (("test-single", "val-single"), ("test-all-single", "aaa-test-single"), "test-single"),
    (("val-single",), ("aaa-all-single", "test-all-single"), "val-single"),
    ((), ("aaa-all-single",), "aaa-all-single"),
])
def test_one_side_of_a_comparison_is_of_the_runs_own_data(tmp_path: Path, own_ones: tuple[str, ...],
                                                          others: tuple[str, ...], meant: str) -> None:
    run = make_run(tmp_path / "run")
    own(run, *own_ones)
    also_tested(run, *others)
    for side in (read_side(run), read_side(run, ["single"])):  # as compare and as why ask
        assert [Path(seed.name).name for seed in side.seeds] == [meant]


def test_no_choice_is_made_among_other_data(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    own(run)
    also_tested(run, "aaa-all-single", "bbb-all-single")
    with pytest.raises(InputError, match="has 2 evaluations"):
        read_side(run, ["single"])


def test_test_before_validation_before_training(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    own(run, "val-single")
    evaluate(run, "train", "single", NAMES, 30)  # `evaluate --on train`
    also_tested(run, "aaa-all-single")
    assert "pictures of its val split" in why(run, run, Ask(pictures=0)).run.told


def test_each_seed_of_a_folder_stands_with_its_own(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = make_run(tmp_path / "runs" / f"seed{seed}")
        change(run / "recipe.json", seed=seed, protocol="mirror")
        evaluate(run, "test", "mirror", NAMES, 30)
    side = read_side(tmp_path / "runs")
    assert [Path(seed.name).name for seed in side.seeds] == ["test-mirror", "test-mirror"]
    assert [note for note in side.notes if "several" in note] == [
        f"{tmp_path / 'runs'}: of several evaluations test-mirror is meant; name another one's directory to compare "
        "that"]
