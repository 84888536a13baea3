"""The main job from pictures to a tested network, by the command line: a folder of 30 pictures in 3 classes."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layerwise
from layerwise import modelfile
from layerwise.cli import main
from layerwise.errors import InputError
from layerwise.jobs import main_job
from layerwise.jobs.assessment import own_split
from layerwise.jobs.recipe_choice import fitting, for_training
from layerwise.training.preparation import RunOptions

ROOT = Path(__file__).parent.parent
COLOURS = ("blue", "green", "red")
SMALL = {"input_size": 16, "resize_to": 16, "duration": 2, "warmup_length": 1, "batch_size": 8, "threads": 1,
         "learning_rate": 0.5, "device": "cpu", "protocol": "single"}


def settings(**changes: object) -> list[str]:
    """The words of a small recipe, with changes."""
    return [word for name, value in (SMALL | changes).items() for word in ("--set", f"{name}={value}")]


def paint(folder: Path) -> Path:
    """Ten pictures of each colour, of different sizes, all different."""
    random = np.random.default_rng(0)
    for channel, colour in enumerate(reversed(COLOURS)):
        (folder / colour).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 80, (20 + number, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(folder / colour / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the pictures are; `run` is filled by the first test that needs a trained one."""
    root = tmp_path_factory.mktemp("job")
    return {"root": root, "photos": paint(root / "photos")}


