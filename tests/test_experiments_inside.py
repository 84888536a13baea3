"""Figure 7, lesions, signal health, identity, accounts, figure 4 and retrieval: judged on made-up results both ways."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from layerwise import models
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.experiments import accounts, find, looking
from layerwise.experiments.alexnet import accounts as alexnet_accounts
from layerwise.experiments.alexnet import figure_4, retrieval
from layerwise.experiments.experiment import Measured, Results, Subject, Value
from layerwise.experiments.resnet import accounts as resnet_accounts
from layerwise.experiments.resnet import figure_7, identity, lesions, signal_health
from layerwise.explain.lesions import blocks
from layerwise.explain.responses import responses
from layerwise.modelfile import ModelFile

NAMES = tuple("abc")


def made(rows: Mapping[str, Mapping[str, Value]], seeds: int = 1, scale: str = "small") -> Results:
    """Results in which every seed of a row has the same numbers."""
    return Results(scale, {row: tuple(Measured(seed, one) for seed in range(seeds)) for row, one in rows.items()})


def word(module: object, claim: str, results: Results) -> str:
    """The word of a claim's verdict."""
    found: str = module.CLAIMS[claim].judge(results).word
    return found


def subject(network: str, seed: int = 0) -> Subject:
    """What a measurement is given, with an untrained network and random grey pictures of three classes."""
    torch.manual_seed(seed)
    model = models.build(network, 3, 1).eval()
    side = 12 if network != "four_layer_hidden_28" else 28
    zeros, ones = np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    preprocess = Preprocess(1, side, "none", 0, "bilinear", "apply", zeros, ones)
    generator = np.random.default_rng(seed)

    def load(run: Path, split: str) -> Samples:
        labels = np.arange(30) % 3
        images = generator.integers(0, 80, (30, side, side, 1), np.uint8) + np.uint8(60) * labels[:, None, None, None]
        return Samples(split, NAMES, labels, tuple(f"{split}/{i}" for i in range(30)), images.astype(np.uint8))

    given = Subject((Path(),), "smoke", seed, load)
    given.__dict__["models"] = (ModelFile(model, NAMES, preprocess),)
    return given


def drawn(module: object, results: Results, size: tuple[float, float] = (10, 6)) -> np.ndarray:
    """The figure of an experiment as pixels."""
    figure = Figure(figsize=size, layout="constrained")
    module.draw(results, figure)
    kept = io.BytesIO()
    figure.savefig(kept, format="png", dpi=50)
    return np.asarray(Image.open(kept).convert("L"))


def test_they_measure_the_networks_of_figure_6() -> None:
    """Equal recipes: nothing is trained twice."""
    trained = find("resnet/figure-6").rows
    for name in ("resnet/figure-7", "resnet/lesions", "resnet/signal-health"):
        for slug, row in find(name).rows.items():
            if slug in trained:
                assert row.recipes == trained[slug].recipes
    assert find("resnet/identity").rows["plain20_to_plain56"].recipes == (
        *trained["plain20"].recipes, *trained["plain56"].recipes)  # fmt: skip
    assert find("resnet/signal-health").rows["plain34"].recipes == find("resnet/table-2").rows["plain34"].recipes
    assert {row.recipes for row in find("alexnet/retrieval").rows.values()} == {
        find("alexnet/figure-4").rows["alexnet"].recipes}  # fmt: skip


# Figure 7

FIGURE_7 = {"plain20": 2.0, "plain56": 1.8, "resnet20": 1.2, "resnet56": 0.9, "resnet110": 0.7}


def figure_7_results(changes: Mapping[str, float] = {}) -> Results:
    counts = {"plain20": 19, "resnet20": 19, "plain56": 55, "resnet56": 55, "resnet110": 109}
    means = FIGURE_7 | dict(changes)
    return made({row: {"mean_deviation": mean, "deviations": [mean + 0.5 * math.sin(i) for i in range(counts[row])]}
                 for row, mean in means.items()})  # fmt: skip


def test_figure_7_claims_both_ways() -> None:
    assert word(figure_7, "residual-smaller", figure_7_results()) == "holds"
    assert word(figure_7, "residual-smaller", figure_7_results({"resnet56": 1.9})) == "fails"
    assert word(figure_7, "deeper-smaller", figure_7_results()) == "holds"
    assert word(figure_7, "deeper-smaller", figure_7_results({"resnet110": 1.0})) == "fails"
    assert word(figure_7, "deeper-smaller", made({"resnet20": {"mean_deviation": 1.0}})) == "not measured"


