"""`layerwise replay`: the pictures of a step are those it had, and the losses say whose weights they are of."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faults import tiny
from layerwise import rundir, train
from layerwise.cli import main
from layerwise.errors import InputError, MachineError, ToleranceError
from layerwise.jobs import replay
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.tasks.classify import Classify
from layerwise.train import RunOptions


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(replay, "open_split", lambda *_: tiny.data())
    with tiny.tiny():
        yield


def logged(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[list[int], float]]:
    """The rows and the mean loss of each step that is trained from here on."""
    steps: dict[int, tuple[list[int], float]] = {}
    gradients = train.gradients

    def noting(training: train.Training, batch: dict) -> dict:
        step = training.position.step
        sums = gradients(training, batch)
        steps[step] = (batch["index"].tolist(), sums["loss"] / sums["samples"])
        return sums

    monkeypatch.setattr(train, "gradients", noting)
    return steps


def everything(run: Path) -> dict[str, str]:
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(run.rglob("*")) if file.is_file() and "replays" not in file.parts}


@pytest.mark.parametrize("settings", [[], ["mixup=0.4", "micro_batch=4"], ["virtual_workers=2", "micro_batch=0"]])
def test_a_step_has_its_own_pictures_and_losses(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                settings: list[str]) -> None:
    steps = logged(monkeypatch)
    run = tiny.begin(tmp_path / "run", tiny.recipe(*settings))
    before = everything(run)
    for step in (7, 6, 2):
        found = replay.replay(run, step)
        assert [one.index for one in found.pictures] == steps[step][0]
        mean = sum(one.loss or 0 for one in found.pictures) / len(found.pictures)
        assert (mean == pytest.approx(steps[step][1], rel=1e-5)) is found.exact
        assert found.exact is (step == 7)  # the generations before steps 7 and 8 are kept
    assert found.weights == "of the weights at step 7, 5 after this step: the nearest checkpoint that is kept"
    assert everything(run) == before
    assert json.loads((run / "replays" / "step-2" / "step.json").read_text())["step"] == 2


def test_what_the_network_saw_is_drawn_beside_the_picture(small: None, tmp_path: Path) -> None:
    run = tiny.begin(tmp_path / "run", tiny.recipe("crop=none", "pad=0", "flip=no"))
    preprocess, _ = train.read_input(run)
    images = tiny.data().train.images
    assert images is not None
    shown = replay.shown(preprocess.normalise(torch.from_numpy(images[:5])), preprocess)
    assert np.array_equal(shown, images[:5])
    assert not replay.shown(torch.full((1, 1, 8, 8), math.nan), preprocess).any()
    replay.replay(run, 0, tmp_path / "out")
    with Image.open(tmp_path / "out" / "pictures.png") as sheet:
        assert sheet.size == (6 * 204, 2 * 108)


def test_a_failure_is_replayed_with_its_own_weights(small: None, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Classify._losses

    def poisoned(task: Classify, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return losses(task, logits, labels) * torch.where(labels == 2, math.nan, 1.0)

    with monkeypatch.context() as patched:
        patched.setattr(Classify, "_losses", poisoned)
        with pytest.raises(ToleranceError, match=r"layerwise replay shows them"):
            tiny.begin(tmp_path / "run", tiny.recipe("mixup=0"))
        found = replay.replay(tmp_path / "run", 0)
    assert found.exact
    assert {one.label for one in found.pictures if one.loss is None} == {"c"}
    assert {one.told for one in found.pictures if one.label == "c"} == {"nan"}
    assert any("failed: not finite: loss nan, norm of the gradient nan; the first number that is not finite is in the "
               "gradient of features.conv1.weight" in line for line in found.lines())
    record = tmp_path / "run" / "failures" / "step-0" / "failure.json"
    told = json.loads(record.read_text())
    assert told["pictures"] == [one.id for one in found.pictures]
    record.write_text(json.dumps(told | {"indices": [1]}))
    assert "the record of the failure names other pictures" in replay.replay(tmp_path / "run", 0).notes
    for text, words in (("{", "not JSON"), ("[]", "not a JSON object")):
        record.write_text(text)
        with pytest.raises(InputError, match=words):
            replay.replay(tmp_path / "run", 0)


def test_the_pictures_of_a_step_without_memory_are_named(small: None, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> dict:
        raise RuntimeError("can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(Classify, "loss", full)
        with pytest.raises(MachineError, match="one picture at a time does not fit into memory") as error:
            tiny.begin(tmp_path / "run", tiny.recipe())
    assert "The 8 pictures of step 0 are named in" in error.value.why
    found = replay.replay(tmp_path / "run", 0)
    assert found.exact
    assert found.failure is not None
    assert found.failure["indices"] == [one.index for one in found.pictures]
    assert any("failed: out of memory" in line for line in found.lines())


def test_a_branch_with_another_batch_is_followed(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = logged(monkeypatch)
    run = tiny.begin(tmp_path / "run", tiny.recipe())
    train.resume(run, RunOptions(quiet=True, offline=True, settings=("batch_size=4", "duration=24", "micro_batch=4")))
    assert len(rundir.read_run(run)["branches"]) == 1
    assert {len(rows) for rows, _ in steps.values()} == {8, 4}
    for step in (3, 8, 9, 15):
        assert [one.index for one in replay.replay(run, step).pictures] == steps[step][0]
    for beyond in (len(steps), 10**12):  # the second is refused without counting so far
        with pytest.raises(InputError, match=rf"--step {beyond}: .* has {len(steps)} steps, counted from 0"):
            replay.replay(run, beyond)


def test_without_a_checkpoint_it_is_said_whose_weights_they_are(small: None, tmp_path: Path) -> None:
    run = tiny.begin(tmp_path / "run", tiny.recipe())
    for generation in (run / "checkpoints").iterdir():
        (generation / "state.json").write_text("{}")
    assert replay.replay(run, 0).exact
    (run / "model.safetensors").unlink()
    assert replay.replay(run, 3).weights == "of the weights at the start: no checkpoint is kept"
    with pytest.raises(InputError, match=r"--step 8: .* has 8 steps, counted from 0"):
        replay.replay(run, 8)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = changed(preset("digits"), ["network=lenet5", "resize=squash", "input_size=32", "threads=1", "duration=2",
                                        "unit=iterations", "evaluate_every=2", "warmup=none", "warmup_length=0",
                                        "precision=fp32", "schedule=constant", "batch_size=8", "micro_batch=8"])
    run = train.train(recipe, RunOptions(out=tmp_path / "run", quiet=True, offline=True, confirmed=True))
    assert main(["replay", str(run), "--step", "2", "--out", str(tmp_path / "out")]) == 2
    assert "has 2 steps, counted from 0" in capsys.readouterr().err
    assert main(["replay", str(run), "--step", "1", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"{run}, step 1: epoch 0, batch 1, 8 pictures" in said
    assert "losses: of the weights at step 2, 1 after this step" in said
    assert f"written: {tmp_path / 'out' / 'pictures.png'}" in said
    assert main(["replay", str(run), "--step", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == json.loads((tmp_path / "out" / "step.json").read_text())["pictures"]
