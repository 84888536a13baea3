"""Evaluation: each picture counts once, by class name, under a stated protocol, whatever the batches and workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layerwise.data.source import Samples
from layerwise.errors import InputError, MachineError, ToleranceError
from layerwise.evaluate import EvaluateOptions, answers, conclude, countable, evaluate, softmax
from layerwise.evaluation.metrics import merge, scores, summarise
from layerwise.evaluation.protocols import PROTOCOLS, Protocol
from layerwise.evaluation.result import PREDICTIONS
from layerwise.evaluation.views import views
from layerwise.modelfile import ModelFile
from layerwise.models.dense import fully_convolutional
from tests.evaluated import NAMES, files, model_file, samples, table


def plain_loop(found: ModelFile, data: Samples, protocol: Protocol) -> np.ndarray:
    """The protocol written out, one view at a time."""
    network = fully_convolutional(found.model) if protocol.fully_convolutional else found.model
    rows = []
    for index in range(len(data)):
        each = []
        for view in views(protocol, found.preprocess, data.read(index)):
            tensor = found.preprocess.normalise(torch.from_numpy(view.copy())[None])
            with torch.no_grad():
                each.append(torch.softmax(network(tensor).double(), 1)[0].numpy())
        rows.append(np.mean(each, axis=0))
    return np.array(rows)


SMALL = dataclasses.replace(PROTOCOLS["multi-scale"], name="small-scales", scales=(8, 12))


@pytest.mark.parametrize("name", ["single", "mirror", "centre", "ten-crop", "small-scales"])
def test_equal_to_a_loop_over_pictures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "small-scales", SMALL)
    found, data = model_file(resize="short-side"), files(tmp_path, 6)
    result = evaluate(found, data, EvaluateOptions(name, batch_size=50))
    expected = plain_loop(found, data, PROTOCOLS[name])
    assert result.evidence is not None
    np.testing.assert_allclose(result.evidence.probabilities, expected, atol=1e-6)
    expected_error = np.mean(expected.argmax(axis=1) != data.labels)
    assert result.error == pytest.approx(expected_error)
    assert result.protocol.name == name
    wrong = plain_loop(found, data, PROTOCOLS["single" if name in ("mirror", "ten-crop", "small-scales") else "mirror"])
    assert np.abs(result.evidence.probabilities - wrong).max() > 1e-4  # another protocol would be seen


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_independent_of_the_batch_size(batch_size: int) -> None:
    found, data = model_file(), samples(41)
    whole = evaluate(found, data)
    other = evaluate(found, data, EvaluateOptions(batch_size=batch_size))
    assert whole.evidence is not None
    assert other.evidence is not None
    np.testing.assert_allclose(other.evidence.probabilities, whole.evidence.probabilities, atol=1e-6)
    assert other.confusion == whole.confusion
    assert other.metrics["macro_f1"] == whole.metrics["macro_f1"]
    assert other.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-6)


def test_in_training_mode_it_would_depend_on_the_batch() -> None:
    """The negative control: the same network with batch statistics; `evaluate` itself puts it in evaluation mode."""
    found, data = model_file(), samples(41)
    pictures = torch.from_numpy(data.images)
    found.model.train()
    with torch.no_grad():
        together = found.model(found.preprocess.normalise(pictures))[:7]
        apart = found.model(found.preprocess.normalise(pictures[:7]))
    assert (together - apart).abs().max() > 1e-2
    before = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    evaluate(found, data)
    assert found.model.training
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_each_picture_counts_once_on_any_number_of_workers(world: int, count: int) -> None:
    found, data, options = model_file(), samples(count), EvaluateOptions(batch_size=100)
    indices = countable(found, data, options)
    parts = [answers(found, data, indices[rank::world], options) for rank in range(world)]
    result = conclude(found, data, merge(parts, indices), options)
    alone = evaluate(found, data, options)
    assert result.samples == count
    assert result.confusion == alone.confusion


def test_classes_are_matched_by_name() -> None:
    found, data = model_file(), samples(40)
    whole = evaluate(found, data)
    order = ("cat", "ant", "bee")
    renamed = dataclasses.replace(data, class_names=order,
                                  labels=np.array([order.index(NAMES[label]) for label in data.labels]))
    assert evaluate(found, renamed).confusion == whole.confusion
    by_number = dataclasses.replace(data, class_names=order)  # the negative control: same numbers, other names
    assert evaluate(found, by_number).confusion != whole.confusion


def test_a_class_without_images_changes_nothing_for_the_others() -> None:
    found, data = model_file(), samples(40)
    keep = np.flatnonzero(data.labels != 1)
    fewer = data.subset(keep, "test")
    left = dataclasses.replace(fewer, class_names=("ant", "cat"), labels=(fewer.labels > 0).astype(np.int64))
    result = evaluate(found, left)
    assert "0 images of 1 classes of the model: 'bee'" in result.notes
    assert result.classes[1]["support"] == 0
    assert result.classes[1]["recall"] is None
    assert result.classes[1]["reason"].startswith("no images of this class")
    whole = np.array(evaluate(found, data).confusion)
    whole[1] = 0
    assert result.confusion == whole.tolist()


def test_unknown_classes_are_refused_with_the_nearest_name() -> None:
    found, data = model_file(), samples(30, ("ant", "bees", "cat", "dog"))
    with pytest.raises(InputError, match="test: 2 classes that the model does not know") as caught:
        evaluate(found, data)
    assert "'bees', " in caught.value.details[0]
    assert "did you mean 'bee'?" in caught.value.details[0]
    assert "'ant', 'bee', 'cat'" in caught.value.why
    result = evaluate(found, data, EvaluateOptions(ignore_unknown=True))
    unknown = int(np.isin(data.labels, [1, 3]).sum())
    assert (result.samples, result.ignored) == (30 - unknown, unknown)
    assert any(note.startswith(f"{unknown} images left out") for note in result.notes)


def test_no_known_class_is_refused() -> None:
    with pytest.raises(InputError, match="test: no images of classes that the model knows"):
        evaluate(model_file(), samples(9, ("x", "y")), EvaluateOptions(ignore_unknown=True))


def test_an_ensemble_averages_probabilities_by_name_each_with_its_preprocessing() -> None:
    first, second = model_file(0), model_file(1, ("cat", "ant", "bee"))
    other = dataclasses.replace(second.preprocess, mean=np.zeros((3, 1, 1), np.float32))
    second = dataclasses.replace(second, preprocess=other)
    data = samples(25)
    result = evaluate([first, second], data)
    expected = plain_loop(first, data, PROTOCOLS["single"])
    expected = (expected + plain_loop(second, data, PROTOCOLS["single"])[:, [1, 2, 0]]) / 2
    assert result.evidence is not None
    np.testing.assert_allclose(result.evidence.probabilities, expected, atol=1e-6)
    assert [one["path"] for one in result.models] == ["model0", "model1"]
    assert any(note.startswith("the models differ in preprocessing") for note in result.notes)


def test_an_ensemble_of_other_classes_is_refused() -> None:
    with pytest.raises(InputError, match="the models do not know the same classes") as caught:
        evaluate([model_file(), model_file(1, ("ant", "bee", "cats"))], samples())
    assert len(caught.value.details) == 2
    with pytest.raises(InputError, match="no model to evaluate"):
        evaluate([], samples())


def test_unreadable_pictures_stop_with_all_of_them_listed(tmp_path: Path) -> None:
    data = files(tmp_path, bad=(2, 9))
    with pytest.raises(InputError, match="val: 2 of 12 pictures can't be used") as caught:
        evaluate(model_file(resize="short-side"), data, EvaluateOptions(batch_size=2))
    assert ["02.png" in detail or "09.png" in detail for detail in caught.value.details] == [True, True]


def test_unreadable_pictures_are_counted_apart(tmp_path: Path) -> None:
    data = files(tmp_path, bad=(2, 9))
    found = model_file(resize="short-side")
    result = evaluate(found, data, EvaluateOptions(bad_images="skip", batch_size=4))
    assert (result.samples, result.unreadable, sum(map(sum, result.confusion))) == (10, 2, 10)
    kept = np.array([i for i in range(12) if i not in (2, 9)])
    assert result.confusion == evaluate(found, data.subset(kept, "val")).confusion
    result.save(tmp_path / "saved")
    header, *rows = table(tmp_path / "saved" / PREDICTIONS)
    assert [row[0] for row in rows if row[header.index("error")]] == ["02.png", "09.png"]
    assert len(rows) == 12


def test_pictures_of_another_size_are_named() -> None:
    with pytest.raises(InputError, match="2 of 2 pictures can't be used") as caught:
        evaluate(model_file(), samples(2, side=9))
    assert "'test/0': a picture of 9x9 pixels where the network takes 8x8" in caught.value.details[0]


def test_the_models_exif_rule_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    data = Samples("test", NAMES, np.zeros(1, np.int64), ("a",), paths=(tmp_path / "a.png",))
    found = model_file()
    ignoring = dataclasses.replace(found, preprocess=dataclasses.replace(found.preprocess, exif="ignore"))
    upright, stored = evaluate(found, data), evaluate(ignoring, data)
    assert upright.evidence is not None
    assert stored.evidence is not None
    assert np.abs(upright.evidence.probabilities - stored.evidence.probabilities).max() > 1e-4
    assert (upright.protocol.exif, stored.protocol.exif) == ("apply", "ignore")


def test_answers_that_are_not_finite_are_refused() -> None:
    found = model_file()
    next(iter(found.model.head.parameters())).data.fill_(float("nan"))
    with pytest.raises(ToleranceError, match="the network's answer is not finite for 5 of 5 pictures"):
        evaluate(found, samples(5))


def test_bad_options_and_devices() -> None:
    with pytest.raises(InputError, match="batch_size=0: must be at least 1"):
        EvaluateOptions(batch_size=0)
    with pytest.raises(InputError, match="bad_images='skp': is not one of stop, skip, did you mean 'skip'"):
        EvaluateOptions(bad_images="skp")
    with pytest.raises(InputError, match="protocol 'tencrop'"):
        evaluate(model_file(), samples(), EvaluateOptions("tencrop"))
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="device=cuda: can't be used"):
            evaluate(model_file(), samples(), EvaluateOptions(device="cuda"))


def test_one_answer_for_all_is_noted() -> None:
    found = model_file()
    found.model.head[-1].bias.data[:] = torch.tensor([0.0, 1e4, 0.0])
    assert "every image was answered with 'bee'" in evaluate(found, samples(30)).notes


def test_averaging_logits_differs_from_averaging_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "geometric", dataclasses.replace(PROTOCOLS["mirror"], averaging="logits"))
    found, data = model_file(), samples(10)
    geometric, mean = (evaluate(found, data, EvaluateOptions(name)) for name in ("geometric", "mirror"))
    assert geometric.evidence is not None
    assert mean.evidence is not None
    flipped = dataclasses.replace(data, images=data.images[:, :, ::-1])
    logits = [np.log(plain_loop(found, one, PROTOCOLS["single"])) for one in (data, flipped)]
    np.testing.assert_allclose(geometric.evidence.probabilities, softmax(sum(logits) / 2), atol=1e-6)
    assert np.abs(geometric.evidence.probabilities - mean.evidence.probabilities).max() > 1e-5


def test_evidence_gives_the_metrics() -> None:
    result = evaluate(model_file(), samples(33))
    assert result.evidence is not None
    columns = scores(result.evidence.probabilities, result.evidence.columns.labels)
    assert summarise(columns, 3) == result.metrics
