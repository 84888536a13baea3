"""The recipe: strict reading, hash, `--set`, ranges and contradictions. Each refusal has a recipe that is accepted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwise.errors import InputError
from layerwise.recipe import Recipe, changed, check, field_notes, field_types, former_values
from layerwise.recipes.presets import PRESETS
from layerwise.recipes.values import show

FAST = PRESETS["fast"]
# As the first recipes called fast were hashed, before pad_with, loss, auxiliary_weight, recompute, whiten and
# flip_turns existed.
KNOWN_HASH = "7f76f80ee36f3bdc132fefea9eff6a7d506be6d6ab7d6744119b7a8fcfbd8f97"


def fields_of(error: InputError) -> list[str]:
    """The field that each problem starts with."""
    return [detail.split(":")[0].split("=")[0].split(" ")[0] for detail in error.details]


# --- the object -----------------------------------------------------------------------------------------------------


def test_no_field_has_a_hidden_default() -> None:
    for field in dataclasses.fields(Recipe):
        assert field.default is dataclasses.MISSING
        assert field.default_factory is dataclasses.MISSING


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FAST.seed = 1  # type: ignore[misc]


def test_every_field_is_documented_with_its_type() -> None:
    notes = field_notes()
    assert [note.name for note in notes] == [field.name for field in dataclasses.fields(Recipe)]
    assert all(note.doc and note.type for note in notes)
    told = {note.name: note for note in notes}
    assert told["unit"].limits == "epochs | iterations"
    assert told["momentum"].limits == "at least 0 and below 1"
    assert told["milestones"].type == "list of numbers"
    assert told["scale_range"].type == "2 whole numbers"


def test_whole_numbers_become_numbers_so_that_equal_recipes_have_equal_hashes() -> None:
    assert replace(FAST, duration=10).hash == replace(FAST, duration=10.0).hash
    assert replace(FAST, mixup=-0.0).hash == replace(FAST, mixup=0.0).hash
    assert type(replace(FAST, milestones=[1, 2]).milestones[0]) is float  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", 1.0, "seed: expected whole number, got 1.0"),
        ("seed", True, "seed: expected whole number, got True"),
        ("flip", 1, "flip: expected true or false, got 1"),
        ("network", None, "network: expected text, got None"),
        ("duration", math.nan, "duration: expected a finite number, got nan"),
        ("learning_rate", math.inf, "learning_rate: expected a finite number, got inf"),
        ("learning_rate", 10**400, "learning_rate: the number is too large"),
        ("milestones", "1,2", "milestones: expected a list of numbers, got '1,2'"),
        ("milestones", (1.0, "2"), "milestones: expected number, got '2'"),
        ("scale_range", (256,), "scale_range: expected 2 whole numbers, got 1"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match="the recipe has values of the wrong type") as caught:
        replace(FAST, **{field: value})
    assert caught.value.details == (message,)


# --- JSON and hash --------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(list(PRESETS.values())),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.integers(-(2**70), 2**70),
    st.lists(st.floats(allow_nan=False, allow_infinity=False)),
)
def test_json_reads_back_to_an_equal_recipe_with_an_equal_hash(
    recipe: Recipe, number: float, text: str, whole: int, times: list[float]
) -> None:
    recipe = replace(recipe, learning_rate=number, data=text, seed=whole, milestones=tuple(times), slow=(text,))
    again = Recipe.from_json(recipe.to_json(), "recipe.json")
    assert again == recipe
    assert again.hash == recipe.hash
    assert again.to_json() == recipe.to_json()


def test_the_hash_does_not_depend_on_the_order_or_spacing_of_the_file() -> None:
    values = json.loads(FAST.to_json())
    shuffled = json.dumps(dict(reversed(values.items())), indent=7)
    assert Recipe.from_json(shuffled, "recipe.json").hash == FAST.hash


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_the_hash_sees_every_field(field: str) -> None:
    value = getattr(FAST, field)
    other = {str: "other", int: 7, float: 0.123, bool: not value, tuple: (3, 4)}[type(value)]
    if field in ("freeze", "slow"):
        other = ("a",)
    assert replace(FAST, **{field: other}).hash != FAST.hash


def test_anyone_can_compute_the_hash_from_the_file() -> None:
    told = {name: value for name, value in json.loads(FAST.to_json()).items()
            if name not in former_values() or value != former_values()[name]}
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == FAST.hash
    assert hashlib.sha256(FAST.to_json().encode()).hexdigest() != FAST.hash


def test_a_recipe_from_before_a_field_existed_reads_with_the_same_hash() -> None:
    values = json.loads(FAST.to_json())
    for name in former_values():
        assert values.pop(name) == former_values()[name]
    old = Recipe.from_json(json.dumps(values), "recipe.json")
    assert old == FAST
    assert old.hash == FAST.hash
    assert FAST.hash == KNOWN_HASH
    assert replace(FAST, pad_with="black").hash != FAST.hash  # the control: the field counts where it differs


def test_from_json_reports_every_problem_at_once_with_the_nearest_name() -> None:
    values = json.loads(FAST.to_json())
    del values["nesterov"]
    values["nesterow"] = True
    values["pad"] = "2"
    values["duration"] = True
    values["lr"] = 0.1
    with pytest.raises(InputError) as caught:
        Recipe.from_json(json.dumps(values), "runs/a/recipe.json")
    assert caught.value.what == "runs/a/recipe.json: not a valid recipe (5 problems)"
    assert caught.value.exit_code == 2
    assert sorted(caught.value.details) == [
        "duration: expected number, got True",
        "lr: unknown field, did you mean 'learning_rate'?",
        "nesterov: missing",
        "nesterow: unknown field, did you mean 'nesterov' or 'network' or 'slow'?",
        "pad: expected whole number, got '2'",
    ]


def test_from_json_refuses_a_field_that_is_given_twice() -> None:
    text = FAST.to_json().replace('"seed": 0,', '"seed": 0, "seed": 1,')
    with pytest.raises(InputError) as caught:
        Recipe.from_json(text, "recipe.json")
    assert caught.value.details == ("seed: given twice",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe.json: not JSON"),
        ("{", "recipe.json: not JSON"),
        ("[" * 100_000, "recipe.json: not JSON"),
        ("[]", "recipe.json: expected a JSON object, got a list"),
        ("null", "recipe.json: expected a JSON object, got a NoneType"),
    ],
)
def test_from_json_refuses_what_is_no_object(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.from_json(text, "recipe.json")


def test_from_json_refuses_numbers_that_are_not_finite() -> None:
    text = FAST.to_json().replace('"learning_rate": 0.2', '"learning_rate": NaN')
    with pytest.raises(InputError, match="learning_rate: expected a finite number, got nan"):
        Recipe.from_json(text, "recipe.json")


# --- --set ----------------------------------------------------------------------------------------------------------


def test_settings_are_typed() -> None:
    new = changed(
        FAST,
        ["learning_rate=5e-2", "seed=3", "flip=no", "milestones=32000, 48000", "scale_range=200,300",
         "slow=features=0.1", "freeze=", "data= my pictures ", "max_pixels=1_000"],
    )  # fmt: skip
    assert new == replace(
        FAST, learning_rate=0.05, seed=3, flip=False, milestones=(32000.0, 48000.0), scale_range=(200, 300),
        slow=("features=0.1",), freeze=(), data="my pictures", max_pixels=1000,
    )  # fmt: skip
    assert changed(FAST, []) == FAST


@given(st.sampled_from(list(PRESETS.values())))
def test_settings_can_say_every_value_of_every_preset(recipe: Recipe) -> None:
    settings = [f"{name}={show(getattr(recipe, name))}" for name in field_types()]
    assert changed(FAST, settings) == recipe


def test_settings_report_every_problem_at_once() -> None:
    with pytest.raises(InputError) as caught:
        changed(
            FAST,
            ["lr=0.1", "nesterow=no", "pad", "pad=1.5", "flip=maybe", "seed=1", "seed=2", "qqqq=1", "duration=nan",
             "scale_range=1", "milestones=a"],
        )  # fmt: skip
    assert caught.value.what == "--set: 10 problems"
    assert caught.value.details == (
        "lr: unknown field, did you mean 'learning_rate'?",
        "nesterow: unknown field, did you mean 'nesterov' or 'network' or 'slow'?",
        "pad: expected field=value",
        "pad: expected whole number, got '1.5'",
        "flip: expected true or false, got 'maybe'",
        "seed: given twice",
        "qqqq: unknown field",
        "duration: expected a finite number, got nan",
        "scale_range: expected 2 whole numbers, got 1",
        "milestones: expected number, got 'a'",
    )
    assert "`layerwise recipe NAME` prints every field" in caught.value.mend


# --- ranges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("learning_rate=0", "learning_rate is '0.0': expected above 0"),
        ("learning_rate=-1", "learning_rate is '-1.0': expected above 0"),
        ("batch_size=0", "batch_size is '0': expected at least 1"),
        ("duration=0", "duration is '0.0': expected above 0"),
        ("evaluate_every=0", "evaluate_every is '0.0': expected above 0"),
        ("micro_batch=-1", "micro_batch is '-1': expected at least 0"),
        ("momentum=1", "momentum is '1.0': expected at least 0 and below 1"),
        ("ema=1", "ema is '1.0': expected at least 0 and below 1"),
        ("label_smoothing=1", "label_smoothing is '1.0': expected at least 0 and below 1"),
        ("crop_area_min=1.1", "crop_area_min is '1.1': expected above 0 and at most 1"),
        ("channels=2", "channels is '2': expected 0 | 1 | 3"),
        ("schedule=cosin", "schedule is 'cosin': expected constant | steps | plateau | cosine | one-cycle, "
                           "did you mean 'cosine'?"),
        ("clip_norm=-1", "clip_norm is '-1.0': expected at least 0"),
        ("device=gpu", "device is 'gpu': expected auto, cpu, cuda, cuda:N or mps"),
        ("data=", "data is empty: say which"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(settings: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(changed(FAST, [settings]))
    assert message in caught.value.details


def test_every_number_has_a_range_and_every_word_its_choices() -> None:
    free = {"name", "network", "data", "start_from", "freeze", "slow", "split", "device"}  # checked elsewhere
    without = {note.name for note in field_notes() if not note.limits and note.type != "true or false"}
    assert without == free


def test_all_problems_of_a_recipe_are_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check(changed(FAST, ["batch_size=0", "learning_rate=0", "unit=weeks", "nesterov=yes", "momentum=0"]))
    assert caught.value.what == "recipe 'fast': 4 problems"
    assert sorted(fields_of(caught.value)) == ["batch_size", "learning_rate", "nesterov", "unit"]


def test_a_split_that_is_no_number_hides_no_other_problem() -> None:
    with pytest.raises(InputError) as caught:
        check(changed(FAST, ["split=8.0.0/10/10", "learning_rate=0"]))
    assert sorted(fields_of(caught.value)) == ["learning_rate", "split"]


# --- contradictions: settings that are refused, the message, and the change that mends it ----------------------------

CONTRADICTIONS = [
    (["micro_batch=256"], "micro_batch=256 is larger than batch_size=128", ["micro_batch=128"]),
    (["warmup_length=10"], "warmup_length=10 is not before the end (duration=10 epochs)", ["warmup_length=9"]),
    (["schedule=cosine"], "warmup_length=2 would be ignored", ["warmup_length=0"]),
    (["schedule=cosine", "warmup=steps", "warmup_length=0"], "warmup=steps with warmup_length=0", ["warmup_length=1"]),
    (["schedule=cosine", "warmup=steps", "warmup_length=11"], "warmup_length=11 is not before", ["warmup_length=1"]),
    (["warmup=steps"], "warmup=steps with schedule=one-cycle", ["warmup=none"]),
    (["schedule=steps", "warmup_length=0"], "schedule=steps without milestones", ["milestones=5"]),
    (["schedule=steps", "warmup_length=0", "milestones=5,5"], "milestones=5,5 are not ascending", ["milestones=5,6"]),
    (["schedule=steps", "warmup_length=0", "milestones=5,10"], "milestones 10 are not before the end",
     ["milestones=5,9"]),
    (["milestones=5"], "milestones with schedule=one-cycle would be ignored", ["milestones="]),
    (["schedule=constant", "warmup_length=0", "warmup=training-error"], "warmup_rate=0 would never learn",
     ["warmup_rate=0.01"]),
    (["warmup_rate=0.1"], "warmup_rate=0.1 would be ignored", ["warmup_rate=0"]),
    (["schedule=constant", "warmup_length=0", "warmup=training-error", "warmup_rate=1"],
     "warmup_rate=1 is above learning_rate=0.2", ["warmup_rate=0.02"]),
    (["schedule=constant", "warmup_length=0", "warmup=training-error", "warmup_rate=0.1", "mixup=1"],
     "mixed pictures have no training error", ["mixup=0"]),
    (["momentum=0"], "nesterov with momentum=0", ["nesterov=no"]),
    (["optimiser=adam"], "nesterov with optimiser=adam", ["nesterov=no"]),
    (["optimiser=adamw", "nesterov=no", "velocity=inside"], "velocity=inside with optimiser=adamw",
     ["velocity=outside"]),
    (["optimiser=adagrad", "nesterov=no"], "momentum=0.9 with optimiser=adagrad", ["momentum=0"]),
    (["mixup=1", "batch_size=1"], "mixup with batch_size=1", ["batch_size=2"]),
    (["freeze=all-but-head"], "freeze=all-but-head with an empty start_from", ["start_from=model.safetensors"]),
    (["slow=features=0.1"], "slow with an empty start_from", ["start_from=model.safetensors"]),
    (["slow=features", "start_from=m"], "slow: 'features' is not prefix=factor", ["slow=features=0.1"]),
    (["slow=features=0", "start_from=m"], "slow: 'features=0' is not prefix=factor", ["slow=features=0.1"]),
    (["slow=a=0.1,a=0.2", "start_from=m"], "slow: a is given twice", ["slow=a=0.1,b=0.2"]),
    (["freeze=features", "slow=features.conv1=0.1", "start_from=m"], "slow: features.conv1 is frozen",
     ["unfreeze_at=5"]),
    (["freeze=all-but-head", "slow=features=0.1", "start_from=m"], "slow: features is frozen", ["slow=head=0.1"]),
    (["freeze=,", "start_from=m"], "freeze has an empty prefix", ["freeze=features"]),
    (["unfreeze_at=3"], "unfreeze_at without freeze", ["unfreeze_at=0"]),
    (["freeze=features", "start_from=m", "unfreeze_at=10"], "unfreeze_at=10 is not before the end", ["unfreeze_at=5"]),
    (["zero_init_last_scale=yes", "start_from=m"], "zero_init_last_scale with start_from", ["start_from="]),
    (["whiten=first", "start_from=m"], "whiten=first with start_from", ["start_from="]),
    (["flip_turns=alternate", "flip=no"], "flip_turns=alternate with flip=false", ["flip=yes"]),
    (["select=best", "validation=0"], "select=best with validation=0", ["data=photos"]),
    (["select=best", "validation=0", "data=photos", "split=80/0/20"], "select=best with validation=0",
     ["split=80/10/10"]),
    (["schedule=plateau", "warmup_length=0", "validation=0"], "schedule=plateau with validation=0",
     ["validation=0.1"]),
    (["validation=10.5"], "validation is 10.5", ["validation=10"]),
    (["split=80/20"], "split is '80/20'", ["split=80/10/10"]),
    (["split=80/10/20"], "split is '80/10/20'", ["split=70/10/20"]),
    (["split=0/50/50"], "split is '0/50/50'", ["split=50/0/50"]),
    (["split=8.0.0/10/10"], "split is '8.0.0/10/10'", ["split=80.0/10/10"]),
    (["split=./50/50"], "split is './50/50'", ["split=.5/50/49.5"]),
    (["pad=0"], "crop=pad with pad=0", ["crop=none"]),
    (["colour=pca", "channels=1"], "colour=pca with channels=1", ["channels=3"]),
    (["crop=scale", "input_size=224"], "crop=scale with resize=none", ["resize=short-side", "resize_to=256"]),
    (["crop=square", "input_size=224"], "crop=square with resize=none", ["resize=short-side", "resize_to=256"]),
    (["crop=scale", "input_size=300", "resize=short-side", "resize_to=300"], "scale_range=256,480 starts below",
     ["scale_range=300,400"]),
    (["scale_range=480,256"], "scale_range=480,256 is not ascending", ["scale_range=256,256"]),
    (["resize=squash"], "resize=squash with input_size=0", ["input_size=32"]),
    (["resize=short-side", "input_size=224", "resize_to=200"], "resize_to=200 is smaller", ["resize_to=224"]),
    (["unit=iterations", "duration=10.5"], "duration has a fraction", ["duration=11"]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message", "mended"), CONTRADICTIONS, ids=[row[1] for row in CONTRADICTIONS])
def test_a_contradiction_is_explained_and_its_mend_is_accepted(
    settings: list[str], message: str, mended: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        check(changed(FAST, settings))
    assert len(caught.value.details) == 1
    assert message in caught.value.details[0]
    check(changed(changed(FAST, settings), mended))
