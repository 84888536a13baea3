"""`layerwise tune`: what it varies, that it names the fastest of what it measured, and what does not fit."""

from __future__ import annotations

import json

import pytest

from layerwise.cli import main
from layerwise.errors import InputError
from layerwise.jobs import tune as job
from layerwise.recipe import changed
from layerwise.recipes.presets import preset

QUICK = ("threads=1", "batch_size=4")


def test_the_fastest_row_is_named_and_its_settings_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "lenet5", "--seconds", "1", "--json", *(f"--set={one}" for one in QUICK)]) == 0
    found = json.loads(capsys.readouterr().out)
    rates = [row["images_per_second"] for row in found["rows"]]
    assert found["best"]["images_per_second"] == max(rates)
    assert found["validation_images_per_second"] > 0
    assert {row["settings"]["memory_format"] for row in found["rows"]} == {"contiguous", "channels-last"}
    assert {row["allocator"] for row in found["rows"]} == {"kept", "system"}
    pasted = changed(preset("fast"), [line.removeprefix("--set ") for line in found["set"]])
    assert pasted.memory_format == found["best"]["settings"]["memory_format"]


def test_a_larger_micro_batch_needs_more(capsys: pytest.CaptureFixture[str]) -> None:
    report = job.tune("lenet5", ("threads=1", "batch_size=64"), 1)
    needs = {row.settings["micro_batch"]: row.need_bytes or 0 for row in report.rows}
    assert needs["64"] > needs["16"] > 0


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda device: 1)
    with pytest.raises(InputError, match="no step could be measured") as caught:
        job.tune("lenet5", QUICK, 1)
    assert caught.value.details == ("does not fit into memory",)
