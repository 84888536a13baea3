"""The report page: every part is there, missing parts are said, numbers are never called what they are not."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from layerwise.console import percent
from layerwise.errors import InputError, MachineError
from layerwise.jobs.main_job import closing_lines
from layerwise.report import figures, page, text
from layerwise.report.page import report
from layerwise.report.run import curve, read_run, summary
from tests.page_parser import POLICY, Page
from tests.synthetic_run import NAMES, RECIPE, change, evaluate, make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Page]:
    """A synthetic run, its page, and the page parsed."""
    run = make_run(tmp_path_factory.mktemp("report") / "run")
    source = report(run).read_text("utf-8")
    return run, source, Page(source)


def parsed(run: Path) -> Page:
    return Page(report(run).read_text("utf-8"))


def test_the_page_is_one_safe_file_beside_the_run(whole: tuple[Path, str, Page]) -> None:
    run, source, found = whole
    assert (run / "report.html").is_file()
    assert found.problems == []
    assert POLICY in source
    assert "script" not in found.tags
    assert len(source.encode()) < 3_000_000
    assert len(found.ids) == len(set(found.ids))
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert not list(run.glob(".*")), "no scratch file is left"


@pytest.mark.parametrize(("section", "parts"), [
    ("result", ["7.00\u202f%", "test error", "95\xa0% interval", "5.42\u202f%", "8.58\u202f%",
                "70 mistakes in 1,000 pictures", "each picture once, as the network's preprocessing places it",
                "the model after the last step", "spread over seeds", "269,434", "1 × 28 × 28"]),
    ("training", ["training", "validation", "test, at the end", "iterations", "error (%)", "learning rate",
                  "Bold: validation"]),
    ("confusion", ["predicted", "true", "shirt", "t-shirt", "Most frequent confusions", "12.0\u202f%"]),
    ("classes", ["precision", "recall", "F1", "trouser", "76.8\u202f%"]),
    ("mistakes", ["99.9\u202f%", "synthetic/test/37"]),
    ("kernels", ["All 16 kernels", "features.conv1.0.weight", "3 × 3"]),
    ("evaluations", ["test-single", "val-single", "7.00\u202f%", "averaging", '"softmax"', "fully_convolutional"]),
    ("recipe", ["Optimiser", "weight_decay"]),
    ("data", ["synthetic-clothes", "ab" * 32, "54,000", "test pictures", "5,400", "made up for a test"]),
    ("machine", ["made-up processor", "0.0-synthetic", "images a second", "0" * 12]),
    ("notes", ["Synthetic: no number on this page was measured."]),
])
def test_the_page_holds_each_part(whole: tuple[Path, str, Page], section: str, parts: list[str]) -> None:
    assert [part for part in parts if part not in whole[2].texts[section]] == []


def test_a_whole_run_lacks_nothing(whole: tuple[Path, str, Page]) -> None:
    assert "missing" not in whole[2].texts


def test_every_field_of_the_recipe_is_shown_with_its_value_and_hash(whole: tuple[Path, str, Page]) -> None:
    shown = whole[2].texts["recipe"]
    recipe = RECIPE
    assert recipe.hash in shown
    fields = json.loads(recipe.to_json())
    assert [name for name, value in fields.items() if name not in shown or text.exact(value) not in shown] == []
    assert "Other" not in shown, "a new field of the recipe belongs to a part: page.RECIPE_PARTS"


def test_pictures_are_inside_the_page_and_described(whole: tuple[Path, str, Page]) -> None:
    images = whole[2].images
    assert len(images) == 25
    assert all(alt for _, alt in images)
    for source, _ in images:
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()


@pytest.mark.parametrize(("function", "value", "shown"), [
    (text.percent, 0.0621, "6.21\u202f%"), (text.percent, None, "–"), (text.percent, float("nan"), "–"),
    (text.percent, True, "–"), (text.count, 1234567, "1,234,567"), (text.count, "7", "–"), (text.decimal, 10**400, "–"),
    (text.duration, 3723, "1 h 02 min"), (text.duration, 185, "3 min 05 s"), (text.duration, 4.21, "4.2 s"),
    (text.duration, -1, "–"), (text.plain, [1, None, True], "1, –, yes"), (text.plain, [], "none"),
])  # fmt: skip
def test_numbers_are_shown_as_people_read_them(function: Callable[[object], str], value: object, shown: str) -> None:
    assert function(value) == shown


def test_undefined_numbers_are_a_dash_with_their_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    file = run / "evaluations" / "test-single" / "result.json"
    classes = json.loads(file.read_text("utf-8"))["classes"]
    classes[0] |= {"support": 0, "recall": None, "precision": 0.0, "f1": None, "reason": "no images: no recall, no F1"}
    classes[1] |= {"precision": None, "reason": "never predicted: no precision"}
    change(file, classes=classes)
    shown = parsed(run).texts["classes"]
    assert "no images: no recall, no F1" in shown
    assert "never predicted: no precision" in shown
    assert shown.count("–") == 3
    assert "never predicted" not in Page(report(make_run(tmp_path / "control")).read_text("utf-8")).texts["classes"]


def test_a_run_without_evaluation_says_so_and_shows_no_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "evaluations").rename(tmp_path / "elsewhere")
    found = parsed(run)
    assert found.problems == []
    assert "no test error" in found.texts["result"]
    assert "7.00" not in found.texts["result"]
    assert "it is not a test error" in found.texts["result"]
    assert "has not been tested" in found.texts["missing"]
    assert "layerwise evaluate run" in found.texts["missing"]
    assert not {"confusion", "classes", "mistakes"} & set(found.texts)
    assert "test, at the end" not in found.texts["training"]


@pytest.mark.parametrize(("state", "words"), [
    ("running", "has not finished"), ("interrupted", "was interrupted"), ("failed", "This run failed"),
    ("exploded", "can't be read"),
])
def test_an_unfinished_run_says_so_first(tmp_path: Path, state: str, words: str) -> None:
    run = make_run(tmp_path / "run")
    assert words not in report(run).read_text("utf-8")
    change(run / "run.json", state=state)
    (run / "model.safetensors").unlink()
    source = report(run).read_text("utf-8")
    assert words in source.replace("&#39;", "'").partition('<section id="result"')[0]
    assert "model.safetensors: not there" in Page(source).texts["missing"]


def test_every_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "run.json").write_text('{"format": 1, "st', "utf-8")
    (run / "recipe.json").write_text("[" * 100_000, "utf-8")
    (run / "model.safetensors").write_bytes(b"\x80\x02not a model")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": [], "step": 1}\n{"kind": "val", "st')
    (run / "evaluations" / "test-single" / "result.json").write_text("7", "utf-8")
    (run / "evaluations" / "test-single" / "worst" / "000.png").write_bytes(b"")
    found = parsed(run)
    assert found.problems == []
    for line in ("run.json: can't be read", "recipe.json: can't be read", "First-layer kernels: not shown",
                 "metrics.jsonl: lines that can't be read and are left out: 1", 
                 "evaluations/test-single: not shown: not a JSON object"):
        assert line in found.texts["missing"]


def test_a_run_of_one_file_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "val", "step": 0, "error": 0.9}\n', "utf-8")
    found = parsed(tmp_path)
    assert found.problems == []
    assert "No evaluation" in found.texts["missing"]
    (tmp_path / "metrics.jsonl").write_text("", "utf-8")
    assert "no curves" in parsed(tmp_path).texts["training"]


@pytest.mark.parametrize(("fields", "words"), [
    ({"protocol": {}}, "not shown: the protocol is missing; A number without its protocol can't be"),
    ({"format": 2}, "not shown: format 2, expected 1"),
    ({"split": None}, "split: not a str"),
    ({"confusion": [[1, 2]]}, "confusion: not 10 rows of 10 counts"),
])
def test_an_evaluation_that_can_not_be_trusted_is_named(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    run = make_run(tmp_path / "run")
    change(run / "evaluations" / "test-single" / "result.json", **fields)
    found = parsed(run)
    assert words in found.texts["missing"]
    assert "7.00" not in found.texts["result"]


def test_a_validation_error_is_never_called_a_test_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "evaluations" / "test-single").rename(tmp_path / "elsewhere")
    change(run / "recipe.json", select="best")
    found = parsed(run)
    assert "this is not a test error" in found.texts["result"]
    assert "not a fair number" in found.texts["result"]
    assert "not a fair number" in found.texts["evaluations"]
    assert "validation error" in found.texts["result"]


def test_the_recipes_own_protocol_comes_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    evaluate(run, "test", "mirror", NAMES, 50)
    assert [found.folder.name for found in read_run(run).evaluations] == ["test-single", "test-mirror", "val-single"]
    change(run / "recipe.json", protocol="mirror")
    assert read_run(run).evaluations[0].result.protocol.name == "mirror"


def test_a_thousand_classes_make_a_small_page_with_a_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [f"class {index}" for index in range(1000)])
    source = report(run).read_text("utf-8")
    found = Page(source)
    assert found.problems == []
    assert "too large to draw" in found.texts["confusion"]
    assert "class 6" in found.texts["confusion"]
    assert found.tags.count("svg") == 3
    assert len(source.encode()) < 3_000_000


def test_large_colour_pictures_are_shrunk(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 256, (600, 400, 3), np.uint8)
    for file in (run / "evaluations").glob("*/worst/*.png"):
        Image.fromarray(noise).save(file)
    source = report(run).read_text("utf-8")
    assert len(source.encode()) < 3_000_000
    first = base64.b64decode(Page(source).images[0][0].partition(",")[2])
    assert max(Image.open(io.BytesIO(first)).size) == figures.LONGEST_SIDE


def test_top_confusions_are_the_largest_wrong_cells() -> None:
    counts = np.array([[9, 3, 0], [5, 8, 0], [0, 1, 7]])
    assert figures.top_confusions(counts, 2) == [(1, 0, 5), (0, 1, 3)]
    assert figures.top_confusions(counts, 9) == [(1, 0, 5), (0, 1, 3), (2, 1, 1)]


def test_kernels_are_scaled_each_by_itself_around_grey() -> None:
    weight = np.zeros((2, 1, 1, 2))
    weight[0, 0, 0], weight[1, 0, 0] = (1.0, -1.0), (0.0, 0.01)
    uri = figures.kernel_grid(weight)
    grid = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert grid[0, 0].tolist() == [255, 255, 255, 255]
    assert grid[0, 39].tolist() == [0, 0, 0, 255]
    assert grid[0, 45].tolist() == [128, 128, 128, 255]
    assert grid[0, 84].tolist() == [255, 255, 255, 255]
    assert grid[0, 42, 3] == 0


@pytest.mark.parametrize("network", ["resnet20", "resnet50", "alexnet", "lenet5"])
def test_the_first_convolution_is_the_networks_first(tmp_path: Path, network: str) -> None:
    import torch

    from layerwise import models

    with torch.device("meta"):
        model = models.build(network)
    shapes = {f"model.{name}": tuple(value.shape) for name, value in model.state_dict().items()}
    first = next(name for name, shape in shapes.items() if len(shape) == 4)
    generator = np.random.default_rng(0)
    convolutions = {name: shape for name, shape in shapes.items() if len(shape) == 4 and shape[0] * shape[1] < 70_000}
    save_file({name: generator.normal(size=shape).astype(np.float32) for name, shape in convolutions.items()},
              tmp_path / "model.safetensors")
    name, weight = page._first_convolution(tmp_path / "model.safetensors")
    assert f"model.{name}" == first
    assert weight.shape == shapes[first]


def test_a_model_without_drawable_kernels_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for tensor, words in ((np.ones((4, 3)), "no convolution"), (np.full((2, 3, 3, 3), np.nan), "finite"),
                          (np.ones((2, 5, 3, 3)), "5 input channels")):
        save_file({"model.features.conv1.weight": tensor.astype(np.float32)}, run / "model.safetensors")
        assert words in parsed(run).texts["missing"]


def test_curves_are_means_of_equal_groups_and_the_last_line_wins(tmp_path: Path) -> None:
    lines = [{"kind": "train", "step": step, "error": float(step)} for step in (4, 1, 2, 3, 5)]
    lines += [{"kind": "train", "step": 5, "error": 7.0}, {"kind": "train", "step": None, "error": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    run = read_run(tmp_path)
    assert curve(run, "train", "error").tolist() == [[1, 1], [2, 2], [3, 3], [4, 4], [5, 7]]
    assert curve(run, "train", "error", most=3).tolist() == [[2, 1.5], [4, 3.5], [5, 7]]
    assert curve(run, "val", "error").shape == (0, 2)


def test_the_error_axis_keeps_the_test_interval_and_the_end_in_view() -> None:
    steps = np.arange(100.0)
    falling = np.stack([steps, 90 * np.exp(-steps / 5) + 5], axis=1)
    top = figures.error_limit(falling, falling[::10], (9.0, 8.0, 10.0))
    assert 10 < top < 40
    flat = np.stack([steps, np.full(100, 90.0)], axis=1)
    assert 90 < figures.error_limit(flat, flat, ()) <= 100
    assert figures.error_limit(flat[:0], flat[:0], ()) == 100


def test_the_summary_is_json_with_protocols(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = summary(run)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["network"] == "resnet20"
    assert found["recipe_hash"] == RECIPE.hash
    assert found["steps"] == 4220
    assert found["evaluations"][0]["protocol"]["name"] == "single"
    assert found["evaluations"][0]["metrics"]["error"] == pytest.approx(0.07)
    assert found["best_validation_error"]["error"] <= found["last_validation_error"]
    assert found["data_wait"] == pytest.approx(0.012)
    assert found["missing"] == []


def test_the_closing_lines_say_how_long_data_were_waited_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    speed = [{"seconds": 30, "data_wait": 0.1}, {"seconds": 10, "data_wait": 0.5}, {"seconds": "?", "data_wait": 1}]
    (run / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in speed), "utf-8")
    assert summary(run)["data_wait"] == pytest.approx(0.2), "each line weighs its seconds"
    assert [line for line in closing_lines(run) if "waited" in line] == [
        f"waited for data: {percent(0.2)} of the training's time"]
    (run / "speed.jsonl").unlink()
    assert summary(run)["data_wait"] is None
    assert not [line for line in closing_lines(run) if "waited" in line]


def test_equal_files_make_equal_pages(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert report(run).read_bytes() == report(run, tmp_path / "again.html").read_bytes()


def test_wrong_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        report(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"is not a run's directory\nIt holds no recipe.json, run.json or metrics"):
        report(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not a directory"):
        summary(tmp_path / "file")
    run = make_run(tmp_path / "run")
    for out in (tmp_path, tmp_path / "no" / "x.html"):
        with pytest.raises(InputError, match="can't be the report's file"):
            report(run, out)


def test_a_full_disk_keeps_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    (run / "report.html").write_text("old")

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MachineError, match="can't be written: No space left on device"):
        report(run)
    assert (run / "report.html").read_text() == "old"
    assert not list(run.glob(".*"))


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two #rrggbb colours."""
    def luminance(colour: str) -> float:
        parts = [int(colour[start:start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_text_contrasts_with_its_background_in_both_schemes() -> None:
    style = page.template_file("style.css")
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    schemes = [dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert len(schemes) == 3
    for colours in schemes[:2]:
        for front in ("--ink", "--muted", "--accent", "--warn"):
            for back in ("--paper", "--card", "--warn-tint", "--tint"):
                assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
        assert contrast(colours["--on-fill"], colours["--accent"]) >= 4.5
        assert contrast(colours["--on-fill"], colours["--warn"]) >= 4.5
    assert contrast("#999999", "#ffffff") < 4.5
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
