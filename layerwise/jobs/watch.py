"""What `layerwise watch` does: the report of a run while it trains, on this machine alone.

A page that is asked for is made anew of what the run has saved so far, and asks for itself again after some seconds. So
it shows the errors, the rate and the state of the run as the report does, and nothing has to run beside the training.
It is served on 127.0.0.1 only and answers to no other host's name, so that no web page elsewhere can read it.
"""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from layerwise.errors import LayerwiseError, MachineError
from layerwise.report.page import render
from layerwise.report.run import read_run

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
SECONDS = 10  # between two looks of an open page


def server(run: Path, port: int = 0, seconds: int = SECONDS) -> ThreadingHTTPServer:
    """A server of the run's report on 127.0.0.1, not yet serving; port 0 takes a free one.

    Raises InputError where `run` is no run's directory, MachineError where the port is taken.
    """
    read_run(run)

    class Watch(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host") or ""
            if name not in NAMES or self.path != "/":
                return self.send_error(HTTPStatus.NOT_FOUND)
            try:
                page = render(read_run(run)).encode()
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
