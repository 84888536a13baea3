"""Pictures that want to become large (B3): sixty files of at most 1 MB.

Each is refused, or its small first frame read, within 50 ms of processor time and 64 MiB of memory more. They are read
in a process of their own, whose peak of memory the system is asked to begin anew before each.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import time
import zlib
from pathlib import Path

from PIL import Image

from faults.goal import Control, Goal, Outcome
from faults.pictures import called, scene
from layerwise.data import container
from layerwise.data.decoding import Needs, open_scaled
from layerwise.data.images import ImageRules
from layerwise.data.scan import scan_one

SECONDS, MEMORY, LARGEST = 0.05, 64 << 20, 1_000_000


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """The picture's bytes."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def zeros(count: int, kept: dict[int, bytes] = {}) -> bytes:  # noqa: B006  made once
    """`count` zero bytes, deflated as far as deflate goes."""
    if count not in kept:
        deflate, piece = zlib.compressobj(9), bytes(1 << 20)
        parts = [deflate.compress(piece) for _ in range(count >> 20)]
        kept[count] = b"".join([*parts, deflate.compress(bytes(count & (1 << 20) - 1)), deflate.flush()])
    return kept[count]


def png(width: int, height: int, bits: int, colour: int, content: bytes, *chunks: tuple[bytes, bytes],
        interlaced: int = 0) -> bytes:
    """A PNG with right checksums."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    every = ((b"IHDR", head), *chunks, (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in every)


def pngs() -> dict[str, bytes]:
    """Large ones, those just below the cap, and small ones with large texts and profiles."""
    large, small = zeros(170 << 20), zlib.compress(bytes(9 * 8))
    text = b"Comment\0\0" + zeros(50 << 20)
    made = {"169 MP": png(13_000, 13_000, 8, 0, large), "169 MP of RGB": png(13_000, 13_000, 8, 2, large),
            "169 MP of 16 bits": png(13_000, 13_000, 16, 6, large), "169 MP of 1 bit": png(13_000, 13_000, 1, 0, large),
            "169 MP, interlaced": png(13_000, 13_000, 8, 0, large, interlaced=1),
            "a long row": png(2**31 - 1, 1, 8, 0, large), "a long column": png(1, 2**31 - 1, 8, 0, large),
            "80 MP, below the cap": png(9_000, 8_900, 8, 0, large), "25 MP of RGB": png(5_000, 5_000, 8, 2, large),
            "no pixels": png(0, 0, 8, 0, large)}
    palette = (b"PLTE", bytes(768))
    made["169 MP of a palette"] = png(13_000, 13_000, 8, 3, large, palette)
    texts = {"zTXt": [(b"zTXt", text)], "iTXt": [(b"iTXt", b"Comment\0\1\0\0\0" + zeros(50 << 20))],
             "iCCP": [(b"iCCP", b"profile\0\0" + zeros(50 << 20))],
             "ten zTXt of 50 MB": [(b"zTXt", text)] * 10,
             "900 zTXt of 1 MB": [(b"zTXt", b"C\0\0" + zeros(1 << 20))] * 900,
             "60 zTXt of 1 MB": [(b"zTXt", b"C\0\0" + zeros((1 << 20) - 9))] * 60,
             "40,000 empty chunks": [(b"tEXt", b"a\0")] * 40_000,
             "animation of 60,000 frames": [(b"acTL", struct.pack(">II", 60_000, 0))]}
    for name, chunks in texts.items():
        made[name] = png(8, 8, 8, 0, small, *chunks)
    return {f"PNG, {name}": data for name, data in made.items()}


def gifs() -> dict[str, bytes]:
    """Many frames, large screens, frames outside of the screen."""
    small = saved(Image.new("L", (2, 2)), "GIF")
    frame = small[small.index(b",") : -1]
    start = small[: small.index(b",")]
    sized = lambda width, height: small[:6] + struct.pack("<HH", width, height) + small[10:]  # noqa: E731
    placed = small.index(b",")
    outside = small[: placed + 1] + struct.pack("<HHHH", 60_000, 60_000, 2, 2) + small[placed + 9 :]
    wide = small[: placed + 1] + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + small[placed + 9 :]
    loops = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0" * 40_000
    made = {"60,000 frames": start + frame * (LARGEST // (len(frame) + 1)) + b";",
            "65,535 x 65,535": sized(65_535, 65_535),
            "9,000 x 9,000": sized(9_000, 9_000), "a frame far outside": outside, "a frame of 60,000": wide,
            "40,000 extensions": start + loops + frame + b";", "no end": start + frame * 30_000}
    return {f"GIF, {name}": data for name, data in made.items()}


def webps() -> dict[str, bytes]:
    """A lossless picture of one colour needs no bits for its pixels, so any size can be claimed for it."""
    data = saved(Image.new("RGB", (16, 16), (3, 200, 90)), "WEBP", lossless=True)
    at = data.index(b"VP8L") + 9
    made = {}
    for width, height in ((16_383, 16_383), (16_383, 5_000), (9_000, 9_000), (4_200, 4_200)):
        bits = int.from_bytes(data[at : at + 4], "little") & ~0xFFFFFFF | width - 1 | (height - 1) << 14
        made[f"WebP, {width} x {height}"] = data[:at] + bits.to_bytes(4, "little") + data[at + 4 :]
    canvas = b"VP8X" + struct.pack("<IB3x", 10, 2) + (2**24 - 1).to_bytes(3, "little") * 2
    start = b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(data) - 12) + b"WEBP"
    made["WebP, a canvas of 2^48"] = start + canvas + data[12:]
    return made


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0, body: bytes = b"") -> bytes:
    """A TIFF with one directory at 8: entries (tag, type, count, value)."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + struct.pack("<I", following) + body


