"""The documentation against the program: links, commands with their options, Python names, make targets, pins."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

import layerwise
from layerwise.cli import app
from layerwise.cli.app import FLAGS, VALUED
from layerwise.recipes.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def wrong_command(line: str) -> str:
    """What is wrong with a line that calls `layerwise`; "" where nothing is."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["layerwise"]:
        return ""
    if words[1] not in COMMANDS and words[1] != "COMMAND":
        return f"{line}: there is no command {words[1]}"
    known = {name for option in COMMANDS[words[1]].params for name in option.opts} if words[1] in COMMANDS else set()
    known |= {*FLAGS, *VALUED}  # may stand anywhere
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--") and word not in known:
            return f"{line}: {words[1]} has no option {word}"
        if word == "--recipe" and following not in PRESETS:
            return f"{line}: there is no preset {following}"
    return ""


def wrong_links(page: Path, text: str) -> list[str]:
    """Relative links of a page to files that are not there."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    return [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert wrong_links(page, page.read_text("utf-8")) == []


def test_a_broken_link_is_found() -> None:
    assert wrong_links(ROOT / "README.md", "[a](docs/nothing.md) [b](LICENSE) [c](https://example.org)") == [
        "docs/nothing.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert [problem for line in lines if (problem := wrong_command(line))] == []


def test_the_readme_names_the_commands_of_the_main_job() -> None:
    lines = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    named = {line.split()[1] for line in lines if line.startswith("layerwise ")}
    assert {"check", "train", "evaluate", "predict", "report", "resume"} <= named


@pytest.mark.parametrize("line", ["layerwise trian resnet18 photos/", "layerwise train resnet18 photos/ --spilt 80/20",
                                  "layerwise train resnet20 digits --recipe digit"])
def test_a_wrong_command_is_found(line: str) -> None:
    assert wrong_command(line)


def test_python_names_exist() -> None:
    code = "\n".join(blocks(ROOT / "README.md", "python"))
    used = {node.attr for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "layerwise"}
    assert used <= set(layerwise.__all__)
    assert {"build", "load", "train", "evaluate", "predict"} <= used


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    lines = [line.split() for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    named = {words[1] for words in lines if words[:1] == ["make"]}
    assert {"demo", "test"} <= named <= targets


def test_torch_stands_first_among_the_pinned_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins[0].startswith("torch==")
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    wanted = set(re.findall(r'"([a-z][\w-]*)[>=]=', project))
    assert wanted
    assert wanted <= names
