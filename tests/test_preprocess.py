"""Preprocessing: one path, equal to the bit alone or in a batch, and after a round trip through its file form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from layerwise.data import resize, statistics
from layerwise.data.images import ImageRules, open_image
from layerwise.data.loader import plain_batches
from layerwise.data.preprocess import Preprocess, fit_preprocess, to_tensor
from layerwise.data.resize import INTERPOLATIONS, LONGEST_ASPECT, resize_short_side, to_channels
from layerwise.data.source import Samples
from layerwise.errors import InputError
from tests.random_samples import as_files, in_memory, recipe

KINDS = [
    ("none", 0),
    ("short-side", 40),
    ("short-side", 32),
    ("squash", 0),
    ("letterbox", 0),
]


def made(channels: int = 3, size: int = 32, how: str = "short-side", side: int = 40, **changes: object) -> Preprocess:
    rng = np.random.default_rng(0)
    base = Preprocess(
        channels=channels,
        size=size,
        resize=how,
        resize_to=side if how == "short-side" else 0,
        interpolation="bilinear",
        exif="apply",
        mean=rng.uniform(0.2, 0.6, (channels, 1, 1)).astype(np.float32),
        std=rng.uniform(0.2, 0.3, (channels, 1, 1)).astype(np.float32),
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty kinds of picture files."""
    folder = tmp_path_factory.mktemp("kinds")
    colour, grey = Image.fromarray(noise(50, 70, 3)), Image.fromarray(noise(50, 70))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    deep = Image.fromarray(noise(50, 70).astype(np.uint16) * 257)
    palette = colour.quantize(16)
    kinds: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "landscape.png": (colour, {}),
        "portrait.png": (colour.rotate(90, expand=True), {}),
        "one.png": (Image.fromarray(noise(1, 1, 3)), {}),
        "rotated.jpg": (colour, {"exif": rotated}),
        "grey.png": (grey, {}),
        "grey.jpg": (grey, {}),
        "16-bit.png": (deep, {}),
        "16-bit.tif": (deep, {}),
        "bits.png": (grey.convert("1"), {}),
        "palette.png": (palette, {}),
        "palette.gif": (palette, {}),
        "alpha.png": (Image.fromarray(noise(50, 70, 4)), {}),
        "grey-alpha.png": (Image.merge("LA", (grey, grey)), {}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "huge.jpg": (Image.fromarray(np.broadcast_to(noise(1, 1500, 3), (1000, 1500, 3)).copy()), {}),
        "strip.png": (Image.fromarray(noise(4, 400, 3)), {}),
        "odd.png": (Image.fromarray(noise(33, 47, 3)), {}),
        "small.bmp": (Image.fromarray(noise(5, 7, 3)), {}),
        "lossless.webp": (colour, {"lossless": True}),
        "square.png": (Image.fromarray(noise(32, 32, 3)), {}),
    }
    for name, (picture, options) in kinds.items():
        picture.save(folder / name, **options)  # type: ignore[arg-type]
    assert len(kinds) == 20
    return [folder / name for name in kinds]


@pytest.mark.parametrize(("how", "side"), KINDS[1:])
@pytest.mark.parametrize("channels", [1, 3])
def test_twenty_kinds_are_equal_to_the_bit_alone_in_a_batch_and_after_a_round_trip(
    pictures: list[Path], how: str, side: int, channels: int
) -> None:
    preprocess = made(channels, how=how, side=side)
    again = Preprocess.from_parts(preprocess.to_json(), preprocess.tensors())
    samples = Samples("test", ("a",), np.zeros(20, np.int64), tuple(map(str, pictures)), paths=tuple(pictures))
    alone = [preprocess.tensor(open_image(path, ImageRules())[0]) for path in pictures]
    for batch_size in (7, 64):
        together = torch.cat([batch["image"] for batch in plain_batches(samples, preprocess, batch_size)])
        assert together.shape == (20, channels, 32, 32)
        assert torch.equal(together, torch.cat(alone))
    for path, expected in zip(pictures, alone, strict=True):
        assert torch.equal(again.tensor(open_image(path, ImageRules())[0]), expected)
        if path.name != "one.png":  # a single pixel is the same everywhere
            other = dataclasses.replace(preprocess, interpolation="nearest")
            wrong = not torch.equal(other.tensor(open_image(path, ImageRules())[0]), expected)
            assert wrong or path.name == "square.png", "negative control: another rule is seen"


