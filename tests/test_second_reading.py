"""The test pictures are read once, at the end of the training: whoever reads them again for another number is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from layerwise import modelfile
from layerwise.jobs import main_job
from layerwise.jobs.assessment import READ_BEFORE, Question, assess
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training.preparation import RunOptions

QUICK = ["network=lenet5", "threads=1", "precision=fp32", "unit=iterations", "duration=2", "evaluate_every=2",
         "schedule=constant", "warmup=none", "warmup_length=0", "batch_size=8", "ema=0", "resize=squash",
         "input_size=32", "channels=1", "protocol=single"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was tested at its end."""
    where = tmp_path_factory.mktemp("runs") / "run"
    return main_job.train(changed(preset("digits"), QUICK), RunOptions(out=where, quiet=True, offline=True))


def notes(*paths: Path, protocol: str = "", on: str = "test") -> list[str]:
    question = Question(on=on, protocol=protocol, offline=True, report=paths[0].parent / "report")
    return assess(paths, question).result.notes


def test_another_number_from_the_test_pictures_is_labelled(done: Path) -> None:
    assert READ_BEFORE in notes(done, protocol="mirror")
    assert READ_BEFORE in notes(done, done), "an ensemble of tested networks"
    assert READ_BEFORE not in notes(done), "the same test again gives the same number"
    assert READ_BEFORE not in notes(done, protocol="mirror", on="val")


def test_a_network_that_was_not_tested_reads_them_for_the_first_time(done: Path, tmp_path: Path) -> None:
    """The negative control: what tells is the test that the model file keeps."""
    found = modelfile.read(done)
    untested, elsewhere = tmp_path / "untested.safetensors", tmp_path / "elsewhere.safetensors"
    modelfile.write(untested, dataclasses.replace(found, results=[]))
    modelfile.write(elsewhere, found)
    assert READ_BEFORE not in notes(untested, protocol="mirror")
    assert READ_BEFORE in notes(elsewhere, protocol="mirror"), "also where the run's directory is not at hand"