def tiffs() -> dict[str, bytes]:
    """Directories that lead back, counts without end, tiles and strips of zeros."""
    def plain(width: int, height: int, compression: int, length: int) -> list[tuple[int, int, int, int]]:
        start = 8 + 2 + 9 * 12 + 4
        return [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
                (273, 4, 1, start), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, length)]

    small, deflated = bytes(64), zeros(170 << 20)
    ok = plain(8, 8, 1, 64)
    made = {"a directory that follows itself": tiff(ok, 8, small), "a directory far behind": tiff(ok, 2**32 - 1, small),
            "169 MP deflated": tiff(plain(13_000, 13_000, 8, len(deflated)), 0, deflated),
            "80 MP deflated": tiff(plain(9_000, 8_900, 8, len(deflated)), 0, deflated),
            "80 MP not there": tiff(plain(9_000, 8_900, 1, 64), 0, small),
            "4 GiB of strips": tiff([*ok[:5], (273, 4, 2**32 - 1, 200), *ok[6:]], 0, small),
            "4 GiB of text": tiff([*ok, (270, 2, 2**32 - 1, 8)], 0, small),
            "25,000 entries": tiff([*ok, *((40_000 + i, 4, 1, 0) for i in range(25_000))], 0, small),
            "a size of 2^32": tiff(plain(2**32 - 1, 2**32 - 1, 1, 64), 0, small),
            "an EXIF directory that leads back": tiff([*ok, (34665, 4, 1, 8)], 0, small),
            "sub-directories that lead back": tiff([*ok, (330, 4, 1, 8)], 8, small)}
    made["8,000 directories"] = b"II*\0\x08\0\0\0" + b"".join(
        tiff(ok, 8 + 114 * (i + 1))[8:] for i in range(8_000)) + bytes(4)
    large = plain(9_000, 8_900, 5, 64)
    made["80 MP of LZW"] = tiff(large, 0, small)
    return {f"TIFF, {name}": data for name, data in made.items()}