def test_the_fixture_rotated_by_exif_is_upright(pictures: list[Path]) -> None:
    by_name = {path.name: path for path in pictures}
    assert open_image(by_name["rotated.jpg"], ImageRules())[0].shape == (70, 50, 3)
    assert open_image(by_name["rotated.jpg"], ImageRules(exif="ignore"))[0].shape == (50, 70, 3)


@pytest.mark.parametrize("shape", [(1, 12, 12, 3), (5, 12, 12, 1), (257, 12, 12, 3), (3, 20, 9, 3)])
@pytest.mark.parametrize("per_pixel", [False, True])
def test_normalise_is_the_formula_in_float32(shape: tuple[int, int, int, int], per_pixel: bool) -> None:
    channels, batch = shape[3], noise(*shape)
    preprocess = made(channels, size=12)
    mean = preprocess.mean
    if per_pixel:
        mean = np.random.default_rng(1).uniform(0, 1, (channels, 12, 12)).astype(np.float32)
        preprocess = dataclasses.replace(preprocess, mean=mean)
    if per_pixel and shape[1:3] != (12, 12):
        mean = mean.astype(np.float64).mean(axis=(1, 2), keepdims=True).astype(np.float32)
    expected = (batch.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255) - mean) / preprocess.std
    assert expected.dtype == np.float32
    for _ in range(2):  # the second time with kept constants
        normalised = preprocess.normalise(torch.from_numpy(batch))
        assert normalised.dtype == torch.float32
        assert np.array_equal(normalised.numpy(), expected)
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_normalise_refuses_what_is_not_pictures() -> None:
    with pytest.raises(TypeError, match=r"normalise takes uint8 \(N, H, W, 3\), got torch.float32 \(1, 12, 12, 3\)"):
        made(size=12).normalise(torch.zeros(1, 12, 12, 3))


def test_to_tensor_copies_only_what_cannot_be_shared() -> None:
    images = noise(2, 4, 4, 3)
    assert to_tensor(images).data_ptr() == images.ctypes.data
    images.setflags(write=False)
    assert to_tensor(images).data_ptr() != images.ctypes.data
    assert torch.equal(to_tensor(images[:, ::-1]), torch.from_numpy(images[:, ::-1].copy()))


def test_grey_is_pillows_luma_and_rgb_is_replication() -> None:
    values = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
    grey = to_channels(values, 1)
    assert np.array_equal(grey[:, :, 0], np.asarray(Image.fromarray(values).convert("L")))
    assert np.array_equal(to_channels(grey, 3), np.repeat(grey, 3, axis=2))
    assert to_channels(values, 3) is values
    with pytest.raises(InputError, match="a picture with 4 channels cannot become 3-channel"):
        to_channels(noise(2, 2, 4), 3)