@pytest.fixture
def run(place: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> Path:
    """A run, trained once by the command line."""
    if "run" not in place:
        place["run"] = place["root"] / "run"
        words = ["train", "resnet20", str(place["photos"]), "--split", "40/30/30", *settings(), "--out"]
        assert main([*words, str(place["run"])]) == 0
        seen = capsys.readouterr()
        (place["root"] / "out.txt").write_text(seen.out)
        (place["root"] / "err.txt").write_text(seen.err)
    return place["run"]


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON that a command prints; it must succeed."""
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_check(place: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    report = ask(capsys, "check", place["photos"])
    assert report["class_names"] == list(COLOURS)
    assert report["counts"] == {"all": 30}
    assert main(["check", str(place["photos"])]) == 0
    assert "no problem found" in capsys.readouterr().out


def test_check_finds_a_planted_leak_and_waives_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "train")
    paint(tmp_path / "test")
    assert main(["check", str(tmp_path), "--list", str(tmp_path / "pairs.csv")]) == 2
    seen = capsys.readouterr()
    assert "the same picture is in two splits, 30 times" in seen.out
    assert "training should not start with this data" in seen.err
    assert len((tmp_path / "pairs.csv").read_text().splitlines()) == 31
    assert main(["check", str(tmp_path), "--waive-leaks"]) == 0
    capsys.readouterr()
    assert main(["check", str(tmp_path), "--json"]) == 2
    both = json.loads(capsys.readouterr().out)
    assert both["counts"] == {"train": 30, "test": 30}
    assert both["error"]["exit_code"] == 2


def test_a_run_has_all_its_parts(run: Path, place: dict[str, Path]) -> None:
    for name in ("recipe.json", "run.json", "metrics.jsonl", "model.safetensors", "report.html",
                 "evaluations/test-single/result.json", "evaluations/test-single/predictions.csv"):
        assert (run / name).is_file(), name
    said = (place["root"] / "err.txt").read_text()
    assert "global batch 8 = " in said
    assert said.startswith("recipe fast, which fits resnet20 and these pictures; --recipe chooses another\n")
    assert "split 40/30/30 with seed 0, by class: 12 train, 9 val, 9 test" in said
    printed = (place["root"] / "out.txt").read_text()
    for words in ("test error ", "95 % interval", "protocol single", f"model: {run / 'model.safetensors'}",
                  f"report: {run / 'report.html'}", f"use it: layerwise predict {run} PICTURES"):
        assert words in printed


def test_the_model_file_carries_its_result_with_the_protocol(run: Path) -> None:
    found = modelfile.read(run)
    assert found.class_names == COLOURS
    (result,) = found.results
    assert result["protocol"]["name"] == "single"
    assert result["metrics"] == json.loads((run / "evaluations/test-single/result.json").read_text())["metrics"]


def test_evaluate_again_is_the_same(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((run / "evaluations/test-single/result.json").read_text())
    found = ask(capsys, "evaluate", run, "--report", tmp_path / "again")
    assert found["metrics"] == before["metrics"]
    assert json.loads((tmp_path / "again" / "result.json").read_text())["metrics"] == before["metrics"]
    several = ask(capsys, "evaluate", run, run)
    assert len(several["models"]) == 2
    assert several["metrics"]["error"] == before["metrics"]["error"]
    assert several["saved"] is None


def test_evaluate_other_protocol_split_and_data(run: Path, place: dict[str, Path], capsys: pytest.CaptureFixture[str],
                                                ) -> None:
    assert ask(capsys, "evaluate", run, "--protocol", "mirror")["protocol"]["name"] == "mirror"
    assert (run / "evaluations" / "test-mirror" / "result.json").is_file()
    found = ask(capsys, "evaluate", run, "--on", "val")
    assert (found["split"], found["samples"]) == ("val", 9)
    seen = ask(capsys, "evaluate", run, "--on", "train")
    assert seen["samples"] == 12
    assert seen["notes"][-1].startswith("these are the training pictures")
    every = ask(capsys, "evaluate", run, "--data", place["photos"])
    assert (every["split"], every["samples"]) == ("all", 30)
    assert Path(every["saved"]).name == "photos-all-single"
    assert every["notes"][-1].startswith("the training pictures are among these")
    assert main(["evaluate", str(run), "--protocol", "tencrop"]) == 2
    assert "protocol 'tencrop': there is no such protocol, did you mean 'ten-crop'?" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", str(place["photos"]), "--on", "test"]) == 2
    assert "has no split test\nIt has: all." in capsys.readouterr().err


def test_classes_are_matched_by_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = paint(tmp_path / "photos")
    whole = ask(capsys, "evaluate", run, "--data", photos, "--report", tmp_path / "a")
    (photos / "blue").rename(photos / "azure")
    assert main(["evaluate", str(run), "--data", str(photos)]) == 2
    assert "1 classes that the model does not know" in capsys.readouterr().err
    part = ask(capsys, "evaluate", run, "--data", photos, "--ignore-unknown", "--report", tmp_path / "b")
    assert (part["samples"], part["ignored"]) == (20, 10)
    assert [row for row in part["confusion"] if any(row)] == whole["confusion"][1:]


def test_compare(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(capsys, "evaluate", run, "--protocol", "mirror", "--report", tmp_path / "mirror")
    found = ask(capsys, "compare", run / "evaluations" / "test-single", tmp_path / "mirror")
    [pair] = found["pairs"]
    assert pair["images"] == 9
    assert pair["notes"][0].startswith("the protocols differ: single and mirror")
    assert pair["verdict"].startswith("no difference beyond the noise of 9 images")
    ask(capsys, "evaluate", run, "--on", "val", "--report", tmp_path / "val")
    assert main(["compare", str(tmp_path / "mirror"), str(tmp_path / "val")]) == 2
    assert "not the same images with the same labels" in capsys.readouterr().err


def test_predict_in_three_formats(run: Path, place: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(run), str(place["photos"]), "--top", "7"]
    assert main([*words, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 30
    assert all(len(row["predictions"]) == 3 and row["error"] is None for row in rows)
    assert main([*words, "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    assert float(table[0]["top1_probability"]) == rows[0]["predictions"][0]["probability"]
    assert "top3" in table[0]
    assert "top4" not in table[0]
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 30


def test_predict_takes_json_as_every_command_does(run: Path, place: dict[str, Path],
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(next(place["photos"].rglob("*.png")))
    assert main(["predict", str(run), picture, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["path"] == picture
    assert main(["predict", str(run), picture, "--json", "--format", "csv"]) == 2
    assert "--json and --format csv" in capsys.readouterr().err


def test_predict_agrees_with_evaluate(run: Path, place: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with open(run / "evaluations" / "test-single" / "predictions.csv", newline="") as file:
        tested = {row["id"]: row for row in csv.DictReader(file)}
    names = [str(place["photos"] / name) for name in tested]
    assert main(["predict", str(run), *names, "--format", "json"]) == 0
    for row, answer in zip(tested.values(), json.loads(capsys.readouterr().out), strict=True):
        assert answer["predictions"][0]["class"] == row["predicted"]
        assert answer["predictions"][0]["probability"] == pytest.approx(float(row["top1_probability"]), abs=1e-6)


def test_predict_reads_standard_input_and_goes_on_after_a_bad_picture(
        run: Path, place: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    good = place["photos"] / "red" / "0.png"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<html>")
    for data, fails in ((good.read_bytes(), [False, True, False, False]), (b"", [False, True, True, False])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        words = ["predict", str(run), str(good), str(bad), "-", str(good), "--format", "json"]
        assert main(words) == 0
        seen = capsys.readouterr()
        rows = json.loads(seen.out)
        assert [bool(row["error"]) for row in rows] == fails
        assert f"{sum(fails)} of 4 pictures can't be read" in seen.err
    assert main(["predict", str(run), str(bad), "--strict"]) == 2
    assert "1 of 1 pictures can't be read" in capsys.readouterr().err


def test_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink()
    assert ask(capsys, "report", run)["report"] == str(run / "report.html")
    assert "<html" in (run / "report.html").read_text("utf-8")


def test_resume_of_a_finished_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(run)]) == 2
    seen = capsys.readouterr().err
    assert f"{run}: finished after 2 epochs" in seen
    assert "layerwise resume" in seen
    assert main(["resume", str(run), "--extend", "-1"]) == 2
    assert "--extend -1: must be above 0" in capsys.readouterr().err


def test_resume_tests_a_run_that_was_stopped_before_its_test(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = (run / "evaluations").rename(run / "kept")
    assert main(["resume", str(run)]) == 0
    assert "its test and report follow" in capsys.readouterr().err
    before = json.loads((kept / "test-single" / "result.json").read_text())
    assert json.loads((run / "evaluations/test-single/result.json").read_text())["metrics"] == before["metrics"]


def test_calibrate(run: Path, capsys: pytest.CaptureFixture[str], place: dict[str, Path]) -> None:
    picture = str(place["photos"] / "red" / "0.png")
    assert main(["predict", str(run), picture, "--calibrated"]) == 2
    assert "is not calibrated" in capsys.readouterr().err
    weights = modelfile.read(run).sha256
    found = ask(capsys, "calibrate", run)
    assert (found["fitted_on"]["split"], found["reported_on"]["split"]) == ("val", "test")
    assert modelfile.read(run).sha256 == weights
    plain, calibrated = (ask_predict(capsys, run, picture, *words) for words in ((), ("--calibrated",)))
    assert plain["class"] == calibrated["class"]
    assert plain["probability"] != calibrated["probability"]
    home = run / "calibration"
    assert {file.name for file in home.iterdir()} == {"result.json", "reliability.svg"}
    record = json.loads((home / "result.json").read_text())
    assert {key: record[key] for key in ("bins", "temperature")} == {key: found[key] for key in ("bins", "temperature")}
    assert record["sha256"] == weights
    assert main(["report", str(run)]) == 0
    assert 'id="calibration"' in (run / "report.html").read_text("utf-8")
    figure = place["root"] / "figure.svg"
    assert main(["calibrate", str(run), "--figure", str(figure)]) == 0
    assert f"figure: {home / 'reliability.svg'}\nfigure: {figure}" in capsys.readouterr().out
    assert figure.read_bytes() == (home / "reliability.svg").read_bytes()
    assert main(["calibrate", str(run), "--report", "val"]) == 2
    assert "fitted and judged on the same pictures" in capsys.readouterr().err


def ask_predict(capsys: pytest.CaptureFixture[str], run: Path, picture: str, *words: str) -> dict[str, Any]:
    assert main(["predict", str(run), picture, "--format", "json", *words]) == 0
    best: dict[str, Any] = json.loads(capsys.readouterr().out)[0]["predictions"][0]
    return best


def test_doctor_bn(run: Path, place: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.safetensors"
    words = ["doctor", "bn", str(run), "--data", str(place["photos"])]
    found = ask(capsys, *words)
    assert (found["layers"], found["samples"]) == (19, 30)
    assert main(["doctor", "bn", str(run)]) == 2
    assert "9 pictures are too few for batch statistics" in capsys.readouterr().err
    assert main([*words, "--recalibrate", str(file)]) == 2  # 12 training pictures
    assert "12 pictures are too few" in capsys.readouterr().err
    assert not file.exists()


def test_seeds_and_json(place: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "lenet5", place["photos"], "--split", "40/30/30",
             *settings(duration=1, warmup_length=0.5, input_size=32, resize_to=32), "--seeds", "2",
             "--out", tmp_path / "two"]  # fmt: skip
    found = ask(capsys, *words)
    assert found["seeds"] == [0, 1]
    assert (found["weights"], found["protocol"], found["split"]) == ("last epoch", "single", "test")
    errors = [run["evaluations"][0]["metrics"]["error"] for run in found["runs"]]
    assert found["error"]["mean"] == pytest.approx(sum(errors) / 2)
    assert found["error"]["sd"] == pytest.approx(abs(errors[0] - errors[1]) / 2**0.5)
    assert (found["error"]["min"], found["error"]["max"]) == (min(errors), max(errors))
    lines = "\n".join(main_job.spread_lines(found))
    assert "each seed drew its own test pictures too" in lines
    assert "drew" not in "\n".join(main_job.spread_lines(found | {"drawn": False}))
    for words_ in ("2 seeds, test error", "± ", "median", "last epoch, protocol single"):
        assert words_ in lines
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["seed0", "seed1"]


def test_sigterm_saves_and_resume_goes_on(place: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                          ) -> None:
    run = tmp_path / "stopped"
    words = [sys.executable, "-m", "layerwise", "train", "resnet20", str(place["photos"]), "--split", "40/30/30",
             *settings(duration=10000), "--out", str(run)]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    until, lines = time.monotonic() + 120, run / "metrics.jsonl"
    while not (lines.is_file() and lines.stat().st_size) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)  # until the loop has written a line: before it a signal ends the process
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert f"{run}: stopped at step" in err
    assert f"layerwise resume {run}" in err
    assert "error" not in err.replace("validation error", "")
    assert out == ""
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"

    epoch = int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"])
    assert main(["resume", str(run), "--set", f"duration={epoch + 2}"]) == 0
    seen = capsys.readouterr()
    assert f"resuming {run} at step " in seen.err
    assert "note: branch at " in seen.out
    assert "test error " in seen.out
    assert main(["evaluate", str(run), "--on", "val"]) == 0
    assert main(["resume", str(run), "--extend", "1"]) == 0
    assert "note: evaluations/val-single is of earlier weights of this run" in capsys.readouterr().out


def test_ctrl_c_in_the_test_loses_nothing(run: Path, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    (run / "evaluations").rename(run / "kept-too")
    with monkeypatch.context() as patched:
        patched.setattr(main_job, "evaluate", interrupt)
        assert main(["resume", str(run)]) == 130
    assert f"stopped in its test; the trained network is saved\nContinue with: layerwise resume {run}" in (
        capsys.readouterr().err)
    assert main(["resume", str(run)]) == 0


def test_python_does_the_same(place: dict[str, Path], tmp_path: Path) -> None:
    recipe = for_training("lenet5", str(place["photos"]), "fast", [
        "split=40/30/30", "input_size=32", "resize=short-side", "resize_to=32", "channels=3", "crop=none", "duration=1",
        "warmup_length=0.5", "batch_size=8", "threads=1", "protocol=single"])  # fmt: skip
    run = layerwise.train(recipe, RunOptions(out=tmp_path / "run", quiet=True))
    assert run == tmp_path / "run"
    found = layerwise.load(run)
    result = layerwise.evaluate(found, own_split(recipe, "test", None, True))
    assert result.metrics == json.loads((run / "evaluations/test-single/result.json").read_text())["metrics"]
    rows = layerwise.predict(found, [place["photos"] / "red" / "0.png"])
    assert rows[0].prediction is not None
    with pytest.raises(InputError, match=r"finished after 1 epoch\n"):
        layerwise.resume(run)


def test_public_names() -> None:
    assert {name for name in layerwise.__all__ if not callable(getattr(layerwise, name))} == set()
    assert set(layerwise.__all__) <= set(dir(layerwise))
    with pytest.raises(layerwise.InputError, match="did you mean"):
        layerwise.build("resnet21", num_classes=3)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        layerwise.trian  # noqa: B018


@pytest.mark.parametrize(("network", "data", "settings", "name", "size", "slow"), [
    ("resnet20", "digits", [], "digits", 0, ()),
    ("resnet20", "cifar10", [], "fast", 0, ()),
    ("resnet20", "photos", [], "fast", 32, ()),
    ("resnet18", "photos", [], "from-scratch", 224, ()),
    ("resnet18", "photos", ["start_from=x"], "fine-tune", 224, ("features=0.1",)),
])
def test_the_recipe_fits_network_and_data(network: str, data: str, settings: list[str], name: str, size: int,
                                          slow: tuple[str, ...]) -> None:
    recipe = fitting(network, data, settings)
    assert (recipe.name, recipe.input_size, recipe.slow) == (name, size, slow)
    for_training(network, data, "", settings)
