"""Evaluation: each picture counts once, by class name, under a stated protocol; numbers recomputable from disk."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layerwise import models
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError, MachineError, ToleranceError
from layerwise.evaluate import EvaluateOptions, answers, conclude, countable, evaluate, softmax
from layerwise.metrics import merge, scores, summarise
from layerwise.modelfile import ModelFile
from layerwise.models.dense import fully_convolutional
from layerwise.predictions_table import plain_cell, safe_cell
from layerwise.protocols import PROTOCOLS, Protocol
from layerwise.result import PREDICTIONS, Result, read, recompute
from layerwise.views import views

NAMES = ("ant", "bee", "cat")


def preprocess(resize: str = "none", size: int = 8, channels: int = 3) -> Preprocess:
    mean = np.linspace(0.4, 0.6, channels, dtype=np.float32)[:, None, None]
    std = np.full((channels, 1, 1), 0.25, np.float32)
    return Preprocess(channels, size, resize, size + 2 if resize == "short-side" else 0, "bilinear", "apply", mean, std)


def model_file(seed: int = 0, names: tuple[str, ...] = NAMES, resize: str = "none") -> ModelFile:
    torch.manual_seed(seed)
    network = models.build("resnet20", len(names), 3, widths=(4, 4, 8))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    spread_answers(network.eval(), preprocess(resize))
    return ModelFile(network.eval(), names, preprocess(resize), path=Path(f"model{seed}"), sha256="0" * 64)


def spread_answers(network: torch.nn.Module, rule: Preprocess) -> None:
    """Changes the last layer so that random pictures have logits of mean 0 and deviation 0.3 for each class."""
    pictures = np.random.default_rng(9).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        logits = network(rule.normalise(torch.from_numpy(pictures)))
        last = network.head[-1]
        last.bias.copy_((last.bias - logits.mean(0)) * 0.3 / logits.std(0))
        last.weight.mul_(0.3 / logits.std(0)[:, None])


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def samples(count: int = 30, names: tuple[str, ...] = NAMES, seed: int = 0, side: int = 8) -> Samples:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = random.integers(0, len(names), count).astype(np.int64)
    return Samples("test", names, labels, tuple(f"test/{i}" for i in range(count)), images=images)


def files(folder: Path, count: int = 12, bad: tuple[int, ...] = ()) -> Samples:
    random = np.random.default_rng(1)
    paths = []
    for i in range(count):
        path = folder / f"{i:02d}.png"
        pixels = random.integers(0, 256, ((12, 20, 3), (20, 12, 3), (15, 15, 3))[i % 3], dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        if i in bad:
            path.write_bytes(path.read_bytes()[:-40])
        paths.append(path)
    return Samples("val", NAMES, np.arange(count) % 3, tuple(path.name for path in paths), paths=tuple(paths))


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
    from layerwise.compare import compare

    data = samples(200)
    first, second = evaluate(model_file(0), data), evaluate(model_file(1), data)
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    same = compare(tmp_path / "a", tmp_path / "a")
    assert same.p == 1.0
    assert "no difference beyond the noise" in same.verdict
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.difference == pytest.approx(second.error - first.error)


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
