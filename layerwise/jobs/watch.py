"""What `layerwise watch` does: the report of a run while it trains, on this machine alone.

A page that is asked for is made anew of what the run has saved so far, and asks for itself again after some seconds. So
it shows the errors, the rate and the state of the run as the report does, and beside them the layers' health and sample
predictions (jobs/live.py). Nothing is added to the training. It is served on 127.0.0.1 only and answers to no other
host's name, so that no web page elsewhere can read it.
"""

from __future__ import annotations

import dataclasses
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from layerwise.errors import LayerwiseError, MachineError
from layerwise.jobs.live import Live
from layerwise.report.page import render
from layerwise.report.run import read_run

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
SECONDS = 10  # between two looks of an open page


def server(run: Path, port: int = 0, seconds: int = SECONDS, data_dir: Path | None = None,
           offline: bool = False) -> ThreadingHTTPServer:
    """A server of the run's report on 127.0.0.1, not yet serving; port 0 takes a free one.

    `data_dir` and `offline` say how the held-out pictures are opened. Raises InputError where `run` is no run's
    directory, MachineError where the port is taken.
    """
    read_run(run)
    live = Live(run, data_dir, offline)

    class Watch(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not of_this_machine(self.headers.get("Host") or "") or self.path != "/":
                return self.send_error(HTTPStatus.NOT_FOUND)
            try:
                page = _page(run, live)
            except LayerwiseError:  # its directory was taken away
                return self.send_error(HTTPStatus.GONE)
            self.send_response(HTTPStatus.OK)
            for header, value in (("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page))),
                                  ("Cache-Control", "no-store"), ("Refresh", str(seconds)),
                                  ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY")):
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(page)
            return None

        def log_message(self, format: str, *words: object) -> None:
            """Says nothing: a line for each look would fill the terminal."""

    try:
        return ThreadingHTTPServer((HOST, port), Watch)
    except OSError as error:
        raise MachineError(f"--port {port}: can't be listened on ({error.strerror})",
                           mend="Choose another one, or leave --port out.") from None


def of_this_machine(host: str) -> bool:
    """Whether the name in a request's Host header, with or without a port, is this machine's own."""
    return (host.rpartition(":")[0] or host) in NAMES


def _page(run: Path, live: Live) -> bytes:
    files = read_run(run)
    sections, why = live.look()
    return render(dataclasses.replace(files, missing=(*files.missing, why)) if why else files, sections).encode()
