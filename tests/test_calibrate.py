"""Temperature scaling, and batch normalisation examined and recalibrated, each with a case that must be seen."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from layerwise import models
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluate import EvaluateOptions, softmax
from layerwise.evaluation import batch_statistics
from layerwise.evaluation.calibrate import calibrate, fit_temperature, measured, scaled
from layerwise.jobs.calibration import KEY, kept_temperature
from layerwise.modelfile import ModelFile, tensors_sha256
from layerwise.models.network import SupervisedNetwork

NAMES = ("ant", "bee", "cat")


def model_file(name: str = "resnet20") -> ModelFile:
    torch.manual_seed(0)
    network = models.build(name, 3, 1, **({"widths": (4, 4, 8)} if name == "resnet20" else {}))
    side = models.published_input(name)[1] if name != "resnet20" else 8
    rule = Preprocess(1, side, "none", 0, "bilinear", "apply", np.full((1, 1, 1), 0.5, np.float32),
                      np.full((1, 1, 1), 0.25, np.float32))
    return ModelFile(network.eval(), NAMES, rule, path=Path("model"), sha256=tensors_sha256(network, rule))


def samples(name: str, count: int, seed: int) -> Samples:
    """Dark, middle and bright noise: a class each."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count).astype(np.int64)
    images = random.integers(0, 100, (count, 8, 8, 1)) + 70 * labels[:, None, None, None]
    return Samples(name, NAMES, labels, tuple(f"{name}/{i}" for i in range(count)), images=images.astype(np.uint8))


def trained() -> ModelFile:
    """Trained for a few steps in training mode, with a momentum that makes the running averages good."""
    found = model_file()
    data = samples("train", 96, 0)
    batch, labels = found.preprocess.normalise(torch.from_numpy(data.images)), torch.from_numpy(data.labels)
    optimiser = torch.optim.SGD(found.model.parameters(), 0.1, momentum=0.9)
    found.model.train()
    for module in batch_statistics.batch_norms(found.model).values():
        module.momentum = 0.5
    for _ in range(25):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(found.model(batch), labels).backward()
        optimiser.step()
    found.model.eval()
    return dataclasses.replace(found, sha256=tensors_sha256(found.model, found.preprocess))


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(truth: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(scale=3, size=(20_000, 5))
    chances = softmax(logits / truth)
    labels = (chances.cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    probabilities = softmax(logits)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(truth, rel=0.05)
    after = measured(scaled(probabilities, found), labels)
    before = measured(probabilities, labels)
    assert after.loss <= before.loss + 1e-12
    assert after.calibration_error < 0.015
    if truth != 1.0:
        assert before.calibration_error > 3 * after.calibration_error
    for other in (found * 1.02, found / 1.02):  # it is the minimum
        assert measured(scaled(probabilities, other), labels).loss > after.loss


def test_scaling_is_dividing_the_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 4))
    np.testing.assert_allclose(scaled(softmax(logits), 2.7), softmax(logits / 2.7), atol=1e-12)


def test_calibrate_reports_on_other_pictures_than_it_fits() -> None:
    found = trained()
    last = found.model.head[-1]
    last.weight.data *= 8  # overconfident
    last.bias.data *= 8
    fit, report = samples("val", 120, 1), samples("test", 140, 2)
    noise = np.random.default_rng(5)
    for data in (fit, report):  # some labels are wrong, so that confidence is misplaced
        wrong = noise.random(len(data)) < 0.2
        data.labels[wrong] = noise.integers(0, 3, wrong.sum())
    result = calibrate(found, fit, report, EvaluateOptions())
    assert result.temperature > 1.5
    assert result.after.loss < result.before.loss
    assert result.after.brier < result.before.brier
    assert result.after.calibration_error < result.before.calibration_error
    assert (result.fitted_on["split"], result.reported_on["split"], result.bins) == ("val", "test", 15)
    assert (result.fitted_on["samples"], result.reported_on["samples"]) == (120, 140)
    assert sum(one.count for one in result.after.bins) == 140
    assert result.to_json()["protocol"]["name"] == "single"
    assert result.notes == ()


def test_the_same_pictures_are_refused() -> None:
    data = samples("val", 40, 1)
    renamed = dataclasses.replace(data, name="test", ids=tuple(f"other/{i}" for i in range(40)))
    part = data.subset(np.arange(10), "test")
    for other in (data, renamed, part):
        with pytest.raises(InputError, match="would be fitted and judged on the same pictures"):
            calibrate(model_file(), data, other, EvaluateOptions())


def test_a_few_shared_pictures_are_noted() -> None:
    first, second = samples("val", 40, 1), samples("test", 40, 2)
    second.images[:3] = first.images[:3]
    assert "3 pictures are in both val and test" in calibrate(model_file(), first, second, EvaluateOptions()).notes


def test_a_temperature_that_the_pictures_do_not_determine_is_noted() -> None:
    found, report = trained(), samples("test", 60, 2)
    right = samples("val", 60, 1)
    with torch.no_grad():
        right.labels[:] = found.model(found.preprocess.normalise(torch.from_numpy(right.images))).argmax(1).numpy()
    result = calibrate(found, right, report, EvaluateOptions())
    assert result.temperature == 1.0
    assert result.after == result.before
    assert "all 60 pictures of val are answered rightly" in result.notes[0]
    wrong = dataclasses.replace(right, labels=(right.labels + 1) % 3)
    result = calibrate(found, wrong, report, EvaluateOptions())
    assert result.temperature > 99
    assert "lies at the end of its range: val (60 pictures) does not determine it" in result.notes[0]


