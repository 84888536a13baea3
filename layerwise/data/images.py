"""The one function that opens a picture: for training, evaluation, prediction and the server alike.

The steps, in this order: byte cap; format by content, never by name (JPEG, PNG, WebP, BMP, TIFF, GIF); whole container
(`container.damage`); pixel cap and ratio of unpacking from the header; full decode, where a truncated file is an error;
the rules below; EXIF orientation.

| stored as | becomes |
|---|---|
| grey, 8 bits or fewer | (H, W, 1), unchanged (fewer bits stretched to 0..255) |
| 1 bit | (H, W, 1), 0 or 255 |
| 16-bit grey (PNG, TIFF) | (H, W, 1), divided by 257 and rounded, never clipped |
| 12-bit grey TIFF | (H, W, 1), times 255 / 4095, rounded |
| 32-bit integer TIFF | as 16-bit grey if all values lie in 0..65535, else an error |
| float TIFF | (H, W, 1), times 255, rounded, if all values lie in 0..1, else an error |
| 16-bit colour (PNG, TIFF) | (H, W, 3), the high byte (Pillow's decoder; within 1 of dividing by 257) |
| palette | (H, W, 3), the palette's colours |
| transparency of any kind | flattened on white; grey with alpha stays grey |
| CMYK (also Adobe's inverted JPEG) | (H, W, 3), (255 - C)(255 - K) / 255 for red, and so on; profiles are ignored |
| YCbCr | (H, W, 3) |
| several frames (GIF, TIFF, WebP, PNG) | the first one |
| EXIF orientation | applied with `exif="apply"`, else the pixels as stored |

Importing this module turns the warnings of Pillow's decoders into errors, once and for all threads.
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL import WebPImagePlugin as WebPPlugin

from layerwise.data import container
from layerwise.errors import InputError, MachineError

MAX_PIXELS = 89_478_485
MAX_BYTES = 1 << 28

# Set once: a filter that is set and reset around each picture (warnings.catch_warnings) is not safe in threads.
warnings.filterwarnings("error", module=r"PIL\.(Bmp|Gif|Jpeg|Png|Tiff|WebP)ImagePlugin")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPPlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
# What the decoders raise on damaged bytes; MemoryError and KeyboardInterrupt pass.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    RuntimeError,
    AssertionError,
    Warning,
    Image.DecompressionBombError,
)
_PIXEL_BYTES = {"1": 1 / 8, "L": 1, "P": 1, "LA": 2, "PA": 2, "RGB": 3, "YCbCr": 3, "LAB": 3}
_GREY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class ImageRules:
    """How pictures are opened: `exif` is "apply" or "ignore"; caps in pixels and bytes, checked before decoding."""

    exif: str = "apply"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if self.exif not in ("apply", "ignore"):
            raise InputError(f"exif={self.exif!r} is not a rule", "It is 'apply' or 'ignore'.", "Set exif=apply.")
        if self.max_pixels < 1 or self.max_bytes < 1:
            raise InputError(f"max_pixels={self.max_pixels}, max_bytes={self.max_bytes}: a cap must be at least 1")


@dataclass(frozen=True)
class ImageFacts:
    """What was found in the file and what was done to it."""

    format: str  # by content
    mode: str  # as stored, in Pillow's words, "RGB", "L", "I;16", "CMYK"; 16-bit colour is "RGB;16", "RGBA;16", "LA;16"
    width: int  # as returned, after EXIF
    height: int
    channels: int
    several_frames: bool = False
    orientation: int = 1  # EXIF, 1 to 8
    conversion: str = ""  # "alpha flattened on white", "16-bit scaled to 8"; several joined by "; "
    misnamed: str = ""  # the extension, where it belongs to another format

    @property
    def rotated(self) -> bool:
        """Whether the orientation is another than upright."""
        return self.orientation != 1


class Piece(Protocol):
    """A picture that lies inside of another file; `pieces.Slice` is one."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    @property
    def suffix(self) -> str:
        """The extension of its name, with its dot."""

    def read_bytes(self) -> bytes:
        """Its bytes; InputError where they can't be read."""


def open_image(
    file: Path | Piece | bytes, rules: ImageRules, data: bytes | None = None
) -> tuple[NDArray[np.uint8], ImageFacts]:
    """The picture as uint8, (H, W, 1) for grey kinds and (H, W, 3) for all others, and what was found.

    `file` is a path, a piece of a file, or the picture's bytes; `data` are its bytes where `read_image` has read them
    already. Raises InputError with the path and the reason when it can't be opened.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise MachineError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set",
            "Truncated pictures would pass silently, with grey areas in place of what is missing.",
            "Set it to False.",
        )
    try:
        data = read_image(file, rules) if data is None else data
        form = container.identify(data[: container.SNIFFED])
        if form is None:
            raise _RefusedError(f"is {container.describe(data)}; supported are {', '.join(container.SUPPORTED)}")
        if problem := container.damage(data, form):
            raise _RefusedError(f"is {problem}")
        pixels, facts = _decode(data, form, rules)
    except _RefusedError as refusal:
        raise _named(file, refusal) from None
    if not isinstance(file, bytes):
        suffix = file.suffix.lower()
        if container.EXTENSIONS.get(suffix, facts.format) != facts.format:
            facts = replace(facts, misnamed=suffix)
    return pixels, facts


class _RefusedError(Exception):
    """Why a picture is refused; the name of the file is put before it."""

    def __init__(self, reason: str, mend: str = "") -> None:
        super().__init__(reason)
        self.mend = mend


def _named(file: Path | Piece | bytes, refusal: _RefusedError) -> InputError:
    return InputError(f"{'the picture' if isinstance(file, bytes) else repr(str(file))} {refusal}", mend=refusal.mend)


def read_image(file: Path | Piece | bytes, rules: ImageRules) -> bytes:
    """The bytes of a picture, not yet looked at. InputError with the path and the reason when they can't be read."""
    try:
        return _read(file, rules)
    except _RefusedError as refusal:
        raise _named(file, refusal) from None