def jpegs() -> dict[str, bytes]:
    """Large frames over few bytes, and a small progressive picture that is refined again and again."""
    data = saved(Image.fromarray(scene(64, 64, 0)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    made = {f"{width} x {height}": data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
            for width, height in ((65_500, 65_500), (13_000, 13_000), (9_000, 8_900), (65_500, 1_300))}
    progressive = saved(Image.fromarray(scene(640, 640, 0)).convert("L"), "JPEG", progressive=True, quality=1)
    cut = progressive.rindex(b"\xff\xda")
    last = progressive[cut:-2]
    made["thousands of scans"] = progressive[:cut] + last * ((LARGEST - len(progressive)) // len(last)) + b"\xff\xd9"
    made["20,000 comments"] = data[:2] + b"\xff\xfe\0\x04ab" * 100_000 + data[2:]
    return {f"JPEG, {name}": data for name, data in made.items()}


def others() -> dict[str, bytes]:
    """Formats that are not on the list of six, and run-length coded bitmaps."""
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    svg = f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a0 "a">{entities}]><svg>&a9;</svg>'.encode()
    fits = b"SIMPLE  =                    T".ljust(80) + b"NAXIS1  = 99999999".ljust(2800)
    head = lambda width, height, how: b"BM" + struct.pack(  # noqa: E731
        "<IHHIIiiHHIIiiII", 1078, 0, 0, 1078, 40, width, height, 1, 8, how, 0, 0, 0, 256, 0) + bytes(1024)
    return {
        "FITS": fits, "FITS, gzip": gzip.compress(fits + bytes(50 << 20)), "SVG, a thousand million laughs": svg,
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='1e9' height='1e9'/>",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n{} loop",
        "PDF": b"%PDF-1.7\n" + zeros(50 << 20),
        "JPEG 2000, tiles": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(500),
        "JPEG 2000, stream": b"\xff\x4f\xff\x51" + b"\xff" * 50,
        "AVIF": b"\0\0\0\x18ftypavif" + bytes(99), "zip": b"PK\x03\x04" + zeros(50 << 20),
        "icon": b"\0\0\1\0" + b"\xff" * 99,
        "PGM": b"P5 99999 99999 255\n", "Photoshop": b"8BPS\0\1" + b"\xff" * 50,
        "BMP, 169 MP": head(13_000, 13_000, 0), "BMP, 80 MP of runs": head(9_000, 8_900, 1) + b"\xff\0" * 2000,
        "BMP, 16 MP of runs": head(4_000, 4_000, 1) + b"\xff\0" * 60_000,
        "BMP, upside down": head(20_000, -20_000, 0), "zeros": bytes(LARGEST),
    }  # fmt: skip


def bombs() -> dict[str, bytes]:
    """All of them by name, without those that came out larger than 1 MB."""
    every = {**pngs(), **gifs(), **webps(), **tiffs(), **jpegs(), **others()}
    return {name: data for name, data in every.items() if len(data) <= LARGEST}


def memory(word: str) -> int:
    """A line of the process's own account, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(word)).split()[1])


def child(trials: int, place: str, capped: bool) -> None:
    """B3's process: prints [violations, counts]."""
    rules, violations, counts = ImageRules(), [], {"refused": 0, "read": 0, "slowest, ms": 0, "most, MiB": 0}
    every = list((bombs() if capped else {**pngs(), **webps()}).items())
    if not capped:  # the control
        rules, container.FREE = ImageRules(max_pixels=10**9), 1 << 40
        every = [(name, data) for name, data in every if name in ("PNG, 25 MP of RGB", "WebP, 4200 x 4200")]
    for number, (name, data) in enumerate(every[:trials]):
        file = Path(place) / f"{number}.png"
        file.write_bytes(data)
        seconds = 9.0
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        for _ in range(3):
            started = time.process_time()
            found = scan_one(file, rules)
            open_scaled(file, rules, lambda height, width: Needs(1))
            seconds = min(seconds, time.process_time() - started)
        taken = memory("VmHWM") - before
        counts["refused" if found.error else "read"] += 1
        counts["slowest, ms"] = max(counts["slowest, ms"], round(seconds * 1000))
        counts["most, MiB"] = max(counts["most, MiB"], taken >> 20)
        if seconds > SECONDS or taken > MEMORY:
            violations.append(f"{name}: {'refused' if found.error else 'read'} after {1000 * seconds:.0f} ms, with "
                              f"{taken / 2**20:.0f} MiB")
        if found.facts is not None and found.facts.width * found.facts.height > 1 << 20:
            violations.append(f"{name}: read as {found.facts.width} x {found.facts.height}")
    print(json.dumps([violations, {**counts, "bombs": min(trials, len(every))}]))


def contained(trials: int, folder: Path, capped: bool = True) -> Outcome:
    """B3."""
    found, failed = called(f"faults.bombs:child({trials}, {str(folder)!r}, {capped})", folder, 600)
    if failed:
        return Outcome(1, (failed,))
    violations, counts = found
    told = "; ".join(f"{name}: {count}" for name, count in counts.items() if name != "bombs")
    return Outcome(counts["bombs"], tuple(violations),
                   told + "; read are those with a small first frame; formats allowed: six")


GOALS = (
    Goal("B3", "bombs of at most 1 MB", "refused, or a small first frame read, in 50 ms of processor time and 64 MiB",
         60, 60, contained,
         (Control("no caps", lambda folder: contained(60, folder, capped=False)),),
         needs=lambda: "" if Path("/proc/self/clear_refs").exists() else "needs Linux's account of memory"),
)
