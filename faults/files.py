"""Archives (C3) and downloads (C4) from strangers: nothing is unpacked, and nothing wrong is kept."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from faults.folders import cache_in
from faults.goal import Control, Goal, Outcome
from faults.pictures import called
from layerwise.data import resumable
from layerwise.data.cifar import read_archive
from layerwise.data.imagenet_truth import _kit
from layerwise.data.opening import DataOptions, open_data
from layerwise.data.resumable import WrongFileError, fetch_file
from layerwise.data.tars import members
from layerwise.errors import InputError

PART = "data_batch_1.bin"
MOST = 1 << 20  # bytes that an opener may give back for these small archives
SLOWEST = 5.0  # seconds of processor time an archive


# ---- C3: archives


def member(name: str = PART, size: int = 3, **fields: object) -> tarfile.TarInfo:
    """An entry of a tar."""
    found = tarfile.TarInfo(name)
    found.size = size
    for field, value in fields.items():
        setattr(found, field, value)
    return found


def tar(*entries: tarfile.TarInfo, packed: str = "", form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of these entries, each of zeros."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{packed}", format=form) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size if entry.isreg() else 0)))
    return stream.getvalue()


def claiming(size: bytes) -> bytes:
    """A tar whose one entry has this text as its size, with the right checksum."""
    header = bytearray(tar(member())[:512])
    header[124:136] = size.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def named(place: str) -> tuple[bytes, ...]:
    """A file, links and a device at this place."""
    link = {"linkname": place}
    return (tar(member(place)), tar(member(place + "/" + PART)),
            tar(member(type=tarfile.SYMTYPE, size=0, **link), member(PART + "/x")),
            tar(member(type=tarfile.LNKTYPE, size=0, **link)))


def archives(outside: Path) -> Iterator[tuple[str, bytes]]:
    """Sixty of them."""
    for place in ("../evil", str(outside / "evil"), "a/../../evil", "..\\evil", "C:\\evil"):
        for number, data in enumerate(named(place)):
            yield f"{place[-12:]} {number}", data
    chain = [member(f"{'d' * 240}{i}", type=tarfile.SYMTYPE, size=0, linkname="../" * (i + 1)) for i in range(16)]
    yield "a chain of links, each longer", tar(*chain, member("/".join(one.name for one in chain) + "/evil"))
    yield "links that go in a circle", tar(member("a", type=tarfile.SYMTYPE, size=0, linkname="b"),
                                           member("b", type=tarfile.SYMTYPE, size=0, linkname="a"), member("a/" + PART))
    for sort in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE, b"Z"):
        yield f"type {sort!r}", tar(member(type=sort, size=0, devmajor=1, devminor=5))
    yield "twice", tar(member(), member())
    yield "twice in another case", tar(member(), member(PART.upper()))
    yield "Unicode twins", tar(member("é"), member("é"))
    for size in (b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1", b"9x9", b"\x80" + bytes(10) + b"\1"):
        yield f"size {size!r}", claiming(size)
    for headers in ({"size": "999999999999"}, {"path": "../evil"}, {"size": "-5"}, {"path": "a" * 70_000},
                    {"GNU.sparse.size": str(2**62), "GNU.sparse.map": "0,9"}, {"linkpath": "/etc/passwd"}):
        yield f"pax {headers!r:.30}", tar(member(pax_headers=headers), form=tarfile.PAX_FORMAT)
    zeros = gzip.compress(bytes(1 << 24), 9)
    start = tar(member("bulk", 0))[:512]
    yield "gzip of gzips", zeros * 64
    big = bytearray(start)
    big[124:136] = b"\x80" + (1 << 34).to_bytes(11, "big")
    big[148:156] = b" " * 8
    big[148:156] = b"%06o\0 " % sum(big)
    yield "a member of 16 GiB, deflated", gzip.compress(bytes(big)) + zeros * 1024
    yield "a name of 60,000 letters", tar(member("n" * 60_000))
    yield "a wrong checksum", tar(member())[:150] + b"9" + tar(member())[151:]
    yield "5,000 entries", tar(*(member(str(number), 0) for number in range(5_000)))
    inner = tar(member())
    for depth in range(3):
        inner = tar_of(f"{depth}.tar", inner)
    yield "tars in tars", inner
    yield "a tar that holds its own name", tar_of("self.tar", tar(member("self.tar")))
    for kind in ("gz", "bz2", "xz"):
        whole = tar(member(), packed=kind)
        yield f"{kind}, half", whole[: len(whole) // 2]
        yield f"{kind}, altered", whole[:20] + bytes([whole[20] ^ 255]) + whole[21:]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("../evil", str(outside / "evil"), PART):
            file.writestr(name, bytes(1 << 20))
    yield "zip", stream.getvalue()
    yield "zip of zips", stream.getvalue() * 3
    yield "7z", b"7z\xbc\xaf\x27\x1c" + bytes(600)
    yield "nothing", b""


def tar_of(name: str, data: bytes) -> bytes:
    """A tar with one file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(member(name, len(data)), io.BytesIO(data))
    return stream.getvalue()