@pytest.mark.parametrize("interpolation", sorted(INTERPOLATIONS))
def test_grey_resized_then_replicated_is_each_channel_resized(interpolation: str) -> None:
    grey = noise(50, 70, 1)
    preprocess = made(interpolation=interpolation)
    assert np.array_equal(preprocess.place(grey), preprocess.place(np.repeat(grey, 3, axis=2)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_reduction_antialiases(interpolation: str) -> None:
    """A chequerboard becomes grey; without antialiasing (nearest) it stays black and white."""
    board = np.indices((128, 128)).sum(axis=0).astype(np.uint8)[:, :, None] % 2 * 255
    reduced = resize.resize_to(board, 15, 15, interpolation)[2:-2, 2:-2]
    assert reduced.min() > 90
    assert reduced.max() < 165
    control = resize.resize_to(board, 15, 15, "nearest")
    assert set(np.unique(control)) <= {0, 255}


@pytest.mark.parametrize(
    ("shape", "resized"),
    [
        ((50, 70), (32, 45)),  # 44.8
        ((70, 50), (45, 32)),
        ((64, 65), (32, 33)),  # 32.5, half up
        ((64, 67), (32, 34)),  # 33.5, half up: not to even
        ((32, 50), (32, 50)),
        ((1, 1), (32, 32)),
        ((1, 100_000), (32, 32 * LONGEST_ASPECT)),  # a strip's central part
    ],
)
def test_short_side_rounds_the_longer_side_half_up(shape: tuple[int, int], resized: tuple[int, int]) -> None:
    assert resize_short_side(noise(*shape, 1), 32, "bilinear").shape == (*resized, 1)


def test_place_crops_the_centre_and_leaves_the_odd_pixel_below_and_right() -> None:
    image = noise(33, 47, 3)
    preprocess = made(size=32, side=33)
    assert np.array_equal(preprocess.place(image), image[:32, 7:39])


def test_letterbox_pads_both_sides_with_the_mean_colour() -> None:
    preprocess = made(how="letterbox")
    placed = preprocess.place(noise(20, 40, 3))
    assert np.array_equal(placed[8:24], resize.resize_to(noise(20, 40, 3), 16, 32, "bilinear"))
    bars = np.concatenate([placed[:8], placed[24:]])
    assert (bars == preprocess.pad_colour).all()
    assert np.array_equal(preprocess.pad_colour, np.rint(preprocess.mean.ravel() * 255))
    normalised = preprocess.tensor(noise(20, 40, 3))[:, :, :8]
    assert normalised.abs().max() < 0.5 / 255 / preprocess.std.min() + 1e-6


def test_squash_ignores_the_aspect() -> None:
    image = noise(20, 40, 3)
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(made(how="squash").place(image), expected)


def test_no_resize_takes_pictures_of_exactly_the_size() -> None:
    preprocess = made(how="none")
    image = noise(32, 32, 3)
    assert np.array_equal(preprocess.place(image), image)
    with pytest.raises(InputError, match=r"a picture of 33x32 pixels where the network takes 32x32") as error:
        preprocess.place(noise(32, 33, 3))
    assert "--set resize=short-side --set resize_to=32" in str(error.value)
    with pytest.raises(InputError, match="a picture of 31x31 pixels"):
        preprocess.place_batch(noise(2, 31, 31, 3))


@pytest.mark.parametrize(("how", "side"), KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_placed_as_its_pictures_are(how: str, side: int, channels: int) -> None:
    images = noise(4, 32, 32, 4 - channels)
    preprocess = made(channels, how=how, side=side)
    assert np.array_equal(preprocess.place_batch(images), np.stack([preprocess.place(image) for image in images]))


@pytest.mark.parametrize("changes", [{}, {"interpolation": "nearest"}, {"exif": "ignore"}, {"resize_to": 41}])
def test_round_trip_and_digest(changes: dict[str, object]) -> None:
    preprocess = made(**changes)
    again = Preprocess.from_parts(preprocess.to_json(), preprocess.tensors())
    assert again.to_json() == preprocess.to_json()
    assert again.sha256 == preprocess.sha256
    assert np.array_equal(again.mean, preprocess.mean)
    assert np.array_equal(again.std, preprocess.std)
    assert again.mean.dtype == np.float32
    assert (preprocess.sha256 == made().sha256) == (not changes)
    nudged = preprocess.mean.copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(1))
    assert dataclasses.replace(preprocess, mean=nudged).sha256 != preprocess.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interpolaton": "bilinear"}, "unknown field 'interpolaton', did you mean 'interpolation'?"),
        ({"exif": None}, "exif is None; expected str"),
        ({"size": 32.0}, "size is 32.0; expected int"),
        ({"size": True}, "size is True; expected int"),
        ({"size": 0}, "size is 0; expected 1 to 65535"),
        ({"channels": 4}, "channels is 4; expected one of 1, 3"),
        ({"resize": "stretch"}, "resize is 'stretch'; expected one of none, short-side, squash, letterbox"),
        ({"resize_to": 31}, r"resize_to is 31; expected size (32) to 65535"),
        ({"resize": "squash"}, "resize_to is 40; expected 0 where resize is squash"),
        ({"scale": "1/256"}, "scale is '1/256'; this version knows '1/255'"),
        ({"format": 2}, "format is 2; this version knows 1"),
    ],
)
def test_a_wrong_specification_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Preprocess.from_parts({**made().to_json(), **changes}, made().tensors())
    assert message in error.value.details


