"""Downloads: whole and checked or not at all, and going on where they stopped."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import multiprocessing
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from layerwise.data import download, resumable
from layerwise.data.resumable import WrongFileError, fetch_file
from layerwise.errors import MachineError, ToleranceError

GOOD = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA256 = hashlib.sha256(GOOD).hexdigest()


@dataclass
class Script:
    """What a server has and does: `cut` bytes of an answer before it breaks off (each once), ranges or none."""

    content: bytes = GOOD
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    chunked: bool = False
    wrong_range: bool = False
    asked: list[str] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script = Script()

    def do_GET(self) -> None:
        script, wanted = self.script, self.headers.get("Range", "")
        script.asked.append(wanted)
        self.close_connection = True
        if script.statuses:
            self.send_response(script.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(found[1]) if found and script.ranges else 0
        body = script.content[start:]
        self.send_response(206 if found and script.ranges else 200)
        if found and script.ranges:
            first = 0 if script.wrong_range else start
            self.send_header("Content-Range", f"bytes {first}-{len(script.content) - 1}/{len(script.content)}")
        if not script.chunked:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        part = body[:script.cuts.pop(0)] if script.cuts else body
        self.wfile.write(part)
        script.sent.append(len(part))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Script]]:
    monkeypatch.setattr(resumable, "PAUSES", (0.0, 0.0, 0.0))
    script = Script()
    monkeypatch.setattr(Handler, "script", script)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/file.bin", script
        httpd.shutdown()


def part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.{SHA256[:16]}.part")


def test_an_answer_that_breaks_off_is_continued_at_once(tmp_path: Path, server: tuple[str, Script]) -> None:
    url, script = server
    script.cuts = [300_000, 400_000]
    target = tmp_path / "file.bin"
    fetch_file(url, target, SHA256, len(GOOD))
    assert target.read_bytes() == GOOD
    assert script.asked == ["", "bytes=300000-", "bytes=700000-"]
    assert sum(script.sent) == len(GOOD)  # nothing twice
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_later_call_gets_the_rest_only(tmp_path: Path, server: tuple[str, Script],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    url, script = server
    monkeypatch.setattr(resumable, "PAUSES", ())
    script.cuts = [500_000]
    target = tmp_path / "file.bin"
    with pytest.raises(OSError, match=r"ended after 500,000 of 1,024,000|IncompleteRead"):
        fetch_file(url, target, SHA256, len(GOOD))
    assert not target.exists()
    assert part_of(target).stat().st_size == 500_000
    fetch_file(url, target, SHA256, len(GOOD))
    assert script.asked == ["", "bytes=500000-"]
    assert script.sent == [500_000, 524_000]
    assert target.read_bytes() == GOOD
    assert not part_of(target).exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_without_ranges_begins_again(tmp_path: Path, server: tuple[str, Script], ranges: bool) -> None:
    url, script = server
    script.ranges, script.cuts = ranges, [500_000]
    fetch_file(url, tmp_path / "file.bin", SHA256, len(GOOD))
    assert (tmp_path / "file.bin").read_bytes() == GOOD
    assert script.sent == [500_000, 524_000 if ranges else 1_024_000]


def test_a_part_of_another_version_begins_again_once(tmp_path: Path, server: tuple[str, Script]) -> None:
    url, script = server
    target = tmp_path / "file.bin"
    part_of(target).write_bytes(b"x" * 1000)
    fetch_file(url, target, SHA256, len(GOOD))
    assert target.read_bytes() == GOOD
    assert script.asked == ["bytes=1000-", ""]


@pytest.mark.parametrize("length", [len(GOOD), len(GOOD) + 1])
def test_a_part_that_is_whole_is_only_checked(tmp_path: Path, server: tuple[str, Script], length: int) -> None:
    url, script = server
    target = tmp_path / "file.bin"
    part_of(target).write_bytes((GOOD + b"x")[:length])
    fetch_file(url, target, SHA256, len(GOOD))
    assert target.read_bytes() == GOOD
    assert script.asked == ([] if length == len(GOOD) else [""])


@pytest.mark.parametrize(("content", "size"), [
    (GOOD[:-1] + b"x", "1,024,000"), (GOOD[:1000], "1,000"), (GOOD * 2, "more"), (b"", "0")])
@pytest.mark.parametrize("chunked", [False, True])
def test_another_file_is_refused_with_both_digests(
    tmp_path: Path, server: tuple[str, Script], content: bytes, size: str, chunked: bool
) -> None:
    url, script = server
    script.content, script.chunked = content, chunked
    target = tmp_path / "set" / "file.bin"
    with pytest.raises(ToleranceError, match="is not the published file") as error:
        download.download(download.Remote("file.bin", url, SHA256, len(GOOD)), target.parent, "set", False)
    text = str(error.value)
    assert f"Expected 1,024,000 bytes with SHA-256 {SHA256}, got {size} with " in text
    if size != "more":  # no more is read than tells that it is another file
        assert hashlib.sha256(content).hexdigest() in text
    assert url in text
    assert list(target.parent.iterdir()) == []  # the temporary file is gone
    (target.parent / "other").touch()
    with pytest.raises(ToleranceError):
        download.download(download.Remote("file.bin", url, SHA256, len(GOOD)), target.parent, "set", False)
    assert [path.name for path in target.parent.iterdir()] == ["other"]  # and nothing else


def test_passing_failures_are_tried_again_and_lasting_ones_are_not(tmp_path: Path, server: tuple[str, Script]) -> None:
    url, script = server
    script.statuses = [503, 429]
    fetch_file(url, tmp_path / "one", SHA256, len(GOOD))
    assert len(script.asked) == 3
    script.asked.clear()
    script.statuses = [404]
    with pytest.raises(MachineError, match="can't download") as error:
        download.download(download.Remote("two", url, SHA256, len(GOOD)), tmp_path, "set", False)
    assert "404" in str(error.value)
    assert len(script.asked) == 1
    script.asked.clear()
    script.statuses = [503] * 9
    with pytest.raises(OSError, match="503"):
        fetch_file(url, tmp_path / "three", SHA256, len(GOOD))
    assert len(script.asked) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_wrong_range_is_not_pasted_in(tmp_path: Path, server: tuple[str, Script]) -> None:
    url, script = server
    script.cuts, script.wrong_range = [1000], True
    with pytest.raises(ConnectionError, match="the server sent bytes 0-"):
        fetch_file(url, tmp_path / "file.bin", SHA256, len(GOOD))
    assert not (tmp_path / "file.bin").exists()


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://example.org/x", "http://example.org/x",
                                   "https://169.254.169.254/x", "https://10.0.0.1/x", "https://[::1]/x"])
def test_a_server_cannot_send_us_to_a_file_or_a_machine_nearby(place: str) -> None:
    request = urllib.request.Request("https://example.org/a")
    follow = resumable._Redirects().redirect_request
    with pytest.raises(urllib.error.HTTPError, match="it sends us on to"):
        follow(request, None, 302, "Found", {}, place)
    assert follow(request, None, 302, "Found", {}, "https://example.com/b").full_url == "https://example.com/b"


def test_the_digest_decides(tmp_path: Path, server: tuple[str, Script], monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without the check another file gets the name."""
    url, script = server
    script.content = GOOD[:-1] + b"x"
    with pytest.raises(WrongFileError):
        fetch_file(url, tmp_path / "file.bin", SHA256, len(GOOD))
    monkeypatch.setattr(resumable, "_digest", lambda file: SHA256)
    fetch_file(url, tmp_path / "file.bin", SHA256, len(GOOD))
    assert (tmp_path / "file.bin").read_bytes() != GOOD


