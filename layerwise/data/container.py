"""What a picture's bytes are, before any decoder sees them: the format by content, and whether the container is whole.

Pillow accepts several kinds of damage silently: it does not check the checksums of PNG's pixel chunks, and fills in a
JPEG whose end is missing. The checks here cost far less than the decoding.
"""

from __future__ import annotations

import struct
import zlib

SUPPORTED = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF")
EXTENSIONS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".apng": "PNG", ".webp": "WebP",
    ".bmp": "BMP", ".dib": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF",
}  # fmt: skip
SNIFFED = 64  # bytes that `identify` needs
PARTS, SCANS = 1_000, 100  # segments, chunks, entries; scans of one JPEG: more are there to cost time
RUNS = 1 << 16  # bytes of a BMP of run lengths, for which the decoder has a step of Python's each
_TEXTS_OF_PNG = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
FREE, RATIO = 1 << 24, 250  # unpacked bytes that any file may have, and how many times its own it may have above that

_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_TEXTS = (
    (b"version https://git-lfs", "a Git-LFS pointer, not the picture: run `git lfs pull`"),
    (b"<!doctype html", "an HTML page, not a picture: the download went wrong"),
    (b"<html", "an HTML page, not a picture: the download went wrong"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG file"),
)
_OTHERS = (
    (b"%PDF", "a PDF"), (b"%!PS", "PostScript"), (b"PK\x03\x04", "a ZIP archive"), (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop file"), (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"SIMPLE  =", "a FITS file"), (b"\0\0\1\0", "an icon"), (b"P5", "a PGM picture"), (b"P6", "a PPM picture"),
    (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"\x93NUMPY", "a NumPy array"),
)  # fmt: skip


def identify(data: bytes) -> str | None:
    """The supported format that the first bytes announce, or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data[:2] == b"BM" and len(data) >= 18 and struct.unpack_from("<I", data, 14)[0] in _BMP_HEADERS:
        return "BMP"
    return None


def describe(data: bytes) -> str:
    """What unsupported bytes are, in words: "an HTML page, not a picture", "HEIC", "of an unknown format"."""
    if not data:
        return "empty (0 bytes)"
    if not data.strip(b"\0"):
        return "nothing but zero bytes: an interrupted copy or download"
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, words in _TEXTS:
        if head.startswith(start):
            return words
    for start, words in _OTHERS:
        if data.startswith(start):
            return words
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            return "HEIC"
        return "AVIF" if brand in (b"avif", b"avis") else "a video"
    return "of an unknown format"


def damage(data: bytes, container: str) -> str:
    """Why the container is not whole ("truncated: ..."), or "" where nothing is found.

    PNG: every chunk's checksum, and the closing chunk. JPEG: the end marker behind the start of the pixels. WebP and
    BMP: the length that the header states. GIF and TIFF have nothing to check short of decoding. In all: not more
    parts than a picture has, which would take a decoder's time.
    """
    if container == "PNG":
        return _png_damage(data)
    if container == "TIFF":
        return _tiff_damage(data)
    if container == "GIF":
        return _gif_damage(data)
    if container == "JPEG":
        start = _jpeg_scan(data)
        if start == -2:
            return f"no picture: more than {PARTS:,} segments before its pixels"
        if start >= 0 and too_many_scans(data):
            return f"no picture: more than {SCANS} scans"
        return "" if 0 <= start < data.find(b"\xff\xd9", start) else "truncated: the JPEG has no end marker"
    stated = 0
    if container == "WebP":
        stated = 8 + struct.unpack_from("<I", data, 4)[0] if len(data) >= 8 else 12
    if container == "BMP":
        stated = struct.unpack_from("<I", data, 2)[0]
        if len(data) > RUNS and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
            return f"a BMP of run lengths above {RUNS:,} bytes, which takes too long to decode: save it as PNG"
    return f"truncated at {len(data):,} of {stated:,} bytes" if len(data) < stated else ""


def is_bomb(unpacked: float, length: int) -> bool:
    """Whether a file of `length` bytes claims to hold more than a picture does: photographs unpack to 5 to 100 times.

    Such a file costs its reader seconds and hundreds of megabytes, and what it holds is blank or not there at all.
    """
    return unpacked > FREE and unpacked > RATIO * length


def _jpeg_scan(data: bytes) -> int:
    """Where the JPEG's first scan starts, or -1, or -2; thumbnails inside of segments are passed over."""
    position = 2
    for _ in range(PARTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            return -1
        if data[position + 1] == 0xDA:
            return position
        filler = data[position + 1] == 0xFF
        position += 1 if filler else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return -2


def too_many_scans(jpeg: bytes) -> bool:
    """Whether a JPEG has so many scans that each refines what hardly anybody sees; a marker can't be in the pixels."""
    return jpeg.count(b"\xff\xda") > SCANS


def _tiff_damage(data: bytes) -> str:
    order, big = ("<" if data[:2] == b"II" else ">"), 43 in data[2:4]
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    except (struct.error, OverflowError):
        return f"truncated at {len(data):,} bytes: the TIFF has no directory"
    return f"no picture: a directory of {count:,} entries" if count > PARTS else ""


def _gif_damage(data: bytes) -> str:
    """More blocks than a comment needs before the first frame; what else is wrong there the decoder says."""
    position = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 128 else 0)
    for _ in range(5 * PARTS):
        block = data[position : position + 1]
        if block == b"!":
            position += 2
        elif not block or block in b",;":
            return ""
        else:
            position += 1
            continue
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    return f"no picture: more than {5 * PARTS:,} blocks before its first frame"


def _png_damage(data: bytes) -> str:
    position, others = 8, 0
    view = memoryview(data)
    while True:
        if position + 12 > len(data):
            return f"truncated at {len(data):,} bytes: the PNG has no end chunk"
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            return f"truncated at {len(data):,} of at least {end:,} bytes"
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return f"damaged: the checksum of the PNG's chunk {kind.decode('latin-1')!r} does not agree"
        if kind == b"IEND":
            return ""
        others += kind != b"IDAT"
        if others > PARTS:
            return f"no picture: more than {PARTS:,} chunks beside its pixels"
        position = end


def without_texts(png: bytes) -> bytes:
    """The PNG, which is whole, without texts and colour profile: no pixel needs them, and they may unpack to much."""
    if not any(kind in png for kind in _TEXTS_OF_PNG):
        return png
    kept, position = [png[:8]], 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if kind not in _TEXTS_OF_PNG:
            kept.append(png[position : position + 12 + length])
        position = len(png) if kind == b"IEND" else position + 12 + length
    return b"".join(kept)


def png_header(data: bytes) -> tuple[int, int]:
    """(bits per sample, colour type) of a PNG."""
    return data[24], data[25]


def orientation(exif: bytes) -> tuple[int, bool]:
    """(EXIF orientation 1 to 8, whether the EXIF block can be read); 1 where there is none or it makes no sense."""
    if exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif:
        return 1, True
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, offset)
        for entry in range(min(count, 512)):
            tag, kind = struct.unpack_from(order + "HH", exif, offset + 2 + 12 * entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, offset + 10 + 12 * entry)
                return (value, True) if 1 <= value <= 8 else (1, value == 0)
    except (KeyError, struct.error):
        return 1, False
    return 1, True


def without_exif(jpeg: bytes) -> bytes:
    """The JPEG without its EXIF segments (APP1), for pictures whose EXIF block is damaged but whose pixels are not."""
    kept, position = [jpeg[:2]], 2
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF and jpeg[position + 1] != 0xDA:
        end = position + 2 + struct.unpack_from(">H", jpeg, position + 2)[0]
        if jpeg[position + 1] != 0xE1:
            kept.append(jpeg[position:end])
        position = end
    return b"".join([*kept, jpeg[position:]])