def test_all_problems_of_a_specification_are_told_at_once() -> None:
    parts = made().to_json()
    del parts["size"], parts["exif"]
    with pytest.raises(InputError, match="the preprocessing specification cannot be used") as error:
        Preprocess.from_parts(parts, made().tensors())
    assert error.value.details == ("field 'size' is missing", "field 'exif' is missing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": None}, "tensor 'std' is missing"),
        ({"bias": torch.zeros(1)}, "unknown tensor 'bias'"),
        ({"mean": torch.zeros(3)}, "mean is torch.float32 (3,); expected float32 (3, 1, 1) or (3, 32, 32)"),
        ({"std": torch.ones(3, 1, 1).double()}, "std is torch.float64 (3, 1, 1); expected float32 (3, 1, 1)"),
        ({"std": torch.zeros(3, 1, 1)}, "std holds a value that is not finite and positive"),
        ({"mean": torch.full((3, 1, 1), float("nan"))}, "mean holds a value that is not finite"),
        ({"mean": torch.full((3, 1, 1), 118.0)}, "mean lies outside the 0..1 scale"),
    ],
)
def test_wrong_tensors_are_refused(changes: dict[str, torch.Tensor | None], message: str) -> None:
    tensors = {name: value for name, value in {**made().tensors(), **changes}.items() if value is not None}
    with pytest.raises(InputError) as error:
        Preprocess.from_parts(made().to_json(), tensors)
    assert error.value.details == (message,)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("files", [False, True])
def test_statistics_are_those_of_numpy(channels: int, files: bool, tmp_path: Path) -> None:
    samples = in_memory(70, channels=channels)
    assert samples.images is not None
    scaled = samples.images.astype(np.float64) / 255
    if files:
        samples = as_files(samples, tmp_path)
    fitted = fit_preprocess(samples, recipe(std="per-channel"))
    assert (fitted.channels, fitted.size, fitted.resize, fitted.resize_to) == (channels, 12, "none", 0)
    assert np.allclose(fitted.mean.ravel(), scaled.mean(axis=(0, 1, 2)), rtol=1e-6)
    assert np.allclose(fitted.std.ravel(), scaled.std(axis=(0, 1, 2)), rtol=1e-6)
    per_pixel = fit_preprocess(samples, recipe(mean="per-pixel", std="none"))
    assert np.allclose(per_pixel.mean, scaled.mean(axis=0).transpose(2, 0, 1), rtol=1e-6)
    assert np.array_equal(per_pixel.std, np.ones((channels, 1, 1), np.float32))
    none = fit_preprocess(samples, recipe(mean="none", std="none"))
    assert not none.mean.any()
    assert (none.std == 1).all()


