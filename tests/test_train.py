"""The loop: one step is the rule by hand, accumulation is the large batch, nothing non-finite reaches a weight."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from layerwise import modelfile, rundir, train
from layerwise.data.loader import training_batches
from layerwise.errors import InputError, MachineError, ToleranceError
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.tasks.classify import Classify
from layerwise.train import RunOptions
from layerwise.training import state as training
from layerwise.training.preparation import open_split

QUICK = ["threads=1", "precision=fp32", "unit=iterations", "duration=3", "evaluate_every=3", "schedule=constant",
         "warmup=none", "warmup_length=0", "batch_size=48", "label_smoothing=0", "ema=0"]
LENET = ["network=lenet5", "resize=squash", "input_size=32"]


def recipe(*settings: str) -> Recipe:
    return changed(changed(preset("digits"), QUICK), settings)


def run(where: Path, *settings: str) -> Path:
    return train.train(recipe(*settings), RunOptions(out=where, quiet=True, offline=True, confirmed=True))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return modelfile.read(run).model.state_dict()


def assembled(where: Path, *settings: str) -> training.Training:
    """A training at its start, as `train` puts it together, without its loop."""
    done = run(where, *settings, "duration=1")
    chosen = rundir.read_recipe(done)
    data = open_split(chosen, RunOptions(quiet=True, offline=True))
    (where / "again").mkdir()
    return training.assemble(where / "again", chosen, data, *training.read_input(done))


def test_three_steps_are_the_rule_by_hand(tmp_path: Path) -> None:
    """v <- 0.9 v + g + 0.0005 w (weights of convolution and fc only), w <- w - 0.1 v."""
    settings = [*LENET, "momentum=0.9", "nesterov=no", "learning_rate=0.1", "reference_batch=48",
                "weight_decay=0.0005", "weight_decay_on=weights"]
    state = assembled(tmp_path / "one", *settings)
    values = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    velocity = {name: torch.zeros_like(value) for name, value in values.items()}
    batches = training_batches(state.train, state.recipe, state.preprocess, 0, 0, state.colour)
    for _, batch in zip(range(3), batches, strict=False):
        with torch.no_grad():
            for name, parameter in state.model.named_parameters():
                parameter.copy_(values[name])
        loss = torch.nn.functional.cross_entropy(state.model(batch["image"]), batch["label"])
        gradients = torch.autograd.grad(loss, list(state.model.parameters()))
        for (name, value), gradient in zip(values.items(), gradients, strict=True):
            decay = 0.0005 if value.ndim > 1 else 0.0
            velocity[name] = 0.9 * velocity[name] + gradient + decay * value
            values[name] = value - 0.1 * velocity[name]
    batches.close()
    trained = weights(run(tmp_path / "three", *settings))
    start = weights(tmp_path / "one")
    for name, value in values.items():
        assert torch.allclose(trained[name], value, atol=1e-6), name
        assert not torch.allclose(trained[name], start[name], atol=1e-6), name


def test_accumulation_is_the_large_batch(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", *LENET, "micro_batch=48")
    parts = run(tmp_path / "parts", *LENET, "micro_batch=16")
    in_parts = weights(parts)
    for name, value in weights(whole).items():
        assert torch.allclose(in_parts[name], value, atol=1e-5), name
    losses = [rundir.read_lines(one / "metrics.jsonl")[0]["loss"] for one in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_parts_of_different_size_weigh_by_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = assembled(tmp_path / "one", *LENET)
    batch = next(training_batches(state.train, state.recipe, state.preprocess, 0, 0, state.colour))

    def gradient(micro_batch: int) -> torch.Tensor:
        state.position.micro_batch = micro_batch
        train.gradients(state, batch)
        return torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()])

    whole = gradient(48)
    assert torch.allclose(gradient(13), whole, atol=1e-6)
    assert torch.allclose(gradient(1), whole, atol=1e-6)
    loss = Classify.loss

    def unweighted(task: Classify, model: torch.nn.Module, batch: dict) -> dict:
        found = loss(task, model, batch)
        return found | {"loss": found["loss"] * (9.6 / len(batch["label"]))}  # 48 pictures in parts of 10, 10, 10, 9, 9

    monkeypatch.setattr(Classify, "loss", unweighted)  # the negative control: each part weighs the same
    assert not torch.allclose(gradient(10), whole, atol=1e-6)


def test_it_overfits_32_pictures(tmp_path: Path) -> None:
    state = assembled(tmp_path / "one", "validation=0", "crop=none", "pad=0", "learning_rate=0.1",
                      "reference_batch=32", "batch_size=32", "select=last")
    state.train = state.train.subset(range(32), "train")
    first = None
    for _ in range(40):
        batch = next(iter(training_batches(state.train, state.recipe, state.preprocess, 0, 0, state.colour)))
        training_sums = train.gradients(state, batch)
        first = first or training_sums["loss"] / 32
        train.set_rate(state.optimiser, 0.05)
        state.optimiser.step()
    assert training_sums["errors"] == 0
    assert training_sums["loss"] / 32 < 0.05 < first


def test_a_run_leaves_what_it_says(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "evaluate_every=1")
    record = rundir.read_run(done)
    assert record["state"] == "finished"
    assert record["data"]["counts"]["test"] == 359
    assert set(record["data"]["fingerprint"]) == {"train", "val", "test"}
    lines = rundir.read_lines(done / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "val"] == [1, 2, 3]
    assert not any("time" in key or "second" in key for line in lines for key in line)
    names = {path.name for path in done.iterdir()}
    assert {"recipe.json", "run.json", "metrics.jsonl", "checkpoints", "model.safetensors", "data"} <= names
    with pytest.raises(InputError, match="exists and is not empty"):
        run(tmp_path / "run")


def test_validation_is_no_part_of_the_rate_and_of_the_share_of_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the seconds of validation in it, what is recorded and slept would be more than the whole run took."""
    validate, slept = train._validate, 0.0

    def slow(*arguments: Any) -> None:
        nonlocal slept
        validate(*arguments)
        time.sleep(0.2)
        slept += 0.2

    monkeypatch.setattr(train, "_validate", slow)
    done = run(tmp_path / "run", "evaluate_every=1")
    lines = [json.loads(line) for line in (done / "speed.jsonl").read_text().splitlines()]
    recorded = sum(line["seconds"] for line in lines)
    assert slept > 0.5
    assert recorded + slept <= json.loads((done / "run.json").read_text())["seconds"] + 0.1  # it is rounded
    assert lines[0]["images_per_second"] == pytest.approx(3 * 48 / recorded, rel=0.05)


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    one, two = run(tmp_path / "1"), run(tmp_path / "2")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    other = run(tmp_path / "3", "seed=1")
    assert (one / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_never_reaches_a_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    loss, calls = Classify.loss, [0]

    def poisoned(task: Classify, model: torch.nn.Module, batch: dict) -> dict:
        calls[0] += 1
        found = loss(task, model, batch)
        return found | {"loss": found["loss"] * (value if calls[0] == 3 else 1)}

    settings = ("duration=2",)
    clean = run(tmp_path / "two steps", *settings)
    monkeypatch.setattr(Classify, "loss", poisoned)
    with pytest.raises(ToleranceError, match=r"step 2: the loss is (nan|inf)") as error:
        run(tmp_path / "poisoned")
    assert "layerwise resume" in str(error.value)
    saved = [max((one / "checkpoints").iterdir()) / "weights.safetensors" for one in (clean, tmp_path / "poisoned")]
    before, after = (load_file(file) for file in saved)
    assert all(torch.equal(before[name], after[name]) for name in before)
    bundle = json.loads((tmp_path / "poisoned" / "failures" / "step-2" / "failure.json").read_text())
    assert len(bundle["pictures"]) == 48
    assert bundle["pictures"][0].startswith("digits/")
    assert rundir.read_run(tmp_path / "poisoned")["state"] == "failed"
    monkeypatch.setattr(Classify, "loss", loss)
    whole = run(tmp_path / "three steps")
    train.resume(tmp_path / "poisoned", RunOptions(quiet=True, offline=True))
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "poisoned").items())