def test_figure_7_axes_are_the_papers() -> None:
    figure = Figure()
    figure_7.draw(figure_7_results(), figure)
    above, below = figure.axes
    for axes in (above, below):
        assert list(axes.get_yticks()) == [1, 2, 3]
        assert [line.get_label() for line in axes.get_lines()[:5]] == ["plain-20", "plain-56", "ResNet-20", "ResNet-56",
                                                                     "ResNet-110"]  # fmt: skip
    original, ranked = (axes.get_lines()[4].get_ydata() for axes in (above, below))
    assert sorted(original, reverse=True) == list(ranked)
    assert list(original) != list(ranked)
    assert figure_7.limits([0.2, 5.0]) == pytest.approx((0.19, 5.25))  # what lies outside is shown too
    assert figure_7.limits([]) == (0.6, 3.2)


def test_figure_7_measures_responses() -> None:
    given = subject("resnet20")
    found = figure_7.measure(given)
    assert (found["layers"], found["pictures"]) == (19.0, 8.0)
    images = looking.at_once(given, looking.drawn(given.samples("test"), 8))[0]
    direct = responses(given.models[0].model, [{"image": images}])
    assert len(found["deviations"]) == len(direct)
    assert found["mean_deviation"] == pytest.approx(np.mean(found["deviations"]), abs=1e-4)


# Lesions


def lesion_results(changes: Mapping[str, Value] = {}, row: str = "") -> Results:
    """Residual networks that stand everything, chains that stand nothing; `changes` of one row."""
    counts = [1.0, 2.0, 4.0, 8.0]
    residual: dict[str, Value] = {
        "untouched": 8.0, "median_rise": 0.4, "same_shape_rise": 0.3, "changed_shape_rise": 6.0, "worst_rise": 9.0,
        "deleted": [8.2, 8.5, 14.0, 8.1], "counts": counts,
        "deleted_some": [[9.0, 10.0], [12.0, 14.0], [20.0, 24.0], [28.0, 32.0]],
        "swapped": [[9.0, 11.0], [14.0, 15.0], [22.0, 26.0], [30.0, 34.0]],
        "contributing_length": 3.0, "mean_length": 4.5,
    }  # fmt: skip
    plain = residual | {"median_rise": 70.0, "deleted": [80.0, 75.0, 90.0, 88.0],
                        "deleted_some": [[70.0, 88.0], [90.0, 90.0], [90.0, 90.0], [90.0, 90.0]]}
    rows = {name: dict(plain if name.startswith("plain") else residual) for name in lesions.NETWORKS}
    if row:
        rows[row] |= changes
    return made(rows)


@pytest.mark.parametrize(("claim", "row", "changes"), [
    ("one-block", "resnet56", {"median_rise": 5.0}),
    ("one-plain-block", "plain20", {"median_rise": 10.0}),
    ("residual-stand-it", "resnet20", {"median_rise": 80.0}),
    ("changes-of-shape", "resnet110", {"changed_shape_rise": 0.1}),
    ("smooth-deletion", "resnet56", {"deleted_some": [[8.0], [8.0], [88.0], [90.0]]}),  # a cliff
    ("smooth-deletion", "resnet56", {"deleted_some": [[30.0], [20.0], [31.0], [40.0]]}),  # a dip
    ("smooth-swaps", "resnet20", {"swapped": [[90.0], [90.0], [90.0], [90.0]]}),
    ("short-paths", "resnet110", {"contributing_length": 6.0}),
])  # fmt: skip
def test_lesion_claims_both_ways(claim: str, row: str, changes: dict[str, Value]) -> None:
    assert word(lesions, claim, lesion_results()) == "holds"
    assert word(lesions, claim, lesion_results(changes, row)) == "fails"
    assert word(lesions, claim, made({})) == "not measured"


def test_lengths_of_paths_by_hand() -> None:
    """Two blocks: 1, 2, 1 paths; gradients 1, 1/2, 1/4 give weights 1, 1, 1/4: (0 + 1 + 1/2) / (9/4) = 2/3."""
    assert lesions.path_lengths((0, 1, 2), (1.0, 0.5, 0.25), 2) == pytest.approx((2 / 3, 1.0))
    assert lesions.path_lengths((0, 1, 2), (1.0, 1.0, 1.0), 2) == pytest.approx((1.0, 1.0))  # as long as all paths
    assert lesions.path_lengths((0,), (0.0,), 2) == (0.0, 1.0)


