"""Scaled decoding of JPEGs for training crops: what it shares with `open_image`, and how close a smaller picture is."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from layerwise.data import augment, decoding, resize
from layerwise.data.augment import augment_picture, crop_needs, draw, mirrored, resample, resized_box
from layerwise.data.decoding import Needs, Opened, largest_scale, open_scaled
from layerwise.data.images import ImageRules, open_image
from layerwise.data.loader import Normaliser, plain_batches, training_batches
from layerwise.data.memory import Scratch
from layerwise.data.preprocess import Preprocess, fit_preprocess
from layerwise.data.source import Samples
from layerwise.errors import MachineError
from tests.random_samples import in_memory, recipe

RULES = ImageRules()
CROP = {"crop": "resized", "resize": "short-side", "resize_to": 72, "input_size": 64, "interpolation": "bilinear"}
ORIENTATION = 0x0112
# Modes and ways of storing that are read directly, and those that are left to `open_image`.
DIRECT: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "stored as RGB": ("RGB", {"keep_rgb": True}),
    "restart markers": ("RGB", {"restart_marker_rows": 1}),
    "grey": ("L", {}),
    "grey, progressive": ("L", {"progressive": True}),
}


def photograph(width: int = 640, height: int = 427) -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(path: Path, picture: Image.Image, orientation: int = 1, **how: Any) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture.save(path, "JPEG", quality=90, exif=exif, **how)
    return path


def psnr(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    error = np.mean((one.astype(np.float64) - two.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def opened(file: Path, scale: int, rules: ImageRules = RULES) -> Opened:
    found = open_scaled(file, rules, lambda height, width: Needs(scale))
    assert found is not None
    return found


@pytest.fixture(params=["pillow", "simplejpeg"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two decoders, the second where it is installed."""
    if request.param == "pillow":
        monkeypatch.setattr(decoding, "turbo", None)
    elif decoding.turbo is None:
        pytest.skip("simplejpeg is not installed")
    return str(request.param)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", sorted(DIRECT))
