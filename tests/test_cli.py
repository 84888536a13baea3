"""The command line: its frozen help, what commands print, JSON, quick starts, no colour where there is none."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from layerwise import console
from layerwise.cli import app, main
from layerwise.cli.app import EPILOG, FLAGS, VALUED, globals_first, importing
from layerwise.cli.tables import cell, flush_json, print_json, print_table
from layerwise.errors import InputError
from layerwise.jobs import main_job
from layerwise.recipe import Recipe
from layerwise.recipes.presets import PRESETS, preset

GOLDEN = Path(__file__).parent / "golden" / "help"
COMMANDS = ("", *(command.name or "" for command in app.registered_commands))
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred columns, no colour, nothing of the caller's terminal."""
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False)


def stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def golden(command: str) -> Path:
    return GOLDEN / f"{command or 'layerwise'}.txt"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_frozen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """To change a help text on purpose: LAYERWISE_WRITE_GOLDEN=1 pytest tests/test_cli.py -k frozen, and look."""
    assert main([*([command] if command else []), "--help"]) == 0
    found = stripped(capsys.readouterr().out)
    if os.environ.get("LAYERWISE_WRITE_GOLDEN"):
        golden(command).write_text(found, "utf-8")
    assert found == golden(command).read_text("utf-8")


def test_each_golden_help_has_its_command() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {command or "layerwise" for command in COMMANDS}


@pytest.mark.parametrize("words", ["--help", "train --help", "--version", "recipe fast --json", "recipe"])
def test_no_torch_for_help(words: str) -> None:
    code = (f"import sys\nfrom layerwise.cli import main\nstatus = main({words.split()!r})\n"
            "sys.stderr.write(','.join(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules))))\nsys.exit(status)")
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_torch_is_found_where_it_is_loaded() -> None:
    """The negative control of the test before: `models` needs torch."""
    code = "import sys\nfrom layerwise.cli import main\nmain(['models'])\nassert 'torch' not in sys.modules"
    assert run_python(code).returncode == 1


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "layerwise", "--version"], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("layerwise ")


def test_global_options_stand_anywhere() -> None:
    front = ["--offline", "--data-dir", "d"]
    assert globals_first(["check", "x", *front]) == [*front, "check", "x"]
    assert globals_first(["check", "--data-dir=d", "x"]) == ["--data-dir=d", "check", "x"]
    assert globals_first(["predict", "r", "--", "--debug"]) == ["predict", "r", "--", "--debug"]
    assert globals_first(["check", "--data-dir"]) == ["check", "--data-dir"]
    assert {name for name in (*FLAGS, *VALUED) if name not in EPILOG} == {"--no-color"}, "the help names each of them"


def test_global_options_arrive_and_do_not_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "--offline", "--no-colour", "--data-dir", "d"]) == 0
    assert console.Settings(False, True, True, "d") == console.SETTINGS
    assert main(["recipe"]) == 0
    assert console.Settings() == console.SETTINGS
    capsys.readouterr()


def test_recipe_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in PRESETS)
    assert main(["recipe", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["presets"]
    assert {row["name"]: row["hash"] for row in listed} == {name: recipe.hash for name, recipe in PRESETS.items()}


def test_recipe_json_reads_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["recipe", "fast", "--set", "learning_rate=0.05", "--json"]) == 0
    text = capsys.readouterr().out
    recipe = Recipe.from_json(text, "stdout")
    assert recipe.learning_rate == 0.05
    file = tmp_path / "my.json"
    file.write_text(text, "utf-8")
    assert main(["recipe", str(file), "--json"]) == 0
    assert capsys.readouterr().out == text


def test_recipe_shows_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "digits"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{printed}" for name in vars(preset("digits")))
    assert preset("digits").hash in printed


def test_models_list_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["networks"]]
    assert {"resnet20", "alexnet", "lenet5"} <= set(names)
    assert main(["models", "resnet20"]) == 0
    assert "resnet20: 269,722 parameters, 40,551,040 multiply-adds" in capsys.readouterr().out
    assert main(["models", "lenet5", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert sum(row["parameters"] for row in table["layers"]) == table["parameters"]
    assert sum(row["multiply_adds"] for row in table["layers"]) == table["multiply_adds"]


def test_models_says_where_the_stem_is_too_coarse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "resnet18", "--size", "32"]) == 0
    assert "note: input 32x32 is reduced to 1x1" in capsys.readouterr().err


