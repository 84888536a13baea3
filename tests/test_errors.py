"""Messages and exit statuses of the command line: what, why, mend; the same words for Python, people and programs."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from layerwise import cli, errors
from layerwise.cli import as_known, main
from layerwise.errors import InputError, Interrupted, LayerwiseError, MachineError, ToleranceError, amount, nearest
from layerwise.jobs import recipe_choice

# The command, the exit status, and what its message says.
MESSAGES = [
    ("", 2, ["layerwise: no command given", "The commands are: train, resume", "`layerwise --help`"]),
    ("trian resnet20 digits", 2, ["trian: there is no such command, did you mean 'train'?"]),
    ("recipe --jsn", 2, ["--jsn: layerwise recipe has no such option, did you mean '--json'",
                         "`layerwise recipe --help` lists what it takes."]),
    ("recipe --set", 2, ["layerwise recipe: Option '--set' requires an argument"]),
    ("train resnet20", 2, ["layerwise train: Missing argument 'DATA'"]),
    ("train resnet20 digits --seeds two", 2, ["layerwise train: Invalid value for '--seeds'", "valid integer"]),
    ("train resnet20 digits --seeds 0", 2, ["layerwise train: Invalid value", "--seeds"]),
    ("models a b", 2, ["layerwise models: Got unexpected extra argument"]),
    ("recipe fats", 2, ["recipe 'fats': no preset and no file of this name, did you mean 'fast'?", "The presets are:"]),
    ("recipe fast --set lr=0.1", 2, ["--set: 1 problem", "lr: unknown field, did you mean 'learning_rate'?"]),
    ("recipe fast --set batch_sise=8 --set duration=x --set flip", 2,
     ["--set: 3 problems", "did you mean 'batch_size'", "duration: ", "flip: expected field=value"]),
    ("recipe fast --set learning_rate=-1 --set batch_size=0", 2, ["learning_rate is", "batch_size is"]),
    ("recipe tests", 2, ["tests: a directory without recipe.json, so no run"]),
    ("recipe --set learning_rate=9", 2, ["--set is for one recipe", "layerwise recipe NAME --set FIELD=VALUE"]),
    ("models resnet200", 2, ["network 'resnet200': there is no such network, did you mean 'resnet20'"]),
    ("models --sort yaer", 2, ["--sort 'yaer': is not a column, did you mean 'year'"]),
    ("models alexnet --size 32", 2, ["32x32 becomes 0x0 at layer features.pool2"]),
    ("train resnet200 digits", 2, ["network 'resnet200': there is no such network, did you mean 'resnet20'"]),
    ("train resnet20 digits --recipe fats", 2, ["recipe 'fats': no preset and no file of this name"]),
    ("train resnt20 digits --recipe fats --set lr=1", 2,
     ["3 problems before the start", "network 'resnt20'", "recipe 'fats'", "lr: unknown field"]),
    ("train resnet20 nowhere", 2, ["there is no data at 'nowhere'"]),
    ("train resnet20 digits --from no.safetensors", 2, ["no.safetensors: there is no such file or directory"]),
    ("train resnet20 digits --out tests", 2, ["tests: exists and is not empty", "layerwise resume tests"]),
    ("resume tests", 2, ["tests"]),
    ("models --exact", 2, ["--exact: only layerwise train takes it", "A run keeps to what it began with."]),
    ("train lenet5 digits --recipe digits --exact --set threads=2 --set compile=yes --set deterministic=no", 2,
     ["--exact: recipe 'digits' can't be exact", "threads=2: the order of a sum depends on it", "compile=yes: ",
      "deterministic=False: ", "or leave --exact out."]),
    ("train lenet5 digits --processes 2 --seeds 2", 2, ["--processes 2 --seeds 2: one run at a time",
                                                        "Start a command for each seed with --set seed=N."]),
    ("drill tests", 2, ["tests: not a run (it has no recipe.json)"]),
    ("drill tests --recipe fast", 2, ["drill tests: --recipe and --set need NETWORK DATA"]),
    ("drill resnet20 digits --steps 1", 2, ["drill: 1 steps and 3 kills", "A kill must fall between two steps."]),
    ("evaluate nowhere", 2, ["nowhere: there is no such file or directory"]),
    ("evaluate nowhere --on tset", 2, ["--on tset: no such split, did you mean 'test'?"]),
    ("predict nowhere a.png", 2, ["nowhere: there is no such file or directory"]),
    ("predict nowhere a.png --format yaml", 2, ["--format yaml: no such format", "It is table, json or csv."]),
    ("import nowhere.pth --as resnet50_v1_5", 2, ["nowhere.pth: there is no such file"]),
    ("import README.md --as resnet51", 2, ["--as resnet51: no network that can be imported", "'resnet50_v1_5'"]),
    ("report nowhere", 2, ["'nowhere' does not exist"]),
    ("compare tests tests", 2, ["tests: no evaluation (no result.json) here", "layerwise evaluate RUN"]),
    ("compare tests", 2, ["compare: one side given", "Name another evaluation, run, or folder of seeds."]),
    ("compare tests tests --over image", 2, ["--over image: no such choice, did you mean 'images'"]),
    ("why tests --against resnet/table-6/resnet20", 2, ["tests: no evaluation (no result.json) here"]),
    ("why tests --against nowhere/run", 2, ["nowhere/run: neither a run nor the row of an experiment",
                                            "or a row as resnet/table-6/resnet20."]),
    ("why results/fast/resnet20-fashion-mnist --against resnet/table-6/resnet2O", 2,
     ["resnet/table-6 has no row resnet2O, did you mean '"]),
    ("why results/fast/resnet20-fashion-mnist --against resnet/table-6/maxout", 2, ["this row has no recipe"]),
    ("why tests --against tests --on train", 2, ["--on train: no such split", "It is val or test."]),
    ("check nowhere", 2, ["there is no data at 'nowhere'", "it is looked for from"]),
    ("fetch digit", 2, ["'digit' is not a data set that can be fetched"]),
    ("fetch cifar10 --offline", 3, ["cifar10: cifar-10-binary.tar.gz is not on this machine", "--offline forbids",
                                    "by hand"]),
    ("bench resnet20 --batches 0", 2, ["--batches 0: '0' is no batch size"]),
    ("bench lenet5 --batches \u00b2", 2, ["--batches \u00b2: '\u00b2' is no batch size"]),  # isdigit, and no number
    ("bench resnet20 --set device=cuda:9", 3, ["device=cuda:9: not available"]),
    ("tune resnet2O", 2, ["'resnet2O': no network, preset, recipe's file or run, did you mean", "'resnet20'"]),
    ("tune lenet5 --seconds 0", 2, ["--seconds 0: must be from 1 to 3600"]),
    ("replay nowhere --step 1", 2, ["nowhere: not a run (it has no recipe.json)"]),
    ("replay nowhere", 2, ["layerwise replay: Missing option '--step'"]),
    ("replay nowhere --step -1", 2, ["layerwise replay: Invalid value for '--step'"]),
    ("doctor bm", 2, ["doctor 'bm': no such topic, did you mean 'bn'?"]),
    ("doctor bn", 2, ["doctor bn: no run given"]),
    *((f"doctor {option}", 2,
       ["--data, --on and --recalibrate are for the batch normalisation of a run", "layerwise doctor bn RUN"])
      for option in ("--data digits", "--on val", "--recalibrate x")),
    ("pack digits --to new", 2, ["digits: a published set, which is no folder of pictures"]),
    ("pack nowhere --to new", 2, ["there is no data at 'nowhere'"]),
    ("pack tests --to new --shard-size 5 --per-shard 2", 2, ["--shard-size and --per-shard: only one of them"]),
    ("pack tests --to new --shard-size many", 2, ["--shard-size many: is no size"]),
    ("reject nowhere", 2, ["nowhere: there is no such file or directory"]),
    ("explain nowhere", 2, ["nowhere: there is no such file or directory"]),
    ("explain nowhere kernel fetures", 2, ["layerwise explain: 2 views that do not exist", "kernel, did you mean "
                                           "'kernels'?", "The views are: kernels, predictions"]),
    ("watch nowhere", 2, ["'nowhere' does not exist"]),
    ("calibrate nowhere", 2, ["nowhere: there is no such file or directory"]),
    ("reproduce", 2, ["layerwise reproduce: no table or figure given", "`layerwise reproduce --list` names them."]),
    ("reproduce resnet/tabel-6", 2, ["resnet/tabel-6: there is no such experiment, did you mean 'resnet/table-6'",
                                     "`layerwise reproduce --list` names them."]),
    ("reproduce resnet/table-6 --scale smal", 2, ["--scale smal: no such scale, did you mean 'small'",
                                                  "It is smoke, small or paper."]),
    ("reproduce resnet/table-6 --rows resnet21,resnet20,x", 2,
     ["resnet21: resnet/table-6 has no such row, did you mean 'resnet", "x: resnet/table-6 has no such row",
      "Its rows are: "]),
    ("reproduce resnet/table-6 --data digits", 2, ["--data digits: the scale small has data of its own",
                                                   "Leave --data out, or add --scale paper."]),
    ("reproduce resnet/table-6 --scale paper --data digit", 2, ["there is no data at 'digit', did you mean 'digits'"]),
    ("reproduce resnet/table-6 --seeds 11", 2, ["Invalid value for '--seeds'"]),
    ("reproduce nothing --list", 2, ["nothing: there is no such experiment"]),
    *((f"reproduce resnet/figure-1 --list {option}", 2,
       ["--scale, --rows, --seeds, --data and --out are for a table or figure that is run", "Leave out --list"])
      for option in ("--scale typo", "--rows plain-20", "--seeds 2", "--data digits", "--out elsewhere")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths as `tests` mean this repository's."""
    monkeypatch.chdir(Path(__file__).parent.parent)


