"""AlexNet's Figures 1 to 3: what is measured, the claims judged both ways on made-up results, the drawings."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from layerwise.data.source import Samples
from layerwise.experiments import find
from layerwise.experiments.alexnet import figure_1, figure_2, figure_3
from layerwise.experiments.experiment import Measured, Results, Subject
from tests.made_up_results import FAILS, HOLDS, ONLY_IF, UNMEASURED, curves, judged, results


def steps(relu: Sequence[float], tanh: Sequence[float], scale: str = "small") -> Results:
    """Each network reaches the threshold at one rate in so many steps, at another later; the others never do."""
    return results({"relu_0.002": {"iterations": relu}, "relu_0.001": {"iterations": [2 * step for step in relu]},
                    "tanh_0.05": {"iterations": tanh}}, scale)  # fmt: skip


def test_figure_1_claims() -> None:
    six = steps([100, 101, 102], [620, 630, 640])
    assert [judged("figure-1", claim, six).word for claim in ("faster", "several-times", "six-times")] == [HOLDS] * 3
    four = steps([100, 101, 102], [400, 402, 404])
    assert [judged("figure-1", claim, four).word for claim in ("faster", "several-times", "six-times")] == [
        HOLDS, HOLDS, FAILS]  # fmt: skip
    turned = steps([620, 630, 640], [100, 101, 102])
    assert [judged("figure-1", claim, turned).word for claim in ("faster", "several-times", "six-times")] == [FAILS] * 3
    never = results({"relu_0.002": {"iterations": [100.0]}}, "small")
    assert judged("figure-1", "six-times", never).word == UNMEASURED
    assert "no rate of tanh" in judged("figure-1", "faster", never).because


def test_what_recipes_cannot_say_of_the_small_scale() -> None:
    """The title has the paper's 25 %; a table and a figure at small scale must not pass for it."""
    assert find("alexnet/figure-1").differs == {"small": ("steps to 15 % training error instead of 25 %",)}
    assert "1,000 of the test pictures, with 3 draws" in find("resnet/lesions").differs["small"][0]
    assert "2,000 training" in find("resnet/identity").differs["small"][0]
    for name in ("resnet/table-4", "resnet/table-5"):
        assert find(name).differs["small"] == ("tested with ten crops instead of whole pictures at five scales",)


def test_figure_1_takes_the_fastest_rate_that_every_seed_reaches() -> None:
    found = steps([100, 101, 102], [620, 630, 640])
    assert figure_1.fastest(found, "relu") == "relu_0.002"
    missed = dict(found.rows)
    missed["relu_0.005"] = (Measured(0, {"iterations": 10.0}), Measured(1, {}, failure="not finite"))
    assert figure_1.fastest(Results("small", missed), "relu") == "relu_0.002"
    missed["relu_0.005"] = missed["relu_0.005"][:1]  # the control: without the failed seed it would be the fastest
    assert figure_1.fastest(Results("small", missed), "relu") == "relu_0.005"


def test_the_crossing_lies_on_the_line_between_two_readings() -> None:
    curve = [{"step": 10.0, "training_error": 40.0}, {"step": 15.0, "validation_error": 1.0},
             {"step": 20.0, "training_error": 20.0}, {"step": 30.0, "training_error": 30.0}]  # fmt: skip
    assert figure_1.crossing(curve, 25.0) == 17.5
    assert figure_1.crossing(curve, 40.0) == 10.0
    assert figure_1.crossing(curve, 19.9) is None
    assert figure_1.crossing([], 25.0) is None


