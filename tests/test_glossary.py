"""docs/glossary.md: each term has a meaning and a place in the code that exists; Chinese is Chinese, UTF-8."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "glossary.md"
HAN = re.compile(r"[\u4e00-\u9fff]")
READ_IN = re.compile(r"(?:(?:[RASH](?: [RASH])*)(?:, )?)*")


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the page's tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| English |")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


@cache
def names(path: Path) -> frozenset[str]:
    """What a file defines at its top, and the fields and methods of its classes."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        for one in (node, *inner):
            if isinstance(one, ast.FunctionDef | ast.ClassDef):
                found.add(one.name)
            elif isinstance(one, ast.Assign):
                found |= {target.id for target in one.targets if isinstance(target, ast.Name)}
            elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                found.add(one.target.id)
    return frozenset(found)


def missing(places: str) -> list[str]:
    """The places of a cell (`file.py: name`, `file.py: name`) that are not there, or all of it where it is none."""
    found = re.findall(r"`([\w/]+\.py): (\w+)`", places)
    if not found or re.sub(r"`[^`]*`(?:, )?", "", places):
        return [places]
    files = {file: ROOT / "layerwise" / file for file, _ in found}
    return [f"{file}: {name}" for file, name in found if not files[file].is_file() or name not in names(files[file])]


def test_every_row_is_whole() -> None:
    found = rows(PAGE.read_text("utf-8"))
    assert len(found) > 100
    for cells in found:
        assert len(cells) == 5, cells
        english, chinese, read_in, meaning, _ = cells
        assert english, cells
        assert meaning, cells
        assert READ_IN.fullmatch(read_in), cells
        if chinese.replace("–", "").replace(",", "").strip():
            assert HAN.search(chinese) or chinese == "10-crop", cells
            assert read_in, cells  # a Chinese term was read somewhere


def test_terms_stand_once() -> None:
    terms = [cells[0] for cells in rows(PAGE.read_text("utf-8"))]
    assert len(terms) == len(set(terms))


def test_each_place_in_the_code_exists() -> None:
    problems = [f"{cells[0]}: {problem}" for cells in rows(PAGE.read_text("utf-8")) for problem in missing(cells[4])]
    assert problems == []


@pytest.mark.parametrize(("cell", "problem"), [
    ("`models/resnet.py: Bottleneck`", ""), ("`recipe.py: weight_decay`", ""),
    ("`models/resnet.py: Bottlenek`", "models/resnet.py: Bottlenek"),
    ("`models/resnett.py: Bottleneck`", "models/resnett.py: Bottleneck"),
    ("models/resnet.py: Bottleneck", "models/resnet.py: Bottleneck"),
    ("`models/resnet.py: Bottleneck` and more", "`models/resnet.py: Bottleneck` and more"), ("", ""),
])
def test_a_place_that_is_gone_is_found(cell: str, problem: str) -> None:
    """The negative control."""
    assert missing(cell) == ([problem] if problem or not cell else [])


def test_the_chinese_terms_survive_utf8() -> None:
    text = PAGE.read_bytes().decode("utf-8", errors="strict")
    assert "\ufffd" not in text
    for term in ("残差学习", "快捷连接", "退化问题", "局部响应归一化", "瓶颈"):
        assert term in text
