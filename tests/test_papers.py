"""A paper's number beside ours: a small run can't pass for the paper's, chance is told from agreement, pages made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from layerwise import rundir
from layerwise.experiments import EXPERIMENTS, find, measured
from layerwise.experiments.experiment import Claim, Results, Row, Verdict, every, less
from layerwise.experiments.scales import differences
from layerwise.recipe import Recipe
from layerwise.report import ledger, paper_figures, papers
from layerwise.report.paper_values import Printed, agreement, as_printed, difference, printed, shown, signed
from layerwise.report.papers import table
from layerwise.report.papers_list import states
from layerwise.report.papers_page import draw_all, sections, variants
from tests.made_up_experiment import NAME, PAPERS, module

ROOT = Path(__file__).resolve().parents[1]


def put(root: Path, scale: str, errors: dict[str, list[float]], data: str = "") -> None:
    """Keeps made-up errors (percent), a seed each, as if the rows had been trained."""
    experiment = find(NAME)
    for slug, values in errors.items():
        for seed, error in enumerate(values):
            recipe = measured.cell(experiment, slug, scale, seed, data).recipes[0]
            where = root / measured.key(recipe)
            where.mkdir(parents=True, exist_ok=True)
            (where / "recipe.json").write_text(recipe.to_json())
            rundir.write_json(where / "environment.json", {
                "versions": {"torch": "2.13.0"}, "notes": [], "chosen": {},
                "hardware": {"device": "cpu", "cpu": "made up", "threads": 2, "precision": "fp32"}})
            curve = [{"step": step, "validation_error": error + 10 - step, "learning_rate": 0.1} for step in range(3)]
            rundir.write_json(where / "metrics.json", {
                "numbers": {"error": error, "parameters": 269_722}, "curve": curve, "seconds": 1.0})


@pytest.fixture(autouse=True)
def experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Row((dataclasses.replace(PAPERS, network="resnet32"),), seeds=5)
    monkeypatch.setitem(EXPERIMENTS, NAME, module(deep=Row((PAPERS,), differs=("an open point",)), other=other))


def test_a_small_run_cannot_pass_for_the_papers(tmp_path: Path) -> None:
    """Even where it gives the paper's own number: scale, data and every deviation stand with it."""
    tmp_path /= "measured"
    put(tmp_path, "small", {"deep": [90.0, 90.2, 90.1]})
    found = table(find(NAME), "small", tmp_path)
    assert found.label == "SMALL SCALE, not the paper's experiment: digits, 3 steps"
    deep = found.entries[0]
    assert deep.here[0] == "90.10 +- 0.10"
    assert deep.difference[0] == "+0.10"
    assert deep.status == ("", ""), "nothing is called reproduced"
    cell = measured.cell(find(NAME), "deep", "small", 0)
    for text in (*differences(cell.row.recipes[0], cell.recipes[0]), "an open point", "3 seeds instead of 1"):
        assert text in found.shared, text
    assert any("data digits instead of cifar10" in line for line in found.notes())
    assert table(find(NAME), "paper", tmp_path).entries[0].absent == "not run at scale paper"
    assert "reproduced" not in "\n".join(sections(tmp_path.parent, ledger.inline))


