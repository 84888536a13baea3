"""A benchmark's saved file as a section of docs/results.md: its command, its machine, and every figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerwise.report.benchmark_section import section, value_text

KEPT = sorted((Path(__file__).resolve().parents[1] / "results" / "benchmarks").glob("*.json"))
MADE_UP = {
    "benchmark": "made up", "rounds": 5, "note": "quiet", "limits": {"theirs": 2.4, "folder": 0.9},
    "rows": [{"row": "quality 75", "rate": {"ours": 769.21, "theirs": 313.67}, "ratio": [2.4444, 2.3463, 2.8588]},
             {"row": "quality 90", "rate": {"ours": 710.35, "theirs": 329.06}, "deep": {"a": {"b": 1}}}],
    "build_seconds": {f"network {place}": place / 100 for place in range(1, 22)},
    "hardware": {"cpu": "a processor", "threads": 2, "cpu_capability": "AVX512"}, "versions": {"torch": "2.13.0"},
}


def test_command_machine_and_figures_stand_in_it() -> None:
    lines = section("made_up", MADE_UP)
    assert lines[:4] == ["```sh", "python benchmarks/made_up.py", "```", ""]
    assert "Measured on a processor, 2 threads, AVX512, torch 2.13.0." in lines
    assert {"| rounds | 5 |", "| note | quiet |", "| limits | theirs 2.4, folder 0.9 |",
            "| build seconds | 21: 0.01 to 0.21, median 0.11 |"} <= set(lines)
    at = lines.index("| row | rate | ratio |")
    assert lines[at + 1:at + 4] == [
        "|---|---|---|", "| quality 75 | ours 769.2, theirs 313.7 | 2.444 (2.346 to 2.859) |",
        "| quality 90 | ours 710.4, theirs 329.1 |  |"]


def test_rows_may_be_an_object_of_objects() -> None:
    lines = section("made_up", {"methods": {"Grad-CAM": {"lift": 1.93648}, "occlusion": {"lift": 1.866}}})
    assert "| Grad-CAM | 1.936 |" in lines
    assert "Measured on a machine that its file does not name." in lines


def test_a_name_is_no_markup() -> None:
    assert "| a\\|b c | x\\<y |" in section("n", {"a|b_c": "x<y"})


@pytest.mark.parametrize("file", KEPT, ids=lambda file: str(file.stem))
def test_each_ratio_kept_here_is_told(file: Path) -> None:
    """No figure that a limit is about may be left to the file alone."""
    found = json.loads(file.read_text("utf-8"))
    text = "\n".join(section(file.stem, found))
    rows = [row for value in found.values() if isinstance(value, list | dict) and value is not found.get("measured")
            for row in (value.values() if isinstance(value, dict) else value) if isinstance(row, dict)]
    ratios = [value for one in (found, *rows) for key, value in one.items() if "ratio" in key]
    assert all(value_text(value) in text for value in ratios)
    assert ratios or file.stem in ("folder_memory", "memory", "on_the_object", "photographs", "startup", "training")
