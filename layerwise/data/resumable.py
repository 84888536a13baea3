"""One file over HTTP that goes on where it stopped: a part with a name of its own, checked, then renamed.

The part's name holds the expected digest, so that it is never continued as another file. Of several processes that
fetch the same file one does; the others wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

if os.name == "posix":
    import fcntl

AGENT = "layerwise"
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18
PAUSES = (0.5, 2.0, 8.0)  # seconds before each further attempt
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses of HTTP that may be better later


class WrongFileError(Exception):
    """What was sent is another file: its SHA-256 (hex) and size in bytes."""

    def __init__(self, sha256: str, size: int) -> None:
        super().__init__(sha256)
        self.sha256, self.size = sha256, size


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address of the web alone: not to a file, another protocol, or a machine nearby."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """The request for the new address; HTTPError where it is none that a published file has."""
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        private = False
        with contextlib.suppress(ValueError):  # a name, and no number
            private = not ipaddress.ip_address(new.hostname or "").is_global
        if new.scheme not in ("http", "https") or new.scheme < old.scheme or (private and new.hostname != old.hostname):
            raise urllib.error.HTTPError(req.full_url, code, f"it sends us on to {newurl[:200]}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_file(url: str, target: Path, sha256: str, size: int) -> None:
    """Fetches `url` to `target`, whole and checked or not at all; what an earlier call left is not sent again.

    `sha256` (hex) and `size` (bytes) are those of the file. Raises WrongFileError where the server has another file
    (the part is deleted), and OSError where the connection fails several times (the part is kept).
    """
    part = target.with_name(f".{target.name}.{sha256[:16]}.part")
    with _locked(part) as file:
        if target.is_file():  # another process was first
            return _end(file, part)
        try:
            _get(url, file, sha256, size)
            os.fsync(file.fileno())
        except WrongFileError:
            _end(file, part)
            raise
        except OSError:
            if not os.fstat(file.fileno()).st_size:
                _end(file, part)
            raise
        _end(file, part, target)
    _sync_directory(target.parent)


def _end(file: BinaryIO, part: Path, target: Path | None = None) -> None:
    """Renames the part to `target`, or deletes it, while the lock is held: it may be another's as soon as it is not.

    Where there is no lock, an open file can't be renamed either: it is closed first.
    """
    if os.name != "posix":
        file.close()
    if target is None:
        part.unlink(missing_ok=True)
    else:
        part.replace(target)


def _get(url: str, file: BinaryIO, sha256: str, size: int) -> None:
    """Completes `file` and checks it; a part that was of another version of the file, or damaged, begins again."""
    continued = os.fstat(file.fileno()).st_size > 0
    _complete(url, file, size)
    if continued and _digest(file) != sha256:
        file.truncate(0)
        _complete(url, file, size)
    found = _digest(file)
    if found != sha256:
        raise WrongFileError(found, os.fstat(file.fileno()).st_size)


def _complete(url: str, file: BinaryIO, size: int) -> None:
    """Gets what `file` lacks, in several attempts."""
    for pause in (*PAUSES, None):
        try:
            return _continue(url, file, size)
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: an address that is none
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if pause is None or _lasting(error):
                if isinstance(error, OSError):
                    raise
                raise ConnectionError(f"{type(error).__name__}: {error}") from error
            time.sleep(pause)


def _lasting(error: Exception) -> bool:
    """Whether another attempt would fail too: no such file, no such host, nothing that listens, no trusted name."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code not in PASSING
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError))


def _continue(url: str, file: BinaryIO, size: int) -> None:
    """One attempt: asks for the bytes behind those that are there; a server that sends all begins the file again."""
    have = file.seek(0, os.SEEK_END)
    if have > size:
        have = file.truncate(0)
    if have == size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT) as answer:
        if answer.status != 206 or not re.match(rf"bytes {have}-", answer.headers.get("Content-Range", "")):
            if answer.status == 206:
                raise ConnectionError(f"the server sent {answer.headers.get('Content-Range')} for bytes {have}-")
            have = file.truncate(0)
        length = answer.headers.get("Content-Length")
        promised = have + int(length) if length and length.isdecimal() and len(length) < 20 else 0
        file.seek(have)
        # One byte more than there should be is enough to know that it is another file.
        while have <= size and (chunk := answer.read(min(CHUNK, size + 1 - have))):
            file.write(chunk)
            have += len(chunk)
    file.flush()
    if have < min(size, promised):  # a server that promises less has another file
        raise ConnectionError(f"the connection ended after {have:,} of {size:,} bytes")


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The part, open for reading and appending, and this process's alone while it is."""
    while True:
        file = part.open("a+b")
        if os.name == "posix":
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            same = os.fstat(file.fileno()).st_ino == part.stat().st_ino
        except FileNotFoundError:  # the process before renamed or deleted it
            same = False
        if same:
            break
        file.close()
    with file:
        yield file


def _digest(file: BinaryIO) -> str:
    file.flush()
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _sync_directory(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
