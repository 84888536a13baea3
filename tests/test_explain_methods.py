"""The methods behind the views, on toy networks and numbers with answers that are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.explain import pictures
from layerwise.explain.classes import class_reports, duplicates, label_errors, out_of_fold
from layerwise.explain.feature_map import feature_map, kept_near
from layerwise.explain.gained_lost import gained_lost
from layerwise.explain.kernels import colour_shares, first_kernels, levels
from layerwise.explain.predictions import confident_mistakes, confused_pairs, uncertain_hits
from layerwise.explain.view import Bar, Chart, Gallery, Series, Strips, Table, Tile, View, Words, from_json, read, write

PICTURE = pictures.uri(np.zeros((2, 2, 1), np.uint8))


def towers(groups: int) -> nn.Sequential:
    """Two convolutions, the second in groups."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=groups), nn.Flatten(),
                         nn.Linear(8, 2))


def test_shares_of_colour() -> None:
    torch.manual_seed(0)
    grey, random = torch.randn(200, 1, 5, 5).expand(200, 3, 5, 5), torch.randn(200, 3, 5, 5)
    opponent = torch.stack((grey[:, 0], -grey[:, 0], torch.zeros(200, 5, 5)), 1)
    assert colour_shares(grey).abs().max() < 1e-6
    assert colour_shares(opponent).min() > 1 - 1e-6
    assert colour_shares(random).mean().item() == pytest.approx(2 / 3, abs=0.01)
    assert colour_shares(random[:, :1]).abs().max() < 1e-6
    assert colour_shares(7 * random).allclose(colour_shares(random), atol=1e-5)


def test_towers_are_what_the_groups_of_the_next_convolution_read() -> None:
    image = torch.zeros(1, 3, 5, 5)
    assert first_kernels(towers(2), image).towers == ((0, 4), (4, 8))
    assert first_kernels(towers(1), image).towers == ((0, 8),)
    assert first_kernels(towers(8), image).towers == ((0, 8),), "a depthwise convolution has no towers"
    assert first_kernels(towers(2), image).layer == "0"
    with pytest.raises(InputError, match="has no convolution"):
        first_kernels(nn.Sequential(nn.Flatten(), nn.Linear(75, 2)), image)


def test_kernels_are_drawn_from_their_lowest_to_their_highest_value() -> None:
    found = levels(torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(1, 1, 2, 2))
    assert found.flatten().tolist() == [0.0, 64.0, 128.0, 255.0]
    assert levels(torch.ones(1, 3, 2, 2)).abs().max() == 0


ANSWERS = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.4, 0.5, 0.1], [0.0, 0.51, 0.49], [0.1, 0.0, 0.9]])
LABELS = np.array([0, 0, 0, 1, 1])


def test_mistakes_hits_and_pairs() -> None:
    assert confident_mistakes(ANSWERS, LABELS, 9).tolist() == [4, 1, 2]
    assert confident_mistakes(ANSWERS, LABELS, 1).tolist() == [4]
    assert uncertain_hits(ANSWERS, LABELS, 9).tolist() == [3, 0]
    pairs = confused_pairs(ANSWERS.argmax(1), LABELS, 3, 9)
    assert [(one.first, one.second, one.called_second, one.called_first, one.both) for one in pairs] == [
        (0, 1, 2, 0, 2), (1, 2, 1, 0, 1)]
    assert confused_pairs(LABELS, LABELS, 3, 9) == ()


def test_class_reports() -> None:
    first, second, third = class_reports(ANSWERS, LABELS)
    assert (first.pictures, first.right, first.called, first.confusions) == (3, 1, 1, ((1, 2),))
    assert first.accuracy == pytest.approx(1 / 3)
    assert first.precision == 1
    assert first.hardest == (1, 2, 0)
    assert (second.accuracy, second.precision) == (0.5, pytest.approx(1 / 3))
    assert third.pictures == 0
    assert np.isnan(third.accuracy)