def test_the_ratio_at_other_thresholds() -> None:
    quick, slow = [(10, 40.0), (20, 20.0), (30, 0.0)], [(10, 40.0), (40, 20.0), (130, 10.0)]
    rows = {"relu_0.002": [quick], "relu_0.01": [slow], "tanh_0.05": [slow]}
    found = curves(rows, "training_error")
    assert figure_1.times(found, 20.0) == 2.0
    assert figure_1.times(found, 10.0) == 130 / 25
    assert figure_1.times(found, 5.0) is None
    one = Measured(0, {"iterations": 15.0}, found.rows["relu_0.002"][0].curve)
    other = Measured(0, {"iterations": 30.0}, found.rows["tanh_0.05"][0].curve)
    verdict = judged("figure-1", "six-times", Results("small", {"relu_0.002": (one,), "tanh_0.05": (other,)}))
    assert "; 1.86 at 25 %, 2.00 at 20 %" in verdict.because


def counted() -> Results:
    def nothing(*given: object) -> Samples:
        raise AssertionError(given)

    return Results("paper", {"alexnet": (Measured(0, figure_2.measure(Subject((), "paper", 0, nothing))),)})


def test_figure_2_counts_and_says_what_does_not_hold() -> None:
    found = counted()
    assert found.mean("alexnet", "conv2") == 186_624
    words = {claim: judged("figure-2", claim, found).word for claim in ("input", "layers", "neurons")}
    assert words == {"input": ONLY_IF, "layers": ONLY_IF, "neurons": ONLY_IF}
    assert "659,272" in judged("figure-2", "neurons", found).because
    printed = {name: [value] for name, value in figure_2.PAPER["alexnet"].items()}
    as_printed = results({"alexnet": printed})
    assert [judged("figure-2", claim, as_printed).word for claim in ("input", "layers", "neurons")] == [HOLDS] * 3
    wrong = results({"alexnet": {**printed, "input": [3 * 226**2], "fc6": [4095], "neurons": [1], "conv5": [1]}})
    assert [judged("figure-2", claim, wrong).word for claim in ("input", "layers", "neurons")] == [FAILS] * 3
    assert [judged("figure-2", claim, results({})).word for claim in ("input", "layers", "neurons")] == [UNMEASURED] * 3


def test_figure_3_asks_for_towers_that_differ_whichever_is_which() -> None:
    base = {"channels": [3, 3], "colour_1": [0.1, 0.5], "colour_2": [0.4, 0.1]}
    assert judged("figure-3", "specialised", results({"alexnet": base})).word == HOLDS
    alike = base | {"colour_2": [0.4, 0.4]}
    assert judged("figure-3", "specialised", results({"alexnet": alike})).word == FAILS
    assert judged("figure-3", "specialised", results({"alexnet": base | {"channels": [1, 1]}})).word == UNMEASURED
    assert judged("figure-3", "specialised", results({})).word == UNMEASURED


def test_figures_are_drawn_and_say_what_is_missing() -> None:
    for name in ("figure-1", "figure-2", "figure-3"):
        figure = Figure()
        draw = find(f"alexnet/{name}").draw
        assert draw is not None
        draw(Results("paper", {}), figure)
        figure.canvas.draw()
    figure = Figure()
    figure_1.draw(curves({"relu_0.002": [[(46, 40.0), (92, 10.0)]]}, "training_error"), figure)
    assert figure.axes[0].get_xlabel() == "Epochs"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["15 %"]
    stand_in = Figure()
    figure_1.draw(Results("paper on fashion-mnist", {}), stand_in)
    assert stand_in.axes[0].get_xlabel() == "Epochs of 50,000 pictures"
    assert [text.get_text() for text in stand_in.axes[0].get_legend().get_texts()] == ["25 %"]
    assert len(figure.axes[0].lines) == 2  # one run and the threshold
    figure = Figure()
    figure_2.draw(counted(), figure)
    told = [text.get_text() for text in figure.axes[0].texts]
    assert "conv1\n290,400" in told
    assert "paper\n253,440" in told
    figure = Figure()
    levels = [[float(level) for level in range(3 * 121)]] * 96
    one = Measured(0, {"side": 11, "channels": 3, "levels": levels})
    figure_3.draw(Results("paper", {"alexnet": (one,)}), figure)
    assert figure.axes[0].images[0].get_array().shape == (6 * 12 + 1, 16 * 12 + 1, 3)
