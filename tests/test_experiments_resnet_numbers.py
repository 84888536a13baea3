"""The ResNet experiments: printed numbers typed a second time, counted claims, judges of curves, networks."""

from __future__ import annotations

import re
from functools import cache
from types import SimpleNamespace

import pytest

from layerwise.experiments import find, judges
from layerwise.experiments.experiment import Measured, Results, Subject
from layerwise.experiments.resnet import footnote_4, footnote_5, multi_scale, table_1, table_6, table_8
from layerwise.models import resnet
from layerwise.models.shapes import cost, stage_shapes
from tests.model_counts import COUNTS
from tests.test_experiments_resnet import curve, results

# The tables as they are printed, line by line: what follows the name, "-" where a cell is empty.
PRINTED = {
    "table-2": (("error",), """
        plain18 27.94
        resnet18_a 27.88
        plain34 28.54
        resnet34_a 25.03"""),
    "table-3": (("error", "top5_error"), """
        vgg16 28.07 9.33
        googlenet - 9.15
        prelu_net 24.27 7.38
        plain34 28.54 10.02
        resnet34_a 25.03 7.76
        resnet34 24.52 7.46
        resnet34_c 24.19 7.40
        resnet50 22.85 6.71
        resnet101 21.75 6.05
        resnet152 21.43 5.71"""),
    "table-4": (("error", "top5_error"), """
        vgg_2014 - 8.43
        googlenet_2014 - 7.89
        vgg_v5 24.4 7.1
        prelu_net 21.59 5.71
        bn_inception 21.99 5.81
        resnet34 21.84 5.71
        resnet34_c 21.53 5.60
        resnet50 20.74 5.25
        resnet101 19.87 4.60
        resnet152 19.38 4.49"""),
    "table-5": (("top5_error",), """
        vgg_2014 7.32
        googlenet_2014 6.66
        vgg_v5 6.8
        prelu_net 4.94
        bn_inception 4.82
        resnet_2015 3.57"""),
    "table-6": (("layers", "parameters", "best", "error", "deviation"), """
        maxout - - - 9.38 -
        nin - - - 8.81 -
        dsn - - - 8.22 -
        fitnet19 19 2.5 - 8.39 -
        highway19 19 2.3 7.54 7.72 0.16
        highway32 32 1.25 - 8.80 -
        resnet20 20 0.27 - 8.75 -
        resnet32 32 0.46 - 7.51 -
        resnet44 44 0.66 - 7.17 -
        resnet56 56 0.85 - 6.97 -
        resnet110 110 1.7 6.43 6.61 0.16
        resnet1202 1202 19.4 - 7.93 -"""),
    "table-7": (("map_voc07", "map_voc12"), """
        vgg16 73.2 70.4
        resnet101 76.4 73.8"""),
    "table-8": (("map_50", "map"), """
        vgg16 41.5 21.2
        resnet101 48.4 27.2"""),
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_the_printed_numbers(name: str) -> None:
    columns, text = PRINTED[name]
    wanted = {}
    for line in text.split("\n")[1:]:
        row, *cells = line.split()
        wanted[row] = {column: float(cell) for column, cell in zip(columns, cells, strict=True) if cell != "-"}
    paper = {row: {key: float(re.match(r"[\d.]+", str(value))[0]) for key, value in numbers.items()}
             for row, numbers in find(f"resnet/{name}").paper.items()}  # fmt: skip
    assert paper == wanted


def test_flops_of_table_1_and_figure_6() -> None:
    assert [table_1.PAPER[row]["flops"] for row in table_1.ROWS] == [1.8, 3.6, 3.8, 7.6, 11.3]
    assert find("resnet/figure-6").paper["plain110"] == {"error": "> 60"}
    assert find("resnet/figure-6").paper["resnet1202"]["training_error"] == "< 0.1"


# ---- counted


@cache
def column(network: str) -> Measured:
    """A network's column of table 1, counted without data."""
    return Measured(0, table_1.count(network, Subject((), "smoke", 0, lambda run, split: pytest.fail("reads data"))))


def counted(**other: str) -> Results:
    """Table 1 as counted; `other` counts another network for a row."""
    return Results("paper", {row: (column(other.get(row, row)),) for row in table_1.ROWS})


def test_table_1_is_counted_from_the_networks() -> None:
    stages, flops = (table_1.CLAIMS[name].judge for name in ("stages", "flops"))
    assert stages(counted()).word == "holds"
    assert flops(counted()).word == "holds only if"
    assert "resnet50 3.858" in flops(counted()).because
    assert stages(counted(resnet50="resnet34_a")).word == "fails"
    assert "conv4_x" in stages(counted(resnet101="resnet50")).because
    assert flops(counted(resnet50="resnet50_v1_5")).word == "fails"
    assert stages(Results("paper", {})).word == flops(Results("paper", {})).word == "not measured"


def test_table_6_counts_its_layers() -> None:
    for row, printed in table_6.RESNETS.items():
        count = table_6.ROWS[row].counted
        assert count is not None
        assert count() == {"layers": printed["layers"]}


def test_counted_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Results("paper", {})
    assert table_6.parameters_as_printed(nothing).word == "holds"
    fewer = table_6.fewer_parameters(nothing)
    assert fewer.word == "holds only if"
    assert "highway32 is left out" in fewer.because
    assert find("resnet/cardinality").claims["same-cost"].judge(nothing).word == "holds"
    economical = footnote_4.weights_per_layer(nothing)
    assert economical.word == "holds"
    assert "73,728" in economical.because
    assert "69,632" in economical.because
    monkeypatch.setitem(table_6.PAPER, "resnet20", {"parameters": "0.28M"})
    assert table_6.parameters_as_printed(nothing).word == "fails"
    larger = {**table_6.costs(), "resnet110": table_6.costs()["resnet1202"]}
    monkeypatch.setattr(table_6, "costs", lambda: larger)
    assert table_6.fewer_parameters(nothing).word == "fails"


def test_cardinalities_cost_the_same_and_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerwise.experiments.resnet import cardinality

    monkeypatch.setattr(cardinality, "CARDINALITIES", (*cardinality.CARDINALITIES, "resnext101_32x4d"))
    assert cardinality.same_cost(Results("paper", {})).word == "fails"


# ---- judges


def of(**rows: tuple[float, ...]) -> Results:
    return Results("paper", {row: tuple(Measured(seed, {"error": value}) for seed, value in enumerate(values))
                             for row, values in rows.items()})  # fmt: skip


NOISY = {"a": (5.0, 7.0, 9.0), "b": (6.0, 7.5, 9.0)}


@pytest.mark.parametrize("judge", [
    judges.similar("a", "b", 1), judges.lower_by("a", "b", 1), judges.below("a", 7.5), judges.above("a", 6.5),
    judges.higher("b", "a", "error"),
])  # fmt: skip
def test_what_lies_inside_the_noise_is_not_told_apart(judge: judges.Judge) -> None:
    assert judge(of(**NOISY)).word == "inside the noise"
    assert judge(of()).word == "not measured"


def test_no_advantage_holds_inside_the_noise() -> None:
    assert judges.no_better("a", "b")(of(**NOISY)).word == "holds"
    assert judges.no_better("a", "b")(of(a=(5, 5.1), b=(7, 7.1))).word == "fails"


def test_an_order_is_judged_of_what_is_measured() -> None:
    judge = judges.ordered("a", "b", "c")
    assert judge(of(a=(1,), b=(2,), c=(3,))).word == "holds"
    assert judge(of(a=(1,), b=(3,), c=(2,))).word == "fails"
    partly = judge(of(a=(1,), c=(3,)))
    assert partly.word == "holds only if"
    assert partly.because.endswith("only if the same is true of what was not measured: b")
    assert judge(of(a=(4,), c=(3,))).word == "fails"
    assert judge(of(a=(1, 5), c=(3, 5))).word == "inside the noise"
    assert judge(of(a=(1,))).word == "not measured"


def test_parts_that_are_not_measured_are_told() -> None:
    judge = judges.each(judges.below("a", 5), judges.below("b", 5))
    assert judge(of(a=(1,), b=(2,))).word == "holds"
    assert judge(of(a=(1,), b=(6,))).word == "fails"
    assert judge(of(a=(6,))).word == "fails"
    assert judge(of()).word == "not measured"
    partly = judge(of(a=(1,)))
    assert partly.word == "holds only if"
    assert "no result of b" in partly.because


def curved(gaps: tuple[float, ...]) -> Results:
    """Row a above row b by `gaps` at every step, one gap a seed."""
    return Results("paper", {"a": tuple(Measured(0, {}, curve(10 + gap, 10 + gap)) for gap in gaps),
                             "b": tuple(Measured(0, {}, curve(10, 10)) for _ in gaps)})  # fmt: skip


def test_curves_are_compared_point_by_point() -> None:
    judge = judges.above_at_every_point("a", "b")
    assert judge(curved((1, 1.1, 0.9))).word == "holds"
    assert judge(curved((3, -2.5, 0.5))).word == "inside the noise"
    assert judge(curved((-1, -1.1, -0.9))).word == "fails"
    found = judge(curved((1,)))
    assert found.word == "holds"
    assert "33 of 33 steps from 32,000 on" in found.because
    # One point of one seed below is enough for a claim about every point.
    whole = curved((1,))
    low = tuple({**line, "training_error": 1.0} if line["step"] == 40_000 else line for line in curve(11, 11))
    dented = Results("paper", {**whole.rows, "a": (Measured(0, {}, low),)})
    assert judge(dented).word == "fails"
    assert "32 of 33" in judge(dented).because
    early = judges.above_at_every_point("a", "b", since=judges.beginning)(curved((1,)))
    assert "from 35 on" in early.because


def test_a_curve_without_a_drop_waits() -> None:
    flat = tuple({"step": step, "training_error": 5.0, "learning_rate": 0.1} for step in (1, 2))
    judge = judges.above_at_every_point("a", "b")
    assert judge(Results("paper", {row: (Measured(0, {}, flat),) for row in "ab"})).word == "not measured"
    assert judges.first_drop(flat) is None
    assert judges.first_drop(()) is None
    assert judges.beginning(()) is None
    assert judges.first_drop(curve(5, 5, warm=400)) == 32_000, "the rise after the warm-up is no drop"
    odd = [{"step": 1, "error": float("nan")}, {"step": 2, "error": 3.0}, {"step": 3}]
    assert judges.points(odd, "error") == {2: 3.0}


def test_footnote_5() -> None:
    late, later, warm = (footnote_5.CLAIMS[name].judge for name in ("starts-late", "starts-later", "warm-up"))
    good = results("footnote-5")
    assert {judge(good).word for judge in (late, later, warm)} == {"holds"}
    assert "epochs; several is 2" in late(good).because
    assert "at step 420, 420, 420" in warm(good).because
    swapped = Results("paper", dict(zip(good.rows, reversed(good.rows.values()), strict=True)))
    assert {judge(swapped).word for judge in (late, later)} == {"fails"}
    long = Results("paper", {"resnet110": (Measured(0, {}, curve(1, 6, warm=1500)),)})
    assert warm(long).word == "fails"
    for judge in (late, later, warm):
        assert judge(Results("paper", {})).word == "not measured"
    assert late(results("footnote-5", scale="small")).word == "not measured"


def test_tables_7_and_8_wait_for_a_detector() -> None:
    for name in ("table-7", "table-8"):
        experiment = find(f"resnet/{name}")
        assert {row.unmeasured for row in experiment.rows.values()} == {"detector to come"}
        as_printed = Results("paper", {row: (Measured(0, numbers),) for row, numbers in experiment.paper.items()})
        turned = Results("paper", dict(zip(as_printed.rows, reversed(as_printed.rows.values()), strict=True)))
        for claim in experiment.claims.values():
            assert [claim.judge(found).word for found in (as_printed, turned, Results("paper", {}))] == [
                "holds", "fails", "not measured"]  # fmt: skip
    told = table_8.relative(Results("paper", {row: (Measured(0, n),) for row, n in table_8.PAPER.items()}))
    assert told.because == "+6.0 points, +28 %"


# ---- measurement of tables 4 and 5


@pytest.mark.parametrize(("scale", "protocol"), [
    ("paper", "multi-scale"), ("small", "ten-crop"), ("smoke", "ten-crop"),
])  # fmt: skip
def test_five_scales_at_paper_scale_only(scale: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pictures:
        name = "val"

        def __len__(self) -> int:
            return 500

        def subset(self, indices: range, name: str) -> str:
            return f"{len(indices)} pictures, {name}"

    samples, asked = Pictures(), []

    def evaluate(models: object, shown: object, options: object) -> SimpleNamespace:
        asked.append((models, shown, options.protocol))  # type: ignore[attr-defined]
        return SimpleNamespace(metrics={"error": 0.25, "top_k_error": {"5": 0.05}})

    monkeypatch.setattr(multi_scale, "evaluate", evaluate)
    subject = SimpleNamespace(scale=scale, models=("six", "models"), samples=lambda split: samples)
    found = multi_scale.at_all_scales(subject)  # type: ignore[arg-type]
    assert found == {"error": 25, "top5_error": 5, "protocol": protocol}
    assert asked == [(("six", "models"), "8 pictures, 8 of val" if scale == "smoke" else samples, protocol)]


# ---- the networks that these experiments added


def test_plain_bottlenecks_are_resnets_without_projections() -> None:
    ends = (256, 512, 1024, 2048)
    projections = sum(a * b + 2 * b for a, b in zip((64, *ends[:3]), ends, strict=True))
    for layers in (50, 101):
        assert COUNTS[f"plain{layers}"][0] == COUNTS[f"resnet{layers}"][0] - projections
    for layers in (20, 56):
        assert COUNTS[f"plain{layers}_bottleneck"] == COUNTS[f"resnet{layers}_bottleneck"], "option A adds nothing"


@pytest.mark.parametrize("name", resnet.BOTTLENECKS)
def test_bottlenecks_on_cifar(name: str) -> None:
    counts = cost(name)
    layers = [row for row in counts.rows if row.kind in ("Conv2d", "Linear")]
    assert len(layers) == int(re.findall(r"\d+", name)[0])
    assert list(stage_shapes(name).values()) == [(16, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8)]
    parameters, channels = 27 * 16 + 32, 16
    for width in (16, 32, 64):
        for _ in range((len(layers) - 2) // 9):
            parameters += channels * width + 9 * width**2 + 4 * width**2 + 2 * (width + width + 4 * width)
            channels = 4 * width
    assert counts.parameters == parameters + 257 * 10


@pytest.mark.parametrize(("cardinality", "width"), [(2, 40), (4, 24), (8, 14), (32, 4)])
def test_cardinalities_by_hand(cardinality: int, width: int) -> None:
    parameters, channels = 3 * 64 * 49 + 128, 64
    for blocks, base in zip((3, 4, 6, 3), (1, 2, 4, 8), strict=True):
        inner, out = cardinality * width * base, 256 * base
        for number in range(blocks):
            parameters += channels * inner + 9 * inner**2 // cardinality + inner * out + 4 * inner + 2 * out
            parameters += channels * out + 2 * out if number == 0 else 0
            channels = out
    assert COUNTS[f"resnext50_{cardinality}x{width}d"][0] == parameters + 2049 * 1000