def test_open_points_of_the_papers_recipe_are_not_said_of_a_small_run(tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """A run by fixed steps has no plateau; what a smaller scale does otherwise besides its recipe stands with it."""
    deep = Row((PAPERS,), differs=("an open point",), open_points=("a plateau is so many steps",))
    monkeypatch.setitem(EXPERIMENTS, NAME, module(deep=deep))
    monkeypatch.setattr(EXPERIMENTS[NAME], "DIFFERS", {"small": ("15 % instead of 25 %",)}, raising=False)
    told = {}
    for scale, data in (("small", ""), ("paper", ""), ("paper", "fashion-mnist")):
        put(tmp_path, scale, {"deep": [90.0]}, data)
        found = table(find(NAME), scale, tmp_path, data=data)
        told[found.scale] = {text for text in found.shared if text[:1] in "a1"}
    assert told == {"small": {"15 % instead of 25 %", "an open point"},
                    "paper": {"an open point", "a plateau is so many steps"},
                    "paper on fashion-mnist": {"an open point", "a plateau is so many steps"}}


def test_numbers_that_follow_from_the_network_stand_beside_the_measured(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EXPERIMENTS[NAME], "COLUMNS", ("layers", "error"))
    monkeypatch.setattr(EXPERIMENTS[NAME], "PAPER", {"deep": {"layers": 20, "error": 90.0}})
    put(tmp_path, "paper", {"deep": [90.0, 90.1]})
    assert table(find(NAME), "paper", tmp_path).entries[0].here[0] == "-", "the control: a training counts no layers"
    for layers, said in ((20.0, "reproduced"), (19.0, "off by -1.00, interval +-0")):
        deep = Row((PAPERS,), counted=lambda layers=layers: {"layers": layers})  # type: ignore[misc]
        monkeypatch.setitem(EXPERIMENTS[NAME].ROWS, "deep", deep)
        entry = table(find(NAME), "paper", tmp_path).entries[0]
        assert (entry.here[0], entry.status[0]) == (f"{layers:g}", said)


def test_why_a_claim_fails_at_small_scale_stands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claim("Deep is better than other (section 1).", less("deep", "other"), "three steps are too few")
    monkeypatch.setattr(EXPERIMENTS[NAME], "CLAIMS", {"better": claim})
    put(tmp_path / "fails", "small", {"deep": [90.0], "other": [80.0]})
    put(tmp_path / "holds", "small", {"deep": [80.0], "other": [90.0]})
    fails, holds = (table(find(NAME), "small", tmp_path / name).claims[0] for name in ("fails", "holds"))
    assert (fails.word, holds.word) == ("fails", "holds")
    assert fails.because.endswith(". Cause: three steps are too few")
    assert "Cause" not in holds.because
    monkeypatch.setattr(EXPERIMENTS[NAME], "CLAIMS", {"better": dataclasses.replace(claim, cause="")})
    unknown = table(find(NAME), "small", tmp_path / "fails").claims[0]
    assert unknown.because.endswith(". Cause: not found out yet: scale, data or a defect")
    counted = Row(measure=lambda subject: {})
    monkeypatch.setattr(EXPERIMENTS[NAME], "ROWS", {"deep": counted, "other": counted})
    monkeypatch.setattr(EXPERIMENTS[NAME], "CLAIMS", {"never": Claim("It is so.", lambda _: Verdict("fails", "no"))})
    assert table(find(NAME), "small", tmp_path).claims[0].because == "no", "a count fails at every scale"


def test_with_the_deviations_hidden_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    put(tmp_path, "small", {"deep": [90.0, 90.2, 90.1]})
    monkeypatch.setattr(papers, "differences", lambda theirs, ours: ())
    assert table(find(NAME), "small", tmp_path).entries[0].status[0].startswith("reproduced within")


def test_the_papers_own_experiment_is_held_against_it(tmp_path: Path) -> None:
    put(tmp_path, "paper", {"deep": [90.3, 89.9], "other": [6.9, 6.5, 6.6, 6.4, 6.7]})
    found = table(find(NAME), "paper", tmp_path)
    assert found.label == "the paper's scale"
    deep, _, other = found.entries
    assert deep.status[0].startswith("reproduced within +-")
    assert "2 seeds instead of 1" in deep.differs
    assert other.here[0] == "6.40 (6.62 +- 0.19)", "best (mean +- deviation) where the paper has five seeds"
    assert other.evidence[0] == measured.cell(find(NAME), "other", "paper", 0).recipes[0].hash[:12]
    assert found.claims[0].word == "fails"
    assert found.claims[0].because.startswith("deep 90.10, other 6.62, difference -83.48 +- ")


def test_stand_in_data_are_told_and_are_not_the_papers_scale(tmp_path: Path) -> None:
    put(tmp_path, "paper", {"deep": [90.0, 90.1]}, "fashion-mnist")
    found = table(find(NAME), "paper", tmp_path, data="fashion-mnist")
    assert found.label == "the paper's schedule on fashion-mnist, which are NOT THE PAPER'S DATA"
    assert found.scale == "paper on fashion-mnist"
    assert found.entries[0].status[0] == ""
    assert "data fashion-mnist instead of cifar10" in found.shared
    assert table(find(NAME), "paper", tmp_path).entries[0].absent
    assert list(variants(tmp_path)) == [(NAME, "paper", "fashion-mnist")]


def test_rows_that_were_not_measured_say_why(tmp_path: Path) -> None:
    put(tmp_path, "small", {"deep": [90.0]})
    found = table(find(NAME), "small", tmp_path)
    lines = {line[:3] for line in found.lines()}
    assert ("cited", "paper", "7.5") in lines
    assert ("", "here", "not measured") in lines
    assert any(line.endswith("] a made-up reason") for line in found.notes())
    assert any(line.endswith("] not run at scale small") for line in found.notes())
    assert found.claims[0].word == "not measured"
    assert found.claims[0].because == "no result of other"


def test_claims_over_seeds(tmp_path: Path) -> None:
    judge = less("deep", "other")
    put(tmp_path, "small", {"deep": [10.0, 10.2, 9.8], "other": [12.0, 12.2, 11.8]})
    assert judge(measured.results(find(NAME), "small", tmp_path)).word == "holds"
    put(tmp_path, "small", {"other": [10.1, 10.2, 9.9]})
    assert judge(measured.results(find(NAME), "small", tmp_path)).word == "inside the noise"
    put(tmp_path, "small", {"other": [8.0, 8.2, 7.8]})
    found = table(find(NAME), "small", tmp_path).claims[0]
    assert found.word == "fails"
    told = "deep 10.00, other 8.00, difference -2.00 +- 0.33 (two standard errors, 3 and 3 seeds). Cause: not found out"
    assert found.because.startswith(told)


def test_one_reason_is_said_once() -> None:
    missing = every(less("a", "b"), less("a", "b"), less("a", "c"))(Results("small", {}))
    assert missing.because == "no result of a and b; no result of a and c"


@pytest.mark.parametrize(("value", "found"), [
    (8.75, Printed(8.75, 0.005)), (1.8, Printed(1.8, 0.05)), (20, Printed(20, 0.5)), ("0.27M", Printed(270_000, 5000)),
    ("> 60", Printed(60, 0.5, ">")), ("< 0.1 %", Printed(0.1, 0.05, "<")), ("1,000", Printed(1000, 0.5)),
    (1.8e9, Printed(1.8e9, 0.5e8)), ("7x7, 64", None), ("6.43 (6.61 +- 0.16)", None), (True, None), (None, None),
])
def test_printed_numbers(value: object, found: Printed | None) -> None:
    number = printed(value)
    if found is None:
        assert number is None
    else:
        assert number is not None
        assert (number.value, number.half, number.bound) == (pytest.approx(found.value), pytest.approx(found.half),
                                                             found.bound)


@pytest.mark.parametrize(("paper", "values", "chance", "said"), [
    (8.75, [8.754], True, "reproduced"), (90.0, [90.2], True, "off by +0.20, one seed"),
    (8.75, [9.0], True, "off by +0.25, one seed"),
    (8.75, [8.7, 8.9], True, "reproduced within +-0.20"),
    (8.75, [9.9, 10.1], True, "off by +1.25, interval +-0.20"),
    (1.8, [1.814], False, "reproduced"), (1.8, [1.86], False, "off by +0.06"),
    ("0.27M", [269_722.0], False, "reproduced"),
    ("0.27M", [269_722.0] * 2, True, "reproduced"), ("0.27M", [280_000.0], True, "off by +10,000, one seed"),
    ("> 60", [70.0], True, "reproduced"), ("> 60", [50.0], True, "not reproduced"),
    ("< 0.1", [0.05], True, "reproduced"), ("words", [1.0], True, ""), (8.75, [], True, ""),
])
def test_agreement(paper: object, values: list[float], chance: bool, said: str) -> None:
    assert agreement(paper, values, chance) == said


def test_a_number_over_all_seeds_is_not_one_seed_s() -> None:
    """Table 6 prints the best of five and their deviation: there is one such number, and it is of five seeds."""
    assert agreement(6.43, [6.6], True, 5) == "off by +0.17, of 5 seeds together"
    assert agreement(6.43, [6.6], True, 1) == "off by +0.17, one seed"


def test_the_best_of_five_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EXPERIMENTS[NAME], "COLUMNS", ("error", "parameters", "best", "deviation"))
    monkeypatch.setattr(EXPERIMENTS[NAME], "PAPER", {"other": {
        "error": 6.61, "best": 6.43, "deviation": 0.16, "parameters": "0.27M"}})
    put(tmp_path, "paper", {"other": [7.0, 6.5, 6.6, 6.4, 6.7]})
    other = table(find(NAME), "paper", tmp_path).entries[2]
    assert other.here == ("6.40 (6.64 +- 0.23)", "269,722", "6.40", "0.23")
    assert other.difference == ("+0.03", "-278", "-0.03", "+0.07"), "a count has no decimals"
    assert other.status == ("reproduced within +-0.21", "reproduced", "off by -0.03, of 5 seeds together",
                            "off by +0.07, of 5 seeds together")
    cells = {state.cell: state.paper for state in states([find(NAME)], tmp_path)}
    assert cells["other: best"] == "6.40: off by -0.03, of 5 seeds together"


