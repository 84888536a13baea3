"""`layerwise why`: weights tested in other ways, a run against a row and another run; what can't be asked."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from layerwise import modelfile
from layerwise.cli import main
from layerwise.data.preprocess import Preprocess
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.evaluation.batch_statistics import recalibrate
from layerwise.experiments.experiment import Row
from layerwise.jobs import again
from layerwise.jobs.again import Again, Retest, chosen, retested
from layerwise.jobs.why import Ask, Explanation, Number, why
from layerwise.recipes.presets import preset
from tests import evaluated, synthetic_run
from tests.made_up_paper import registry

BASE = preset("resnet-cifar")


def retest(resize: str = "none", files: Samples | None = None, **recipe: object) -> Retest:
    """A made-up network with pictures of its own, to be tested again."""
    model = evaluated.model_file(resize=resize)
    samples = evaluated.samples(60) if files is None else files
    used = replace(preset("digits"), protocol="single", precision="fp32", **recipe)  # type: ignore[arg-type]
    return Retest(Path("nowhere"), model, used, samples, None, lambda: evaluated.samples(40, seed=3))


def test_the_same_weights_in_other_ways() -> None:
    asked = retest()
    before = {name: tensor.clone() for name, tensor in asked.model.model.state_dict().items()}
    error, ways = retested(asked)
    by_name = {one.what: one for one in ways}
    assert set(by_name) == {"protocol mirror", "protocol centre", "protocol ten-crop",
                            "batch statistics taken anew over training pictures"}
    assert by_name["protocol centre"].reason.startswith("protocol centre does not fit this network")
    mirror = by_name["protocol mirror"]
    assert mirror.error is not None
    assert mirror.difference == pytest.approx(mirror.error - error)
    assert mirror.interval is not None
    assert mirror.interval[0] < mirror.difference < mirror.interval[1]
    statistics = by_name["batch statistics taken anew over training pictures"]
    assert statistics.changed > 0  # made-up running averages are wrong
    after = asked.model.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pictures_that_are_resized(tmp_path: Path) -> None:
    files = evaluated.files(tmp_path, count=12)
    there = replace(preset("digits"), resize="short-side", resize_to=11, interpolation="lanczos",
                    protocol="ten-crop", precision="bf16")
    asked = dataclasses.replace(retest("short-side", files), there=there)
    _, ways = retested(asked)
    by_name = {one.what: one for one in ways}
    assert {"resize to 8", "resize to 9", "resize to 11", "interpolation bicubic", "interpolation lanczos",
            "orientation: ignore", "resized without antialiasing", "protocol ten-crop"} <= set(by_name)
    assert by_name["orientation: ignore"].changed == 0  # none of the pictures has an orientation
    assert by_name["resized without antialiasing"].error is not None
    fine = by_name["in bfloat16"]
    assert fine.reason == "this processor has no arithmetic in bfloat16" or fine.error is not None


def test_the_costly_protocol_is_tried_only_where_the_other_side_has_it() -> None:
    asked = retest("short-side")
    assert "protocol multi-scale" not in [way.what for way in again._ways(asked)]
    there = replace(preset("digits"), protocol="multi-scale")
    assert "protocol multi-scale" in [way.what for way in again._ways(dataclasses.replace(asked, there=there))]


def test_antialiasing_is_what_differs() -> None:
    """Without a reduction both ways are near; with one, fine stripes are kept only without antialiasing."""
    rule = Preprocess(1, 8, "squash", 0, "bilinear", "apply", np.zeros((1, 1, 1), np.float32),
                      np.ones((1, 1, 1), np.float32))
    stripes = np.zeros((24, 24, 1), np.uint8)
    stripes[:, 1::3] = 240  # exactly where plain interpolation looks
    assert again._plainly_resized(stripes, rule).max() == 240
    assert rule.place(stripes).max() < 120
    same = np.full((8, 8, 1), 7, np.uint8)
    assert np.array_equal(again._plainly_resized(same, rule), rule.place(same))


def test_bad_pictures_are_left_out(tmp_path: Path) -> None:
    _, ways = retested(retest("short-side", evaluated.files(tmp_path, count=12, bad=(0, 5))))
    assert all(one.error is not None or one.reason for one in ways)
    ways = retested(retest("short-side", evaluated.files(tmp_path, count=3, bad=(0,))))[1]
    assert {one.what: one.error is None for one in ways}["protocol mirror"] is False


def test_pictures_are_chosen_by_a_fixed_order() -> None:
    samples = evaluated.samples(30)
    assert chosen(samples, 30) is samples
    assert chosen(samples, 8).ids == chosen(samples, 8).ids
    assert len(chosen(samples, 8)) == 8
    assert set(chosen(samples, 8).ids) < set(samples.ids)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the digits that averages its weights and keeps the best ones."""
    from layerwise.jobs.main_job import train
    from layerwise.training.preparation import RunOptions

    recipe = replace(preset("digits"), network="lenet1990", input_size=28, resize="squash", duration=1, pad=2,
                     evaluate_every=0.5, ema=0.9, select="best", threads=1, precision="fp32", warmup_length=0.2)
    return train(recipe, RunOptions(out=tmp_path_factory.mktemp("runs") / "run", quiet=True))


