"""`layerwise tune`: what it varies, that it names the fastest of what it measured, and what does not fit."""

from __future__ import annotations

import itertools
import json
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layerwise import hardware
from layerwise.cli import main
from layerwise.cli.tuning import size
from layerwise.errors import InputError
from layerwise.jobs import tune as job
from layerwise.jobs.recipe_choice import for_training
from layerwise.recipe import changed, check
from layerwise.recipes.presets import preset
from layerwise.training import probe
from layerwise.training.state import Training

QUICK = ("threads=1", "batch_size=4")


def test_the_fastest_row_is_named_and_its_settings_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "lenet5", "--seconds", "1", "--json", *(f"--set={one}" for one in QUICK)]) == 0
    found = json.loads(capsys.readouterr().out)
    rates = [row["images_per_second"] for row in found["rows"]]
    assert found["best"]["images_per_second"] == max(rates)
    assert found["validation_images_per_second"] > 0
    assert {row["settings"]["memory_format"] for row in found["rows"]} == {"contiguous", "channels-last"}
    pasted = changed(preset("fast"), [line.removeprefix("--set ") for line in found["set"]])
    check(pasted)
    assert pasted.memory_format == found["best"]["settings"]["memory_format"]
    assert (pasted.batch_size, pasted.threads) == (4, 1)
    assert any(line.startswith("compile=yes was not tried") for line in found["notes"])


def test_what_is_measured_is_the_recipe_of_the_training() -> None:
    for name in ("resnet18", "lenet5"):
        ours, theirs = job._chosen(name, ()), for_training(name, "photos", "", ())
        assert ours == changed(theirs, [f"data={job.NOISE}"])
    assert job._chosen("resnet18", ()).batch_size == 32  # and not the 128 of `fast`
    assert job._chosen("fine-tune", ("learning_rate=0.1",)).slow == preset("fine-tune").slow


def test_a_larger_micro_batch_needs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each reading of the clock is a twentieth of a second later: on a busy host the real one ends too early.
    monkeypatch.setattr(time, "perf_counter", partial(next, itertools.count(step=0.05)))
    report = job.tune("lenet5", ("threads=1", "batch_size=64", "compile=no"), 15)
    needs = {row.settings["micro_batch"]: row.need_bytes or 0 for row in report.rows}
    assert needs["64"] > needs["16"] > 0
    # Of buffers this large a training keeps what is freed, so both are measured.
    assert {row.allocator for row in report.rows if row.settings["micro_batch"] == "64"} == {"kept", "system"}
    assert len({(tuple(row.settings.items()), row.allocator) for row in report.rows}) == len(report.rows)


def test_small_buffers_are_never_kept_so_nothing_else_is_claimed() -> None:
    rows = job.tune("lenet5", (*QUICK, "compile=no", "memory_format=contiguous"), 1).rows
    assert {row.allocator for row in rows} == {"system"}


def test_what_is_set_is_not_varied() -> None:
    report = job.tune("resnet20", (*QUICK, "input_size=8", "resize_to=8", "pad=1", "micro_batch=2", "compile=no",
                                   "memory_format=contiguous", "precision=bf16"), 1)
    assert {tuple(row.settings.values()) for row in report.rows} == {("bf16", "contiguous", "no", "2")}
    assert report.settings()[-4:] == ["--set precision=bf16", "--set memory_format=contiguous", "--set compile=no",
                                      "--set micro_batch=2"]
    assert len(report.settings()) == 9
    assert any("batch normalisation takes its statistics over those 2 pictures" in line for line in report.notes)


def test_virtual_workers_are_measured_in_their_own_parts() -> None:
    report = job.tune("lenet5", ("threads=1", "batch_size=16", "virtual_workers=8"), 1)
    assert {row.settings["micro_batch"] for row in report.rows} == {"2"}
    assert not any("micro_batch" in line or "compile=yes" in line for line in report.settings())
    check(for_training("lenet5", "photos", "", [line.removeprefix("--set ") for line in report.settings()]))


