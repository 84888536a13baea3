"""Names from the data in CSV, Markdown and on a terminal: never a formula, markup, or a moved cursor."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shlex
import sys

import numpy as np
import pytest

from layerwise import console
from layerwise.cli import predicting
from layerwise.cli.tables import flush_json, print_json, print_table
from layerwise.recipes.presets import preset
from layerwise.report import figures, ledger
from layerwise.serve.predictor import Prediction, Row
from layerwise.spreadsheet import plain_cell, safe_cell

HOSTILE = ("\x1b[2J\x1b]0;owned\x07", "a\rb", "\x9b31mred", "abc\u202egpj.exe", "\u200fright", "=cmd|' /C calc'!A0",
           "+1", "-2+3", "@SUM(A1)", "\t=1", "'quoted", "| a | b |", "<script>alert(1)</script>", "[x](http://e.org)",
           "`code`", "line\nbreak", "# heading", "\u2066isolate", "tag\U000e0041")
OBEYED = [chr(code) for code in (*range(32), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F),
                                 *range(0x2066, 0x206A))]


def obeyed(text: str) -> set[str]:
    """The characters in `text` that a terminal obeys, but for the ends of lines."""
    return (set(text) & set(OBEYED)) - {"\n"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def row(name: str) -> Row:
    return Row(name, Prediction((name, "b"), (0.75, 0.25)))


@pytest.mark.parametrize("name", HOSTILE)
def test_cells_are_no_formulas_and_read_back(name: str) -> None:
    assert not safe_cell(name).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain_cell(safe_cell(name)) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_predictions_as_csv(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gets each name exactly; a terminal gets nothing that it would obey."""
    written: dict[bool, str] = {}
    for terminal, stream in ((False, io.StringIO()), (True, Terminal())):
        monkeypatch.setattr(sys, "stdout", stream)
        write, end = predicting._csv(2)
        write(row(name))
        written[terminal] = stream.getvalue() + end
    rows = list(csv.reader(io.StringIO(written[False], newline="")))
    assert [plain_cell(cell) for cell in rows[1][:2]] == [name, name]
    assert not obeyed(written[True]) - {"\t"}
    if name in ("\x1b[2J\x1b]0;owned\x07", "\x9b31mred"):  # the control: such names do reach a file
        assert obeyed(written[False])


@pytest.mark.parametrize("name", HOSTILE)
def test_json_tables_and_lines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": name, name: [name]})
    flush_json()
    text = capsys.readouterr().out
    assert not obeyed(text)
    assert json.loads(text) == {"name": name, name: [name]}
    print_table(("class", "error"), [(name, 1)])
    console.out(name)
    console.note(name)
    shown = capsys.readouterr()
    assert not obeyed(shown.out.replace("\t", ""))
    assert not obeyed(shown.err.replace("\t", ""))


def test_plain_json_stays_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Größe 猫"})
    flush_json()
    assert '"Größe 猫"' in capsys.readouterr().out


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_holds_no_markup_of_names(name: str) -> None:
    line = ledger.inline(f"pictures of {name}")
    assert "\n" not in line
    assert not obeyed(line)
    for mark in "<>|[]`":
        assert mark not in line.replace(f"\\{mark}", "")


def test_our_own_notes_stay_as_they_are() -> None:
    note = "a network of 20 layers, 6.34 %, weight_decay=1e-4 (x) * 2"
    assert ledger.inline(note) == note


def test_the_command_of_a_result_is_one_line_of_words() -> None:
    recipe = dataclasses.replace(preset("digits"), data="my photos; rm x\n", split="80/10/10")
    line = ledger.command(recipe, 1)
    assert "\n" not in line
    assert shlex.split(line)[3] == "my photos; rm x\\x0a"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(330, 290), (60, 50), (20, 20)])
def test_narrow_figures_warn_of_nothing(size: tuple[int, int]) -> None:
    curve = np.array([[1e9, 99.0], [2e9, 98.0]])
    assert figures.error_curves(curve, curve, (97.0, 96.0, 98.0), size, "errors").startswith("<svg")
