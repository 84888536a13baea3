"""Results on disk: numbers recomputable from the predictions, none without its protocol, nothing overwritten."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.evaluation.predictions_table import plain_cell, safe_cell
from layerwise.evaluation.protocols import PROTOCOLS
from layerwise.evaluation.result import PREDICTIONS, Result, read, recompute
from tests.evaluated import NAMES, model_file, samples, table


def saved(tmp_path: Path, names: tuple[str, ...] = NAMES, count: int = 60) -> tuple[Result, Path]:
    result = evaluate(model_file(names=names), samples(count, names), EvaluateOptions(data="made up"))
    result.save(tmp_path / "evaluation")
    return result, tmp_path / "evaluation"


@pytest.mark.parametrize("classes", [2, 3, 7, 100, 101])
def test_every_number_can_be_recomputed_from_the_table(classes: int, tmp_path: Path) -> None:
    names = (*(f"class {i}" for i in range(classes - 2)), "=SUM(A1)", "'quoted, \"name\"")
    result, directory = saved(tmp_path, names, 90)
    stored = json.loads((directory / "result.json").read_text("utf-8"))
    found = recompute(directory)
    assert found == {key: stored[key] for key in ("metrics", "classes", "confusion")}
    # A changed cell is a changed number.
    rows = table(directory / PREDICTIONS)
    columns = ["probability", "top1_probability"] if classes > 100 else [f"p:{names[0]}"]
    for column in columns:
        rows[1][rows[0].index(column)] = "0.31"
    with (directory / PREDICTIONS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    assert recompute(directory)["metrics"] != result.metrics


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    data = samples(30, ("=1+1", "+cmd", "@x"))
    data = dataclasses.replace(data, ids=tuple(f"-{i}" for i in range(30)))
    result = evaluate(model_file(names=("=1+1", "+cmd", "@x")), data)
    result.save(tmp_path / "e")
    for name in ("predictions.csv", "confusion.csv"):
        for row in table(tmp_path / "e" / name):
            assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    for text in ("=x", "'=x", "x", "''", "-1", "\tx"):
        assert plain_cell(safe_cell(text)) == text


def test_result_round_trip_and_strict_reading(tmp_path: Path) -> None:
    result, directory = saved(tmp_path)
    assert read(directory) == result
    record = result.to_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    for change, message in (
        ({"extra": 1}, "extra: not a field of a result"),
        ({"samples": "60"}, "samples: not a int"),
        ({"samples": 61}, "its counts add up to 60, samples is 61"),
        ({"confusion": [[1]]}, "confusion: not 3 rows of 3 counts"),
        ({"metrics": {}}, "metrics.error: missing"),
        ({"format": 2}, "format 2, expected 1"),
        ({"protocol": {}}, "the protocol is missing"),
    ):
        with pytest.raises(InputError, match=message):
            Result.from_json(record | change)
    del record["notes"]
    with pytest.raises(InputError, match="notes: missing"):
        Result.from_json(record)
    with pytest.raises(InputError, match="not a JSON object"):
        Result.from_json([])


@pytest.mark.parametrize("left_out", ["protocol", *PROTOCOLS["single"].to_json()])
def test_a_number_without_its_protocol_cannot_be_loaded(left_out: str, tmp_path: Path) -> None:
    _, directory = saved(tmp_path, count=5)
    record = json.loads((directory / "result.json").read_text("utf-8"))
    del (record if left_out == "protocol" else record["protocol"])[left_out]
    (directory / "result.json").write_text(json.dumps(record), "utf-8")
    with pytest.raises(InputError, match="protocol"):
        read(directory)


def test_reading_what_is_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result.json: there is no such file"):
        read(tmp_path)
    (tmp_path / "result.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match=r"result.json: can't be read as JSON"):
        read(tmp_path)


def test_the_worst_mistakes_are_saved_as_small_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    paths = []
    for i in range(40):
        Image.fromarray(random.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(tmp_path / f"{i}.jpg")
        paths.append(tmp_path / f"{i}.jpg")
    data = Samples("test", NAMES, np.arange(40) % 3, tuple(map(str, range(40))), paths=tuple(paths))
    result = evaluate(model_file(resize="short-side"), data)
    result.save(tmp_path / "e")
    assert len(result.worst) == min(24, result.metrics["errors"]) > 3
    confidences = [one["probability"] for one in result.worst]
    assert confidences == sorted(confidences, reverse=True)
    for one in result.worst:
        assert one["true"] != one["predicted"]
        with Image.open(tmp_path / "e" / one["picture"]) as picture:
            assert max(picture.size) == 160
            assert picture.format == "PNG"


def test_saving_again_replaces_an_evaluation_and_nothing_else(tmp_path: Path) -> None:
    _, directory = saved(tmp_path)
    before = sorted(path.name for path in (directory / "worst").iterdir())
    better = model_file()
    result = evaluate(better, samples(4))
    result.save(directory)
    assert read(directory).samples == 4
    assert len(list((directory / "worst").iterdir())) == len(result.worst) < len(before)
    (directory / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(InputError, match="exists and holds other files than an evaluation's"):
        result.save(directory)
    assert (directory / "thesis.txt").read_text("utf-8") == "mine"
    with pytest.raises(InputError, match="is a file, not a directory"):
        result.save(directory / "thesis.txt")


def test_two_evaluations_are_compared_by_what_was_saved(tmp_path: Path) -> None:
    from layerwise.jobs.compare import compare

    data = samples(200)
    first, second = evaluate(model_file(0), data), evaluate(model_file(1), data)
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    same = compare(tmp_path / "a", tmp_path / "a")
    assert same.p == 1.0
    assert "no difference beyond the noise" in same.verdict
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.difference == pytest.approx(second.error - first.error)


def test_a_table_of_other_classes_is_refused(tmp_path: Path) -> None:
    _, directory = saved(tmp_path, count=5)
    (directory / "confusion.csv").write_text("true \\ predicted,ant,bee\r\n", "utf-8")
    with pytest.raises(InputError, match=r"predictions.csv: not the predictions of these 2 classes"):
        recompute(directory)