def test_without_scaling_the_pixels_are_open_images(kind: str, orientation: int, decoder: str, tmp_path: Path) -> None:
    mode, how = DIRECT[kind]
    file = jpeg(tmp_path / "a.jpg", photograph(101, 67).convert(mode), orientation, **how)
    for rules in (RULES, ImageRules(exif="ignore")):
        whole, found = open_image(file, rules)[0], opened(file, 1, rules)
        assert np.array_equal(found.pixels, whole)
        assert (found.height, found.width, found.scale) == (*whole.shape[:2], 1)
    seen: list[tuple[int, int]] = []
    open_scaled(file, RULES, lambda height, width: (seen.append((height, width)), Needs())[1])
    assert seen == [(101, 67) if orientation >= 5 else (67, 101)], "the scale is chosen for the upright picture"


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", sorted(DIRECT))
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_smaller_picture_is_the_whole_one_averaged(
    scale: int, kind: str, orientation: int, decoder: str, tmp_path: Path
) -> None:
    mode, how = DIRECT[kind]
    # Sides that 8 divides: a turned picture with a part of a pixel at its end has that part in front.
    file = jpeg(tmp_path / "a.jpg", photograph(640, 424).convert(mode), orientation, **how)
    whole, found = open_image(file, RULES)[0], opened(file, scale)
    height, width = (-(-side // scale) for side in whole.shape[:2])
    assert found.pixels.shape == (height, width, whole.shape[2])
    assert (found.height, found.width, found.scale) == (*whole.shape[:2], scale)
    inside = tuple(slice(0, side // scale) for side in whole.shape[:2])
    averaged = np.array(Image.fromarray(whole.squeeze()).reduce(scale)).reshape(height, width, -1)
    assert psnr(found.pixels[inside], averaged[inside]) > 26
    control = np.roll(averaged, 2, axis=1)
    assert psnr(found.pixels[inside], control[inside]) < 24, "control: two pixels to the side are seen"


def test_both_decoders_agree_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoding.turbo is None:
        pytest.skip("simplejpeg is not installed")
    for number, (mode, how) in enumerate(DIRECT.values()):
        file = jpeg(tmp_path / f"{number}.jpg", photograph(203, 101).convert(mode), **how)
        for scale in (1, 2, 4, 8):
            fast = opened(file, scale).pixels
            with monkeypatch.context() as patch:
                patch.setattr(decoding, "turbo", None)
                assert np.array_equal(opened(file, scale).pixels, fast), (mode, how, scale)


SUBSAMPLED = {f"subsampling {kind}": ("RGB", {"subsampling": kind}) for kind in range(3)}


@pytest.mark.parametrize("kind", sorted({**DIRECT, **SUBSAMPLED}))
def test_the_rows_above_those_left_out_are_the_whole_pictures(kind: str, tmp_path: Path) -> None:
    mode, how = {**DIRECT, **SUBSAMPLED}[kind]
    file = jpeg(tmp_path / "a.jpg", photograph(203, 301).convert(mode), **how)
    shorter = []
    for scale in (1, 2, 4, 8):
        whole = opened(file, scale)
        for rows in (1, 15, 16, 17, 100, 150, 254, 285, 300, 301):
            for scratch in (None, Scratch()):
                found = open_scaled(file, RULES, lambda *sides, needs=(scale, rows): Needs(*needs), scratch)
                assert found is not None
                assert (found.height, found.width, found.scale) == (301, 203, scale)
                assert len(found.pixels) * scale >= rows
                # A box down to the last row that is needed, the lower edge of which is rounded.
                box = (0, 0, rows, 203)
                assert np.array_equal(found.part(box), whole.part(box)), (scale, rows)
                shorter.append(len(found.pixels) < len(whole.pixels))
    if decoding.turbo is not None:
        assert any(shorter) == (kind not in ("progressive", "grey, progressive", "restart markers"))


@pytest.mark.parametrize("kind", sorted({**DIRECT, **SUBSAMPLED}))
def test_the_reader_of_headers_says_what_pillow_says(kind: str, tmp_path: Path) -> None:
    mode, how = {**DIRECT, **SUBSAMPLED}[kind]
    file = tmp_path / "a.jpg"
    photograph(203, 301).convert(mode).save(file, "JPEG", **how)
    data = file.read_bytes()
    header = decoding._header(data)
    with Image.open(file) as picture:
        assert header is not None
        assert (header.width, header.height, header.channels) == (*picture.size, len(picture.getbands()))
    assert header.straight == (kind not in ("progressive", "grey, progressive", "restart markers"))
    assert data[header.height_at:header.height_at + 2] == header.height.to_bytes(2, "big")
    assert header.exif == b""
    turned = decoding._header(jpeg(file, photograph(64, 48)).read_bytes())
    assert turned is not None
    assert turned.exif, "control: EXIF is found where there is some"


def test_rows_next_to_those_left_out_would_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without rows to spare the last ones lack their neighbours' part in their colours."""
    if decoding.turbo is None:
        pytest.skip("simplejpeg is not installed")
    file = jpeg(tmp_path / "a.jpg", photograph(203, 301), subsampling=2)
    data = file.read_bytes()
    header, whole = decoding._header(data), opened(file, 1).pixels
    assert header is not None
    found = decoding._fast(data, header, 160, 1, None)
    assert found is not None
    assert np.array_equal(found[:144], whole[:144])
    assert not np.array_equal(found, whole[:160])


def test_damage_in_the_rows_that_are_needed_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoding.turbo is None:
        pytest.skip("simplejpeg is not installed")
    file = jpeg(tmp_path / "a.jpg", photograph(203, 301))
    data = bytearray(file.read_bytes())
    header = decoding._header(bytes(data))
    assert header is not None
    assert decoding._fast(bytes(data), header, 200, 1, None) is not None
    start = bytes(data).index(b"\xff\xda") + 200
    data[start : start + 2] = b"\xff\xd0"  # a marker, before which all data are taken to have come
    assert decoding._fast(bytes(data), header, 200, 1, None) is None
    monkeypatch.setattr(decoding, "LEFT_OUT", re.compile(""))
    assert decoding._fast(bytes(data), header, 200, 1, None) is not None, "control: any complaint is let pass"


@pytest.mark.parametrize(
    "change", ["frame of 12 bits", "two frames", "two EXIFs", "filler", "short segment", "no frame"]
)
def test_an_unusual_header_is_left_to_pillow(change: str, tmp_path: Path) -> None:
    data = jpeg(tmp_path / "a.jpg", photograph(64, 48)).read_bytes()
    assert decoding._header(data) is not None
    frame, exif = data.index(b"\xff\xc0"), data.index(b"\xff\xe1")
    length = 2 + int.from_bytes(data[frame + 2 : frame + 4], "big")
    exif_length = 2 + int.from_bytes(data[exif + 2 : exif + 4], "big")
    altered = {
        "frame of 12 bits": data[: frame + 4] + b"\x0c" + data[frame + 5 :],
        "two frames": data[:frame] + data[frame : frame + length] + data[frame:],
        "two EXIFs": data[:exif] + data[exif : exif + exif_length] + data[exif:],
        "filler": data[:frame] + b"\xff" + data[frame:],
        "short segment": data[:frame] + b"\xff\xfe\x00\x01" + data[frame:],
        "no frame": data[:frame] + data[frame + length :],
    }[change]
    assert decoding._header(altered) is None


def test_what_is_no_plain_jpeg_is_left_to_open_image(tmp_path: Path) -> None:
    picture = photograph(101, 67)
    jpeg(tmp_path / "cmyk.jpg", picture.convert("CMYK"))
    picture.save(tmp_path / "a.png")
    whole = jpeg(tmp_path / "whole.jpg", picture).read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.jpg").write_bytes(b"\xff\xd8\xff" + bytes(range(256)) * 9 + b"\xff\xd9")
    (tmp_path / "empty.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("cmyk.jpg", "a.png", "short.jpg", "noise.jpg", "empty.jpg", "pipe.jpg", "missing.jpg", "."):
        assert open_scaled(tmp_path / name, RULES, lambda height, width: Needs()) is None, name
    for rules in (ImageRules(max_pixels=101 * 67 - 1), ImageRules(max_bytes=len(whole) - 1)):
        assert open_scaled(tmp_path / "whole.jpg", rules, lambda height, width: Needs(8)) is None
    opened(tmp_path / "whole.jpg", 8, ImageRules(max_pixels=101 * 67))


@pytest.mark.parametrize("size", [1, 7, 64, 224])
def test_the_scale_is_the_largest_that_leaves_enough_pixels(size: int) -> None:
    for factor in (1, 2, 4, 8):
        assert largest_scale(size * factor, size * 9, size) == factor
        if factor > 1:
            assert largest_scale(size * 9, size * factor - 1, size) == factor // 2
    assert largest_scale(1, 1, size) == 1


def crops(file: Path, scaled: bool, count: int = 20, moved: int = 0) -> tuple[list[NDArray[np.uint8]], set[int]]:
    """Random resized crops of a file at 64 pixels, and the scales it was decoded at; `moved` shifts the boxes."""
    chosen = recipe(**CROP)
    preprocess = Preprocess(3, 64, "short-side", 72, "bilinear", "apply", *(np.full((3, 1, 1), 0.5, np.float32),) * 2)
    draws, made, scales = draw(chosen, 0, np.arange(count)), [], set()
    for at in range(count):
        choose = crop_needs(chosen, preprocess, draws.crop[at])
        assert choose is not None
        found = open_scaled(file, RULES, choose if scaled else lambda height, width: Needs())
        assert found is not None
        if moved:
            found = dataclasses.replace(found, pixels=np.roll(found.pixels, moved, axis=1))
        scales.add(found.scale)
        made.append(augment_picture(found, draws, at, chosen, preprocess))
    return made, scales


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_crops_of_scaled_pictures_are_close_to_those_of_whole_ones(orientation: int, tmp_path: Path) -> None:
    file = jpeg(tmp_path / "a.jpg", photograph(1001, 667), orientation)
    whole, _ = crops(file, scaled=False)
    made, scales = crops(file, scaled=True)
    assert len(scales) > 1
    assert 1 not in scales
    close = [psnr(one, two) for one, two in zip(whole, made, strict=True)]
    assert np.median(close) > 26, close
    shifted, _ = crops(file, scaled=True, moved=6)
    far = [psnr(one, two) for one, two in zip(whole, shifted, strict=True)]
    assert np.median(far) < 22, "negative control: a picture that is moved"
    assert min(np.array(close) - np.array(far)) > 0


def test_resampling_differs_from_pillows_by_rounding_alone() -> None:
    image = np.asarray(photograph(301, 200))
    for picture in (image, image[..., :1], image[10:91, 7:60]):
        for interpolation in ("bilinear", "bicubic"):
            for height, width in ((64, 64), (224, 224), (33, 80)):
                found = resample(picture, height, width, interpolation)
                expected = resize.resize_to(picture, height, width, interpolation)
                assert found.shape == expected.shape
                assert np.abs(found.astype(int) - expected).max() <= 2  # one rounding in each direction
                assert np.mean(found != expected) < 0.1
    plain = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.NEAREST))
    assert np.abs(plain.astype(int) - resample(image, 64, 64, "bilinear")).max() > 20, "control: not antialiased"


def test_a_mirrored_picture_has_its_columns_turned_round() -> None:
    for shape in ((224, 224, 3), (5, 7, 1), (3, 40_000, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        assert np.array_equal(mirrored(image, Scratch()), image[:, ::-1])


@pytest.mark.parametrize("mean", ["per-channel", "per-pixel"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_pools_normalisation_has_the_bits_of_the_preprocessing(mean: str, channels: int) -> None:
    samples = in_memory(9, channels=channels)
    preprocess = fit_preprocess(samples, recipe(mean=mean))
    normalise, assertion = Normaliser(preprocess), []
    for index in range(9):
        out = np.empty((12, 12, channels), np.float32)
        normalise(samples.read(index), out)
        expected = preprocess.tensor(samples.read(index))[0].permute(1, 2, 0).numpy()
        assertion.append(np.array_equal(out, expected))
        assert not np.array_equal(out, expected + np.spacing(expected)), "control: one bit off is seen"
    assert all(assertion)


def folder(place: Path, count: int = 12) -> Samples:
    """JPEG files of several kinds and sizes."""
    kinds = list(DIRECT.values())
    paths = []
    for number in range(count):
        mode, how = kinds[number % len(kinds)]
        picture = photograph(300 + 37 * number, 200 + 29 * number).convert("CMYK" if number == 5 else mode)
        paths.append(jpeg(place / f"{number}.jpg", picture, 1 + number % 8, **({} if number == 5 else how)))
    return Samples("train", ("a", "b"), np.arange(count, dtype=np.int64) % 2, tuple(map(str, paths)), None,
                   tuple(paths))


@pytest.mark.parametrize("crop", [CROP, *({**CROP, "crop": crop, "scale_range": (64, 120)}
                                         for crop in ("scale", "square"))])
def test_the_batches_of_a_folder_do_not_depend_on_threads_or_decoder(
    crop: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, chosen = folder(tmp_path), recipe(**crop)
    preprocess = fit_preprocess(samples, chosen)

    def seen(workers: int) -> list[bytes]:
        return [batch["image"].numpy().tobytes()
                for batch in training_batches(samples, chosen, preprocess, 3, 0, None, workers)]

    first = seen(1)
    assert seen(2) == first
    assert seen(4) == first
    scales: list[int] = []
    original = decoding.largest_scale
    monkeypatch.setattr(augment, "largest_scale", lambda *sizes: (scales.append(original(*sizes)), scales[-1])[1])
    monkeypatch.setattr(decoding, "turbo", None)
    assert seen(2) == first, "Pillow's pixels are the fast decoder's"
    assert len(set(scales)) > 1
    monkeypatch.setattr(augment, "largest_scale", lambda *sizes: 1)
    assert seen(2) != first, "negative control: decoding scaled changes pixels, so the comparison sees the decoder"


def test_evaluation_decodes_every_picture_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = folder(tmp_path, 4)
    preprocess = fit_preprocess(samples, recipe(**CROP))
    monkeypatch.setattr("layerwise.data.loader.open_scaled", lambda *about: pytest.fail("evaluation is scaled"))
    images = [image for batch in plain_batches(samples, preprocess, 2) for image in batch["image"]]
    for index, image in enumerate(images):
        expected = preprocess.tensor(open_image(samples.paths[index], RULES)[0])[0]  # type: ignore[index]
        assert np.array_equal(image.numpy(), expected.numpy())
    with pytest.raises(MachineError, match="evaluation is scaled"):  # a thread's failure, told with its picture
        list(training_batches(samples, recipe(**CROP), preprocess, 0, 0))


def test_a_box_of_a_scaled_picture_keeps_within_it() -> None:
    numbers = np.random.default_rng(0).random((300, 40))
    for height, width, scale in ((100, 150, 1), (101, 67, 2), (333, 250, 4), (65, 71, 8)):
        pixels = np.arange(-(-height // scale) * -(-width // scale), dtype=np.int64) % 251
        found = Opened(pixels.astype(np.uint8).reshape(-(-height // scale), -1, 1), height, width, scale)
        for row in numbers:
            box = resized_box(height, width, 0.08, row)
            part = found.part(box)
            for side, extent in zip(part.shape, box[2:], strict=False):
                assert side >= 1
                assert abs(side - extent / scale) <= 1


def test_bytes_of_a_piece_are_read_like_a_file(tmp_path: Path) -> None:
    class Piece:
        def read_bytes(self) -> bytes:
            return buffer.getvalue()

    buffer = io.BytesIO()
    photograph(101, 67).save(buffer, "JPEG")
    found = open_scaled(Piece(), RULES, lambda height, width: Needs())
    assert found is not None
    assert np.array_equal(found.pixels, open_image(buffer.getvalue(), RULES)[0])


def test_a_jpeg_that_turns_bad_is_left_out_and_named(tmp_path: Path) -> None:
    whole = folder(tmp_path, 4)
    samples = whole.subset([0] * 150 + [1], "train")
    samples = dataclasses.replace(samples, ids=tuple(f"picture {number}" for number in range(151)))
    chosen = recipe(**CROP)
    preprocess = fit_preprocess(whole, chosen)
    assert samples.paths is not None
    file = Path(str(samples.paths[150]))
    file.write_bytes(file.read_bytes()[:2000])
    batches = list(training_batches(samples, chosen, preprocess, 0, 0))
    assert [name for batch in batches for name in batch["bad"]] == ["picture 150"]
    assert sum(len(batch["label"]) for batch in batches) == 150