def test_without_the_check_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with the check taken out, NaN is trained into the weights."""
    loss = Classify.loss
    monkeypatch.setattr(Classify, "loss", lambda *a: {**loss(*a), "loss": loss(*a)["loss"] * math.nan})
    monkeypatch.setattr(train.math, "isfinite", lambda value: True)
    monkeypatch.setattr(rundir.json, "dumps", lambda *a, allow_nan=True, **b: json.JSONEncoder().encode(a[0]))
    done = run(tmp_path / "run")
    assert any(not bool(torch.isfinite(value).all()) for value in weights(done).values())


def test_out_of_memory_halves_the_micro_batch_and_redoes_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = run(tmp_path / "small", "micro_batch=12")
    loss = Classify.loss

    def scarce(task: Classify, model: torch.nn.Module, batch: dict) -> dict:
        found = loss(task, model, batch)
        if len(batch["label"]) > 12:
            raise torch.OutOfMemoryError("injected")
        return found

    monkeypatch.setattr(Classify, "loss", scarce)
    scarce_run = run(tmp_path / "scarce", "micro_batch=48")
    expected = weights(small)
    assert all(torch.equal(value, expected[name]) for name, value in weights(scarce_run).items())
    assert (small / "metrics.jsonl").read_bytes() == (scarce_run / "metrics.jsonl").read_bytes()
    notes = rundir.read_run(scarce_run)["notes"]
    assert any("micro-batches of 12" in note for note in notes)


def test_memory_for_not_even_one_picture_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> dict:
        raise torch.OutOfMemoryError("injected")

    monkeypatch.setattr(Classify, "loss", never)
    with pytest.raises(MachineError, match="one picture at a time"):
        run(tmp_path / "run")


def test_frozen_layers_and_their_statistics_stay(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    tuned = run(tmp_path / "tuned", f"start_from={first}", "freeze=features", "learning_rate=0.1")
    free = run(tmp_path / "free", f"start_from={first}", "learning_rate=0.1")
    before, after, freed = weights(first), weights(tuned), weights(free)
    changes = [name for name in before if not torch.equal(before[name], after[name])]
    assert changes
    assert all(name.startswith("head.") for name in changes)
    moved = [name for name in before if not torch.equal(before[name], freed[name])]
    assert any("running_mean" in name for name in moved)  # the control: unfrozen, they move
    report = json.loads((tuned / "load-report.json").read_text())
    assert len(report["loaded"]) == len(before)


def test_layers_thaw_when_the_recipe_says(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    tuned = run(tmp_path / "tuned", f"start_from={first}", "freeze=features", "unfreeze_at=2", "learning_rate=0.1")
    before, after = weights(first), weights(tuned)
    changes = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert any(name.startswith("features.") for name in changes)


def test_a_finished_run_says_how_to_train_on(tmp_path: Path) -> None:
    done = run(tmp_path / "run")
    with pytest.raises(InputError, match=r"finished after 3 iterations\nTo train on: .*--extend 3"):
        train.resume(done)
    train.resume(done, RunOptions(quiet=True, settings=("duration=5",)))
    assert rundir.read_recipe(done).duration == 5
    assert [line["step"] for line in rundir.read_lines(done / "metrics.jsonl") if line["kind"] == "val"] == [3, 5]
    assert any("branch at 144 samples: duration 3" in note for note in rundir.read_run(done)["notes"])


@pytest.mark.parametrize("setting", ["duration=2", "duration=3", "learning_rate=0.3"])
def test_a_run_does_not_go_back(tmp_path: Path, setting: str) -> None:
    done = run(tmp_path / "run")
    before = rundir.read_recipe(done)
    with pytest.raises(InputError, match=r"but 3 iterations are trained already\n.*\nTo train on: .*--extend"):
        train.resume(done, RunOptions(quiet=True, settings=(setting,)))
    assert (rundir.read_recipe(done), rundir.read_run(done)["branches"]) == (before, [])


def test_fields_that_can_not_change_within_a_run(tmp_path: Path) -> None:
    done = run(tmp_path / "run")
    with pytest.raises(InputError, match=r"can't change within a run") as error:
        train.resume(done, RunOptions(quiet=True, settings=("network=lenet5", "mean=none")))
    assert "network" in str(error.value)
    assert "mean" in str(error.value)


def test_changed_data_is_refused_and_another_machine_is_said(tmp_path: Path) -> None:
    done = run(tmp_path / "run")
    record = rundir.read_run(done)
    changes = {"hardware": record["hardware"] | {"cpu": "another"},
               "versions": record["versions"] | {"torch": "2.11.0"},
               "data": record["data"] | {"fingerprint": record["data"]["fingerprint"] | {"train": "0" * 64}}}
    rundir.update_run(done, changes)
    with pytest.raises(InputError, match="the data changed since the run began"):
        train.resume(done, RunOptions(quiet=True, settings=("duration=4",)))
    assert (rundir.read_recipe(done).duration, rundir.read_run(done)["branches"]) == (3, [])  # refused: nothing written
    train.resume(done, RunOptions(quiet=True, settings=("duration=4",), accept_data_change=True))
    notes = "\n".join(rundir.read_run(done)["notes"])
    assert "not bit-exact: cpu was another" in notes
    assert "not bit-exact: torch was 2.11.0" in notes
    assert "not bit-exact: the data changed" in notes


def test_what_is_not_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run"):
        train.resume(tmp_path)


def test_a_full_disk_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.checkpoint, "write", full)
    done = run(tmp_path / "run")
    assert (done / "model.safetensors").exists()
    assert any("no room for the checkpoint" in note for note in rundir.read_run(done)["notes"])


def test_a_doubtful_network_needs_a_yes(tmp_path: Path) -> None:
    doubtful = recipe("network=resnet18", "resize=squash", "input_size=32")
    with pytest.raises(InputError, match="--yes"):
        train.train(doubtful, RunOptions(out=tmp_path / "run", quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_rare_class_makes_macro_f1_choose(tmp_path: Path) -> None:
    state = assembled(tmp_path / "one", "select=best")
    assert not state.imbalanced
    labels = state.train.labels
    rare = [*range(len(labels))]
    rare = [index for index in rare if labels[index] != 3] + [index for index in rare if labels[index] == 3][:5]
    state.train = state.train.subset(rare, "train")
    assert state.imbalanced
    assert any("selected by macro-F1" in line for line in train.banner(state))
    train._validate(state, RunOptions(quiet=True))
    with torch.inference_mode():
        batches = list(train.plain_batches(state.val, state.preprocess, 256))
        found = state.task.evaluate(state.model.eval(), batches)
    assert state.position.best_score == pytest.approx(1 - found["macro_f1"])
    assert state.position.best_score != pytest.approx(found["error"])


def test_what_does_not_fit_leaves_no_directory(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    with pytest.raises(InputError, match="does not fit"):
        run(tmp_path / "second", f"start_from={first}", "network=resnet32")
    assert not (tmp_path / "second").exists()


GOOGLENET = ["network=googlenet_3x3", "resize=squash", "input_size=32", "crop=none", "batch_size=4", "duration=1",
             "evaluate_every=1", "learning_rate=0.001"]


def test_auxiliary_heads_learn_where_the_recipe_says_so(tmp_path: Path) -> None:
    trained = {}
    for weight in ("0", "0.3"):
        trained[weight] = weights(run(tmp_path / weight, *GOOGLENET, f"auxiliary_weight={weight}"))
    heads = [name for name in trained["0"] if name.startswith("auxiliary.") and name.endswith("weight")]
    assert heads
    assert all(not torch.equal(trained["0"][name], trained["0.3"][name]) for name in heads)
    first = next(name for name in trained["0"] if name.startswith("features."))
    assert not torch.equal(trained["0"][first], trained["0.3"][first])  # their gradient reaches the layers below


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["auxiliary_weight=0.3"], "auxiliary_weight=0.3: resnet20 has no auxiliary heads"),
        (["network=inception_v3", "resize=squash", "input_size=96", "auxiliary_weight=0.3"],
         "auxiliary head after mixed_6e does not take the 4x4 map that 96x96 pictures give it"),
    ],
)
def test_auxiliary_heads_that_can_not_be_trained(tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", *settings)
    assert not (tmp_path / "run").exists()