@pytest.mark.skipif(os.name != "posix", reason="files are locked on POSIX alone")
@pytest.mark.parametrize("outcome", ["fetched", "was there", "another file", "nothing came"])
def test_the_part_is_renamed_and_deleted_under_its_lock(outcome: str, tmp_path: Path, server: tuple[str, Script],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is renamed may be the empty part that a third process has just begun."""
    import fcntl

    url, script = server
    target, locked = tmp_path / "file.bin", []

    def is_locked(part: Path) -> bool:
        with part.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    for act in ("replace", "unlink"):
        real = getattr(Path, act)
        monkeypatch.setattr(Path, act, lambda part, *words, real=real, **named: (
            locked.append(is_locked(part)), real(part, *words, **named))[1])
    sha256 = SHA256
    if outcome == "was there":
        target.write_bytes(GOOD)
    elif outcome == "another file":
        sha256 = "0" * 64
    elif outcome == "nothing came":
        script.statuses[:] = [404]
    with contextlib.suppress(WrongFileError, OSError):
        fetch_file(url, target, sha256, len(GOOD))
    assert locked == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"] * (outcome in ("fetched", "was there"))
    (tmp_path / "free").touch()
    assert not is_locked(tmp_path / "free")  # the control


def test_several_processes_fetch_it_once(tmp_path: Path, server: tuple[str, Script]) -> None:
    url, script = server
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch_file, args=(url, tmp_path / "file.bin", SHA256, len(GOOD)))
                 for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "file.bin").read_bytes() == GOOD
    assert script.sent == [len(GOOD)]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