def _read(file: Path | Piece | bytes, rules: ImageRules) -> bytes:
    if isinstance(file, bytes):
        data = file
    elif not isinstance(file, Path):
        if file.size > rules.max_bytes:
            raise _RefusedError(f"has {file.size:,} bytes; the limit is {rules.max_bytes:,}")
        data = file.read_bytes()
    else:
        try:
            state = file.stat()
            if not stat.S_ISREG(state.st_mode):
                raise _RefusedError(
                    "is not a file" if not stat.S_ISDIR(state.st_mode) else "is a folder, not a picture"
                )
            if state.st_size > rules.max_bytes:
                raise _RefusedError(f"has {state.st_size:,} bytes; the limit is {rules.max_bytes:,}")
            with file.open("rb") as stream:
                data = stream.read(rules.max_bytes + 1)
        except FileNotFoundError:
            raise _RefusedError("does not exist") from None
        except OSError as problem:
            raise _RefusedError(f"can't be read: {problem.strerror or problem}") from None
    if len(data) > rules.max_bytes:
        raise _RefusedError(f"has {len(data):,} bytes; the limit is {rules.max_bytes:,}")
    return data


def _decode(data: bytes, form: str, rules: ImageRules) -> tuple[NDArray[np.uint8], ImageFacts]:
    steps: list[str] = []
    try:
        picture = _open(data, form, steps)
        width, height = picture.size
        if width < 1 or height < 1:
            raise _RefusedError(f"is {width} x {height} pixels")
        if width * height > rules.max_pixels:
            raise _RefusedError(
                f"has {width:,} x {height:,} = {width * height:,} pixels; the limit is {rules.max_pixels:,}",
                "Raise it if you trust the file: "
                f"train with --set max_pixels={width * height}, pack with --max-pixels {width * height}",
            )
        unpacked = width * height * _PIXEL_BYTES.get(picture.mode, 2 if picture.mode.startswith("I;16") else 4)
        if container.is_bomb(unpacked, len(data)):
            raise _RefusedError(
                f"has {len(data):,} bytes that would unpack to {unpacked:,.0f}; the limit is {container.RATIO} times",
                "If it is what it says, save it smaller or less compressed.",
            )
        if isinstance(picture, TiffImagePlugin.TiffImageFile) and (
            picture.tile and picture.tile[0][0] != "libtiff"
            and max(tile[1][3] if tile[1] else height for tile in picture.tile) < height
        ):
            raise _RefusedError("is truncated: rows of the TIFF have no strip")
        turn = int(picture.tag_v2.get(0x0112, 1)) if isinstance(picture, TiffImagePlugin.TiffImageFile) else 0
        several = bool(getattr(picture, "is_animated", False))
        mode = _stored_mode(picture, data, form)
        picture.load()
        if form != "TIFF":
            turn, readable = container.orientation(picture.info.get("exif", b""))
            if not readable:
                steps.append("EXIF is damaged, taken as upright")
        pixels = _to_uint8(picture, mode, data, steps)
    except _DAMAGE as problem:
        words = str(problem).strip().splitlines()
        raise _RefusedError(f"can't be decoded as {form}: {words[0] if words else type(problem).__name__}") from None
    turn = turn if 1 <= turn <= 8 else 1
    # Pillow's TIFF decoder has already applied the orientation (and dropped the tag); the others never do.
    done = isinstance(picture, TiffImagePlugin.TiffImageFile) and 0x0112 not in picture.tag_v2
    if turn != 1 and rules.exif == "apply":
        steps.append(f"EXIF orientation {turn} applied")
        pixels = pixels if done else _turned(pixels, turn)
    elif turn != 1:
        steps.append(f"EXIF orientation {turn} ignored")
        pixels = _turned(pixels, {6: 8, 8: 6}.get(turn, turn)) if done else pixels
    if several:
        steps.append("first of several frames")
    height, width, channels = pixels.shape
    facts = ImageFacts(form, mode, width, height, channels, several, turn, "; ".join(steps))
    return np.ascontiguousarray(pixels), facts