def test_one_more_seed_and_two_more_seeds(tmp_path: Path) -> None:
    put(tmp_path, "small", {"deep": [90.0, 91.0], "other": [90.0, 91.0, 92.0]})
    proofs = [line[-1] for line in table(find(NAME), "small", tmp_path).lines() if line[-1]]
    assert [proof.partition(" ")[2] for proof in proofs] == ["and 1 more seed", "and 2 more seeds"]


def test_the_list_says_which_seeds_failed(tmp_path: Path) -> None:
    """A mean over the seeds that are left must not pass for one of all."""
    def state() -> str:
        return {one.cell: one.small for one in states([find(NAME)], tmp_path)}["deep: error"]

    put(tmp_path, "small", {"deep": [90.0, 91.0, 92.0]})
    assert state() == "91.00 +- 1.00"
    for seed, told in ((1, "91.00 +- 1.41 (1 of 3 seeds failed)"), (0, "92.00 (2 of 3 seeds failed)"),
                       (2, "failed: the loss is not finite")):
        recipe = measured.cell(find(NAME), "deep", "small", seed).recipes[0]
        rundir.write_json(tmp_path / measured.key(recipe) / "metrics.json", {
            "numbers": {}, "curve": [], "failure": "the loss is not finite", "seconds": 1.0})
        assert state() == told


