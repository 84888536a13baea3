"""`layerwise bench`: what it times, and that it refuses a number that varies."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch

from layerwise import modelfile, models
from layerwise.cli import main
from layerwise.errors import InputError, ToleranceError
from layerwise.jobs import benchmark
from layerwise.jobs.benchmark import BenchOptions, bench, measure, require_steady
from tests import evaluated

SMALL = BenchOptions(batches="1,2", repeats=5, max_spread=100.0, settings=("threads=1", "device=cpu"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(benchmark, "machine_balance", lambda device: 1e9)


def test_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    seconds = measure(lambda: next(calls), torch.device("cpu"), 5)
    assert len(seconds) == 5
    assert next(calls) == benchmark.WARM_UP_REPEATS + 5


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    report = bench("lenet5", SMALL)
    assert [row.batch for row in report.rows] == [1, 2]
    assert all(row.median is not None and row.p95 is not None and row.median <= row.p95 for row in report.rows)
    assert report.input == (1, 32, 32)
    require_steady(report)
    lines = "\n".join(report.lines())
    assert "1 thread of" in lines
    assert "memory-bound at batch 1, 2" in lines  # the machine's balance was set to a billion
    json.dumps(report.to_json(), allow_nan=False)


def test_the_backward_pass_too() -> None:
    found = bench("lenet5", BenchOptions("2", True, 0, 5, 100.0, ("threads=1",)))
    assert found.what == "forward and backward pass"


def test_what_is_set_is_done_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: (compiled.append(options), model)[1])
    lines = bench("lenet5", dataclasses.replace(SMALL, settings=("threads=1", "compile=yes"))).lines()
    assert compiled == [{"dynamic": False}]
    assert any(", compiled, torch" in line for line in lines)
    assert any(", not compiled, torch" in line for line in bench("lenet5", SMALL).lines())
    assert len(compiled) == 1
    with pytest.raises(InputError, match="recompute=blocks: the network has no blocks"):
        bench("lenet5", dataclasses.replace(SMALL, settings=("recompute=blocks",)))
    with pytest.raises(InputError, match="--set batch_size=4: no pass depends on it") as caught:
        bench("lenet5", dataclasses.replace(SMALL, settings=("threads=1", "batch_size=4", "micro_batch=2")))
    assert caught.value.details == ("batch_size=4", "micro_batch=2")


def times(values: list[float]) -> object:
    return lambda run, device, repeats: values


def test_a_number_that_varies_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, "measure", times([1.0, 1.0, 1.0, 2.0, 2.0, 3.0]))
    assert main(["bench", "lenet5", "--batches", "1", "--set", "threads=1"]) == 4
    seen = capsys.readouterr()
    assert "refused" in seen.out
    assert "vary by more than 25 %" in seen.err
    assert "batch 1: spread" in seen.err
    assert main(["bench", "lenet5", "--batches", "1", "--set", "threads=1", "--json"]) == 4
    both = json.loads(capsys.readouterr().out)
    assert both["rows"][0]["median"] is None
    assert both["error"]["kind"] == "tolerance"


def test_a_steady_number_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The negative control: the same command with steady times."""
    monkeypatch.setattr(benchmark, "measure", times([1.0, 1.0, 1.0, 1.0, 1.1, 1.1]))
    assert main(["bench", "lenet5", "--batches", "1", "--set", "threads=1"]) == 0
    assert "refused" not in capsys.readouterr().out


@pytest.mark.parametrize("batches", ["", "0", "1,x", "-1", "1,,2", "99999999"])
def test_bad_batches(batches: str) -> None:
    with pytest.raises(InputError, match="is no batch size"):
        bench("lenet5", BenchOptions(batches))


def test_misspelt_network() -> None:
    with pytest.raises(InputError, match="did you mean 'lenet5'"):
        bench("lenet55", SMALL)


def test_too_small() -> None:
    with pytest.raises(InputError, match=r"becomes 0x0[^~]*Give --size 227"):
        bench("alexnet", BenchOptions(size=32, settings=("threads=1",)))


def test_a_model_file_takes_the_sizes_that_its_network_takes(tmp_path: Path) -> None:
    made = dataclasses.replace(evaluated.model_file(), model=models.build("lenet5", 3, 3),
                               preprocess=evaluated.preprocess(size=32))
    modelfile.write(tmp_path / "lenet5.safetensors", made)
    file = str(tmp_path / "lenet5.safetensors")
    with pytest.raises(InputError, match=r"4x4 becomes 0x0 at layer .*; lenet5 takes 32x32 to 35x35"):
        bench(file, dataclasses.replace(SMALL, size=4))
    for size in (0, 32):
        assert bench(file, dataclasses.replace(SMALL, size=size)).input == (3, 32, 32)


def test_tolerance_error_names_the_rows() -> None:
    row = benchmark.BenchRow(8, 0.5, None, None)
    report = benchmark.BenchReport("n", "forward pass", (1, 2, 2), (row,), 0.25, 5, {}, {}, 1, {8: 1.0}, None)
    with pytest.raises(ToleranceError, match="batch 8: spread 50 %"):
        require_steady(report)
