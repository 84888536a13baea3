"""The numbers of the survey and of the history: counted by hand here, judged there; each with what makes it fail."""

from __future__ import annotations

import pytest

from layerwise.experiments import find
from layerwise.experiments.experiment import Results, Subject
from layerwise.experiments.history import numbers
from layerwise.experiments.history.numbers import CITED, CLAIMS, COUNTED, PAPER, ROWS
from layerwise.models.costs import Counted

NOTHING = Results("small", {})


def word(claim: str) -> str:
    return CLAIMS[claim].judge(NOTHING).word


def test_each_number_is_counted_or_cited() -> None:
    assert set(ROWS) == set(PAPER) == set(COUNTED) | set(CITED)
    assert not set(COUNTED) & set(CITED)
    for slug, row in ROWS.items():
        assert bool(row.measure) != bool(row.unmeasured), slug
        assert "the survey" in (row.unmeasured or row.differs[0]) or "the history" in (
            row.unmeasured or row.differs[0]), slug


def test_rows_measure_what_is_counted() -> None:
    subject = Subject((), "small", 0, lambda *_: pytest.fail("no data is read"))
    for slug, (_, _, unit, _, count) in COUNTED.items():
        measure = ROWS[slug].measure
        assert measure is not None
        assert measure(subject) == {"value": count(), "unit": unit}


@pytest.mark.parametrize(("claim", "expected"), [
    ("googlenet-parameters", "fails"), ("googlenet-depth", "holds"), ("two-3x3", "holds"), ("files", "holds"),
    ("fully-connected", "fails"), ("lenet5-f6", "fails"), ("xnor-storage", "holds only if"), ("zfnet-top5", "holds"),
])
def test_verdicts(claim: str, expected: str) -> None:
    assert word(claim) == expected


def test_every_claim_has_its_verdict_here() -> None:
    assert set(CLAIMS) == {"googlenet-parameters", "googlenet-depth", "two-3x3", "files", "fully-connected",
                           "lenet5-f6", "xnor-storage", "zfnet-top5"}


def test_by_hand() -> None:
    assert numbers.parameter_ratio() == pytest.approx(60_965_224 / 6_998_552)
    assert numbers.parameter_ratio_of_features() == pytest.approx(60_965_224 / (6_998_552 - 1024 * 1000 - 1000))
    assert numbers.file_megabytes("alexnet") == pytest.approx(60_965_224 * 4 / 1e6)
    assert numbers.share_of_head() == pytest.approx(100 * (9216 * 4096 + 4096**2 + 4096 * 1000 + 9192) / 60_965_224)
    assert numbers.seen_by_two_3x3() == 5
    assert numbers.ends_of_alexnet() == ("features.conv1.", "head.fc8.")
    biases, kernels = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000, 60_965_224 - 10_568
    assert biases == 10_568
    assert numbers.binary_ratio() == pytest.approx(60_965_224 * 4 / (kernels / 8 + 8 * biases))


@pytest.mark.parametrize(("claim", "target", "value", "expected"), [
    ("googlenet-parameters", "parameter_ratio", 11.8, "holds"),
    ("googlenet-parameters", "parameter_ratio_of_features", 12.3, "holds only if"),
    ("two-3x3", "seen_by_two_3x3", 7, "fails"), ("two-3x3", "weights_of_5x5", 24.0, "fails"),
    ("fully-connected", "share_of_head", 88.0, "holds"), ("fully-connected", "share_of_head", 70.0, "fails"),
])
def test_other_counts_have_other_verdicts(claim: str, target: str, value: float, expected: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative controls: no verdict is written down."""
    monkeypatch.setattr(numbers, target, lambda: value)
    assert word(claim) == expected


def test_smaller_files_fail_and_units_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(alexnet: int) -> None:
        found = {"alexnet": Counted(alexnet, 0, 1000), "vgg16": Counted(138_357_544, 0, 1000)}
        monkeypatch.setattr(numbers, "costs", lambda: found)

    of(45_000_000)
    assert word("files") == "fails"
    of(51_000_000)  # 204 MB, 194.5 MiB
    assert word("files") == "holds only if"


def test_bits_of_fewer_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "binary_ratio", lambda kept=(): 32.2)
    assert word("xnor-storage") == "holds"
    monkeypatch.setattr(numbers, "binary_ratio", lambda kept=(): 20.0)
    assert word("xnor-storage") == "fails"


def test_equal_numbers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    what, _, unit, where, count = COUNTED["lenet5_f6"]
    monkeypatch.setitem(COUNTED, "lenet5_f6", (what, 84, unit, where, count))
    assert numbers.equals("lenet5_f6", "as counted")(NOTHING).word == "holds"


def test_it_is_registered() -> None:
    experiment = find("history/numbers")
    assert experiment.columns == ("value", "unit")
    assert all(not row.recipes for row in experiment.rows.values())