@pytest.mark.parametrize(("command", "status", "says"), MESSAGES, ids=[row[0] or "nothing" for row in MESSAGES])
def test_message(command: str, status: int, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == status
    seen = capsys.readouterr()
    assert [words for words in says if words not in seen.err] == []
    assert "error: " in seen.err
    assert "Traceback" not in seen.err


@pytest.mark.parametrize("command", ["trian x", "recipe fats --json", "train resnt20 digits --json", "fetch x --json",
                                     "predict nowhere a.png --format json", "check nowhere --json"])
def test_json_errors(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main([*command.split(), *(["--json"] if command.startswith("trian") else [])])
    seen = capsys.readouterr()
    error = json.loads(seen.out)["error"]
    assert set(error) == {"kind", "exit_code", "what", "why", "mend", "details"}
    assert (error["kind"], error["exit_code"], status) == ("input", 2, 2)
    assert f"error: {error['what']}" in seen.err


def test_json_holds_one_document_and_errors_without_it_none(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "fats"])
    assert capsys.readouterr().out == ""


class Broken:
    """Stands in for a function that fails in a way nobody thought of."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *arguments: object) -> None:
        raise self.error


def test_internal_error_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_choice, "changed_recipe", Broken(KeyError("a\nb")))
    assert main(["recipe", "fast"]) == 1
    assert capsys.readouterr().err == (
        "error: internal error: KeyError: 'a\\nb'\n"
        "Run the command again with --debug for the traceback, and report it.\n")  # fmt: skip
    assert main(["recipe", "fast", "--debug"]) == 1
    seen = capsys.readouterr().err
    assert "Traceback (most recent call last)" in seen
    assert "--debug for the traceback" not in seen
    assert main(["recipe", "fast", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "internal"


def test_debug_shows_the_traceback_of_a_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "recipe", "fats"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status", "what"), [
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.json"), 2, "x.json: No such file or directory"),
    (PermissionError(errno.EACCES, "Permission denied", "x.json"), 3, "x.json: Permission denied"),
    (OSError(errno.ENOSPC, "No space left on device", "x.json"), 3, "x.json: No space left on device"),
    (OSError(errno.ENOSPC, "No space left on device"), 3, "No space left on device"),
    (OSError("odd"), 1, "internal error: OSError: odd"),
    (MemoryError(), 3, "out of memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 3, "out of memory"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                  "to allocate 39459999744 bytes. Error code 12 (Cannot allocate memory)"), 3, "out of memory"),
    (RuntimeError("shapes do not fit"), 1, "internal error: RuntimeError: shapes do not fit"),
    (ValueError("x"), 1, "internal error: ValueError: x"),
    (ToleranceError("t"), 4, "t"),
    (MachineError("m"), 3, "m"),
    (Interrupted("stopped", "layerwise resume RUN", 143), 143, "stopped"),
])
def test_every_error_becomes_one_of_ours(error: Exception, status: int, what: str) -> None:
    known = as_known(error, [])
    assert (known.exit_code, known.what) == (status, what)


@pytest.mark.parametrize(("status", "text"), [(130, "stopped\nlayerwise resume RUN\n"), (143, "stopped\n")])
def test_interrupted_is_no_error(status: int, text: str, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    mend = "layerwise resume RUN" if status == 130 else ""
    monkeypatch.setattr(recipe_choice, "changed_recipe", Broken(Interrupted("stopped", mend, status)))
    assert main(["recipe", "fast"]) == status
    assert capsys.readouterr().err == text


def test_ctrl_c_before_a_run_began(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_choice, "changed_recipe", Broken(KeyboardInterrupt()))
    assert main(["recipe", "fast"]) == 130
    assert "interrupted: stopped by Ctrl-C" in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "a\x1b[2Jb"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_message_parts_and_five_details() -> None:
    error = InputError("what", "why", "mend", [f"d{n}" for n in range(7)])
    assert str(error) == "what\n  - d0\n  - d1\n  - d2\n  - d3\n  - d4\n  - and 2 more\nwhy\nmend"
    assert error.details == tuple(f"d{n}" for n in range(7))


def test_types_are_pythons_too() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(MachineError, RuntimeError)
    assert issubclass(ToleranceError, ArithmeticError)
    assert all(issubclass(kind, LayerwiseError) for kind in (InputError, MachineError, ToleranceError, Interrupted))
    codes = [kind("x").exit_code for kind in (LayerwiseError, InputError, MachineError, ToleranceError, Interrupted)]
    assert codes == [1, 2, 3, 4, 130]


def test_nearest_names() -> None:
    assert nearest("resnet2O", ["resnet20", "plain"]) == ", did you mean 'resnet20'?"
    assert nearest("zzz", ["resnet20", "plain"]) == ""
    assert errors.SHOWN == 5


def test_every_command_has_a_message_here() -> None:
    """A new command needs a row above."""
    tested = {command.split()[0] for command, *_ in MESSAGES if command}
    assert {command.name for command in cli.app.registered_commands} <= tested


def test_one_of_a_thing_is_no_plural() -> None:
    assert [amount(number, "epochs") for number in (1, 2, 0.5, 64000.0)] == [
        "1 epoch", "2 epochs", "0.5 epochs", "64,000 epochs"]