def test_planted_label_errors_are_found_and_right_labels_are_left_alone() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 400)
    probabilities = random.uniform(0, 0.1, (400, 4))
    probabilities[np.arange(400), truth] += random.uniform(0.6, 0.9, 400)
    probabilities /= probabilities.sum(1, keepdims=True)
    planted = random.permutation(400)[:20]
    labels = truth.copy()
    labels[planted] = (labels[planted] + 1) % 4
    found = label_errors(probabilities, labels)
    assert {one.place for one in found} <= set(planted.tolist())
    assert len(found) >= 8
    assert all(one.likely == truth[one.place] != one.label for one in found)
    margins = [one.own - one.other for one in found]
    assert margins == sorted(margins)
    assert label_errors(probabilities, truth) == (), "the control: nothing was planted"
    with pytest.raises(InputError, match="Each picture has a row"):
        label_errors(probabilities, labels[:5])


def test_planted_label_errors_of_training_pictures_are_found_out_of_fold() -> None:
    """400 pictures of 4 classes, 20 with a wrong label, and 100 features of noise by which each can be known by heart.
    Out-of-fold they say nothing of the picture; in-fold (the control) the fit takes them and believes the labels."""
    random = np.random.default_rng(0)
    truth = np.arange(400) % 4
    features = np.hstack([2 * np.eye(4)[truth], np.zeros((400, 100))]) + random.normal(0, 0.3, (400, 104))
    planted = random.permutation(400)[:20]
    labels = truth.copy()
    labels[planted] = (labels[planted] + 1) % 4
    places, probabilities = out_of_fold(features, labels, 5)
    assert places.tolist() == list(range(400))
    assert np.array_equal(probabilities, out_of_fold(features, labels, 5)[1]), "always the same folds"
    assert probabilities[:, 4].max() == 0, "no picture is of the fifth class"
    found = {one.place for one in label_errors(probabilities, labels)}
    assert found <= set(planted.tolist())
    assert len(found) >= 12
    in_fold = np.zeros((400, 5))
    in_fold[:, :4] = LogisticRegression(C=100, max_iter=500).fit(features, labels).predict_proba(features)
    assert label_errors(in_fold, labels) == ()


def test_classes_with_too_few_pictures_for_the_folds_are_not_judged() -> None:
    labels = np.array([0] * 6 + [1] * 6 + [2] * 4)
    places, probabilities = out_of_fold(np.eye(16, 3)[labels].astype(np.float32), labels, 3)
    assert places.tolist() == list(range(12))
    assert probabilities.shape == (12, 3)
    with pytest.raises(InputError, match="10 pictures of 3 classes are too few for 5 folds"):
        out_of_fold(np.ones((10, 3)), labels[6:], 3)


def test_pictures_that_are_there_twice() -> None:
    random = np.random.default_rng(0)
    images = np.repeat(np.repeat(random.integers(0, 255, (6, 8, 8, 1), dtype=np.uint8), 4, 1), 4, 2)
    images[4], images[5] = images[0], np.clip(images[1].astype(int) + 6, 0, 255)
    samples = Samples("t", ("a", "b"), np.array([0, 0, 0, 0, 1, 0]), tuple("012345"), images)
    pairs = duplicates(samples, [str(image.tobytes()) for image in images])
    assert [(one.first, one.second, one.kind) for one in pairs] == [(0, 4, "exact"), (1, 5, "near")]
    other = samples.subset(range(4), "t")
    assert duplicates(other, [str(number) for number in range(4)]) == ()


def test_two_groups_of_features_lie_apart_on_the_map() -> None:
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (60, 5)).astype(np.float32)
    features[30:] += 40
    places = feature_map(features)
    assert places.min() == 0
    assert places.max() == 1
    assert np.array_equal(places, feature_map(features)), "the same features give the same map"
    middle = [places[:30].mean(0), places[30:].mean(0)]
    within = max(places[:30].std(), places[30:].std())
    assert np.linalg.norm(middle[0] - middle[1]) > 2 * within
    assert kept_near(features, places) > kept_near(features, random.permutation(places)) + 0.2
    assert np.array_equal(feature_map(np.ones((9, 3))), np.full((9, 2), 0.5))
    with pytest.raises(InputError, match="7 pictures are too few for a map"):
        feature_map(features[:7])


def test_gained_and_lost() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = gained_lost(np.array([1, 0, 0, 1, 0, 0]), np.array([0, 0, 1, 1, 1, 0]), labels, 3)
    assert (found.gained.tolist(), found.lost.tolist()) == ([0, 4], [2])
    assert [(one.label, one.pictures, one.gained, one.lost, one.both, one.neither) for one in found.classes] == [
        (0, 3, 1, 1, 1, 0), (1, 3, 1, 0, 1, 1)]
    assert found.p == 1.0
    with pytest.raises(InputError, match="counted on the same pictures"):
        gained_lost(labels[:2], labels, labels, 2)