def test_doctor_is_one_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "```"
    assert any(line.startswith("torch: ") for line in lines)
    assert main(["doctor", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"versions", "hardware", "devices", "bf16_on_cpu", "environment"}


def test_no_colour_and_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                                 ) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["models"]) == 0
    console.Progress.line("half of it")
    seen = capsys.readouterr()
    assert "\x1b" not in seen.out + seen.err
    assert "half" not in seen.err


class Terminal:
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("name", "value", "option", "wanted"), [
    ("TERM", "xterm", False, True), ("TERM", "xterm", True, False), ("TERM", "dumb", False, False),
    ("NO_COLOR", "1", False, False), ("NO_COLOR", "", False, True),
])
def test_colour_is_for_terminals_that_want_it(name: str, value: str, option: bool, wanted: bool,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    assert console.colour_wanted(Terminal(), option) is wanted  # type: ignore[arg-type]


def test_cells() -> None:
    assert [cell(value) for value in (1234567, 0.123456, True, None, "", [3, 32, 32], "a\x1b[1m", "9\u202f%")] == [
        "1,234,567", "0.1235", "yes", "-", "-", "3x32x32", "a\\x1b[1m", "9 %"]  # fmt: skip


def test_long_cells_are_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "n"), [("x" * 150, 12), ("y", 3)])
    printed = capsys.readouterr().out
    assert "x" * 150 in printed
    assert printed.splitlines()[-1].endswith("  3")


class Narrow(io.StringIO):
    """A terminal of 60 columns (COLUMNS says so)."""

    def isatty(self) -> bool:
        return True


def test_on_a_narrow_terminal_words_and_numbers_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    sentence = "the learning rate at the reference batch; what is used is that times the batch"
    for headers, row, most in ((("field", "value", "meaning"), ("learning_rate", 0.1, sentence), 60),
                               (("network", "multiply-adds", "parameters", "paper"),
                                ("inception_resnet_v2_figures", 13155794016, 55843464, "Szegedy et al."), 80)):
        monkeypatch.setattr(sys, "stdout", Narrow())
        print_table(headers, [row])
        shown = re.sub(r"\x1b\[\d*m", "", sys.stdout.getvalue())  # type: ignore[attr-defined]
        words = {word for value in (*headers, *row) for word in cell(value).split()}
        assert words <= set(shown.split())
        assert max(map(len, shown.splitlines())) <= most
    assert "\n" in shown.rstrip().split("13,155,794,016")[1]  # the author's name is folded, the number is not


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_recipe_that_fits_is_said_once(rank: str, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    def trained(*_: object) -> None:
        raise InputError("here a training would begin")

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(main_job, "train_seeds", trained)
    assert main(["train", "resnet20", "digits"]) == 2
    seen = capsys.readouterr().err
    assert "here a training would begin" in seen
    assert ("recipe digits, which fits resnet20" in seen) == (rank == "0")


def test_json_refuses_nan() -> None:
    print_json({"error": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        flush_json()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"),
                                               (7800, "2 h 10 min")])
def test_durations(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_percentages() -> None:
    assert console.percent(0.01234) == "1.23 %"
    assert console.percent(None) == console.percent(float("nan")) == console.interval(None) == "-"
    assert console.interval((0.01, 0.025)) == "1.00 to 2.50 %"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-c", "import sys; from layerwise.cli import main; sys.exit(main(['recipe', 'fast']))"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("loaded", "kept"), [("layerwise.cli", True), ("typer", False)])
def test_the_end_looks_for_no_garbage_among_what_was_imported(loaded: str, kept: bool) -> None:
    """What is registered first is called last, so that it is answered after the command line's own."""
    code = ("import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 1000, gc.isenabled()))\n"
            f"import {loaded}")
    assert run_python(code).stdout.split() == [str(kept), "True"]


def failing_import() -> None:
    with importing():
        assert not gc.isenabled()
        raise ImportError


@pytest.mark.parametrize("enabled", [True, False])
def test_imports_are_not_searched_for_garbage(enabled: bool) -> None:
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ImportError):
            failing_import()
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