def test_a_run_against_a_row(run: Path) -> None:
    theirs = replace(preset("digits"), network="lenet5", input_size=32, resize="squash", protocol="mirror")
    table = registry(lenet5=Row((theirs,), seeds=5, differs=("the paper gives no batch",),
                                 open_points=("the paper gives no plateau",)),
                     lenet1990=Row((replace(theirs, network="lenet1990"),)), cited=Row(unmeasured="cited"))
    answer = why(run, "paper/table-1/lenet5", Ask(pictures=40, registry=table))
    names = [cause.name for cause in answer.causes]
    assert {"network", "protocol", "ema", "select", "length", "seeds", "hardware", "input_size"} <= set(names)
    network = answer.causes[names.index("network")]
    assert (network.points, network.kind) == (0.75, "printed")
    kinds = {cause.name: cause.kind for cause in answer.causes}
    assert kinds["protocol"] == kinds["select"] == kinds["ema"] == "measured"
    assert [cause.rank for cause in answer.causes] == sorted((cause.rank for cause in answer.causes), reverse=True)
    assert answer.against.error == 0.95
    assert answer.run.error is not None
    assert answer.gap == pytest.approx(answer.run.error - 0.95)
    for what in ("batch", "plateau"):
        assert f"the row itself, against the paper: the paper gives no {what}" in answer.notes
    assert answer.tested.startswith("40 pictures of the val split, of which")
    measured = sum(cause.points or 0 for cause in answer.causes if cause.kind == "measured")
    assert answer.explained == pytest.approx(measured)
    assert f"would be {answer.gap + measured:+.2f}, left to the causes" in answer.conclusion[-1]
    assert answer.spread == "the spread over seeds is not known: one run on each side"
    spread = why(run, "paper/table-1/lenet1990", Ask(pictures=0, registry=table)).spread
    assert "times the standard deviation over seeds of paper/table-1/lenet1990, 0.20 points" in spread
    json.dumps(answer.to_json(), allow_nan=False)


def test_the_run_itself_is_not_changed(run: Path) -> None:
    files = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    table = registry(lenet1990=Row((preset("digits"),)))
    why(run, "paper/table-1/lenet1990", Ask(pictures=20, registry=table))
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == files


def test_raw_and_last_weights_are_the_checkpoints(run: Path) -> None:
    """The averaged weights differ from the raw ones: the two ways give what the checkpoint holds, and put them back."""
    model = modelfile.read(run)
    pictures = evaluated.samples(5, tuple(model.class_names), side=28)
    assert pictures.images is not None
    grey = dataclasses.replace(pictures, images=pictures.images[..., :1])
    used = replace(preset("digits"), select="best", ema=0.9, precision="fp32")
    asked = Retest(run, model, used, grey, None, lambda: grey)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    ways = list(again._other_weights(asked))
    assert [(way.field, way.setting) for way in ways] == [("select", "last"), ("ema", "0.0")]
    for way in ways:
        assert len(way.wrong()) == 5
    after = model.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_on_test_pictures_it_says_so(run: Path) -> None:
    table = registry(lenet1990=Row((preset("digits"),)))
    notes = why(run, "paper/table-1/lenet1990", Ask("test", 10, registry=table)).notes
    assert "tested again on test pictures: these numbers explain, they are none to report" in notes
    notes = why(run, "paper/table-1/lenet1990", Ask(pictures=0, registry=table)).notes
    assert "nothing was tested again: --pictures 0" in notes


def test_a_run_against_itself_and_another(run: Path, tmp_path: Path) -> None:
    same = why(run, run, Ask(pictures=0))
    assert (same.gap, same.causes) == (0.0, ())
    assert same.conclusion == ["no difference was found that could be a cause: what is left is chance, or not recorded"]
    other = synthetic_run.make_run(tmp_path / "other", names=tuple("abcdefghij"))
    (other / "evaluations" / "val-single" / "result.json").unlink()
    answer = why(run, other, Ask(pictures=0))
    names = [cause.name for cause in answer.causes]
    assert names[0] == "data"
    assert "versions: torch" in names
    assert answer.conclusion[0].startswith("the two numbers are not of the same thing (data")


def test_runs_on_other_pictures_of_the_same_name(tmp_path: Path) -> None:
    sides = [synthetic_run.make_run(tmp_path / name) for name in ("a", "b")]
    for side in sides:
        (side / "evaluations" / "val-single" / "result.json").unlink()
    synthetic_run.change(sides[1] / "evaluations" / "test-single" / "result.json", data={"fingerprint": "00" * 32})
    record = json.loads((sides[1] / "run.json").read_text())
    record["data"]["fingerprint"]["train"] = "11" * 32
    record["state"], record["branches"] = "interrupted", [{"samples": 640, "changed": {"learning_rate": [0.1, 0.2]}}]
    record["notes"].append("branch at 640 samples: learning_rate 0.1 to 0.2")  # as train writes it
    (sides[1] / "run.json").write_text(json.dumps(record))
    answer = why(sides[1], sides[0], Ask(pictures=0))
    assert [cause.name for cause in answer.causes][:2] == ["pictures that were tested", "training pictures"]
    assert answer.causes[0].kind == "other question"
    assert "the run is interrupted: it did not reach its end" in answer.notes
    assert [note for note in answer.notes if "learning_rate" in note] == [
        "noted by the run: branch at 640 samples: learning_rate 0.1 to 0.2"]
    assert "noted by the run: Synthetic: no number on this page was measured." in answer.notes