def test_lesions_are_measured_and_drawn() -> None:
    given = subject("resnet20")
    found = lesions.measure(given)
    model = given.models[0].model
    assert found["blocks"] == len(blocks(model, torch.zeros(1, 1, 12, 12))) == 9
    assert {"same_shape_rise", "changed_shape_rise", "contributing_length"} <= found.keys()
    assert [len(draws) for draws in found["deleted_some"]] == [1, 1]
    plain = lesions.measure(subject("plain20"))
    assert "contributing_length" not in plain
    figure = Figure()
    lesions.draw(lesion_results(), figure)
    one, some, swaps = figure.axes
    assert [len(line.get_xdata()) for line in one.get_lines()] == [4] * 5
    assert list(some.get_lines()[0].get_xdata()) == [0, 1, 2, 4, 8]
    assert list(swaps.get_lines()[-5].get_ydata()) == [8.0, 10.0, 14.5, 24.0, 32.0]  # untouched, then means of draws


# Signal health


def health_results(changes: Mapping[str, Value] = {}, row: str = "") -> Results:
    rows: dict[str, dict[str, Value]] = {}
    for name in signal_health.ROWS:
        rows[name] = {}
        for when in ("start", "end"):
            rows[name] |= {f"smallest_variance_{when}": 0.9, f"first_over_last_{when}": 2.0,
                           f"largest_gradient_{when}": 3.0, f"variances_{when}": [1.0, 0.9, 1.1],
                           f"gradients_{when}": [3.0, 2.0, 1.5]}  # fmt: skip
    rows[signal_health.CONTROL] |= {"smallest_variance_start": 0.0, "largest_gradient_start": 1e-20}
    if row:
        rows[row] |= changes
    return made(rows)


def test_signal_health_claims_both_ways() -> None:
    for claim in signal_health.CLAIMS:
        assert word(signal_health, claim, health_results()) == "holds"
        assert word(signal_health, claim, made({})) == "not measured"
    vanished = health_results({"first_over_last_start": 1e-5}, "plain56")
    assert word(signal_health, "backward", vanished) == "fails"
    exploded = health_results({"first_over_last_end": 5000.0}, "plain56")
    assert word(signal_health, "backward", exploded) == "holds only if"
    assert word(signal_health, "forward", health_results({"smallest_variance_end": 1e-6}, "plain20")) == "fails"
    assert word(signal_health, "plain34", health_results({"smallest_variance_start": 0.0}, "plain34")) == "fails"
    alive = health_results({"smallest_variance_start": 0.5}, signal_health.CONTROL)
    assert word(signal_health, "control", alive) == "fails"


def test_signal_health_is_measured_at_both_ends() -> None:
    given = subject("plain20")
    before = {name: tensor.clone() for name, tensor in given.models[0].model.state_dict().items()}
    found = signal_health.measure(given)
    assert len(found["variances_start"]) == len(found["gradients_end"]) == 19
    assert found["smallest_variance_start"] == pytest.approx(1.0, abs=0.02)
    after = given.models[0].model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    control = signal_health.without_normalisation(subject("plain56"))
    assert control["smallest_variance_start"] < 1e-30
    assert control["largest_gradient_start"] < 1e-6


# Identity construction


def test_identity_claims_both_ways() -> None:
    numbers: dict[str, Value] = {"difference": 1e-15, "built_training_error": 3.0, "trained_training_error": 5.0}
    rows = {row: dict(numbers) for row in identity.ROWS}
    assert word(identity, "construction", made(rows)) == "holds"
    assert word(identity, "solvers-miss-it", made(rows)) == "holds"
    unequal = made(rows | {"plain20_to_plain56": numbers | {"difference": 1e-6}})
    assert word(identity, "construction", unequal) == "fails"
    better = made(rows | {"plain20_to_plain56": numbers | {"trained_training_error": 2.0}})
    assert word(identity, "solvers-miss-it", better) == "fails"
    assert word(identity, "construction", made({})) == "not measured"