def test_how_numbers_are_written() -> None:
    assert [shown(value) for value in (269_722, 8.756, 0.0123, 12345.0, 0, [1.0, 2.0], "text")] == [
        "269,722", "8.76", "0.0123", "12,345", "0", "2 values", "text"]
    assert [as_printed(value) for value in (8.8, 1.8, 20, "0.27M", 150_528)] == ["8.8", "1.8", "20", "0.27M", "150,528"]
    assert signed(-1.5) == "-1.50"
    assert (signed(-566.0, "parameters"), signed(-2.0, "error"), signed(0.4, "layers")) == ("-566", "-2.00", "+0.40")
    assert difference("> 60", [70.0]) is None


def test_the_list_has_every_cell_and_claim(tmp_path: Path) -> None:
    put(tmp_path, "small", {"deep": [90.0, 91.0]})
    put(tmp_path, "paper", {"deep": [90.3, 89.9]})
    found = {state.cell: state for state in states([find(NAME)], tmp_path)}
    assert set(found) == {"deep: error", "deep: parameters", "cited: error", "other: error", "claim better"}
    deep = found["deep: error"]
    assert deep.printed == "90"
    assert deep.small == "90.50 +- 0.71 (2 of 3 seeds)"
    assert deep.paper.startswith("90.10 +- 0.28: reproduced within")
    assert deep.evidence.startswith(measured.cell(find(NAME), "deep", "paper", 0).recipes[0].hash[:12])
    assert deep.cost_paper == "2.02 PFLOP"
    assert found["other: error"].cost_paper == "5 x 3.43 PFLOP"
    assert (found["other: error"].small, found["cited: error"].small) == ("not run", "not measured here")
    assert found["claim better"].small == "not run"