def _open(data: bytes, form: str, steps: list[str]) -> ImageFile.ImageFile:
    opener = _OPENERS[form]
    if form == "PNG":
        data = container.without_texts(data)
    try:
        return opener(io.BytesIO(data))
    except UserWarning as warning:
        if form != "JPEG" or "exif" not in str(warning).lower():
            raise
        steps.append("EXIF is damaged, taken as upright")
        return opener(io.BytesIO(container.without_exif(data)))


def _stored_mode(picture: ImageFile.ImageFile, data: bytes, form: str) -> str:
    if form == "PNG":
        bits, colour = container.png_header(data)
        if bits == 16 and colour in (2, 4, 6):
            return {2: "RGB;16", 4: "LA;16", 6: "RGBA;16"}[colour]
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.mode in ("RGB", "RGBA", "CMYK"):
        bits_per_sample = picture.tag_v2.get(258, (8,))
        if max(bits_per_sample) == 16:
            return f"{picture.mode};16"
    return str(picture.mode)


def _to_uint8(picture: ImageFile.ImageFile, mode: str, data: bytes, steps: list[str]) -> NDArray[np.uint8]:
    if picture.mode in _GREY_16:
        return _scaled_integers(picture, steps)
    if picture.mode == "F":
        values = np.asarray(picture, dtype=np.float32)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            finite = values[np.isfinite(values)]
            found = f"{finite.min():g} to {finite.max():g}" if finite.size else "no finite number"
            raise _RefusedError(
                f"is a float picture with values outside 0..1 (found {found}"
                f"{'' if finite.size == values.size else ', and non-finite ones'}): its scale is unknown",
                "Save it with values from 0 to 1, or as 8 or 16 bits.",
            )
        steps.append("float 0..1 scaled to 8 bits")
        return np.rint(values * 255).astype(np.uint8)[..., None]
    if mode.endswith(";16"):
        steps.append("16-bit colour reduced to its high byte")
    image: Image.Image = picture
    transparency = picture.info.get("transparency")
    if image.mode in ("1", "L"):
        pixels = np.asarray(image.convert("L"), dtype=np.uint8)
        if transparency is not None and isinstance(transparency, int):
            levels = (1 << container.png_header(data)[0]) - 1 if data[:4] == b"\x89PNG" else 255
            pixels = np.where(pixels == transparency * 255 // levels, np.uint8(255), pixels)
            steps.append("alpha flattened on white")
        return pixels[..., None]
    if image.mode == "RGB" and isinstance(transparency, tuple):
        pixels = np.asarray(image, dtype=np.uint8)
        key = np.array([value >> 8 if mode.endswith(";16") else value for value in transparency])
        steps.append("alpha flattened on white")
        return np.where((pixels == key).all(axis=2, keepdims=True), np.uint8(255), pixels)
    if image.mode == "P" and transparency is None:
        steps.append("palette to RGB")
        return np.asarray(image.convert("RGB"), dtype=np.uint8)
    if image.mode in ("P", "PA", "RGBA", "LA", "RGBa"):
        if image.mode in ("P", "PA"):
            steps.append("palette to RGB")
        steps.append("alpha flattened on white")
        grey = mode in ("LA", "LA;16")
        return _flattened(np.asarray(image.convert("RGBA"), dtype=np.uint8), grey)
    if image.mode in ("CMYK", "YCbCr", "RGBX"):
        steps.append(f"{image.mode} to RGB")
        image = image.convert("RGB")
    if image.mode != "RGB":
        raise _RefusedError(f"is stored as {image.mode}, which is not supported", "Save it as RGB or grey.")
    return np.asarray(image, dtype=np.uint8)


def _scaled_integers(picture: ImageFile.ImageFile, steps: list[str]) -> NDArray[np.uint8]:
    values = np.asarray(picture).astype(np.int64)
    top = 65535
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2.get(258, (16,))[0] == 12:
        top = 4095
    if values.min() < 0 or values.max() > top:
        raise _RefusedError(
            f"has integers from {values.min()} to {values.max()}, outside 0..{top}: their scale is unknown",
            "Save it as 8 or 16 bits without a sign.",
        )
    transparency = picture.info.get("transparency")
    if isinstance(transparency, int):
        values = np.where(values == transparency, top, values)
        steps.append("alpha flattened on white")
    steps.append(f"{12 if top == 4095 else 16}-bit scaled to 8 bits")
    return ((values * 510 + top) // (2 * top)).astype(np.uint8)[..., None]  # round(values * 255 / top)


def _flattened(rgba: NDArray[np.uint8], grey: bool) -> NDArray[np.uint8]:
    """(H, W, 4) on white: round(a c + (1 - a) 255)."""
    alpha = rgba[..., 3:].astype(np.int32)
    colours = rgba[..., :1] if grey else rgba[..., :3]
    mixed = colours.astype(np.int32) * alpha + 255 * (255 - alpha)
    return ((mixed * 2 + 255) // 510).astype(np.uint8)


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """EXIF 2.3, tag 0x0112: from the stored rows and columns to the upright picture."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)  # 5
    vertical = orientation in (3, 4, 7, 8)
    horizontal = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1]
