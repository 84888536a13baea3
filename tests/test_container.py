"""What is found in a picture's bytes before they are decoded: the limits to the byte, and the rarer containers."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from layerwise.data import ImageRules, container, open_image
from layerwise.errors import InputError

COLOUR = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def exif(order: str, kind: int, value: int, before: int = 0) -> bytes:
    """An EXIF block whose orientation is of this kind (3: 16 bits, 4: 32), behind some other entries."""
    held = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    entries = struct.pack(order + "HHI", 0x0100, 4, 1) + bytes(4)
    wanted = struct.pack(order + "HHI", 0x0112, kind, 1) + held
    return ((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, before + 1)
            + entries * before + wanted + bytes(4))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("before", [0, 1, 511])
def test_the_orientation_is_read_in_both_orders_and_sizes(order: str, kind: int, before: int) -> None:
    for value in range(1, 9):
        assert container.orientation(exif(order, kind, value, before)) == (value, True)
    assert container.orientation(b"Exif\0\0" + exif(order, kind, 6, before)) == (6, True)
    assert container.orientation(exif(order, kind, 0, before)) == (1, True)
    assert container.orientation(exif(order, kind, 9, before)) == (1, False)


def test_where_there_is_no_orientation_it_is_upright() -> None:
    assert container.orientation(b"") == container.orientation(b"Exif\0\0") == (1, True)
    assert container.orientation(b"II*\0" + struct.pack("<IH", 8, 0)) == (1, True)
    assert container.orientation(exif("<", 3, 6, 512)) == (1, True)  # behind 512 entries it is not looked for
    assert container.orientation(b"XX*\0\x08\0\0\0\0\0") == (1, False)
    assert container.orientation(exif("<", 3, 6)[:16]) == (1, False)


def test_what_a_file_may_unpack_to_is_bounded_to_the_byte() -> None:
    assert not container.is_bomb(1 << 24, 1)
    assert container.is_bomb((1 << 24) + 1, 1)
    assert not container.is_bomb(250 * 100_000, 100_000)
    assert container.is_bomb(250 * 100_000 + 1, 100_000)


@pytest.mark.parametrize(("data", "words"), [
    (b"\xef\xbb\xbf \t\r\n<!DOCTYPE HTML>", "an HTML page, not a picture: the download went wrong"),
    (b"\n<html>", "an HTML page, not a picture: the download went wrong"),
    (b"<?xml version='1.0'?>", "an XML or SVG file"),
    (b"%!PS-Adobe", "PostScript"), (b"PK\3\4....", "a ZIP archive"), (b"\x93NUMPY\1", "a NumPy array"),
    (b"\0\0\0\x18ftypheix", "HEIC"), (b"\0\0\0\x18ftypavis", "AVIF"), (b"\0\0\0\x18ftypisom", "a video"),
    (b"a text", "of an unknown format"),
])
def test_what_is_no_picture_is_called_by_its_name(data: bytes, words: str) -> None:
    assert container.identify(data) is None
    assert container.describe(data) == words


@pytest.mark.parametrize(("form", "name"), [("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "WebP"), ("BMP", "BMP"),
                                            ("TIFF", "TIFF"), ("GIF", "GIF")])
def test_each_format_is_told_by_its_first_bytes(form: str, name: str) -> None:
    data = encoded(Image.fromarray(COLOUR), form)
    assert container.identify(data[: container.SNIFFED]) == name
    assert container.damage(data, name) == ""
    assert container.identify(b"RIFF\0\0\0\0WAVE") is None
    assert container.identify(b"BM" + bytes(15)) is None
    assert container.identify(b"BM" + bytes(12) + struct.pack("<I", 41)) is None


def test_a_jpegs_markers_may_have_fillers() -> None:
    data = encoded(Image.new("L", (16, 8), 99), "JPEG")
    pixels = open_image(data, ImageRules())[0]
    for count in (1, 2, 5):
        filled = data[:2] + b"\xff" * count + data[2:]
        assert container.damage(filled, "JPEG") == ""
        np.testing.assert_array_equal(open_image(filled, ImageRules())[0], pixels)


def test_a_jpeg_whose_segments_lead_nowhere_is_truncated() -> None:
    data = encoded(Image.new("L", (16, 8), 99), "JPEG")
    assert data[-2:] == b"\xff\xd9"
    assert "no end marker" in container.damage(data[:4] + b"\xff\xf0" + data[6:], "JPEG")
    assert "no end marker" in container.damage(b"\xff\xd9" + data[2:-2], "JPEG")  # one before the pixels is none


@pytest.mark.parametrize("count", [1_000, 1_001])
def test_the_parts_of_a_picture_are_counted_exactly(count: int) -> None:
    image = Image.fromarray(COLOUR)
    jpeg, png, gif, tiff = (encoded(image, form) for form in ("JPEG", "PNG", "GIF", "TIFF"))
    segments = sum(jpeg[: jpeg.index(b"\xff\xda")].count(bytes((0xFF, kind))) for kind in (0xE0, 0xDB, 0xC0, 0xC4))
    many = jpeg[:2] + b"\xff\xfe\0\2" * (count - 1 - segments) + jpeg[2:]  # and the first scan is the last of them
    assert ("segments" in container.damage(many, "JPEG")) == (count > 1_000)
    chunk = b"\0\0\0\0tEXt" + zlib.crc32(b"tEXt").to_bytes(4, "big")
    many = png[:33] + chunk * (count - 1) + png[33:]
    assert ("chunks" in container.damage(many, "PNG")) == (count > 1_000)
    at = gif.index(b",")
    many = gif[:at] + b"!\xfe\0" * (count * 5 - 1) + gif[at:]
    assert ("blocks" in container.damage(many, "GIF")) == (count > 1_000)
    assert ("entries" in container.damage(tiff[:8] + struct.pack("<H", count) + tiff[10:], "TIFF")) == (count > 1_000)
    scans = jpeg[:-2] + b"\xff\xda" * (count // 10 - 1 + (count > 1_000)) + jpeg[-2:]
    assert ("scans" in container.damage(scans, "JPEG")) == (count > 1_000)


def test_a_gif_of_a_local_palette_and_of_many_blocks() -> None:
    gif = encoded(Image.fromarray(COLOUR).quantize(4), "GIF")
    flags = gif[10]
    assert flags & 128
    length = 3 << (flags & 7) + 1
    at = gif.index(b",", 13 + length)
    local = (gif[:10] + bytes((flags & 127,)) + gif[11:13] + gif[13 + length : at + 9] + bytes((0x80 | flags & 7,))
             + gif[13 : 13 + length] + gif[at + 10 :])
    assert container.damage(local, "GIF") == ""
    np.testing.assert_array_equal(open_image(local, ImageRules())[0], open_image(gif, ImageRules())[0])
    many = local[:13] + b"!\xfe\x02ab\x01c\0" * 5_000 + local[13:]
    assert "blocks" in container.damage(many, "GIF")
    assert container.damage(local[:13] + b"!\xfe\x02ab\x01c\0" * 4_999 + local[13:], "GIF") == ""


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_either_size_and_order_has_its_directory_looked_at(big: bool) -> None:
    data = encoded(Image.fromarray(COLOUR), "TIFF", big_tiff=big)
    np.testing.assert_array_equal(open_image(data, ImageRules())[0], COLOUR)
    for order, magic in (("<", b"II+\0" if big else b"II*\0"), (">", b"MM\0+" if big else b"MM\0*")):
        head = struct.pack(order + "4sHHQ", magic, 8, 0, 16) if big else struct.pack(order + "4sI", magic, 8)
        assert container.identify(head) == "TIFF"
        for entries, found in ((1_000, ""), (1_001, "no picture: a directory of 1,001 entries")):
            assert container.damage(head + struct.pack(order + ("Q" if big else "H"), entries), "TIFF") == found
        assert "has no directory" in container.damage(head + b"\0", "TIFF")


@pytest.mark.parametrize("kind", [1, 2])
def test_a_bmp_of_run_lengths_may_have_so_many_bytes(kind: int) -> None:
    data = encoded(Image.fromarray(COLOUR), "BMP")
    runs = data[:30] + bytes((kind,)) + data[31:]
    assert container.damage(runs + bytes(65_536 - len(runs)), "BMP") == ""
    assert "run lengths above 65,536 bytes" in container.damage(runs + bytes(65_537 - len(runs)), "BMP")
    assert container.damage(data + bytes(70_000), "BMP") == ""


def test_a_length_is_stated_by_webp_and_bmp() -> None:
    for form, name in (("WEBP", "WebP"), ("BMP", "BMP")):
        data = encoded(Image.fromarray(COLOUR), form)
        assert container.damage(data, name) == ""
        assert container.damage(data[:-1], name) == f"truncated at {len(data) - 1} of {len(data)} bytes"
    assert container.damage(b"RIFF", "WebP") == "truncated at 4 of 12 bytes"


def test_texts_are_taken_out_of_a_png_and_nothing_else() -> None:
    told = PngInfo()
    told.add_text("a", "b")
    told.add_text("c", "d" * 100, zip=True)
    told.add_itxt("e", "f")
    image = Image.fromarray(COLOUR)
    plain, texts = encoded(image, "PNG"), encoded(image, "PNG", pnginfo=told)
    assert container.without_texts(plain) is plain
    assert len(texts) > len(plain)
    assert container.without_texts(texts) == plain
    assert container.without_texts(texts + b"behind the end tEXt") == plain


def test_only_exif_is_taken_out_of_a_jpeg() -> None:
    image = Image.new("L", (16, 8), 99)
    plain = encoded(image, "JPEG", comment=b"kept")
    with_it = encoded(image, "JPEG", comment=b"kept", exif=b"Exif\0\0" + exif("<", 3, 6))
    assert len(with_it) > len(plain)
    assert container.without_exif(with_it) == plain
    assert container.without_exif(plain) == plain


def test_too_many_pixels_of_a_file_are_refused_before_and_behind_the_bound() -> None:
    assert ImageRules(max_pixels=1, max_bytes=1)
    with pytest.raises(InputError, match="max_bytes=0"):
        ImageRules(max_bytes=0)


def test_what_is_cut_off_anywhere_is_truncated_and_an_end_inside_of_a_segment_is_none() -> None:
    data = encoded(Image.new("L", (16, 8), 99), "JPEG")
    for length in range(3, 60):
        assert "no end marker" in container.damage(data[:length], "JPEG")
    assert container.damage(data[:2] + b"\xff\xfe\0\4\xff\xd9" + data[2:], "JPEG") == ""  # as in a thumbnail
    gif = encoded(Image.fromarray(COLOUR), "GIF")
    at = gif.index(b",")
    assert "blocks" in container.damage(gif[:at] + b"\0" + b"!\xfe\0" * 5_000 + gif[at:], "GIF")


def test_the_smallest_picture_opens_and_so_do_16_bits_below_the_bound() -> None:
    assert open_image(encoded(Image.new("L", (1, 1), 7), "PNG"), ImageRules())[0].tolist() == [[[7]]]
    assert open_image(encoded(Image.new("I;16", (2500, 2500)), "PNG"), ImageRules())[0].shape == (2500, 2500, 1)


def test_what_a_decoder_says_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("  odd\nmore")

    monkeypatch.setattr("layerwise.data.images._open", fail)
    with pytest.raises(InputError, match=r"the picture can't be decoded as PNG: odd$"):
        open_image(encoded(Image.fromarray(COLOUR), "PNG"), ImageRules())
