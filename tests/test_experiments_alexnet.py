"""AlexNet's experiments: recipes, the paper's numbers typed anew, each claim judged on made-up results both ways."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import Samples
from layerwise.experiments import EXPERIMENTS, find
from layerwise.experiments.alexnet import bias_one, crops_and_flips, figure_1, protocols, table_2
from layerwise.experiments.scales import at_scale
from layerwise.models import build, published_input
from layerwise.recipe import Recipe, check
from layerwise.recipes.presets import NOTES, preset
from tests.made_up_results import FAILS, HOLDS, NOISE, ONLY_IF, UNMEASURED, curves, judged, results

MINE = ("figure-1", "figure-2", "groups", "lrn", "overlapping-pooling", "colour", "crops-and-flips", "dropout",
        "bias-one", "weight-decay", "table-1", "table-2", "figure-3", "middle-convolution")  # fmt: skip
RECIPES = {f"{name} {row}": (find(f"alexnet/{name}"), recipe) for name in MINE
           for row, one in find(f"alexnet/{name}").rows.items() for recipe in one.recipes}  # fmt: skip


def test_every_part_of_the_paper_is_registered() -> None:
    assert {f"alexnet/{name}" for name in MINE} <= set(EXPERIMENTS)
    for name in MINE:
        one = find(f"alexnet/{name}")
        assert one.title.startswith("AlexNet, ")
        assert f"layerwise reproduce alexnet/{name} " in one.text, name
        assert one.claims
        assert set(one.paper) <= set(one.rows)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_sound_and_their_networks_take_the_pictures(name: str) -> None:
    experiment, recipe = RECIPES[name]
    for scale in ("paper", "small"):
        used = at_scale(recipe, scale, 0, experiment.small)
        check(used)
        channels = used.channels or (1 if used.data == "fashion-mnist" else 3)
        assert used.input_size in (published_input(used.network)[1], 28)
        with torch.device("meta"):
            model = build(used.network, 10, channels)
            assert model(torch.empty(2, channels, used.input_size, used.input_size)).shape == (2, 10)
    assert used.data == "fashion-mnist"
    assert used.duration <= 1500
    with torch.device("meta"), pytest.raises(RuntimeError):  # the control: pictures of another side
        model(torch.empty(2, channels, used.input_size + 8, used.input_size + 8))


def test_what_the_paper_leaves_open_is_said_once() -> None:
    """The rows' list is the preset's: none has a point that the other lacks."""
    assert NOTES["alexnet-imagenet"].deviations == protocols.OPEN_IMAGENET
    assert [text.split(":")[0].split(" at ")[0] for text in protocols.OPEN_IMAGENET] == [
        "crops of 227", "plateau", "training ends", "weight decay on the weights of convolutions and fc layers only",
        "colour augmentation with eigenvalues of colours on the 0..1 scale"]
    for name, note in NOTES.items():  # every preset with that augmentation says it
        assert any("0..1" in text for text in note.deviations) == (preset(name).colour == "pca"), name


def test_the_halved_last_convolution_is_said_of_its_row() -> None:
    rows = find("alexnet/groups").rows
    (text,) = rows["half_kernels"].differs
    assert "the last convolution too; the paper did not halve that one" in text
    assert rows["two_groups"].differs == ()
    assert "alexnet_one_gpu_conv5_256" in find("alexnet/groups").text
    with torch.device("meta"):
        widths = [build(name).features.conv5.out_channels for name in ("alexnet_one_gpu", "alexnet")]
    assert widths == [128, 256]


def changed_fields(one: Recipe, other: Recipe) -> set[str]:
    return {field.name for field in dataclasses.fields(Recipe)
            if getattr(one, field.name) != getattr(other, field.name)}  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "fields"), [
    ("groups", ("two_groups", "half_kernels"), {"network"}),
    ("lrn", ("with", "without"), {"network"}),
    ("lrn", ("cifar_with", "cifar_without"), {"network"}),
    ("overlapping-pooling", ("overlapping", "adjacent"), {"network"}),
    ("overlapping-pooling", ("overlapping_few", "adjacent_few"), {"network"}),
    ("colour", ("with", "without"), {"colour"}),
    ("crops-and-flips", ("with", "without"), {"crop", "flip"}),
    ("dropout", ("with", "without"), {"network"}),
    ("bias-one", ("one", "zero"), {"network"}),
    ("weight-decay", ("with", "without"), {"weight_decay"}),
    ("middle-convolution", ("whole", "without_conv3"), {"network"}),
    ("middle-convolution", ("whole", "without_conv4"), {"network"}),
])
def test_the_rows_of_an_ablation_differ_in_one_thing_at_both_scales(
    name: str, rows: tuple[str, str], fields: set[str]
) -> None:
    experiment = find(f"alexnet/{name}")
    one, other = (experiment.rows[row].recipes[0] for row in rows)
    for scale in ("paper", "small"):
        assert changed_fields(at_scale(one, scale, 0, experiment.small),
                              at_scale(other, scale, 0, experiment.small)) == fields  # fmt: skip


def test_alexnet_is_trained_once_for_all_of_them() -> None:
    shared = [("groups", "two_groups"), ("lrn", "with"), ("overlapping-pooling", "overlapping"), ("colour", "with"),
              ("crops-and-flips", "with"), ("dropout", "with"), ("bias-one", "one"), ("weight-decay", "with"),
              ("table-1", "cnn"), ("figure-3", "alexnet"), ("middle-convolution", "whole")]  # fmt: skip
    assert len({find(f"alexnet/{name}").rows[row].recipes[0].hash for name, row in shared}) == 1
    assert table_2.ROWS["cnn"].recipes[0].data == "imagenet"  # the control: the other contest is another training


def test_section_5() -> None:
    recipe = protocols.imagenet("alexnet")
    assert (recipe.data, recipe.std, recipe.mean) == ("imagenet-2010", "raw", "per-pixel")
    assert changed_fields(recipe, preset("alexnet-imagenet")) <= {"data", "std", "precision"}
    assert (recipe.batch_size, recipe.momentum, recipe.weight_decay, recipe.velocity) == (128, 0.9, 0.0005, "inside")
    assert (recipe.learning_rate, recipe.plateau_drops, recipe.decay_factor, recipe.duration) == (0.01, 3, 0.1, 90)


def test_figure_1_has_no_regularisation_and_every_rate() -> None:
    assert {recipe.learning_rate for one in figure_1.ROWS.values() for recipe in one.recipes} == {
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1}  # fmt: skip
    for one in figure_1.ROWS.values():
        for scale in ("paper", "small"):
            recipe = at_scale(one.recipes[0], scale, 0, figure_1.small)
            assert (recipe.weight_decay, recipe.crop, recipe.flip, recipe.colour) == (0, "none", False, "none")
            assert (recipe.schedule, recipe.validation, recipe.mixup, recipe.label_smoothing) == ("constant", 0, 0, 0)
            assert recipe.learning_rate == one.recipes[0].learning_rate


def test_an_ensemble_has_five_seeds() -> None:
    members = [at_scale(recipe, scale, 2, table_2.small) for scale in ("paper", "small")
               for recipe in table_2.ROWS["cnns_5"].recipes]  # fmt: skip
    assert [one.seed for one in members] == 2 * [2, 1002, 2002, 3002, 4002]
    assert at_scale(table_2.ONE, "small", 2, table_2.small) == members[5]  # one network is the first of them


def test_the_numbers_that_the_paper_prints() -> None:
    """Typed from its tables and from section 3.3."""
    assert find("alexnet/table-1").paper == {
        "sparse_coding": {"error": 47.1, "top5_error": 28.2}, "sift_fvs": {"error": 45.7, "top5_error": 25.7},
        "cnn": {"error": 37.5, "top5_error": 17.0},
    }  # fmt: skip
    assert find("alexnet/table-2").paper == {
        "sift_fvs": {"top5_test": 26.2}, "cnn": {"error": 40.7, "top5_error": 18.2},
        "cnns_5": {"error": 38.1, "top5_error": 16.4, "top5_test": 16.4},
        "cnn_starred": {"error": 39.0, "top5_error": 16.6},
        "cnns_7_starred": {"error": 36.7, "top5_error": 15.4, "top5_test": 15.3},
        "fall_2009": {"error": 67.4, "top5_error": 40.9}, "fall_2009_before": {"error": 78.1, "top5_error": 60.9},
    }  # fmt: skip
    printed = find("alexnet/figure-2").paper["alexnet"]
    assert list(printed.values()) == [150528, 253440, 186624, 64896, 64896, 43264, 4096, 4096, 1000, 650000]
    lrn = find("alexnet/lrn").paper
    assert (lrn["cifar_without"], lrn["cifar_with"]) == ({"error": 13}, {"error": 11})
    for name in MINE:  # the same network on the same test set is the same number everywhere
        for row, numbers in find(f"alexnet/{name}").paper.items():
            recipes = find(f"alexnet/{name}").rows[row].recipes
            if "error" in numbers and recipes and recipes[0] == protocols.imagenet("alexnet"):
                assert numbers == {"error": 37.5, "top5_error": 17.0}


# Each printed difference: the experiment, the claim, the better and the worse row, the number's name, its points.
POINTS = [
    ("groups", "top-1-points", "two_groups", "half_kernels", "error", 1.7),
    ("groups", "top-5-points", "two_groups", "half_kernels", "top5_error", 1.2),
    ("lrn", "top-1-points", "with", "without", "error", 1.4),
    ("lrn", "top-5-points", "with", "without", "top5_error", 1.2),
    ("overlapping-pooling", "top-1-points", "overlapping", "adjacent", "error", 0.4),
    ("overlapping-pooling", "top-5-points", "overlapping", "adjacent", "top5_error", 0.3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "claim", "better", "worse", "number", "points"), POINTS)
def test_printed_differences(name: str, claim: str, better: str, worse: str, number: str, points: float) -> None:
    for found, word in ((points, HOLDS), (points + 0.3, HOLDS), (points + 0.4, FAILS), (points - 0.4, FAILS)):
        made = results({better: {number: [30]}, worse: {number: [30 + found]}})
        verdict = judged(name, claim, made)
        assert verdict.word == word, found
        assert f"printed {points:g}" in verdict.because
    assert judged(name, claim, results({better: {number: [30]}})).word == UNMEASURED
    small = results({better: {number: [30]}, worse: {number: [30 + points]}}, "small")
    assert judged(name, claim, small).word == UNMEASURED


# A claim of order: the experiment, the claim, the numbers of the row that should win and of the other.
ORDERS = [
    ("groups", "lowers-error", "two_groups", "half_kernels", "error"),
    ("lrn", "lowers-error", "with", "without", "error"),
    ("lrn", "four-layer", "cifar_with", "cifar_without", "error"),
    ("overlapping-pooling", "lowers-error", "overlapping", "adjacent", "error"),
    ("colour", "lowers-error", "with", "without", "error"),
    ("weight-decay", "lowers-training-error", "with", "without", "training_error"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "claim", "better", "worse", "number"), ORDERS)
@pytest.mark.parametrize("scale", ["small", "paper"])
def test_claims_of_order(name: str, claim: str, better: str, worse: str, number: str, scale: str) -> None:
    low, high = {number: [10.0, 10.1, 10.2]}, {number: [11.0, 11.1, 11.2]}
    assert judged(name, claim, results({better: low, worse: high}, scale)).word == HOLDS
    assert judged(name, claim, results({better: high, worse: low}, scale)).word == FAILS
    near = {number: [10.0, 10.1, 10.4]}
    assert judged(name, claim, results({better: low, worse: near}, scale)).word == NOISE
    assert judged(name, claim, results({better: low}, scale)).word == UNMEASURED


def test_over_one_point_of_colour() -> None:
    for found, word in ((1.5, HOLDS), (1.1, NOISE), (0.9, NOISE), (0.5, FAILS)):
        made = results({"with": {"error": [37.5]}, "without": {"error": [37.5 + found]}})
        assert judged("colour", "one-point", made).word == word
    assert judged("colour", "one-point", results({"with": {"error": [37.5]}})).word == UNMEASURED


@pytest.mark.parametrize(("name", "claim", "low", "high"), [
    ("overlapping-pooling", "harder-to-overfit", "overlapping_few", "adjacent_few"),
    ("dropout", "overfits-without", "with", "without"),
    ("crops-and-flips", "overfits-without", "with", "without"),
])
def test_overfitting_is_the_gap_between_training_and_test(name: str, claim: str, low: str, high: str) -> None:
    little = {"error": [10.0, 10.1, 10.2], "training_error": [8.0, 8.2, 8.1]}
    much = {"error": [12.0, 12.1, 12.2], "training_error": [1.0, 1.2, 1.1]}
    verdict = judged(name, claim, results({low: little, high: much}, "small"))
    assert verdict.word == HOLDS
    assert "test above training error" in verdict.because
    assert judged(name, claim, results({low: much, high: little}, "small")).word == FAILS
    assert judged(name, claim, results({low: little}, "small")).word == UNMEASURED


def test_a_lower_training_error_alone_is_no_overfitting_that_costs() -> None:
    with_, without = {"error": [10.0], "training_error": [8.0]}, {"error": [9.0], "training_error": [1.0]}
    assert judged("dropout", "overfits-without", results({"with": with_, "without": without})).word == FAILS


def test_2048_pictures_of_one() -> None:
    verdict = judged("crops-and-flips", "factor", results({}))
    assert verdict.word == ONLY_IF
    assert "2178" in verdict.because
    assert crops_and_flips.PRINTED_FACTOR == 2048


def test_dropout_doubles_the_steps() -> None:
    fast = [(100, 30.0), (200, 20.9), (300, 20.0), (400, 25.0)]
    slow = [(100, 30.0), (200, 25.0), (300, 24.0), (400, 18.0)]
    assert protocols.converged([{"step": 1, "training_error": 3.0}]) is None
    found = judged("dropout", "doubles-steps", curves({"with": [slow], "without": [fast]}, "validation_error"))
    assert found.word == HOLDS
    assert "400 steps with dropout, 200 without" in found.because
    for with_, without in ((fast, slow), (slow, slow)):
        made = curves({"with": [with_], "without": [without]}, "validation_error")
        assert judged("dropout", "doubles-steps", made).word == FAILS
    made = curves({"with": [slow]}, "validation_error")
    assert judged("dropout", "doubles-steps", made).word == UNMEASURED


def test_biases_of_one_are_faster_early() -> None:
    quick, late = ([(100, 50.0 + bias), (400, 20.0 + bias), (1200, 10.0)] for bias in (0, 9))
    made = {"one": [quick, [(step, error + 1) for step, error in quick]], "zero": [late, late]}
    assert judged("bias-one", "faster-early", curves(made, "training_error")).word == HOLDS
    made = {"one": made["zero"], "zero": made["one"]}
    assert judged("bias-one", "faster-early", curves(made, "training_error")).word == FAILS
    end_alone = {"one": [quick, quick], "zero": [[*quick[:2], (1200, 90.0)]] * 2}  # the control: what is late
    assert judged("bias-one", "faster-early", curves(end_alone, "training_error")).word == NOISE
    assert judged("bias-one", "faster-early", curves({}, "training_error")).word == UNMEASURED
    assert set(bias_one.EARLY) == {"paper", "small", "smoke"}


def test_a_middle_convolution() -> None:
    good, bad = {"error": [37.0, 37.1, 37.2]}, {"error": [39.0, 39.1, 39.2]}
    whole = {"whole": good, "without_conv3": bad, "without_conv4": bad}
    for claim in ("inferior", "two-points"):
        assert judged("middle-convolution", claim, results(whole)).word == HOLDS
        assert judged("middle-convolution", claim, results({**whole, "without_conv4": good})).word != HOLDS
        assert judged("middle-convolution", claim, results({"whole": bad, "without_conv3": good,
                                                            "without_conv4": good})).word == FAILS  # fmt: skip
        assert judged("middle-convolution", claim, results({"whole": good})).word == UNMEASURED


def test_the_time_of_two_gpus_is_not_judged() -> None:
    assert judged("groups", "slightly-faster", results({})).word == UNMEASURED


def test_the_tables() -> None:
    good, bad = {"error": [37.5], "top5_error": [17.0]}, {"error": [46.0], "top5_error": [25.8]}
    for claim in ("best", "printed"):
        assert judged("table-1", claim, results({"cnn": good})).word == HOLDS
        assert judged("table-1", claim, results({"cnn": bad})).word == FAILS
        assert judged("table-1", claim, results({"cnn": good}, "small")).word == UNMEASURED
        assert judged("table-1", claim, results({})).word == UNMEASURED
    one, five = {"error": [40.7], "top5_error": [18.2]}, {"error": [38.1], "top5_error": [16.4]}
    both = results({"cnn": one, "cnns_5": five, "fall_2009": {"error": [67.4], "top5_error": [40.9]}})
    turned = results({"cnn": {"error": [30.0], "top5_error": [27.0]}, "cnns_5": one,
                      "fall_2009": {"error": [78.2], "top5_error": [40.9]}})  # fmt: skip
    for claim in ("ensemble-better", "second-best", "printed", "fall-2009"):
        assert judged("table-2", claim, both).word == HOLDS
        assert judged("table-2", claim, turned).word == FAILS
        assert judged("table-2", claim, results({})).word == UNMEASURED
    table = find("alexnet/table-2")
    assert [row for row, one in table.rows.items() if one.unmeasured] == [
        "sift_fvs", "cnn_starred", "cnns_7_starred", "fall_2009_before"]  # fmt: skip


def test_raw_pixels_keep_their_range() -> None:
    """Section 2: "centered raw RGB values"; the control is the scale without std=raw."""
    pictures = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
    ids = tuple(f"train/{number}" for number in range(20))
    samples = Samples("train", ("a", "b"), np.zeros(20, np.int64), ids, images=pictures)
    recipe = dataclasses.replace(protocols.imagenet("alexnet"), resize="none", input_size=6)
    expected = pictures.astype(np.float64) - pictures.mean(0)
    found, unit = (fit_preprocess(samples, one).normalise(torch.from_numpy(pictures)).numpy().transpose(0, 2, 3, 1)
                   for one in (recipe, dataclasses.replace(recipe, std="none")))  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(255 * unit, found, atol=1e-3)
    assert np.abs(found - unit).max() > 50