def test_identity_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for shallow, deep, start in (("plain20", "plain32", identity.plain_identity),
                                 ("resnet20", "resnet32", identity.zero_residual)):  # fmt: skip
        given, other = subject(shallow), subject(deep, 1)
        given.__dict__["models"] = (*given.models, *other.models)
        pair = Subject(given.runs * 2, "smoke", 0, given.load)
        pair.__dict__["models"] = given.models
        found = identity.measure(start, pair)
        assert found["difference"] < identity.EXACT
        assert found["built_error"] == found["shallow_error"]
    monkeypatch.setattr(identity, "deepen", lambda shallow, deep, start: ())  # the negative control
    assert identity.measure(start, pair)["difference"] > 1e-3


def test_within_row_compares_seed_by_seed() -> None:
    judge = looking.within_row("x", "a", "b")

    def of(*pairs: tuple[float, float]) -> str:
        seeds = tuple(Measured(seed, {"a": a, "b": b}) for seed, (a, b) in enumerate(pairs))
        return judge(Results("small", {"x": seeds})).word

    assert of((1, 2)) == "holds"
    assert of((2, 1)) == "fails"
    # Far apart between seeds and alike within: what an unpaired test would lose.
    assert of((1, 2), (11, 12.1), (21, 22.05)) == "holds"
    assert of((1, 2), (3, 2)) == "inside the noise"
    assert judge(made({"x": {"a": 1.0}})).word == "not measured"


# Accounts

WORDS_RESNET = {
    "eighteen-percent": "holds only if", "resnet50-operations": "holds only if", "vgg16-operations": "holds only if",
    "fewer-filters": "holds only if", "eight-times-deeper": "holds only if", "layers-by-name": "holds only if",
    "same-cost-a-layer": "holds only if", "fewer-parameters": "holds only if", "2.8-points": "holds only if",
    "single-beats-ensembles": "holds only if",
}  # fmt: skip
WORDS_ALEXNET = {
    "sixty-million": "holds only if", "neurons": "holds only if", "input": "holds only if", "conv1-units": "fails",
    "one-percent": "fails", "2048": "holds only if", "validation-and-test": "holds only if",
    "fully-connected-part": "fails",
}  # fmt: skip


@pytest.mark.parametrize(("module", "words"), [(resnet_accounts, WORDS_RESNET), (alexnet_accounts, WORDS_ALEXNET)])
def test_what_counting_says(module: object, words: dict[str, str]) -> None:
    """All others hold; nothing is judged without numbers, and every judge can find against its sentence."""
    numbers = {slug: account.measure(None) for slug, account in module.ACCOUNTS.items()}
    counted = made(numbers)
    for slug in module.ACCOUNTS:
        assert word(module, slug, counted) == words.get(slug, "holds"), slug
        assert word(module, slug, made({})) == "not measured"
        wrong = made({slug: dict.fromkeys(numbers[slug], -7.0)})
        assert word(module, slug, wrong) == "fails", slug
        assert all(math.isfinite(value) for value in numbers[slug].values())


def test_counts_by_hand() -> None:
    found = {slug: account.measure(None) for slug, account in resnet_accounts.ACCOUNTS.items()
             if slug in ("bottleneck-similar", "same-cost-a-layer", "additions-negligible", "fewer-filters")}
    assert found["bottleneck-similar"]["basic"] == 2 * 9 * 64 * 64 == 73_728
    assert found["bottleneck-similar"]["bottleneck"] == 2 * 64 * 256 + 9 * 64 * 64 == 69_632
    assert found["bottleneck-similar"]["with_projection"] == 69_632 + 256 * 256 == 135_168
    layer = found["same-cost-a-layer"]
    assert layer["least"] == layer["most"] == 2 * layer["halving"] == 9 * 64 * 64 * 56 * 56 / 1e6
    added = 3 * 64 * 56**2 + 4 * 128 * 28**2 + 6 * 256 * 14**2 + 3 * 512 * 7**2
    assert found["additions-negligible"]["resnet34_a"] == pytest.approx(100 * added / 3.6445e9, rel=1e-3)
    assert found["fewer-filters"]["plain34"] == 64 + 6 * 64 + 8 * 128 + 12 * 256 + 6 * 512
    parts = alexnet_accounts.ACCOUNTS["one-percent"].measure(None)
    assert parts["conv3"] == pytest.approx(100 * (256 * 9 * 384 + 384) / 60_965_224)


