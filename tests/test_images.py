"""One function opens every picture: value-exact fixtures for every mode, format and EXIF orientation; refusals."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from layerwise.data import ImageRules, container, open_image
from layerwise.errors import InputError, MachineError

RULES = ImageRules()
GREY = np.array([[0, 10, 200], [255, 128, 77]], dtype=np.uint8)
COLOUR = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, for what Pillow can't write (16-bit colour, transparent colours)."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    middle = b"".join(chunk(*one) for one in chunks)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def sixteen(values: list[list[int]], mode: str) -> Image.Image:
    array = np.array(values, dtype=">u2" if mode == "I;16B" else "<u2")
    return Image.frombytes(mode, (array.shape[1], array.shape[0]), array.tobytes())


def tiff_of_12_bits(row: bytes) -> bytes:
    """One row of grey, two pixels in three bytes."""
    entries = [(0x100, len(row) * 2 // 3), (0x101, 1), (0x102, 12), (0x103, 1), (0x106, 1), (0x111, 122), (0x115, 1),
               (0x116, 1), (0x117, len(row))]
    return (b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in
            entries) + bytes(4) + row)  # fmt: skip


def alpha(values: NDArray[np.uint8], opacity: int) -> NDArray[np.uint8]:
    """On white, by exact fractions."""
    return np.array([round((int(v) * opacity + 255 * (255 - opacity)) / 255) for v in values.ravel()],
                    dtype=np.uint8).reshape(values.shape)  # fmt: skip


def palette(transparent: bool) -> bytes:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return encoded(image, "PNG", **({"transparency": b"\xff\x00\x80"} if transparent else {}))


PALETTE = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
SIXTEEN = [[0, 128, 129], [257 * 7, 40000, 65535]]
SIXTEEN_8 = np.array([[0, 0, 1], [7, round(40000 / 257), 255]], dtype=np.uint8)
PA = Image.new("PA", (2, 1))
CASES = [
    ("grey png", encoded(Image.fromarray(GREY), "PNG"), GREY[..., None], "L", ""),
    ("grey tiff", encoded(Image.fromarray(GREY), "TIFF"), GREY[..., None], "L", ""),
    ("grey bmp", encoded(Image.fromarray(GREY), "BMP"), GREY[..., None], "L", ""),
    ("rgb png", encoded(Image.fromarray(COLOUR), "PNG"), COLOUR, "RGB", ""),
    ("rgb bmp", encoded(Image.fromarray(COLOUR), "BMP"), COLOUR, "RGB", ""),
    ("rgb tiff lzw", encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"), COLOUR, "RGB", ""),
    ("rgb webp", encoded(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR, "RGB", ""),
    ("1 bit png", encoded(Image.fromarray(GREY > 100), "PNG"), (GREY > 100)[..., None] * np.uint8(255), "1", ""),
    ("1 bit tiff", encoded(Image.fromarray(GREY > 100), "TIFF"), (GREY > 100)[..., None] * np.uint8(255), "1", ""),
    ("16 bit png", encoded(sixteen(SIXTEEN, "I;16"), "PNG"), SIXTEEN_8[..., None], "I;16", "16-bit scaled"),
    ("16 bit tiff", encoded(sixteen(SIXTEEN, "I;16"), "TIFF"), SIXTEEN_8[..., None], "I;16", "16-bit scaled"),
    ("16 bit big-endian", encoded(sixteen(SIXTEEN, "I;16B"), "TIFF"), SIXTEEN_8[..., None], "I;16B", "16-bit scaled"),
    ("32 bit tiff", encoded(Image.fromarray(np.array(SIXTEEN, dtype=np.int32)), "TIFF"), SIXTEEN_8[..., None], "I",
     "16-bit scaled"),
    ("float tiff", encoded(Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)), "TIFF"),
     np.array([[[0], [128], [255]]], dtype=np.uint8), "F", "float 0..1 scaled"),
    ("16 bit rgb png", png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 257, 65535, 1000, 40000, 32896)),
     np.array([[[0, 1, 255], [3, 156, 128]]], dtype=np.uint8), "RGB;16", "high byte"),
    ("16 bit rgb alpha", png(2, 1, 16, 6, b"\0" + struct.pack(">8H", 25700, 257, 65535, 65535, 25700, 257, 65535, 0)),
     np.array([[[100, 1, 255], [255, 255, 255]]], dtype=np.uint8), "RGBA;16", "alpha flattened on white"),
    ("16 bit grey alpha", png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 25700, 65535, 25700, 0)),
     np.array([[[100], [255]]], dtype=np.uint8), "LA;16", "alpha flattened on white"),
    ("palette", palette(False), PALETTE, "P", "palette to RGB"),
    ("palette transparent", palette(True), np.stack([PALETTE[:, 0], np.full((1, 3), 255, np.uint8),
     alpha(PALETTE[:, 2], 128)], axis=1), "P", "palette to RGB; alpha flattened on white"),
    ("rgba", encoded(Image.fromarray(np.dstack([COLOUR, np.full((2, 3), 100, np.uint8)])), "PNG"), alpha(COLOUR, 100),
     "RGBA", "alpha flattened on white"),
    ("grey alpha", encoded(Image.merge("LA", (Image.fromarray(GREY), Image.new("L", (3, 2), 60))), "PNG"),
     alpha(GREY, 60)[..., None], "LA", "alpha flattened on white"),
    ("palette alpha", encoded(PA, "TIFF"), np.full((1, 2, 3), 255, np.uint8), "PA", "palette to RGB; alpha flattened"),
    ("grey colour key", png(3, 1, 8, 0, b"\0\x05\x06\x07", (b"tRNS", b"\0\x06")),
     np.array([[[5], [255], [7]]], dtype=np.uint8), "L", "alpha flattened on white"),
    ("2-bit grey colour key", png(4, 1, 2, 0, b"\0\x1b", (b"tRNS", b"\0\x01")),
     np.array([[[0], [255], [170], [255]]], dtype=np.uint8), "L", "alpha flattened on white"),
    ("rgb colour key", png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", (b"tRNS", b"\0\1\0\2\0\3")),
     np.array([[[255, 255, 255], [4, 5, 6]]], dtype=np.uint8), "RGB", "alpha flattened on white"),
    ("16 bit grey colour key", png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 1000, 2000, 65535), (b"tRNS", b"\7\xd0")),
     np.array([[[4], [255], [255]]], dtype=np.uint8), "I;16", "alpha flattened on white; 16-bit scaled"),
    ("16 bit rgb colour key", png(2, 1, 16, 2, b"\0\1\0\2\0\3\0\4\0\5\0\6\0", (b"tRNS", b"\1\0\2\0\3\0")),
     np.array([[[255, 255, 255], [4, 5, 6]]], dtype=np.uint8), "RGB;16", "alpha flattened on white"),
    ("12 bit tiff", tiff_of_12_bits(b"\0\x0f\xff\x80\x00\x09"),
     np.array([[[0], [255], [128], [1]]], dtype=np.uint8), "I;16", "12-bit scaled to 8 bits"),
    ("cmyk tiff", encoded(Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "TIFF"),
     np.array([[[255, 0, 0]] * 2], dtype=np.uint8), "CMYK", "CMYK to RGB"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected", "mode", "conversion"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_each_mode_exactly(data: bytes, expected: NDArray[np.uint8], mode: str, conversion: str) -> None:
    pixels, facts = open_image(data, RULES)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert facts.mode == mode
    assert conversion in facts.conversion
    assert bool(facts.conversion) == bool(conversion)
    assert (facts.height, facts.width, facts.channels) == pixels.shape


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_formats_keep_colours(form: str) -> None:
    pixels, facts = open_image(encoded(Image.new("RGB", (32, 24), (200, 40, 90)), form, quality=95), RULES)
    assert pixels.shape == (24, 32, 3)
    assert facts.format == ("WebP" if form == "WEBP" else form)
    assert np.abs(pixels.astype(int) - (200, 40, 90)).max() <= 4


def test_grey_jpeg_and_gif_and_adobe_cmyk() -> None:
    assert open_image(encoded(Image.new("L", (8, 8), 90), "JPEG"), RULES)[0].shape == (8, 8, 1)
    pixels, facts = open_image(encoded(Image.new("RGB", (8, 8), (255, 0, 0)), "GIF"), RULES)
    np.testing.assert_array_equal(pixels, np.full((8, 8, 3), (255, 0, 0), dtype=np.uint8))
    assert facts.format == "GIF"
    cmyk = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)  # Pillow writes it as Adobe does
    assert b"Adobe" in cmyk
    pixels, facts = open_image(cmyk, RULES)
    assert facts.mode == "CMYK"
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4  # not inverted: that would be cyan


def test_first_of_several_frames() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    for form in ("GIF", "TIFF", "PNG", "WEBP"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        pixels, facts = open_image(data, RULES)
        assert facts.several_frames, form
        assert "first of several frames" in facts.conversion
        assert pixels[0, 0, 0] > 240
        assert pixels[0, 0, 1] < 10
    assert not open_image(encoded(frames[0], "GIF"), RULES)[1].several_frames


UPRIGHT = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
TURNS = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
         6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1)}  # fmt: skip
KINDS = {
    "L": (lambda a: Image.fromarray(a), lambda a: a[..., None]),
    "RGB": (lambda a: Image.fromarray(np.dstack([a, a // 2, 255 - a])), lambda a: np.dstack([a, a // 2, 255 - a])),
    "I;16": (lambda a: Image.fromarray(a.astype(np.uint16) * 257), lambda a: a[..., None]),
    "LA": (lambda a: Image.fromarray(a).convert("LA"), lambda a: a[..., None]),
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "kind"), [*((form, kind) for form in ("PNG", "TIFF") for kind in KINDS), ("WEBP", "RGB")]
)
def test_each_orientation_exactly(orientation: int, kind: str, form: str) -> None:
    make, expected = KINDS[kind]
    stored = np.ascontiguousarray(TURNS[orientation](UPRIGHT))  # what a turned camera wrote
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(make(stored), form, exif=exif(orientation), **options)
    pixels, facts = open_image(data, RULES)
    np.testing.assert_array_equal(pixels, expected(UPRIGHT))
    assert facts.orientation == orientation
    assert facts.rotated == (orientation != 1)
    ignored, _ = open_image(data, ImageRules(exif="ignore"))
    np.testing.assert_array_equal(ignored, expected(stored))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg(orientation: int) -> None:
    upright = np.kron(UPRIGHT, np.ones((16, 16), dtype=np.uint8))
    stored = np.ascontiguousarray(TURNS[orientation](upright))
    pixels, _ = open_image(encoded(Image.fromarray(stored), "JPEG", quality=98, exif=exif(orientation)), RULES)
    assert pixels.shape == (48, 64, 1)
    assert np.abs(pixels[..., 0].astype(int) - upright).max() <= 8


def test_damaged_exif_is_said_and_the_picture_read() -> None:
    good = encoded(Image.new("L", (16, 8), 99), "JPEG", exif=exif(6))
    at = good.index(b"Exif\0\0")
    bad = good[: at + 6] + b"MM\0*\0\0\xff\0" + good[at + 14 :]
    pixels, facts = open_image(bad, RULES)
    assert pixels.shape == (8, 16, 1)
    assert "EXIF is damaged" in facts.conversion
    assert open_image(good, RULES)[0].shape == (16, 8, 1)
    assert container.orientation(b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0") == (1, False)


def test_an_orientation_that_there_is_not_is_upright_and_a_grey_gif_has_a_transparent_level() -> None:
    pixels, facts = open_image(encoded(Image.fromarray(GREY), "TIFF", exif=exif(9)), RULES)
    assert (pixels[..., 0].tolist(), facts.orientation) == (GREY.tolist(), 1)
    pixels, facts = open_image(encoded(Image.fromarray(GREY), "GIF", transparency=10, optimize=False), RULES)
    assert (facts.mode, facts.conversion) == ("L", "alpha flattened on white")
    assert pixels[..., 0].tolist() == np.where(GREY == 10, 255, GREY).tolist()


def test_content_decides_over_the_name(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(encoded(Image.fromarray(GREY), "PNG"))
    pixels, facts = open_image(file, RULES)
    np.testing.assert_array_equal(pixels[..., 0], GREY)
    assert (facts.format, facts.misnamed) == ("PNG", ".jpg")
    file = file.rename(tmp_path / "picture.png")
    assert open_image(file, RULES)[1].misnamed == ""


REFUSED = [
    (b"", "is empty \\(0 bytes\\)"),
    (bytes(4096), "nothing but zero bytes"),
    (b"<!DOCTYPE html><html>Not found</html>", "is an HTML page, not a picture"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git-LFS pointer.*git lfs pull"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    (b"%PDF-1.7", "is a PDF"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "is HEIC; supported are JPEG, PNG, WebP, BMP, TIFF, GIF"),
    (b"\0\0\0\x18ftypavif\0\0\0\0", "is AVIF"),
    (b"hello", "of an unknown format"),
    (b"\xff\xd8\xff\xe0 what", "truncated: the JPEG has no end marker"),
    (b"BM" + bytes(12) + struct.pack("<I", 40) + bytes(8), "can't be decoded as BMP"),
    (b"BM" + struct.pack("<I", 900) + bytes(8) + struct.pack("<I", 40) + bytes(8), "truncated at 26 of 900 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), REFUSED)
def test_refused_by_content(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jpg"
    file.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        open_image(file, RULES)
    assert str(file) in str(caught.value)


def noisy(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), form)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_truncation_is_refused(form: str) -> None:
    data = noisy(form)
    open_image(data, RULES)  # the control: the whole file opens
    lost = 16 if form in ("TIFF", "GIF") else 1  # the last bytes of these are no pixels
    for length in {*range(1, len(data) - lost, max(1, len(data) // 60)), len(data) - lost}:
        with pytest.raises(InputError):
            open_image(data[:length], RULES)


def test_every_flipped_bit_of_a_png_is_found() -> None:
    data = bytearray(encoded(Image.fromarray(COLOUR), "PNG"))
    for position in range(8, len(data)):
        data[position] ^= 4
        with pytest.raises(InputError):
            open_image(bytes(data), RULES)
        data[position] ^= 4


def test_pixel_cap_comes_before_decoding() -> None:
    bomb = png(60_000, 60_000, 8, 0, b"")
    with pytest.raises(
        InputError, match=r"has 60,000 x 60,000 = 3,600,000,000 pixels; the limit is 89,478,485"
    ) as caught:
        open_image(bomb, RULES)
    assert "--set max_pixels=3600000000" in str(caught.value)
    data = encoded(Image.fromarray(GREY), "PNG")
    with pytest.raises(InputError, match="has 3 x 2 = 6 pixels; the limit is 5"):
        open_image(data, ImageRules(max_pixels=5))
    assert open_image(data, ImageRules(max_pixels=6))[0].shape == (2, 3, 1)


def test_a_small_file_does_not_unpack_without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    blank = encoded(Image.new("L", (6000, 5000)), "PNG")
    with pytest.raises(InputError, match=r"bytes that would unpack to 30,000,000; the limit is 250 times"):
        open_image(blank, RULES)
    assert open_image(encoded(Image.new("1", (6000, 5000)), "PNG"), RULES)[0].shape == (5000, 6000, 1)  # a blank scan
    assert open_image(encoded(Image.new("L", (4000, 4000)), "PNG"), RULES)[0].shape == (4000, 4000, 1)
    monkeypatch.setattr(container, "RATIO", 10_000)  # the control
    assert open_image(blank, RULES)[0].shape == (5000, 6000, 1)


def test_a_tiff_whose_rows_are_not_all_there_is_refused() -> None:
    data = encoded(Image.fromarray(COLOUR), "TIFF")
    at = data.index(struct.pack("<HHI", 0x0101, 4, 1)) + 8 if struct.pack("<HHI", 0x0101, 4, 1) in data else (
        data.index(struct.pack("<HHI", 0x0101, 3, 1)) + 8)
    with pytest.raises(InputError, match="rows of the TIFF have no strip"):
        open_image(data[:at] + struct.pack("<H", 300) + data[at + 2 :], RULES)


@pytest.mark.parametrize(("form", "plant", "message"), [
    ("JPEG", lambda data: data[:2] + b"\xff\xfe\0\x04ab" * 1_001 + data[2:], "more than 1,000 segments"),
    ("JPEG", lambda data: data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 101 + data[-2:], "more than 100 scans"),
    ("PNG", lambda data: data[:33] + (b"\0\0\0\0tEXt" + zlib.crc32(b"tEXt").to_bytes(4, "big")) * 1_001 + data[33:],
     "more than 1,000 chunks"),
    ("GIF", lambda data: data[: data.index(b",")] + b"!\xfe\x01a\0" * 5_001 + data[data.index(b",") :],
     "more than 5,000 blocks before its first frame"),
    ("TIFF", lambda data: data[:8] + b"\xff\xff" + data[10:], "a directory of 65,535 entries"),
    ("TIFF", lambda data: data[:7], "the TIFF has no directory"),
    ("BMP", lambda data: data[:30] + b"\1" + data[31:] + bytes(70_000), "a BMP of run lengths above 65,536 bytes"),
])
def test_a_picture_of_too_many_parts_is_refused(form: str, plant: Callable[[bytes], bytes], message: str) -> None:
    data = encoded(Image.fromarray(COLOUR), form)
    open_image(data, RULES)  # the control
    with pytest.raises(InputError, match=message):
        open_image(plant(data), RULES)


def test_texts_and_profiles_of_a_png_are_left_unread() -> None:
    large = zlib.compress(bytes(50 << 20))
    data = encoded(Image.fromarray(COLOUR), "PNG")
    for kind in (b"zTXt", b"iCCP"):
        content = kind + b"a\0\0" + large
        chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
        np.testing.assert_array_equal(open_image(data[:33] + chunk + data[33:], RULES)[0], COLOUR)


def test_byte_cap(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(GREY), "PNG")
    file = tmp_path / "a.png"
    file.write_bytes(data)
    for given in (file, data):
        with pytest.raises(InputError, match=rf"has {len(data)} bytes; the limit is {len(data) - 1}"):
            open_image(given, ImageRules(max_bytes=len(data) - 1))
        open_image(given, ImageRules(max_bytes=len(data)))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png' does not exist"):
        open_image(tmp_path / "none.png", RULES)
    with pytest.raises(InputError, match="is a folder, not a picture"):
        open_image(tmp_path, RULES)


@pytest.mark.parametrize(("values", "message"), [
    ([[0.0, 2.0]], r"values outside 0..1 \(found 0 to 2\)"),
    ([[0.0, np.nan]], "non-finite"),
    ([[np.nan, np.nan]], r"found no finite number, and non-finite ones"),
    ([[-0.1, 0.5]], "found -0.1 to 0.5"),
])  # fmt: skip
def test_float_of_unknown_scale(values: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_image(encoded(Image.fromarray(np.array(values, dtype=np.float32)), "TIFF"), RULES)


def test_integers_of_unknown_scale_and_unsupported_modes() -> None:
    for values in ([[0, 70000]], [[-1, 5]]):
        with pytest.raises(InputError, match=r"outside 0..65535: their scale is unknown"):
            open_image(encoded(Image.fromarray(np.array(values, dtype=np.int32)), "TIFF"), RULES)
    with pytest.raises(InputError, match="is stored as LAB, which is not supported"):
        open_image(encoded(Image.new("LAB", (2, 2)), "TIFF"), RULES)


def test_rules_are_checked() -> None:
    with pytest.raises(InputError, match="exif='maybe' is not a rule"):
        ImageRules(exif="maybe")
    with pytest.raises(InputError, match="a cap must be at least 1"):
        ImageRules(max_pixels=0)


def test_truncated_images_can_not_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(MachineError, match="LOAD_TRUNCATED_IMAGES is set"):
        open_image(noisy("PNG"), RULES)


def test_threads_agree() -> None:
    files = [case[1] for case in CASES] * 8
    alone = [open_image(data, RULES) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: open_image(data, RULES), files))
    for (pixels, facts), (others, other_facts) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(pixels, others)
        assert facts == other_facts