def test_statistics_are_taken_after_place_and_without_bars() -> None:
    samples = in_memory(6)
    assert samples.images is not None
    squashed = fit_preprocess(samples, recipe(resize="squash", input_size=8, channels=1))
    placed = np.stack([squashed.place(image) for image in samples.images]) / 255
    assert squashed.mean.item() == pytest.approx(placed.mean(), rel=1e-6)
    assert squashed.std.item() == pytest.approx(placed.std(), rel=1e-6)
    wide = dataclasses.replace(samples, images=samples.images[:, 3:9])
    boxed = fit_preprocess(wide, recipe(resize="letterbox", input_size=12))
    assert wide.images is not None
    assert np.allclose(boxed.mean.ravel(), wide.images.mean(axis=(0, 1, 2)) / 255, rtol=1e-6)
    assert boxed.place(wide.images[0]).shape == (12, 12, 3)


def test_a_constant_channel_has_deviation_one() -> None:
    samples = dataclasses.replace(in_memory(4), images=np.full((4, 12, 12, 3), 7, np.uint8))
    fitted = fit_preprocess(samples, recipe())
    assert (fitted.std == 1).all()
    assert torch.isfinite(fitted.tensor(np.full((12, 12, 3), 7, np.uint8))).all()


def test_more_files_than_5000_are_represented_by_the_same_ones_for_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MOST_FILES", 10)
    samples = as_files(in_memory(40), tmp_path)
    chosen = statistics.representative(samples)
    assert len(set(chosen.tolist())) == 10
    one, other = fit_preprocess(samples, recipe(seed=0)), fit_preprocess(samples, recipe(seed=1))
    assert one.sha256 == other.sha256
    assert one.sha256 == fit_preprocess(samples.subset(chosen, "train"), recipe()).sha256
    assert one.sha256 != fit_preprocess(in_memory(40), recipe()).sha256, "in memory all are counted"


def test_threads_and_memory_change_no_statistic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = in_memory(130)
    files = as_files(samples, tmp_path)
    chosen = recipe(mean="per-pixel")
    digests = {fit_preprocess(samples, chosen).sha256}
    for workers in (1, 8):
        monkeypatch.setattr(statistics, "cores", lambda workers=workers: workers)
        digests.add(fit_preprocess(files, chosen).sha256)
    assert len(digests) == 1


def test_channels_are_one_only_where_every_picture_is_grey(tmp_path: Path) -> None:
    grey = as_files(in_memory(3, channels=1), tmp_path)
    assert fit_preprocess(grey, recipe()).channels == 1
    colour = tmp_path / "colour.png"
    Image.fromarray(noise(12, 12, 3)).save(colour)
    assert grey.paths is not None
    mixed = dataclasses.replace(grey, paths=(*grey.paths[:2], colour))
    assert fit_preprocess(mixed, recipe()).channels == 3
    assert fit_preprocess(mixed, recipe(channels=1)).channels == 1
    assert fit_preprocess(mixed, recipe(resize="squash", input_size=10)).channels == 3


def test_sizes_that_differ_need_an_input_size(tmp_path: Path) -> None:
    samples = as_files(in_memory(3), tmp_path)
    Image.fromarray(noise(9, 12, 3)).save(tmp_path / "0001.png")
    with pytest.raises(InputError, match="train: the pictures' sizes differ or are not square") as error:
        fit_preprocess(samples, recipe())
    assert "--set resize=short-side --set resize_to=256 --set input_size=224" in str(error.value)
    assert error.value.details == ("12x9 pixels", "12x12 pixels")
    fitted = fit_preprocess(samples, recipe(resize="short-side", resize_to=12, input_size=10))
    assert (fitted.size, fitted.resize_to) == (10, 12)


def test_recipes_that_cannot_be_fitted() -> None:
    samples = in_memory(3)
    with pytest.raises(InputError, match="train: no training pictures"):
        fit_preprocess(samples.subset([], "train"), recipe())
    with pytest.raises(InputError, match="mean=per-pixel with resize=letterbox"):
        fit_preprocess(samples, recipe(resize="letterbox", input_size=8, mean="per-pixel"))
    with pytest.raises(InputError, match="resize_to=6 is below input_size=8"):
        fit_preprocess(samples, recipe(resize="short-side", input_size=8, resize_to=6))
