"""The report page in a real browser (Debian's chromium, headless): it opens, holds its parts and fits a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from layerwise.report.page import report
from tests.page_parser import Page
from tests.synthetic_run import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
# The page in a frame as wide as a phone (a headless window has a least width), measured by the page around it. The
# frame takes the page as text, so it has the measuring page's origin; its own policy still forbids it every script.
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body><iframe id="page" style="border:0;width:{width}px;height:800px"
srcdoc="{page}"></iframe><pre id="found"></pre><script>
onload = () => {{
  const page = document.getElementById("page").contentDocument, view = page.documentElement;
  const wide = [...page.querySelectorAll("body *")].filter(element => !element.closest(".scroll, svg")
    && element.getClientRects().length && element.getBoundingClientRect().right > view.clientWidth + 1);
  const image = [...page.querySelectorAll("img")];
  document.getElementById("found").textContent = JSON.stringify({{
    width: view.clientWidth, scroll: view.scrollWidth,
    wide: wide.map(element => element.tagName + "." + element.className),
    images: image.length, drawn: image.filter(one => one.complete && one.naturalWidth > 0).length,
    paper: getComputedStyle(page.body).backgroundColor, ink: getComputedStyle(page.body).color,
    line: getComputedStyle(page.querySelector("#training svg path[style*='--accent']")).stroke,
    boxes: [...page.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth).length,
  }});
}};
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


def opened(page: Path, profile: Path, *flags: str) -> str:
    """The document that chromium makes of the file `page`."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def measured(source: str, width: int, where: Path, *flags: str) -> dict[str, object]:
    """Sizes and colours of the page `source` in a view of `width` pixels."""
    (where / "measure.html").write_text(MEASURE.format(width=width, page=html.escape(source)), "utf-8")
    dump = opened(where / "measure.html", where / "profile", *flags)
    found = re.findall(r'<pre id="found">(.*?)</pre>', dump, re.S)[-1]
    return dict(json.loads(html.unescape(found)))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a synthetic run with one very long class name."""
    names = ("t-shirt", "trouser", "x" * 120, "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    return report(make_run(tmp_path_factory.mktemp("report") / "run", names)).read_text("utf-8")


def test_it_opens_and_holds_its_parts(source: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(source, "utf-8")
    found = Page(opened(tmp_path / "report.html", tmp_path / "profile"))
    assert found.problems == []
    assert {"result", "training", "confusion", "classes", "mistakes", "kernels", "evaluations", "recipe", "data",
            "machine"} <= set(found.texts)
    assert found.tags.count("svg") == 4
    assert "7.00\u202f%" in found.texts["result"]


@pytest.mark.parametrize("width", [360, 390, 800, 1200])
def test_it_fits_and_every_picture_is_drawn(source: str, tmp_path: Path, width: int) -> None:
    found = measured(source, width, tmp_path)
    assert found["wide"] == []
    assert found["scroll"] == found["width"]
    assert found["drawn"] == found["images"] == 25
    if width < 500:
        assert found["boxes"], "wide tables scroll inside their boxes"


def test_the_measure_finds_a_page_that_is_too_wide(source: str, tmp_path: Path) -> None:
    """Negative control: without the boxes that scroll and without breaking long names the page is too wide."""
    broken = source.replace("overflow-x: auto", "overflow-x: visible").replace("overflow-wrap: anywhere", "")
    found = measured(broken, 360, tmp_path)
    assert int(str(found["scroll"])) > int(str(found["width"]))


def test_dark_mode_turns_the_page_and_its_drawings(source: str, tmp_path: Path) -> None:
    light = measured(source, 800, tmp_path, "--blink-settings=preferredColorScheme=1")
    dark = measured(source, 800, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (light["paper"], dark["paper"]) == ("rgb(247, 246, 243)", "rgb(18, 20, 23)")
    assert (light["line"], dark["line"]) == ("rgb(29, 95, 166)", "rgb(133, 183, 242)")
    assert light["ink"] != dark["ink"]


def test_a_script_in_the_page_would_not_run(source: str, tmp_path: Path) -> None:
    """The policy holds even if escaping failed; without the policy (the control) the same script runs."""
    injected = source.replace("</main>", "<script>document.body.id = 'ran'</script></main>")
    (tmp_path / "kept.html").write_text(injected, "utf-8")
    (tmp_path / "open.html").write_text(re.sub(r"<meta http-equiv[^>]*>", "", injected), "utf-8")
    assert 'id="ran"' not in opened(tmp_path / "kept.html", tmp_path / "profile")
    assert 'id="ran"' in opened(tmp_path / "open.html", tmp_path / "profile")
