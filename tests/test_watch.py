"""`layerwise watch`: the report of a run, live, on this machine alone."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from layerwise.errors import InputError, MachineError
from layerwise.jobs.watch import server
from tests.page_parser import Page
from tests.synthetic_run import make_run


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


def test_what_can_not_be_watched(serving: tuple[Path, ThreadingHTTPServer], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        server(tmp_path / "nowhere")
    with pytest.raises(MachineError, match=r"--port \d+: can't be listened on"):
        server(serving[0], serving[1].server_address[1])
