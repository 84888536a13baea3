"""Differences of recipes: each named once, with its effect and source, in order; what is none."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from layerwise.experiments import find
from layerwise.experiments.experiment import Row
from layerwise.jobs import causes
from layerwise.jobs.again import Again
from layerwise.jobs.causes import Trained, differences, printed_errors, training_pictures, unused
from layerwise.jobs.sides import row_named
from layerwise.recipe import Recipe
from layerwise.recipes import effects
from layerwise.recipes.presets import PRESETS, preset
from tests.made_up_paper import registry

BASE = preset("resnet-cifar")


def trained(recipe: Recipe) -> Trained:
    return Trained(recipe, training_pictures(recipe))


def found(changes: dict[str, object], base: Recipe = BASE, tests: tuple[Again, ...] = ()) -> list[causes.Cause]:
    """The causes between `base` with `changes` (here) and `base` (there)."""
    return differences(trained(replace(base, **changes)), trained(base), {}, tests)  # type: ignore[arg-type]


def test_every_field_has_an_effect_with_its_source() -> None:
    assert {field.name for field in dataclasses.fields(Recipe)} == set(effects.FIELDS)
    for name, effect in effects.FIELDS.items():
        assert effect.source, name
        assert effect.printed != effect.source.startswith(("our judgement: ", "by definition: ")), name
    assert set(causes.USED) | set(causes.LEFT_OPEN) <= set(effects.FIELDS)


def test_equal_recipes_have_no_difference() -> None:
    for recipe in PRESETS.values():
        assert differences(trained(recipe), trained(recipe), {}, ()) == []
        assert unused(recipe, recipe) == ()


def test_each_field_that_is_used_is_named() -> None:
    """Any field that is changed alone is a cause, or among those that are used by neither side."""
    other = preset("alexnet-imagenet")
    for field in dataclasses.fields(Recipe):
        if field.name in ("name", "seed", "unit") or getattr(BASE, field.name) == getattr(other, field.name):
            continue
        changed = replace(BASE, **{field.name: getattr(other, field.name)})
        told = " ".join(cause.name for cause in differences(trained(changed), trained(BASE), {}, ()))
        name = {"duration": "length", "reference_batch": "learning_rate"}.get(field.name, field.name)
        assert name in told or field.name in unused(changed, BASE), field.name


def test_the_order_is_that_of_the_effects() -> None:
    causes_found = found({"nesterov": True, "data": "digits", "label_smoothing": 0.1, "network": "resnet32",
                          "duration": 100.0, "threads": 2, "crop": "none"})
    names = [cause.name for cause in causes_found]
    assert names[:2] == ["data", "length"]
    assert names.index("crop") < names.index("network") < names.index("label_smoothing") < names.index("nesterov")
    assert causes_found[0].kind == "other question"
    assert causes_found[0].points is None
    smoothing = causes_found[names.index("label_smoothing")]
    assert (smoothing.kind, smoothing.points) == ("printed", 0.4)
    assert "Bag of Tricks" in smoothing.source
    assert (smoothing.here, smoothing.there) == ("0.1", "0")
    assert "threads" not in names  # there it is left to the machine


def test_what_neither_side_uses_is_no_cause() -> None:
    assert found({"plateau_patience": 7.0, "beta2": 0.9, "colour_sigma": 0.3}) == []
    assert unused(replace(BASE, plateau_patience=7.0, beta2=0.9), BASE) == ("plateau_patience", "beta2")
    used = replace(BASE, schedule="plateau", plateau_drops=3)
    assert [cause.name for cause in found({"plateau_drops": 2}, used)] == ["plateau_drops"]


def test_the_length_is_told_in_pictures_seen() -> None:
    one = found({"unit": "epochs", "duration": 182.0, "milestones": (91.0, 136.5), "evaluate_every": 3.0})
    assert one == []  # 182 epochs of 45,000 are 64,000 steps of 128
    (short,) = found({"duration": 640.0, "milestones": (320.0, 480.0), "evaluate_every": 10.0})
    assert (short.name, short.kind, short.points) == ("length", "judged", 10.0)
    assert short.here == "640 iterations of 128, 81,920 pictures seen"
    assert short.source == "our judgement: 100 times shorter; no source for such a ratio is known to us"
    (half,) = found({"duration": 32_000.0, "milestones": (16_000.0, 24_000.0), "evaluate_every": 500.0})
    assert half.kind == "printed"
    (drops,) = found({"milestones": (40_000.0,)})
    assert (drops.name, drops.here, drops.there) == ("milestones, as parts of the length", "0.625", "0.5, 0.75")
    own = replace(BASE, data="photos", unit="epochs", duration=5.0, milestones=(2.5, 3.75))
    longer = replace(own, duration=6.0, milestones=(3.0, 4.5))
    (unknown,) = differences(Trained(own, None), Trained(longer, None), {}, ())
    assert (unknown.here, unknown.there) == ("5 epochs", "6 epochs")


def test_rates_that_are_written_in_two_ways_are_one() -> None:
    assert found({"learning_rate": 0.2, "reference_batch": 256}) == []
    (one,) = found({"learning_rate": 0.2})
    assert (one.name, one.here, one.there) == ("learning_rate", "0.2 for 128 pictures", "0.1 for 128 pictures")


def test_effects_that_depend_on_both_sides() -> None:
    here = trained(replace(BASE, network="resnet20"))
    (network,) = differences(here, trained(replace(BASE, network="resnet56")), {"resnet20": 8.75, "resnet56": 6.97}, ())
    assert (network.points, network.kind) == (1.78, "printed")
    assert "8.75 and 6.97" in network.source
    (small,) = found({"micro_batch": 2})
    assert (small.points, small.here, small.there) == (11.1, "2", "128")
    assert found({"micro_batch": 128}) == []
    assert effects.of_protocols("multi-scale", "ten-crop").size == 2.1
    assert not effects.of_protocols("single", "mirror").printed


def test_what_was_tested_again_is_measured() -> None:
    tests = (Again("protocol single", "protocol", "single", 0.07, 0.012, (0.004, 0.02), 0.003, 40),
             Again("protocol centre", "protocol", "centre", reason="does not fit"))
    (one,) = found({"protocol": "mirror"}, tests=tests)
    assert (one.kind, one.interval) == ("measured", (0.4, 2.0))
    assert one.points == pytest.approx(1.2)
    assert one.source == "the same weights tested again, p = 0.003"
    (noise,) = found({"protocol": "mirror"}, tests=(replace(tests[0], p=0.4),))
    assert noise.source.endswith("inside the noise")
    (untested,) = found({"protocol": "mirror"}, tests=tests[1:])
    assert untested.kind == "judged"


def test_the_papers_training_pictures() -> None:
    assert [training_pictures(recipe) for recipe in (BASE, replace(BASE, validation=0), preset("resnet-imagenet"),
                                                     replace(BASE, data="photos"))] == [45_000, 50_000, 1_281_167, None]
    assert training_pictures(preset("fast")) == 54_000


def test_printed_errors_are_by_network() -> None:
    table = registry(lenet1990=Row((replace(BASE, network="lenet1990"),)), cited=Row(unmeasured="x"),
                     lenet5=Row((BASE, BASE)))["paper/table-1"]
    assert printed_errors(table, Row((BASE,))) == {"lenet1990": 1.7}
    assert printed_errors(table, Row((replace(BASE, protocol="mirror"),))) == {}  # printed under another protocol
    more = dataclasses.replace(table, paper={"lenet1990": {"error": 9.9}, "plain": {"error": 2.0}}, rows={
        "lenet1990": table.rows["lenet1990"], "plain": Row((replace(BASE, network="plain20"),))})
    assert printed_errors(table, Row((BASE,)), [more]) == {"lenet1990": 1.7, "plain20": 2.0}


def test_the_papers_names_of_rows() -> None:
    experiment = find("resnet/table-3")
    assert row_named(experiment, "resnet34-b") == "resnet34"
    assert row_named(experiment, "resnet34-a") == "resnet34_a"
    assert row_named(experiment, "plain34") == "plain34"