def damaged(found: ModelFile) -> ModelFile:
    """Running averages of other data, as after training with a wrong momentum."""
    network = copy.deepcopy(found.model)
    for module in batch_statistics.batch_norms(network).values():
        module.running_mean.add_(1.5)
        module.running_var.mul_(9)
    return dataclasses.replace(found, model=network)


def test_the_doctor_sees_damaged_running_averages_and_only_those() -> None:
    found, data = trained(), samples("val", 150, 3)
    well = batch_statistics.examine(found, data, batch_size=50)
    assert not well.suspicious
    assert "no sign that the running averages are wrong" in well.lines()[-1]
    ill = batch_statistics.examine(damaged(found), data, batch_size=50)
    assert ill.suspicious
    assert ill.error_running > ill.error_batch + 0.2
    assert "recalibrate them on training pictures" in ill.lines()[-1]
    assert ill.error_batch == well.error_batch  # the batch's own statistics know nothing of the damage
    record = ill.to_json()
    assert (record["samples"], record["batch_size"], record["suspicious"]) == (150, 50, True)


def test_the_doctor_changes_nothing() -> None:
    found = trained()
    before = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    batch_statistics.examine(found, samples("val", 40, 3))
    batch_statistics.recalibrate(found, samples("train", 40, 0))
    assert not found.model.training
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_recalibration_cures_the_damage() -> None:
    found, data = trained(), samples("val", 150, 3)
    cured = batch_statistics.recalibrate(damaged(found), samples("train", 96, 0))
    finding = batch_statistics.examine(cured, data, batch_size=150)
    assert not finding.suspicious
    assert finding.error_running <= finding.error_batch + 0.02
    assert cured.sha256 != found.sha256
    assert cured.sha256 == tensors_sha256(cured.model, cured.preprocess)
    note = cured.provenance["recalibrated_batch_statistics"]
    assert (note["images"], note["samples"], note["from_sha256"]) == (96, "train", found.sha256)
    for name, parameter in cured.model.named_parameters():
        assert torch.equal(parameter, dict(found.model.named_parameters())[name]), name


def test_auxiliary_heads_are_left_alone() -> None:
    """A test never goes through them, so that nothing is known of what they would see."""
    torch.manual_seed(0)
    branch = torch.nn.Sequential(torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(256, 3))
    network = SupervisedNetwork({"conv1": torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1),
                                                              torch.nn.BatchNorm2d(4))},
                                {"all": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))},
                                {"conv1": branch})
    found = dataclasses.replace(model_file(), model=network.eval())
    cured = batch_statistics.recalibrate(found, samples("train", 40, 0))
    old, new = network.state_dict(), cured.model.state_dict()
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert changed == {"features.conv1.1.running_mean", "features.conv1.1.running_var"}
    assert batch_statistics.examine(found, samples("val", 40, 3)).layers == 1


def test_a_temperature_of_the_old_statistics_is_not_taken_along() -> None:
    found = dataclasses.replace(model_file(), provenance={"made": "here", KEY: {"temperature": 2.0}})
    assert kept_temperature(found) == 2.0
    cured = batch_statistics.recalibrate(found, samples("train", 40, 0))
    with pytest.raises(InputError, match="is not calibrated"):
        kept_temperature(cured)
    assert cured.provenance["made"] == "here"
    assert kept_temperature(found) == 2.0


def test_one_large_batch_gives_what_training_mode_computes() -> None:
    found, data = trained(), samples("train", 64, 0)
    cured = batch_statistics.recalibrate(found, data, batch_size=64)
    reference = copy.deepcopy(found.model).train()
    for module in batch_statistics.batch_norms(reference).values():
        module.momentum = 1.0
    with torch.no_grad():
        reference(found.preprocess.normalise(torch.from_numpy(data.images)))
    for name, module in batch_statistics.batch_norms(reference).items():
        ours = batch_statistics.batch_norms(cured.model)[name]
        torch.testing.assert_close(ours.running_mean, module.running_mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.running_var, module.running_var, atol=1e-5, rtol=1e-4)
        assert ours.num_batches_tracked == batch_statistics.batch_norms(found.model)[name].num_batches_tracked


def test_several_batches_are_put_together_exactly() -> None:
    """The first layer sees the same inputs whatever the batches: its statistics must not depend on them."""
    found, data = trained(), samples("train", 90, 0)
    one, many = (batch_statistics.recalibrate(found, data, batch_size=size) for size in (90, 20))
    name = next(iter(batch_statistics.batch_norms(found.model)))
    first, second = (batch_statistics.batch_norms(each.model)[name] for each in (one, many))
    torch.testing.assert_close(first.running_mean, second.running_mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(first.running_var, second.running_var, atol=1e-6, rtol=1e-6)


def test_networks_without_batch_normalisation_and_too_few_pictures() -> None:
    with pytest.raises(InputError, match="this network has no batch normalisation"):
        batch_statistics.examine(model_file("lenet5"), samples("val", 40, 0))
    with pytest.raises(InputError, match="15 pictures are too few for batch statistics; at least 16"):
        batch_statistics.examine(model_file(), samples("val", 15, 0))