def openers() -> dict[str, Callable[[Path], int]]:
    """Every function of ours that opens an archive: what it gives back, in bytes."""
    return {
        "members": lambda file: sum(one.size for one in members(file)),
        "read_archive": lambda file: sum(map(len, read_archive(file, [PART]).values())),
        "development kit": lambda file: sum(map(len, _kit(file, [PART]).values())),
        "open_data": lambda file: len(open_data(str(file), DataOptions(offline=True)).train),
    }


def careless(file: Path) -> int:
    """The control: unpacks everything where it stands."""
    with tarfile.open(file) as archive:
        for one in archive:
            archive.extract(one, file.parent / "here", filter="fully_trusted")
    return 0


def unpacked(trials: int, place: str, ours: bool) -> None:
    """C3's process: prints [violations, count]."""
    folder = Path(place)
    (folder / "in" / "deep").mkdir(parents=True)
    file, violations, slowest = folder / "in" / "deep" / "archive", [], 0.0
    chosen = list(archives(folder / "outside"))[:trials]
    for name, data in chosen:
        file.write_bytes(data)
        for opener, opened in (openers() if ours else {"careless": careless}).items():
            started = time.process_time()
            try:
                given = opened(file)
                if given > max(MOST, len(data)):
                    violations.append(f"{name}, {opener}: {given} bytes given back")
            except InputError:
                pass
            except BaseException as error:
                violations.append(f"{name}, {opener}: {type(error).__name__}: {error}")
            seconds = time.process_time() - started
            slowest = max(slowest, seconds)
            if seconds > SLOWEST:
                violations.append(f"{name}, {opener}: {seconds:.1f} s")
        strange = [path for path in folder.rglob("*") if path not in (folder / "in", file.parent, file)
                   and "cache" not in path.parts]
        if strange:
            violations.append(f"{name}: made {strange[0].relative_to(folder)}")
            break
    print(json.dumps([violations, len(chosen), slowest]))


def stay_packed(trials: int, folder: Path, ours: bool = True) -> Outcome:
    """C3."""
    found, failed = called(f"faults.files:unpacked({trials}, {str(folder)!r}, {ours})", folder, 600)
    if failed:
        return Outcome(1, (failed,))
    return Outcome(found[1], tuple(found[0]), f"{len(openers())} openers each; slowest {found[2]:.1f} s of processor "
                   "time; nothing of ours unpacks to disk, and zip is not opened at all")


# ---- C4: downloads

GOOD = bytes(range(256)) * 200
SHA256 = hashlib.sha256(GOOD).hexdigest()
FLIPPED = GOOD[:700] + bytes([GOOD[700] ^ 1]) + GOOD[701:]


def answers(port: int) -> dict[str, tuple[bytes, ...]]:
    """What the server says, whole; a later request gets the next answer, the last again and again."""
    def whole(body: bytes, *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
        size = () if length == -1 else (f"Content-Length: {len(body) if length is None else length}",)
        return "\r\n".join((f"HTTP/1.1 {status}", *size, "Connection: close", *lines, "", "")).encode() + body

    def to(place: str, status: str = "302 Found") -> bytes:
        return whole(b"", f"Location: {place}", status=status)

    half = len(GOOD) // 2
    def ranged(start: int, body: bytes) -> bytes:
        where = f"Content-Range: bytes {start}-{start + len(body) - 1}/{len(GOOD)}"
        return whole(body, where, status="206 Partial Content")

    chunk = b"%x\r\n%b\r\n" % (len(GOOD), GOOD)
    found = {
        "truncated": (whole(GOOD[:half], length=len(GOOD)),), "short and says so": (whole(GOOD[:half]),),
        "a bit flipped": (whole(FLIPPED),), "empty": (whole(b""),), "swapped": (whole(GOOD[::-1]),),
        "a byte more": (whole(GOOD + b"x"),), "a byte less": (whole(GOOD[:-1]),), "twice": (whole(GOOD * 2),),
        "too long a length": (whole(GOOD[:-1], length=len(GOOD) * 2),), "no length": (whole(FLIPPED, length=-1),),
        "length of nonsense": (whole(FLIPPED, "Content-Length: x", length=-1),),
        "negative length": (whole(FLIPPED, length=-5),), "two lengths": (whole(FLIPPED, "Content-Length: 5"),),
        "gzip": (whole(gzip.compress(GOOD), "Content-Encoding: gzip"),),
        "gzip bomb": (whole(gzip.compress(bytes(1 << 24)), "Content-Encoding: gzip"),),
        "a web page": (whole(b"<html>log in</html>", "Content-Type: text/html"),),
        "chunks that lie": (whole(b"fffffff\r\n" + FLIPPED, "Transfer-Encoding: chunked", length=-1),),
        "chunks without end": (whole(chunk * 3, "Transfer-Encoding: chunked", length=-1),),
        "chunk of nonsense": (whole(b"zz\r\nabc", "Transfer-Encoding: chunked", length=-1),),
        "another range": (whole(GOOD[:half], length=len(GOOD)), ranged(0, GOOD[half:])),
        "range of others": (whole(GOOD[:half], length=len(GOOD)), ranged(half, FLIPPED[:half])),
        "range too long": (whole(GOOD[:half], length=len(GOOD)), ranged(half, GOOD)),
        "range unasked": (ranged(100, GOOD[100:]),),
        "flipped, then whole ranges": (whole(FLIPPED[:half], length=len(GOOD)), ranged(half, GOOD[half:])),
        "not HTTP": (b"\x16\x03\x01\x02\0" * 50,), "old HTTP": (FLIPPED,), "nothing": (b"",),
        "status 99": (whole(FLIPPED, status="99 What"),),
        "a header of 1 MB": (whole(FLIPPED, "X: " + "a" * (1 << 20)),),
        "10,000 headers": (whole(FLIPPED, *(f"X{i}: a" for i in range(10_000))),),
        "a name for the file": (whole(FLIPPED, "Content-Disposition: attachment; filename=../../evil"),),
    }
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://169.254.169.254/latest/meta-data",
                  "data:,x", "http://[fe80::1]/x", "http://10.0.0.1/", "http://192.168.0.1/",
                  f"http://127.0.0.2:{port}/x", "//", "", "http://[bad/", "gopher://127.0.0.1/",
                  "http://[::1]/", f"http://127.0.0.1:{port}/again",
                  "\\\\evil\\x", "http://0.0.0.0/"):
        for moved in ("301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"):
            found[f"{moved} to {place}"] = (to(place, moved),)
    for status in (204, 206, 300, 304, 305, 400, 401, 403, 404, 407, 410, 416, 418, 429, 451, 500, 502, 503, 504):
        found[f"status {status}"] = (whole(FLIPPED, status=f"{status} So"),)
    return found


