"""docs/papers.md: fresh, whole, with working links; what its parts say of made-up experiments."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from layerwise.experiments import EXPERIMENTS, find, measured
from layerwise.experiments.experiment import Claim, Experiment, Row, Verdict
from layerwise.recipes.presets import preset
from layerwise.report import papers_learn
from layerwise.report.papers_learn import PAGE, anchor, papers_page, section
from layerwise.report.papers_text import LEARN, PAPERS

ROOT = Path(__file__).resolve().parent.parent
DIGITS = dataclasses.replace(preset("digits"), protocol="single")


def test_the_page_is_what_the_results_say() -> None:
    """Stale? python -m layerwise.report.ledger"""
    assert (ROOT / PAGE).read_text("utf-8") == papers_page(ROOT)


def test_every_experiment_is_explained_and_shown() -> None:
    """A new experiment gets its three sentences in report/papers_text.py."""
    assert [name for name in EXPERIMENTS if name not in LEARN] == []
    page = (ROOT / PAGE).read_text("utf-8")
    for name in EXPERIMENTS:
        assert f"\n### {find(name).title}\n" in page, name
        assert f"layerwise reproduce {name}\n" in page, name
    assert {name.partition("/")[0] for name in EXPERIMENTS} <= set(PAPERS)


def test_links_lead_to_headings_and_pictures_exist() -> None:
    page = (ROOT / PAGE).read_text("utf-8")
    anchors = [anchor(title) for title in re.findall(r"^###? (.*)$", page, re.MULTILINE)]
    assert len(anchors) == len(set(anchors))
    linked = re.findall(r"\]\(#([^)]*)\)", page)
    assert linked
    assert set(linked) <= set(anchors)
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", page):
        assert (ROOT / "docs" / picture).is_file(), picture


def test_sentences_are_whole() -> None:
    for name, told in LEARN.items():
        for text in told:
            assert text[0].isupper() or text[0].isdigit(), name
            assert text.rstrip("*").endswith((".", ".*")), name
            assert "  " not in text, name


def made_up(name: str = "paper/table-1", **rows: Row) -> Experiment:
    claim = Claim("It holds.", lambda results: Verdict("holds" if results.rows else "not measured", "so"))
    text = "What it is,\nin two lines.\n\nMore."
    return Experiment(name, "A table", text, rows, {}, {"one": claim}, ("error",), None, None)


def test_an_experiment_without_sentences_has_its_docstrings_first_paragraph(tmp_path: Path) -> None:
    lines = section(made_up(digits=Row((DIGITS,))), tmp_path)
    assert lines[:3] == ["### A table", "", "What it is, in two lines."]
    assert "layerwise reproduce paper/table-1" in lines
    assert "- status: not measured here yet" in lines
    assert next(line for line in lines if line.startswith("- cost: ")).endswith(" at the paper's scale")


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    lines = section(made_up(a=Row(unmeasured="detector to come"), b=Row(unmeasured="detector to come")), tmp_path)
    assert "- status: not measured: detector to come" in lines
    assert not any(line.startswith("- cost") for line in lines)


def keep(experiment: Experiment, slug: str, root: Path, seed: int = 0) -> None:
    """A made-up result of a row at small scale."""
    recipe = measured.cell(experiment, slug, "small", seed).recipes[0]
    folder = root / measured.key(recipe)
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(recipe.to_json())
    (folder / "environment.json").write_text(json.dumps({"versions": {}, "hardware": {}, "chosen": {}, "notes": []}))
    (folder / "metrics.json").write_text(json.dumps({"numbers": {"error": 5.0}, "curve": []}))


def test_status_counts_rows_and_verdicts(tmp_path: Path) -> None:
    experiment = made_up(a=Row((DIGITS,)), b=Row((dataclasses.replace(DIGITS, network="resnet32"),)),
                         cited=Row(unmeasured="cited"))
    keep(experiment, "a", tmp_path)
    few = "1 of them not with all seeds"
    assert f"- status: 1 of 2 rows measured at small scale, {few}; claims: 1 holds" in section(experiment, tmp_path)
    keep(experiment, "b", tmp_path)
    for seed in (1, 2):
        keep(experiment, "a", tmp_path, seed)
    assert f"- status: 2 of 2 rows measured at small scale, {few}; claims: 1 holds" in section(experiment, tmp_path)
    for seed in (1, 2):
        keep(experiment, "b", tmp_path, seed)
    assert "- status: 2 of 2 rows measured at small scale; claims: 1 holds" in section(experiment, tmp_path)


def test_what_costs_nothing_says_so(tmp_path: Path) -> None:
    lines = section(made_up(counted=Row(measure=lambda subject: {"error": 1.0})), tmp_path)
    assert "- cost: seconds: nothing is trained" in lines


def test_a_figure_is_shown_where_something_was_measured(tmp_path: Path) -> None:
    experiment = dataclasses.replace(made_up(a=Row((DIGITS,))), draw=lambda results, figure: None)
    assert not any("![" in line for line in section(experiment, tmp_path))
    keep(experiment, "a", tmp_path)
    assert "![A table, small scale](figures/paper-table-1-small.svg)" in section(experiment, tmp_path)


def test_a_changed_text_makes_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the first test."""
    changed = LEARN["resnet/table-6"]._replace(look="Elsewhere.")
    monkeypatch.setitem(papers_learn.LEARN, "resnet/table-6", changed)
    assert papers_page(ROOT) != (ROOT / PAGE).read_text("utf-8")
