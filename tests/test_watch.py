"""`layerwise watch`: the report of a run, live, on this machine alone."""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from layerwise import checkpoint, modelfile, rundir
from layerwise.errors import InputError, MachineError
from layerwise.explain.subject import drawn
from layerwise.jobs import live
from layerwise.jobs.assessment import own_split
from layerwise.jobs.live import PANELS, Live
from layerwise.jobs.watch import server
from layerwise.report.page import render
from layerwise.report.run import read_run
from tests.explained import trained
from tests.page_parser import Page
from tests.synthetic_run import make_run
from tests.test_report_browser import CHROMIUM, measured


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Path, ThreadingHTTPServer]]:
    run = make_run(tmp_path / "run", pictures=2)
    with server(run, seconds=7) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield run, found
        found.shutdown()
        thread.join()


def asked(found: ThreadingHTTPServer, path: str = "/", host: str = "") -> tuple[http.client.HTTPResponse, str]:
    """The answer to a request, and its body."""
    port = found.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_the_page_is_made_anew_at_each_look(serving: tuple[Path, ThreadingHTTPServer]) -> None:
    run, found = serving
    assert found.server_address[0] == "127.0.0.1"
    answer, body = asked(found)
    assert (answer.status, answer.getheader("Refresh")) == (200, "7")
    assert Page(body).problems == []
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "val", "step": 99_999, "error": 0.0123}) + "\n")
    assert "99,999" not in body
    assert "99,999" in asked(found)[1]


def test_other_paths_and_other_names_get_nothing(serving: tuple[Path, ThreadingHTTPServer]) -> None:
    found = serving[1]
    port = found.server_address[1]
    assert asked(found, "/../recipe.json")[0].status == 404
    assert asked(found, host=f"evil.example:{port}")[0].status == 404, "a name that was made to lead here"
    assert asked(found, host=f"localhost:{port}")[0].status == 200
    assert asked(found, host="127.0.0.1")[0].status == 200


def test_without_the_check_a_foreign_name_would_get_the_page(
    serving: tuple[Path, ThreadingHTTPServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: it is the check of the Host header that keeps a web page elsewhere out, and nothing else."""
    host = f"evil.example:{serving[1].server_address[1]}"
    assert asked(serving[1], host=host)[0].status == 404
    monkeypatch.setattr("layerwise.jobs.watch.of_this_machine", lambda name: True)
    answer, body = asked(serving[1], host=host)
    assert answer.status == 200
    assert "synthetic-clothes" in body


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with its checkpoints."""
    return trained(tmp_path_factory.mktemp("watch") / "run", "duration=1")


@pytest.fixture
def training(finished: Path, tmp_path: Path) -> Path:
    """The same run as it was before its end: no model file, no evaluation."""
    run = tmp_path / "training"
    shutil.copytree(finished, run)
    (run / modelfile.NAME).unlink()
    rundir.update_run(run, {"state": "running"})
    return run


def later(run: Path, pictures: int = 10_000) -> None:
    """Writes the checkpoint that would stand so many pictures later; its network says 3 whatever it sees."""
    generation, _ = checkpoint.newest(run / rundir.CHECKPOINTS)
    assert generation is not None
    position = generation.state["position"] | {"samples": generation.state["position"]["samples"] + pictures}
    tensors = {name: tensor.clone() for name, tensor in generation.tensors.items()}
    bias = next(name for name in reversed(tensors) if name.startswith(("model/head", "average/head"))
                and name.endswith("bias"))
    for kind in ("model/", "average/"):
        if (name := f"{kind}{bias.partition('/')[2]}") in tensors:
            tensors[name][3] += 1000
    checkpoint.write(run / rundir.CHECKPOINTS, position["samples"], tensors, generation.state | {"position": position})


def test_layer_health_and_sample_predictions_are_those_of_the_newest_checkpoint(
    training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Live(training)
    first, why = watched.look()
    assert why == ""
    page = Page(render(read_run(training), first))
    assert page.problems == []
    assert {"signal-health-view", "predictions-view"} <= set(page.texts)
    assert "start" in page.texts["signal-health-view"]
    assert len(page.images) - len(Page(render(read_run(training))).images) == PANELS
    made: list[int] = []
    counted = live.signal_health
    monkeypatch.setattr(live, "signal_health", lambda *words: made.append(1) or counted(*words))
    assert watched.look() == (first, "")
    assert made == [], "the same checkpoint is not computed again"
    later(training)
    second, _ = watched.look()
    assert len(made) == 1
    shown = Page(render(read_run(training), second)).texts
    assert shown["signal-health-view"].count("pictures") > page.texts["signal-health-view"].count("pictures"), (
        "the earlier checkpoint's health is remembered")
    held = drawn(own_split(rundir.read_recipe(training), "val", None, False), PANELS)
    right = int((held.labels == 3).sum())
    assert f"{right} of these {PANELS} are right" in shown["predictions-view"]


def test_why_there_is_neither_is_said_on_the_page(training: Path, serving: tuple[Path, ThreadingHTTPServer]) -> None:
    assert "they come with the first checkpoint" in asked(serving[1])[1]
    for generation in checkpoint.generations(training / rundir.CHECKPOINTS):
        (generation / checkpoint.TENSORS).write_bytes(b"damaged")
    assert "no sound checkpoint" in Live(training).look()[1]


@pytest.mark.parametrize("what", ["data", "network"])
def test_records_that_do_not_fit_break_nothing(training: Path, what: str) -> None:
    if what == "data":
        rundir.update_run(training, {"data": {"class_names": 7}})
    else:
        recipe = dataclasses.replace(rundir.read_recipe(training), network="resnet32")
        (training / rundir.RECIPE).write_text(recipe.to_json(), "utf-8")
    assert "does not fit the run's records" in Live(training).look()[1]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_live_page_fits_its_screen(training: Path, tmp_path: Path, width: int) -> None:
    found = measured(render(read_run(training), Live(training).look()[0]), width, tmp_path)
    assert found["wide"] == []
    assert found["scroll"] == found["width"]
    assert found["drawn"] == found["images"]


def test_what_can_not_be_watched(serving: tuple[Path, ThreadingHTTPServer], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        server(tmp_path / "nowhere")
    with pytest.raises(MachineError, match=r"--port \d+: can't be listened on"):
        server(serving[0], serving[1].server_address[1])