def test_the_page_is_made_of_the_results(tmp_path: Path) -> None:
    root = tmp_path / "measured"
    put(root, "small", {"deep": [90.0, 91.0, 92.0]})
    page = "\n".join(sections(tmp_path, ledger.inline))
    assert "**SMALL SCALE, not the paper's experiment: digits, 3 steps**" in page
    assert f"layerwise reproduce {NAME} --scale small\n" in page
    assert "|  | here | 91.00 +- 1.00 |" in page
    assert f"| {NAME} | 1 of 2 (small) | 1 not measured (small) |" in page
    assert "- **not measured**: Deep is better than other (section 1)." in page
    put(root, "small", {"deep": [93.0]})
    assert "\n".join(sections(tmp_path, ledger.inline)) != page, "a changed result makes the page stale"


def description(file: Path) -> str:
    """The digest of the results that a figure was drawn from."""
    found = [node.text or "" for node in ElementTree.parse(file).iter() if node.tag.endswith("}description")]
    return found[0] if found else ""


def test_the_figures_are_those_of_the_results_kept_here() -> None:
    root = ROOT / "results" / "measured"
    folder = ROOT / "docs" / "figures"
    for name, scale, data in variants(root):
        experiment = find(name)
        found = table(experiment, scale, root, data=data)
        if experiment.draw is not None:
            stem, mend = paper_figures.stem(found), "run python -m layerwise.report.ledger"
            assert (folder / f"{stem}.png").is_file(), mend
            results = measured.results(experiment, scale, root, data)
            assert description(folder / f"{stem}.svg") == paper_figures.digest(results, found), mend


def test_a_figure_says_its_scale_and_is_stale_with_other_results(tmp_path: Path) -> None:
    root, folder = tmp_path / "measured", tmp_path / "figures"
    put(root, "small", {"deep": [90.0]})
    svg, png = draw_all(tmp_path, folder)
    assert svg.name == "paper-table-1-small.svg"
    before = svg.read_bytes()
    assert draw_all(tmp_path, folder) == [svg, png]
    assert svg.read_bytes() == before, "the same results give the same bytes"
    found = table(find(NAME), "small", root)
    results = measured.results(find(NAME), "small", root)
    assert description(svg) == paper_figures.digest(results, found)
    caption = paper_figures.caption(found)
    assert caption[0] == "Paper, Table 1: made up. SMALL SCALE, not the paper's experiment: digits, 3 steps."
    assert "data digits instead of cifar10" in caption[1]
    (folder / "paper-table-1-paper.svg").write_text("nothing stands behind this")
    put(root, "small", {"deep": [80.0]})
    assert description(svg) != paper_figures.digest(measured.results(find(NAME), "small", root), found)
    draw_all(tmp_path, folder)
    assert not (folder / "paper-table-1-paper.svg").exists()


def test_every_measured_result_kept_here_is_one_that_is_read() -> None:
    """Each directory is named after its recipe's hash, and holds numbers or the reason why there are none."""
    for where in sorted((ROOT / "results" / "measured").glob("*/recipe.json")):
        recipe = Recipe.from_json(where.read_text("utf-8"), str(where))
        assert where.parent.name == measured.key(recipe)
        record = json.loads((where.parent / "metrics.json").read_text("utf-8"))
        assert record["numbers"] or record["failure"]
        if record["numbers"]:
            assert record["split"] == "test"
            assert record["protocol"]["name"] == recipe.protocol


def test_a_claim_is_never_left_out() -> None:
    claim = Claim("x (section 1).", less("deep", "other"))
    assert claim.judge(measured.results(find(NAME), "small", Path("nowhere"))).word == "not measured"
