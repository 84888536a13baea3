"""benchmarks/all.py, training.py, gpu.py and explain.py: what counts as missed, and that a miss stops nothing."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import all as everything
from benchmarks import explain
from benchmarks.all import Row, Run, rows_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as for a script, which finds its neighbours
    return importlib.import_module("benchmarks.training")


def test_a_benchmark_says_its_rows() -> None:
    lines = ["x: 3.2 of plain", "summary: a | 1.20 | 1.1 | ok", "summary: b | 0.9 | 1 | not",
             "summary: c | - | 4 | left out: no network"]
    rows = rows_of("x", lines, 4, late=False)
    assert [row.what for row in rows] == ["a", "b", "c"]
    assert [row.missed for row in rows] == [False, True, False]


@pytest.mark.parametrize(("lines", "status", "late", "verdict"), [
    (["ratio 0.97 (0.9 to 1.0)"], 0, False, "ok"),
    (["ratio 0.92"], 4, False, "not"),
    (["summary: a | 1 | 1 | ok"], 4, False, "not"),  # a miss that no row tells
    (["summary: a | 1 | 1 | ok"], 1, False, "not: it failed with status 1"),
    ([], -9, True, "not: it took too long and was stopped"),
])
def test_what_its_status_says(lines: list[str], status: int, late: bool, verdict: str) -> None:
    row = rows_of("x", lines, status, late)[-1]
    assert row.verdict == verdict
    assert row.missed is (verdict != "ok")


def test_the_last_ratio_is_taken_where_there_are_no_rows() -> None:
    assert rows_of("x", ["a: ratio 0.50", "b: cpu ratio of 1.25 (1 to 2)"], 0, late=False)[0].ratio == "1.25"


def test_all_go_on_after_a_miss_and_end_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    programs = {"good.py": "print('summary: good | 2 | 1 | ok')", "bad.py": "raise SystemExit(4)",
                "slow.py": "import time\nprint('begun', flush=True)\ntime.sleep(60)", "new.py": ""}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(everything, "HERE", tmp_path)
    monkeypatch.setattr(everything, "RUNS", (Run("bad.py", (), 30), Run("slow.py", (), 0.5), Run("good.py", (), 30)))
    assert everything.main([]) == 4
    lines = capfd.readouterr().out.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("benchmark "))):]
    assert [" ".join(line.split()) for line in table] == [
        "benchmark ratio limit", "bad - in its file not", "slow - - not: it took too long and was stopped",
        "good 2 1 ok", "new - - left out: not in the list of all.py"]
    assert everything.main(["--only", "good"]) == 0


def test_no_time_is_left(capfd: pytest.CaptureFixture[str]) -> None:
    assert everything.main(["--only", "startup", "--minutes", "0"]) == 4
    assert "not: no time was left of 0 minutes" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        everything.main(["--only", "strtup"])
    assert "no such benchmark: strtup" in capfd.readouterr().err


def test_every_file_of_the_list_is_there() -> None:
    for run in everything.RUNS:
        assert (ROOT / "benchmarks" / run.file).is_file()
    assert sum(run.seconds for run in everything.RUNS) <= 2.2 * 60 * everything.MINUTES  # bounds, not what they take
    assert isinstance(Row("a", "1", "1", "ok").missed, bool)


def test_what_keeps_its_limit_is_not_stopped_before_it() -> None:
    bounds = {run.file: run.seconds for run in everything.RUNS}
    assert bounds["explain.py"] > explain.SECONDS + 60  # and the training before it


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("benchmarks.gpu")


def test_timms_script_tells_its_rate(gpu: ModuleType) -> None:
    printed = 'Train benchmark done\n--result\n{\n "model": "resnet50",\n "train_samples_per_sec": 812.5\n}\n'
    assert gpu.timm_rate(printed) == 812.5
    for other in ("no mark", '--result\n{"model": "resnet50", "error": "out of memory"}', "--result\n[]", ""):
        with pytest.raises(ValueError, match="timm's script told no rate"):
            gpu.timm_rate(other)


def test_a_gpus_benchmark_runs_on_the_processor(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    """The script of timm takes the words that its own one takes; a rate twice ours is a ratio of a half."""
    script = tmp_path / "benchmark.py"
    script.write_text(
        "import json, sys\nsaid = dict(zip(sys.argv, sys.argv[1:]))\nassert said['--precision'] == 'float32'\n"
        "assert said['--device'] == 'cpu'\n"
        "print('--result\\n' + json.dumps({'train_samples_per_sec': 2 * int(said['--batch-size'])}))\n")
    monkeypatch.setattr(gpu, "fresh", lambda side, options: {"peak": 1e12, "command": float(options.batch)}[side])
    monkeypatch.setattr(gpu.hardware, "cpu_computes_bf16", lambda: False)
    told = tmp_path / "told.json"
    assert gpu.main(["--device", "cpu", "--timm", str(script), "--rounds", "2", "--save", str(told)]) == 0
    out = capsys.readouterr().out
    assert "summary: resnet50 in fp32, to timm's script | 0.50 | none | ok" in out
    assert "left out: no --seeds" in out
    assert gpu.json.loads(told.read_text("utf-8"))["share of that"] == "9 %"  # 4 x 6 x 3.86 GFLOP of 1 TFLOP
    with pytest.raises(SystemExit):
        gpu.main(["--timm", str(tmp_path / "none.py")])


def test_a_seed_that_misses_ends_a_gpus_benchmark_with_4(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "fresh", lambda side, options: 1.0)
    for least, status in ((0.94, 0), (0.9399, 4)):
        runs = {0: {"clock": 9.0, "accuracy": 0.95}, 1: {"clock": 8.0, "accuracy": least}}
        monkeypatch.setattr(gpu, "our_run", lambda seed, *others, runs=runs: runs[seed])
        assert gpu.main(["--device", "cpu", "--seeds", "0", "1"]) == status


def test_the_commands_side_of_a_gpus_benchmark_is_measured(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    """What a process of `fresh` does, really, on a network that takes no time; its case says all that a case says."""
    command, cases = gpu.command_side.__globals__["command"], []
    monkeypatch.setattr(command, "save", command.save)  # which that side replaces
    monkeypatch.setattr(gpu, "NETWORK", "lenet5")
    monkeypatch.setattr(gpu, "SIDE", 32)
    words = ["--side", "command", "--device", "cpu", "--batch", "2", "--steps", "1", "--threads", "1"]
    assert gpu.main(words) == 0
    assert float(capsys.readouterr().out) > 0
    monkeypatch.setattr(gpu, "command_side", lambda network, case, *others: (cases.append(case), {"clock": 7.0})[1])
    assert gpu.main(words) == 0
    assert float(capsys.readouterr().out) == 7.0
    assert (cases[0].channels, cases[0].side, cases[0].batch, cases[0].pictures) == (3, 32, 2, gpu.IMAGENET)


def test_a_gpus_benchmark_takes_no_more_steps_than_its_training_has(gpu: ModuleType,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--steps", str(gpu.MOST_STEPS + 1)], ["--steps", "-1"], ["--batch", "-1"], ["--peak", "-1"]):
        with pytest.raises(SystemExit):
            gpu.main([*words, "--side", "peak"])
        assert f"--steps from 0 to {gpu.MOST_STEPS}" in capsys.readouterr().err


def test_only_steps_that_were_made_are_counted(training: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two untimed ones, and of ten that are asked for the three that the training still has."""
    made: list[int] = []

    def timed(batch: int, run: Callable[[], int], *left_out: object) -> dict[str, float]:
        made.append(run())
        return {"clock": 1.0}

    monkeypatch.setattr(training.command, "save", training.command.save)  # which that side replaces
    monkeypatch.setattr(training, "timed", timed)
    monkeypatch.setattr(training, "MOST_STEPS", 3)
    options = training.argparse.Namespace(threads=1, steps=10, seconds=1.0)
    training.command_side("lenet5", training.Case(1, 32, 4, 0, 0, 0, 1), options, ("device=cpu", "precision=fp32"))
    assert made == [1, 1, 3]


