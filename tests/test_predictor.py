"""Prediction: the same preprocessing as evaluation, a row for each file, bad pictures in their row."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import layerwise
from layerwise import modelfile, models
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError, ToleranceError
from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.modelfile import ModelFile
from layerwise.serve.predictor import Predictor, predict
from tests.packed_photos import COUNTS, packed, paint

NAMES = ("ant", "bee", "cat")


def model_file(batch_norm_off: bool = True) -> ModelFile:
    torch.manual_seed(0)
    network = models.build("resnet20", 3, 3, widths=(4, 4, 8))
    rule = Preprocess(3, 8, "short-side", 10, "bilinear", "apply", np.full((3, 1, 1), 0.5, np.float32),
                      np.full((3, 1, 1), 0.25, np.float32))
    return ModelFile(network.train(not batch_norm_off), NAMES, rule)


def pictures(folder: Path) -> list[Path]:
    """Colour, grey, 16-bit, alpha, palette, CMYK, one pixel, rotated by EXIF."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 31, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = Image.fromarray(pixels[..., :3])
    kinds = {"colour.png": colour, "grey.png": colour.convert("L"), "alpha.png": Image.fromarray(pixels),
             "palette.gif": colour.convert("P"), "cmyk.jpg": colour.convert("CMYK"), "rotated.jpg": colour,
             "dot.png": colour.crop((0, 0, 1, 1)), "deep.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)}
    for name, image in kinds.items():
        image.save(folder / name, **({"exif": exif} if name == "rotated.jpg" else {}))
    return sorted(folder.iterdir())


def test_the_same_probabilities_as_evaluation(tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    found = model_file()
    data = Samples("test", NAMES, np.zeros(len(paths), np.int64), tuple(map(str, paths)), paths=tuple(paths))
    evaluated = evaluate(found, data, EvaluateOptions(batch_size=3)).evidence
    assert evaluated is not None
    predicted = Predictor(found).probabilities(paths)
    np.testing.assert_allclose(predicted, evaluated.probabilities, atol=1e-6)
    other = Preprocess(3, 8, "squash", 0, "bilinear", "apply", found.preprocess.mean, found.preprocess.std)
    wrong = Predictor(ModelFile(found.model, NAMES, other)).probabilities(paths)
    assert np.abs(wrong - predicted).max() > 1e-5  # another preprocessing would be seen


def test_a_picture_is_the_same_as_file_array_and_bytes(tmp_path: Path) -> None:
    path = pictures(tmp_path)[1]
    array = np.array(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
    predictor = Predictor(model_file())
    rows = [predictor.probabilities([source])[0] for source in (path, str(path), path.read_bytes())]
    assert np.ptp(np.array(rows), axis=0).max() == 0
    if path.suffix == ".png":
        np.testing.assert_array_equal(predictor.probabilities([array])[0], rows[0])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_independent_of_the_other_pictures_of_a_batch(batch_size: int, tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    whole = Predictor(model_file()).probabilities(paths)
    found = Predictor(model_file(), batch_size).probabilities(paths)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    backwards = Predictor(model_file(), batch_size).probabilities(paths[::-1])[::-1]
    np.testing.assert_allclose(backwards, whole, atol=1e-6)


def test_with_batch_statistics_it_would_depend_on_them(tmp_path: Path) -> None:
    """The negative control: the network in training mode, as `Predictor` never leaves it."""
    found = model_file(batch_norm_off=False)
    paths = pictures(tmp_path)
    assert found.model.training
    predictor = Predictor(found)
    assert not found.model.training
    whole = predictor.probabilities(paths)
    found.model.train()
    assert np.abs(predictor.probabilities(paths[:4]) - whole[:4]).max() > 1e-3


def test_rows_go_on_after_a_bad_picture(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "broken.png").write_bytes((tmp_path / "colour.png").read_bytes()[:-30])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "web.jpg").write_text("<html></html>", "utf-8")
    rows = list(Predictor(model_file(), 4).rows([tmp_path, tmp_path / "missing.png"], top=2))
    assert [Path(row.path).name for row in rows] == [
        *sorted(p.name for p in tmp_path.iterdir()), "missing.png"]
    bad = {Path(row.path).name: row.error for row in rows if row.error}
    assert set(bad) == {"broken.png", "empty.jpg", "web.jpg", "missing.png"}
    assert "does not exist" in bad["missing.png"]
    assert all(name in error for name, error in bad.items())
    for row in rows:
        assert (row.prediction is None) == bool(row.error)
        record = row.to_json()
        assert len(record["predictions"]) == (0 if row.error else 2)
        assert (record["error"] is None) == (not row.error)
    good = next(row for row in rows if row.prediction is not None)
    assert good.prediction is not None
    assert good.prediction.name == good.prediction.class_names[0]
    assert good.prediction.probabilities[0] >= good.prediction.probabilities[1]


def test_a_bad_picture_changes_no_other_row(tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    clean = {row.path: row for row in Predictor(model_file(), 3).rows(paths)}
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    for row in Predictor(model_file(), 3).rows([tmp_path]):
        if not row.error:
            before = clean[row.path].prediction
            assert row.prediction is not None
            assert before is not None
            assert row.prediction.class_names == before.class_names
            np.testing.assert_allclose(row.prediction.probabilities, before.probabilities, atol=1e-6)


def test_shards_are_predicted_as_their_folder(tmp_path: Path) -> None:
    folder = paint(tmp_path)
    packed(folder, tmp_path / "shards")
    of_folder = {Path(row.path).relative_to(folder).as_posix(): row.prediction
                 for row in Predictor(model_file()).rows([folder])}
    of_shards = {row.path.split(".tar: ")[1]: row.prediction for row in Predictor(model_file()).rows(
        [tmp_path / "shards"])}
    assert len(of_shards) == 2 * sum(COUNTS.values())
    assert of_shards == of_folder
    assert None not in of_shards.values()
    (tmp_path / "shards" / "index.json").unlink()  # the control: without its index it is a folder without pictures
    (row,) = Predictor(model_file()).rows([tmp_path / "shards"])
    assert "holds no pictures" in row.error


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    image = Image.new("RGB", (9, 9))
    for name in ("b/2.png", "b/1.PNG", "a/x.jpg", ".hidden/y.png", "b/.z.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    rows = list(Predictor(model_file()).rows([tmp_path, tmp_path / "empty"]))
    assert [Path(row.path).relative_to(tmp_path).as_posix() for row in rows] == [
        "c.png", "a/x.jpg", "b/1.PNG", "b/2.png", "empty"]
    assert "holds no pictures" in rows[-1].error


def test_a_temperature_changes_no_order() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    plain = Predictor(model_file()).predict([image], top=3)[0]
    hot = Predictor(model_file(), temperature=50.0).predict([image], top=3)[0]
    assert hot.class_names == plain.class_names
    assert max(hot.probabilities) < max(plain.probabilities)
    np.testing.assert_allclose(hot.probabilities, 1 / 3, atol=0.05)


def test_bad_arguments() -> None:
    predictor = Predictor(model_file())
    for array in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8),
                  np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match="is not a picture"):
            predictor.predict([array])
    with pytest.raises(InputError, match="top=0: must be at least 1"):
        list(predictor.rows([], top=0))
    with pytest.raises(InputError, match="batch_size=0"):
        Predictor(model_file(), 0)
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="must be above 0 and finite"):
            Predictor(model_file(), temperature=temperature)
    with pytest.raises(InputError, match="does not exist"):
        predictor.predict([Path("nowhere.png")])
    assert predictor.probabilities([]).shape == (0, 3)


def test_an_answer_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    found = model_file()
    next(iter(found.model.head.parameters())).data.fill_(float("nan"))
    rows = list(Predictor(found).rows(paths))
    assert {row.error for row in rows} == {"the network's answer is not finite"}
    with pytest.raises(ToleranceError, match="the network's answer is not finite"):
        Predictor(found).predict(paths)


def test_from_a_model_file_on_disk(tmp_path: Path) -> None:
    modelfile.write(tmp_path / "model.safetensors", model_file())
    (tmp_path / "pictures").mkdir()
    paths = pictures(tmp_path / "pictures")
    rows = predict(tmp_path / "model.safetensors", paths, top=1)
    direct = Predictor(model_file()).predict(paths, top=1)
    assert [row.prediction for row in rows] == direct
    assert layerwise.predict is predict


def test_a_folder_that_can_not_be_read_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "shut").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "a.png")
    really = os.scandir

    def scandir(path: Path | str) -> object:
        if Path(path).name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    rows = predict(model_file(), [tmp_path / "photos"])
    assert [Path(row.path).name for row in rows] == ["a.png", "shut"]
    assert rows[0].prediction is not None
    assert "can't be read: Permission denied" in rows[1].error