def test_heat_and_signed_numbers_as_pictures() -> None:
    values = np.array([[0.0, 1.0], [2.0, 4.0]])
    assert pictures.heat(values)[0, 0].tolist() == [0, 0, 4]
    assert pictures.heat(values)[1, 1].tolist() == [252, 255, 164]
    assert pictures.diverging(values - 2)[1, 0].tolist() == [247, 247, 247]
    assert pictures.diverging(-values)[1, 1].tolist() == [33, 102, 172]
    assert pictures.signed(np.array([[[-1.0, 0.0, 0.5]]]))[0, :, 0].tolist() == [0, 128, 191]
    assert pictures.spread(np.array([[[1.0, 3.0]]]))[0, :, 0].tolist() == [0, 255]
    assert pictures.heat(np.zeros((1, 1)))[0, 0].tolist() == [0, 0, 4]
    grey = np.full((2, 2, 3), 100, np.uint8)
    assert pictures.over(grey, values)[0, 0].tolist() == [45, 45, 47]
    assert pictures.uri(np.zeros((300, 200, 3), np.uint8)).startswith("data:image/jpeg;base64,")


def test_the_input_becomes_the_picture_that_was_normalised() -> None:
    mean, std = np.full((3, 1, 1), 0.4, np.float32), np.full((3, 1, 1), 0.2, np.float32)
    preprocess = Preprocess(3, 8, "none", 0, "bilinear", "apply", mean, std)
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(pictures.from_input(preprocess.tensor(picture)[0].numpy(), preprocess), picture)


def a_view() -> View:
    return View("toy", "Toy", "says", "not", "source", (
        Words("words"), Table("t", ("a", "b"), (("x", 1), ("y", None), ("z", 0.5))),
        Chart("c", "x", "y", (Series("s", (0.0, 1.0), (2.0, 3.0)),), log=True),
        Gallery("g", (Tile(PICTURE, "one", ("line", "caf\udce9.png"), (Bar("cat", 0.5, True),), "wrong"),)),
        Strips("s", ("h",), (1,), ((Tile(PICTURE),),))), ("bounded",))  # fmt: skip


def test_a_view_is_kept_and_read_back_equal(tmp_path: Path) -> None:
    file = tmp_path / "toy.json"
    write(file, a_view(), "key")
    assert read(file, "key") == a_view()
    assert read(file, None) == a_view()
    assert read(file, "another key") is None
    assert read(tmp_path / "none.json", "key") is None
    file.write_bytes(file.read_bytes()[:-40])
    assert read(file, "key") is None


@pytest.mark.parametrize(("path", "value"), [
    (("parts", 3, "tiles", 0, "uri"), "https://example.org/x.png"),
    (("parts", 3, "tiles", 0, "uri"), PICTURE + "\" onerror=\"x"),
    (("parts", 1, "rows", 0), ["too short"]), (("parts", 0, "kind"), "script"), (("parts",), "words"),
    (("title",), 7), (("parts", 2, "series", 0, "y"), [1.0]), (("parts", 1, "rows", 0, 1), {"a": 1}),
    (("parts", 4, "spans"), [float("inf")]), (("parts", 4, "spans"), []),
])  # fmt: skip
def test_a_view_that_was_tampered_with_is_not_read(path: tuple[str | int, ...], value: object, tmp_path: Path) -> None:
    file = tmp_path / "toy.json"
    write(file, a_view(), "key")
    record = json.loads(file.read_text())
    place = record["view"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError)):
        from_json(record["view"])
    file.write_text(json.dumps(record))
    assert read(file, "key") is None


def test_a_view_under_another_name_is_not_read(tmp_path: Path) -> None:
    """The page puts the name into its style, where the name of a file that it asks for is all that may stand."""
    for file in (tmp_path / "toy.json", tmp_path / "other.json"):
        write(file, a_view(), "key")
    assert read(tmp_path / "toy.json", "key") == a_view(), "the control"
    assert read(tmp_path / "other.json", "key") is None