def test_the_loop_ends_after_its_steps_and_goes_on(training: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command's side of training.py: two untimed steps, then two timed ones of the same training.

    The first waits for a compiler, which says nothing of how many are timed.
    """
    command, steps, step_seconds = training.command, [], []
    real, chosen = command.gradients, training.chosen_steps

    def gradients(made: object, batch: object) -> object:
        if not steps:
            time.sleep(3)
        steps.append(made)
        return real(made, batch)

    monkeypatch.setattr(command, "save", command.save)  # which that side replaces
    monkeypatch.setattr(command, "gradients", gradients)
    monkeypatch.setattr(training, "chosen_steps", lambda options, seconds: (
        step_seconds.append(seconds), chosen(options, seconds))[1])
    case = training.Case(1, 32, 4, 0, 0, 0, 1)
    options = training.argparse.Namespace(threads=1, steps=2, seconds=1.0)
    rates = training.command_side("lenet5", case, options, ("device=cpu", "precision=fp32"))
    assert len(steps) == 4
    assert len(set(map(id, steps))) == 1
    assert steps[0].position.step == 4
    assert 0 < step_seconds[0] < 3
    assert rates["clock"] > 0


def test_a_must_is_met_by_the_clock(training: ModuleType) -> None:
    reached = {"ratio_to_plain": 3.1, "least": 3.0, "most": 3.2, "ratio_to_best": 1.0, "share_of_roofline": 0.5,
               "roofline": 10.0, "images_per_second": {"command": 5.0}}
    one = {"must": 3.1, "aim": 4.0, "aim_of_best": 1.25, "best": "channels-last kept", "elsewhere": 0.031,
           "clock": reached, "processor": reached | {"ratio_to_plain": 2.0}}
    assert training.met(one)
    assert not training.met(one | {"clock": reached | {"ratio_to_plain": 3.09}})
    assert training.told(one, "clock") == (
        "3.10 of plain (3.00 to 3.20; must 3.1, aim 4), 1.00 of best by hand (channels-last kept; aim 1.25), "
        "5.0 images/s, 50 % of the roofline 10.0; at most 3 % of the cores elsewhere")


def test_musts_are_those_of_the_issue(training: ModuleType) -> None:
    assert {name: (case.must, case.aim, case.aim_of_best) for name, case in training.CASES.items()} == {
        "resnet50": (3.1, 4.0, 1.25), "resnet18": (2.8, 3.3, 1.15), "speed-run": (4.5, 6.0, 1.2),
        "resnet20": (1.9, 3.0, 1.5), "lenet5": (1.0, 4.0, 3.7)}


def test_the_roofline_is_the_longer_of_two_times(training: ModuleType) -> None:
    found = {"product fp32": {"clock": 1e9}, "convolution fp32": {"clock": 2e9}, "memory": {"clock": 1e9}}
    operations, moved = training.peaks.__globals__["step_costs"]("lenet5", (1, 32, 32))
    rate = training.roofline(found, "lenet5", (1, 32, 32), "clock")
    assert rate == pytest.approx(1 / max(operations / 2e9, moved / 1e9))
    starved = found | {"memory": {"clock": 1e3}}
    assert training.roofline(starved, "lenet5", (1, 32, 32), "clock") == pytest.approx(1e3 / moved)


def test_a_network_that_is_not_there_is_left_out(training: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(training, "fresh", lambda words, options: {"memory": {"clock": 1e9, "processor": 1e9}})
    assert training.main(["--networks", "speed-run", "--speed-run", "airnte"]) == 0
    assert "summary: training speed-run | - | 4.5 | left out: no network 'airnte'" in capsys.readouterr().out


def test_the_page_of_explain_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(words: list[str], threads: int) -> None:
        if words[0] == "explain":
            (Path(words[1]) / "explain.html").write_bytes(b"x" * 1_000_000)
        else:
            Path(words[-1]).mkdir()

    monkeypatch.setattr(explain, "command", command)
    monkeypatch.setattr(explain, "GIB", 1e6)  # of all children that this process ever had
    told = tmp_path / "told.json"
    assert explain.main(["--threads", "1", "--save", str(told)]) == 0
    assert json.loads(told.read_text("utf-8"))["MB of the page"] == "1.00, limit 10"
    monkeypatch.setattr(explain, "PAGE_MB", 0.9)
    assert explain.main([]) == 4