def bench(name: str, *settings: str) -> tuple[job._Bench, dict[str, str]]:
    """What a tuning measures with, and the settings of a row."""
    recipe = hardware.resolve(job._chosen(name, ("threads=1", "precision=fp32", "memory_format=contiguous", *settings)))
    return job._Bench(recipe, 1, False), {"precision": "fp32", "memory_format": "contiguous", "compile": "no",
                                          "micro_batch": str(recipe.micro_batch)}


def test_micro_batches_are_halved_as_a_training_halves_them() -> None:
    assert job._parts(64) == [32, 16]
    assert job._parts(50) == [25, 13]
    assert job._parts(3) == [2, 1]
    assert job._parts(2) == [1]
    assert job._parts(1) == []


def test_an_odd_part_that_does_not_fit_is_halved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "needed", lambda training, micro: SimpleNamespace(peak=micro))
    monkeypatch.setattr(job, "available_memory", lambda device: 10)
    report = job.tune("lenet5", ("threads=1", "batch_size=50", "compile=no"), 1)
    assert [row.settings["micro_batch"] for row in report.rows[:4]] == ["50", "25", "13", "7"]
    assert [row.problem for row in report.rows[:4]] == ["does not fit into memory"] * 3 + [""]
    check(changed(preset("fast"), [line.removeprefix("--set ") for line in report.settings()]))


def test_one_picture_that_has_no_statistics_is_a_row_with_its_reason() -> None:
    """Its last maps are 1x1: torch refuses to normalise a batch of one, and a training would end there too."""
    one, settings = bench("resnet18", "batch_size=4", "input_size=32", "resize_to=36")
    assert one.measure(settings | {"micro_batch": "2"}).problem == ""  # the control
    row = one.measure(settings | {"micro_batch": "1"})
    assert row.problem.startswith("Expected more than 1 value per channel when training")
    assert row.images_per_second is None


def test_the_validation_is_timed_and_counted_with_as_many_pictures_as_a_training_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, settings = bench("lenet5", "batch_size=4")
    training = one._training(tmp_path, settings)
    need = job.needed(training, 4)
    assert probe._counts(training, 4, 32) == (4, 32)
    assert need is not None
    assert need.pictures == 4 * 4 * 32 * 32 * 4  # as from a folder: four batches of four pictures in fp32
    seen, build = set[int](), job.assemble

    def watched(*arguments: Any) -> Training:
        made = build(*arguments)
        made.model.register_forward_pre_hook(lambda model, inputs: seen.add(len(inputs[0])))
        return made

    monkeypatch.setattr(job, "assemble", watched)
    assert one.validation(job.Row(settings, "system", 1.0, None)) > 0
    assert seen == {32}


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda device: 1)
    with pytest.raises(InputError, match="no step could be measured") as caught:
        job.tune("lenet5", QUICK, 1)
    assert caught.value.details == ("does not fit into memory",)


def test_where_the_batch_does_not_fit_the_formats_are_compared_with_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "needed", lambda training, micro: SimpleNamespace(peak=micro))
    monkeypatch.setattr(job, "available_memory", lambda device: 10)
    report = job.tune("lenet5", ("threads=1", "batch_size=16", "compile=no"), 1)
    assert (report.rows[0].settings["micro_batch"], report.rows[0].problem) == ("16", "does not fit into memory")
    measured = {row.settings["memory_format"] for row in report.rows if row.settings["micro_batch"] == "8"}
    assert measured == {"contiguous", "channels-last"}
    assert report.best.images_per_second is not None


def test_a_step_whose_memory_ran_out_is_not_counted_as_what_it_was_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    step = job.gradients

    def scarce(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        training.position.micro_batch = min(training.position.micro_batch, 2)  # what the loop does then
        return step(training, batch)

    monkeypatch.setattr(job, "gradients", scarce)
    rows = job.tune("lenet5", (*QUICK, "compile=no"), 10).rows
    told = {(row.settings["micro_batch"], row.problem) for row in rows}
    assert told >= {("4", "does not fit into memory"), ("2", "")}
    assert all((row.images_per_second is None) is (row.settings["micro_batch"] == "4") for row in rows)


def test_sizes() -> None:
    assert (size(None), size(3 << 19), size(3 << 29)) == ("unknown", "1.5 MiB", "1.5 GiB")
