"""The protocols: views by a loop written out, what a network must be for them, and their strict reading."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from layerwise.data.preprocess import Preprocess
from layerwise.errors import InputError
from layerwise.evaluation.protocols import PROTOCOLS, Protocol, protocol_named
from layerwise.evaluation.views import resolved, views


def preprocess(size: int = 8, resize_to: int = 10, resize: str = "short-side", channels: int = 3) -> Preprocess:
    mean = np.full((channels, 1, 1), 0.5, np.float32)
    return Preprocess(channels, size, resize, resize_to if resize == "short-side" else 0, "bilinear", "apply", mean,
                      np.ones((channels, 1, 1), np.float32))


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_the_five_protocols() -> None:
    assert list(PROTOCOLS) == ["single", "mirror", "centre", "ten-crop", "multi-scale"]
    assert [protocol.views for protocol in PROTOCOLS.values()] == [1, 2, 1, 10, 10]


def test_a_typo_names_the_nearest() -> None:
    with pytest.raises(InputError, match="protocol 'tencrop': there is no such protocol, did you mean 'ten-crop'"):
        protocol_named("tencrop")


def test_single_and_centre_are_what_the_preprocessing_places() -> None:
    image = picture(13, 17)
    for name in ("single", "centre"):
        (view,) = views(PROTOCOLS[name], preprocess(), image)
        np.testing.assert_array_equal(view, preprocess().place(image))


def test_mirror() -> None:
    plain, mirrored = views(PROTOCOLS["mirror"], preprocess(), picture(13, 17))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    assert (mirrored != plain).any()


@pytest.mark.parametrize(("height", "width"), [(13, 20), (20, 13), (10, 10), (11, 31)])
def test_ten_crop_written_out(height: int, width: int) -> None:
    image = picture(height, width)
    short = min(height, width)
    new = (round(width * 10 / short), 10) if height <= width else (10, round(height * 10 / short))
    resized = np.array(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR))
    top, left = (resized.shape[0] - 10) // 2, (resized.shape[1] - 10) // 2
    expected = []
    for y, x in ((0, 0), (0, 2), (2, 0), (2, 2)):
        expected.append(resized[top + y:top + y + 8, left + x:left + x + 8])
    y, x = (resized.shape[0] - 8) // 2, (resized.shape[1] - 8) // 2
    expected.append(resized[y:y + 8, x:x + 8])
    expected += [np.array(Image.fromarray(crop).transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for crop in expected]
    found = views(PROTOCOLS["ten-crop"], preprocess(), image)
    assert len(found) == 10
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_ten_crop_corners_are_of_the_central_square_not_of_the_rectangle() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, :10] = 255  # a bar on the left, outside the central square
    found = views(PROTOCOLS["ten-crop"], preprocess(), image)
    assert max(view.max() for view in found) == 0


def test_multi_scale_shows_the_whole_picture_at_each_shorter_side() -> None:
    found = views(PROTOCOLS["multi-scale"], preprocess(224, 256), picture(30, 40))
    assert [min(view.shape[:2]) for view in found] == [224, 256, 384, 480, 640] * 2
    assert found[0].shape == (224, 299, 3)
    np.testing.assert_array_equal(found[5], found[0][:, ::-1])


def test_grey_pictures_for_a_colour_network_and_back() -> None:
    for name in ("single", "ten-crop"):
        assert views(PROTOCOLS[name], preprocess(), picture(12, 12, 1))[0].shape == (8, 8, 3)
        assert views(PROTOCOLS[name], preprocess(channels=1), picture(12, 12, 3))[0].shape == (8, 8, 1)
    image = picture(15, 11)
    centre = views(PROTOCOLS["ten-crop"], preprocess(channels=1), image)[4]
    np.testing.assert_array_equal(centre, preprocess(channels=1).place(image))


@pytest.mark.parametrize("name", ["centre", "ten-crop", "multi-scale"])
@pytest.mark.parametrize("rule", ["none", "squash", "letterbox"])
def test_a_network_that_does_not_resize_is_refused(name: str, rule: str) -> None:
    with pytest.raises(InputError, match=rf"protocol {name} does not fit this network: it takes pictures of 8x8 .*"
                                         rf"resize={rule}") as caught:
        resolved(PROTOCOLS[name], preprocess(resize=rule))
    assert "single" in caught.value.mend


def test_a_scale_smaller_than_the_network_takes_is_refused() -> None:
    with pytest.raises(InputError, match="it takes 299x299 pixels, and a shorter side of 224 is less"):
        resolved(PROTOCOLS["multi-scale"], preprocess(299, 320))


def test_resolved_states_what_the_preprocessing_decides() -> None:
    found = resolved(PROTOCOLS["ten-crop"], preprocess(224, 256))
    assert (found.resize, found.resize_to, found.size, found.interpolation) == ("short-side", 256, 224, "bilinear")
    assert (found.antialias, found.exif, found.mean) == (True, "apply", "per-channel")
    dense = resolved(PROTOCOLS["multi-scale"], preprocess(224, 256))
    assert (dense.resize_to, dense.size, dense.scales) == (0, 0, (224, 256, 384, 480, 640))
    per_pixel = Preprocess(3, 8, "short-side", 9, "nearest", "ignore", np.full((3, 8, 8), 0.5, np.float32),
                           np.ones((3, 1, 1), np.float32))
    found = resolved(PROTOCOLS["single"], per_pixel)
    assert (found.mean, found.antialias, found.exif) == ("per-pixel", False, "ignore")


def test_round_trip() -> None:
    for protocol in PROTOCOLS.values():
        assert Protocol.from_json(protocol.to_json(), "r") == protocol


@pytest.mark.parametrize("record", [None, {}, "centre", []])
def test_no_protocol_is_an_error(record: object) -> None:
    with pytest.raises(InputError, match=r"r.json: the protocol is missing"):
        Protocol.from_json(record, "r.json")


@pytest.mark.parametrize(("change", "message"), [
    ({"crops": "random"}, "protocol.crops: 'random' is not one of whole, centre, corners-and-centre"),
    ({"averaging": "votes"}, "protocol.averaging: 'votes' is not one of softmax, logits"),
    ({"mirror": 1}, "protocol.mirror: 1 is not a bool"),
    ({"scales": [2.5]}, r"protocol.scales: \[2.5\] is not a list"),
    ({"crop": "whole"}, "protocol.crop: not a field of a protocol, did you mean 'crops'"),
])
def test_a_changed_protocol_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Protocol.from_json(PROTOCOLS["single"].to_json() | change, "r")


def test_a_field_left_out_is_refused() -> None:
    for name in PROTOCOLS["single"].to_json():
        record = PROTOCOLS["single"].to_json()
        del record[name]
        with pytest.raises(InputError, match=f"protocol.{name}: missing"):
            Protocol.from_json(record, "r")