def test_judges_of_accounts() -> None:
    rounds = accounts.rounds_to("x", 18)
    assert rounds({"x": 18.4}).word == "holds"
    assert rounds({"x": 18.6}).word == "holds only if"
    assert rounds({"x": 19.1}).word == "fails"
    assert accounts.rounds_to("x", 2.8, 1)({"x": 2.8}).word == "holds"  # 2.8 * 10 is a little below 28 in binary
    assert accounts.exactly({"x": 1.0}, "since")({"x": 2.0}).because == "x 2, not 1; since"
    held, failed = accounts.within("x", 0, 1), accounts.within("x", 2, 3)
    assert accounts.only_if(failed, held, "so")({"x": 0.5}).word == "holds only if"
    assert accounts.only_if(failed, failed, "so")({"x": 0.5}).word == "fails"
    assert accounts.only_if(held, failed, "so")({"x": 0.5}).word == "holds"
    assert accounts.provided(held, "so")({"x": 0.5}).word == "holds only if"
    assert accounts.provided(failed, "so")({"x": 0.5}).word == "fails"
    assert accounts.both(held, accounts.provided(held, "so"))({"x": 0.5}).word == "holds only if"
    assert accounts.both(held, failed)({"x": 0.5}).word == "fails"


# AlexNet: figure 4 and retrieval


def retrieval_results(changes: Mapping[str, float] = {}, row: str = "") -> Results:
    numbers = {"features": (80.0, 900.0), "pixels": (70.0, 1500.0), "features_64_bits": (75.0, 9.0),
               "pixels_64_bits": (50.0, 9.0), "features_256_bits": (78.0, 20.0), "pixels_256_bits": (60.0, 20.0)}
    rows = {name: {"precision_at_6": near, "microseconds": spent} for name, (near, spent) in numbers.items()}
    if row:
        rows[row] |= changes
    return made(rows)


def test_retrieval_claims_both_ways() -> None:
    for claim, row, changes in (
        ("codes-faster", "features_256_bits", {"microseconds": 1000.0}),
        ("codes-of-features-better", "pixels_64_bits", {"precision_at_6": 70.0}),  # better by 5 points only
        ("features-better", "pixels", {"precision_at_6": 90.0}),
    ):
        assert word(retrieval, claim, retrieval_results()) == "holds"
        assert word(retrieval, claim, retrieval_results(changes, row)) == "fails"
        assert word(retrieval, claim, made({})) == "not measured"


def test_retrieval_is_measured() -> None:
    given = subject("four_layer_hidden_28")
    whole = retrieval.measure("pixels", 0, given)
    assert whole["precision_at_6"] == 100.0  # the three classes differ in brightness
    assert whole["bytes"] == 4 * 28 * 28
    assert retrieval.measure("features", 0, given)["bytes"] == 4 * 512
    codes = retrieval.measure("pixels", 64, given)
    assert codes["bytes"] == 8
    assert {"precision_at_100", "microseconds", "learning_seconds"} <= codes.keys()


def test_figure_4_claims_both_ways() -> None:
    numbers: dict[str, Value] = {"in_common": 20.0, "precision_by_features": 80.0, "precision_by_pixels": 70.0}
    for claim, changes in (("not-close-in-pixels", {"in_common": 60.0}),
                           ("alike-by-features", {"precision_by_features": 60.0})):  # fmt: skip
        assert word(figure_4, claim, made({"alexnet": numbers})) == "holds"
        assert word(figure_4, claim, made({"alexnet": numbers | changes})) == "fails"
        assert word(figure_4, claim, made({})) == "not measured"


def test_figure_4_is_measured_and_drawn() -> None:
    given = subject("four_layer_hidden_28")
    found = figure_4.measure(given)
    assert found["precision_by_pixels"] == 100.0
    assert [len(parts) for parts in found["probabilities"]] == [3] * 8
    assert all(sum(parts) == pytest.approx(1, abs=1e-4) for parts in found["probabilities"])
    sheet = figure_4._sheet(found["neighbours"])
    assert sheet.shape == (5 * 28, 13 * 28, 3)
    assert figure_4._sheet(found["tested"]).shape == (28, 8 * 28, 3)
    picture = drawn(figure_4, made({"alexnet": found}))
    assert picture.std() > 20
    assert drawn(figure_4, made({})).std() < picture.std()


def test_all_figures_can_be_drawn_as_pictures() -> None:
    for module, results in ((figure_7, figure_7_results()), (lesions, lesion_results()),
                            (signal_health, health_results())):  # fmt: skip
        assert drawn(module, results).std() > drawn(module, made({})).std()