class Script:
    """A server of one answer after the other, and how often it was asked for what."""

    def __init__(self) -> None:
        script, self.answers, self.asked = self, [b""], 0

        class Handler(http.server.BaseHTTPRequestHandler):
            """Writes what the script says, whatever is asked."""

            def do_GET(self) -> None:
                """One answer."""
                answer = script.answers[min(script.asked, len(script.answers) - 1)]
                script.asked += 1
                self.close_connection = True
                with contextlib.suppress(OSError):  # the other side has had enough
                    self.wfile.write(answer)

            def log_message(self, format: str, *rest: object) -> None:
                """Silent."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """No pause between attempts, and half a second of patience."""
    with mock.patch.object(resumable, "PAUSES", (0.0,)), mock.patch.object(resumable, "TIMEOUT", 0.5):
        yield


def downloads(trials: int, folder: Path, checked: bool = True) -> Outcome:
    """C4: each answer to a first request and to one that continues a part, right or wrong."""
    script, violations = Script(), []
    url = f"http://127.0.0.1:{script.server.server_port}/file.bin"
    cases = [(name, answer, start) for start in (b"", GOOD[:999], FLIPPED[:999])
             for name, answer in answers(script.server.server_port).items()][:trials]
    guard = mock.patch.object(resumable, "_digest", (lambda file: SHA256) if not checked else resumable._digest)
    with impatient(), cache_in(folder / "cache"), guard:
        for name, answer, start in cases:
            target = folder / "to" / "file.bin"
            target.parent.mkdir(exist_ok=True)
            part = target.with_name(f".file.bin.{SHA256[:16]}.part")
            if start:
                part.write_bytes(start)
            script.answers, script.asked = list(answer), 0
            try:
                fetch_file(url, target, SHA256, len(GOOD))
                outcome = "accepted"
            except (OSError, WrongFileError):
                outcome = "refused"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            held = target.read_bytes() if target.exists() else b""
            if (outcome == "accepted") != (held == GOOD) or outcome not in ("accepted", "refused") or (
                    held and held != GOOD):
                violations.append(f"{name}, after {len(start)} bytes: {outcome}, {len(held)} bytes kept")
            for path in target.parent.iterdir():
                if path not in (target, part):
                    violations.append(f"{name}: made {path.name}")
                path.unlink()
    script.server.shutdown()
    script.server.server_close()
    return Outcome(len(cases), tuple(violations), "accepted are only the right bytes, which a few of these answers "
                   "end in after another attempt")


GOALS = (
    Goal("C3", "archives: paths, links, devices, sizes, bombs", "0 bytes outside, 0 unpacked, quotas hold", 60, 60,
         stay_packed, (Control("all is unpacked", lambda folder: stay_packed(60, folder, ours=False)),)),
    Goal("C4", "downloads from a hostile server", "0 wrong files accepted; full SHA-256 before the name", 200, 140,
         downloads, (Control("digest off", lambda folder: downloads(31, folder, checked=False)),)),
)
