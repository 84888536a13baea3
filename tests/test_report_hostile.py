"""Names from the data can do nothing in a report page: they are text, and they can be seen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from PIL import Image

from layerwise.report import figures, page, text
from layerwise.report.page import report
from layerwise.report.run import read_run
from tests.page_parser import Page
from tests.synthetic_run import change, make_run

HOSTILE = (
    "<script>alert(1)</script>", "</title></style><script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)", '" onload="alert(1)', "<svg onload=alert(1)>", "javascript:alert(1)", "$x^2$ $\\frac{1}",
    "$\\href{http://example.org}{x}$", "{{ 7 * 7 }}{% raw %}", "<!-- --><b>x", "]]><script>", "&lt;script&gt;",
    "&#60;script&#62;", "\x1b[31mred\x1b]8;;http://example.org\x07", "a\x00b\x08c\x7fd\x85e", "abc\u202egpj.exe",
    "\u2066left\u2069\u200f", "line\u2028para\u2029end\r\nnext", "zero\u200bwidth\ufeff", "\ud800 alone",
    "\ue000\U000f0000", "=cmd|' /C calc'!A0", "url(http://example.org)", "#010203", "font: 12px x; 1.23456",
    "x" * 5000, "", " ", "é 猫 🐈 ״", "<style>*{display:none}</style>", "<a href=http://example.org>x</a>",
    "<base href=http://example.org>", "`${1}`", "<meta http-equiv=refresh content='0;url=http://example.org'>",
    "<iframe srcdoc='x'>", "<form action=x><input>",
)  # fmt: skip


def test_dollar_signs_in_names_are_not_mathematics(tmp_path: Path) -> None:
    names = [f"$\\alpha_{index}$ & <b>" for index in range(10)]
    source = report(make_run(tmp_path / "run", names)).read_text("utf-8")
    drawing = re.findall(r"<svg.*?</svg>", source, re.S)[3]
    assert ">$\\alpha_3$ &amp; &lt;b&gt;</text>" in drawing
    # Negative control: with mathematics on, the same label is drawn as something else.
    figures.STYLE["text.parse_math"] = True
    try:
        drawn = figures.confusion_matrix(np.eye(2, dtype=np.int64), ["$\\alpha$", "b"], "control")
    finally:
        figures.STYLE["text.parse_math"] = False
    assert ">$\\alpha$</text>" not in drawn


def hostile_run(path: Path, payloads: tuple[str, ...]) -> Path:
    """A run in which every text that can come from outside is one of the payloads."""
    run = make_run(path, payloads, data=payloads[0])
    keyed = {payload: payload for payload in payloads}
    file = run / "evaluations" / "test-single" / "result.json"
    result = json.loads(file.read_text("utf-8"))
    for item, payload in zip(result["worst"], payloads * 30, strict=False):
        item["id"] = item["true"] = item["predicted"] = payload
    result["worst"] += [{"id": payload, "picture": payload, "true": 1, "predicted": None} for payload in payloads]
    result["protocol"] |= {"name": payloads[-1], "description": payloads[0], "resize": payloads[1]}
    result["metrics"]["top_k_error"] = dict.fromkeys(payloads, 0.5)
    result |= {"notes": list(payloads)}
    file.write_text(json.dumps(result), "utf-8")
    for name, fields in (("other", {"split": payloads[0]}), ("refused", {"protocol": keyed}), ("unknown", keyed)):
        (file.parent.parent / name).mkdir()
        (file.parent.parent / name / "result.json").write_text(json.dumps(result | fields), "utf-8")
    info = json.loads((run / "run.json").read_text("utf-8"))
    info |= {"notes": list(payloads), "versions": keyed, "hardware": {"nested": keyed}, "code": payloads[0],
             "state": payloads[0], "started": payloads[-1], "branches": [keyed]}
    info["model"]["name"] = payloads[0]
    info["data"] |= keyed | {"notes": list(payloads)}
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    recipe = json.loads((run / "recipe.json").read_text("utf-8"))
    recipe |= keyed | {"name": payloads[0], "select": payloads[-1]}
    (run / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    return run


@pytest.mark.parametrize("payloads", [HOSTILE[:12], HOSTILE[12:24], HOSTILE[24:], HOSTILE])
def test_hostile_names_stay_text(tmp_path: Path, payloads: tuple[str, ...]) -> None:
    source = report(hostile_run(tmp_path / "run", payloads)).read_text("utf-8")
    found = Page(source)
    assert found.problems == []
    assert "evaluations/refused" in found.texts["missing"]
    assert "evaluations/test-single" not in found.texts["missing"]
    for part in ("classes", "mistakes", "notes", "machine", "data"):
        assert text.clean(payloads[0]) in found.texts[part]
    assert found.tags.count("svg") == (4 if len(payloads) <= figures.MOST_CLASSES else 3)


@pytest.mark.parametrize("payload", HOSTILE)
def test_each_hostile_name_alone_stays_text(payload: str) -> None:
    shown = page.environment().from_string("<p title='{{ it }}'>{{ it }}</p>").render(it=payload)
    found = Page(shown)
    assert found.problems == []
    assert found.tags == ["p"]
    drawn = figures.confusion_matrix(np.ones((2, 2), np.int64), [payload, "b"], "Confusion")
    assert Page(drawn).problems == []


def test_the_checker_finds_what_an_unescaped_template_lets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the tests above: without escaping and cleaning the same run breaks the page."""
    unsafe = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)
    unsafe.filters.update(page.environment().filters)
    monkeypatch.setattr(page, "environment", lambda: unsafe)
    found = Page(page.render(read_run(hostile_run(tmp_path / "run", HOSTILE[:20]))))
    for kind in ("element script", "attribute onerror", "control character U+001B", "control character U+202E"):
        assert kind in "\n".join(found.problems)
    assert "attribute onmouseover of img" in Page("<img alt='' onmouseover='x'>").problems
    assert Page("<img src='https://example.org/x.png'>").problems
    assert Page("<meta http-equiv=refresh content='0;url=x'>").problems


def test_cleaning_writes_what_can_not_be_seen_and_keeps_what_can() -> None:
    assert text.clean("a\x1b[31m\u202eb\u2028") == "a\\x1b[31m\\u202eb\\u2028"
    assert text.clean("a\u200db") == "a\\u200db"
    assert text.clean("é 猫 می\u200cخواهم 👩\u200d🔬") == "é 猫 می\u200cخواهم 👩\u200d🔬"
    assert len(text.clean("x" * 5000)) == text.LONGEST
    assert text.short("abcdefghijklmnop", 8) == "abcd…nop"


def test_pictures_outside_the_evaluation_are_not_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    folder = run / "evaluations" / "test-single"
    Image.new("L", (9, 9)).save(tmp_path / "secret.png")
    (folder / "worst" / "linked.png").symlink_to(tmp_path / "secret.png")
    outside = ["../../../secret.png", str(tmp_path / "secret.png"), "worst/../../../../secret.png",
               "worst/linked.png", 7]
    worst = [{"id": "x", "true": "a", "predicted": "b", "probability": 1, "picture": name} for name in outside]
    change(folder / "result.json", worst=[*worst, worst[0] | {"picture": "worst/000.png"}])
    found = Page(report(run).read_text("utf-8"))
    assert len(found.images) == 2, "one mistake's picture (the control) and the kernels"
    assert found.texts["mistakes"].count("picture not available") == 5