def test_a_kept_result_has_no_weights() -> None:
    kept = Path(__file__).parent.parent / "results" / "fast" / "resnet20-fashion-mnist"
    answer = why(kept, kept / "seed1", Ask())
    assert "nothing was tested again: the weights are not kept beside this result" in answer.notes
    assert "inside the spread over seeds" in answer.spread
    assert [cause.name for cause in answer.causes] == ["seeds"]


def test_data_that_are_not_here_are_a_note(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> Samples:
        raise InputError("digits: gone")

    monkeypatch.setattr("layerwise.jobs.why.own_split", gone)
    assert "nothing was tested again: digits: gone" in why(run, run).notes


def test_what_cannot_be_asked(run: Path, tmp_path: Path) -> None:
    table = registry(cited=Row(unmeasured="cited from its own paper"), lenet1990=Row((preset("digits"),)))
    ask = Ask(pictures=0, registry=table)
    with pytest.raises(InputError, match="--on tset: no such split, did you mean 'test'"):
        why(run, run, Ask("tset"))
    with pytest.raises(InputError, match="paper/table-1 has no row lenet2, did you mean 'lenet1990'"):
        why(run, "paper/table-1/lenet2", ask)
    with pytest.raises(InputError, match="this row has no recipe\ncited from its own paper"):
        why(run, "paper/table-1/cited", ask)
    with pytest.raises(InputError, match="neither a run nor the row of an experiment, did you mean "
                                         "'resnet/table-6/resnet20'"):
        why(run, "resnet/table6/resnet20")
    synthetic_run.evaluate(tmp_path / "bare", "test", "single", tuple("ab"), 10)
    with pytest.raises(InputError, match="its recipe is not known"):
        why(run, tmp_path / "bare" / "evaluations" / "test-single")


def test_of_several_evaluations_the_other_sides_protocol_is_meant(tmp_path: Path) -> None:
    made = synthetic_run.make_run(tmp_path / "run")
    synthetic_run.evaluate(made, "test", "mirror", synthetic_run.NAMES, 100)
    assert [why(made, f"paper/table-1/{row}", Ask(pictures=0, registry=registry(
        single=Row((replace(BASE, protocol="single"),)), mirror=Row((replace(BASE, protocol="mirror"),)),
        crops=Row((replace(BASE, protocol="ten-crop"),))))).run.protocol for row in ("single", "mirror", "crops")
        ] == ["single", "mirror", "single"]


def test_what_tells_beyond_the_noise_is_a_conclusion() -> None:
    ways = (Again("batch statistics taken anew", "", "", 0.1, -0.2, (-0.25, -0.15), 1e-6, 40),
            Again("protocol mirror", "protocol", "mirror", 0.3, -0.01, (-0.04, 0.02), 0.4, 9),
            Again("interpolation bicubic", "interpolation", "bicubic", 0.28, -0.02, (-0.04, 0.0), 0.03, 9),
            Again("protocol centre", "protocol", "centre", reason="does not fit"))
    side = Number("a", 30.0, "single", "")
    told = Explanation(side, side, 0.0, "", (), ways, "", ()).conclusion
    assert "batch statistics taken anew: -20.00 points, beyond the noise" in told
    assert not any("bicubic" in line for line in told)  # 0.03 is one of three tests


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", str(run), "--against", "resnet/table-6/resnet20", "--pictures", "16"]) == 0
    seen = capsys.readouterr()
    lines = seen.out.splitlines()
    assert lines[0].startswith(f"run      {run}: ")
    assert lines[1] == ("against  resnet/table-6/resnet20: 8.75 %, protocol single (resnet20 on cifar10, printed in "
                        "the paper)")
    assert lines[2].startswith("gap      +")
    assert "another question" in seen.out
    assert "the same weights tested in other ways, on 16 pictures of the val split" in seen.out
    assert "not tested: protocol centre" in seen.err
    assert "note: the row itself, against the paper: 5,000 training pictures are held out" in seen.err
    assert main(["why", str(run), "--against", str(run), "--pictures", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gap"] == 0.0


def test_batch_statistics_that_are_right_change_nothing() -> None:
    """The negative control of their row: weights whose statistics were just taken anew give the same answers."""
    asked = retest()
    right = dataclasses.replace(asked, model=recalibrate(asked.model, asked.training(), again.STATISTICS))
    _, ways = retested(right)
    assert next(one for one in ways if one.what.startswith("batch statistics")).changed == 0
