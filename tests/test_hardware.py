"""The machine is chosen, stated and pinned; a device that is not there is an error, never a silent other one."""

from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from layerwise import hardware, processor
from layerwise.errors import InputError, MachineError
from layerwise.recipes.presets import preset
from layerwise.signals import Signals


def test_nothing_is_left_to_be_chosen() -> None:
    recipe = hardware.resolve(preset("fast"))
    assert "auto" not in (recipe.device, recipe.precision, recipe.memory_format, recipe.compile)
    assert recipe.threads >= 1
    assert recipe.micro_batch == recipe.batch_size
    assert hardware.resolve(recipe) == recipe
    assert hardware.describe(recipe)["precision"] == recipe.precision


@pytest.mark.parametrize(("bf16", "precision"), [(True, "bf16"), (False, "fp32")])
def test_bf16_only_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda: bf16)
    recipe = dataclasses.replace(preset("fast"), device="cpu")
    assert hardware.resolve(recipe).precision == precision
    forced = dataclasses.replace(recipe, precision="fp32")
    assert hardware.resolve(forced).precision == "fp32"


def test_the_forward_pass_runs_in_the_stated_precision() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    recipe = dataclasses.replace(preset("fast"), device="cpu", precision="bf16")
    with hardware.autocast(recipe):
        assert layer(x).dtype == torch.bfloat16
    with hardware.autocast(dataclasses.replace(recipe, precision="fp32")):
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("device", ["cuda:7", "mps", "cuda"])
def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(MachineError, match=f"device={device}: not available\ntorch .* sees these devices: cpu"):
        hardware.resolve(dataclasses.replace(preset("fast"), device=device))


def test_the_quota_of_the_control_group_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(processor.Path, "exists", lambda self: True)
    monkeypatch.setattr(processor.Path, "read_text", lambda self: "150000 100000")
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda who: set(range(64)), raising=False)
    assert hardware.cores() == 2
    monkeypatch.setattr(processor.Path, "read_text", lambda self: "max 100000")
    assert hardware.cores() == 64


def test_an_unresolved_recipe_is_not_run() -> None:
    with pytest.raises(InputError, match="still 'auto'"):
        hardware.prepare(preset("fast"))


def test_versions_name_what_a_number_depends_on() -> None:
    assert {"python", "torch", "numpy", "pillow", "code"} <= hardware.versions().keys()


def commit(root: Path) -> None:
    """A checkout with one committed file of the package."""
    (root / "layerwise").mkdir()
    (root / "layerwise" / "train.py").write_text("rate = 0.1\n")
    (root / ".gitignore").write_text("runs/\n")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "one"]):
        subprocess.run(["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_two_states_that_are_not_committed_have_different_names(tmp_path: Path) -> None:
    commit(tmp_path)
    clean = hardware.revision(tmp_path)
    assert len(clean) == 12
    (tmp_path / "layerwise" / "train.py").write_text("rate = 0.2\n")
    first = hardware.revision(tmp_path)
    assert re.fullmatch(clean + "-dirty-[0-9a-f]{8}", first)
    (tmp_path / "layerwise" / "train.py").write_text("rate = 0.3\n")
    second = hardware.revision(tmp_path)
    assert second.startswith(f"{clean}-dirty-")  # all that git says: without the digest the two were the same
    assert second != first
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    assert hardware.revision(tmp_path) == second
    (tmp_path / "layerwise" / "new.py").write_text("rate = 0.4\n")
    third = hardware.revision(tmp_path)
    (tmp_path / "layerwise" / "new.py").write_text("rate = 0.5\n")
    assert len({first, second, third, hardware.revision(tmp_path)}) == 4
    (tmp_path / "layerwise" / "new.py").unlink()
    (tmp_path / "layerwise" / "train.py").write_text("rate = 0.2\n")
    assert hardware.revision(tmp_path) == first


def test_without_git_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.revision(tmp_path) == "not from a git checkout"
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.revision(tmp_path) == "unknown: git could not tell"


def test_the_first_signal_asks_and_the_second_stops() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert signals.received is None
        signal.raise_signal(signal.SIGTERM)
        assert (signals.received, signals.exit_code) == (signal.SIGTERM, 143)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.exit_code == 130


def test_variables_that_limit_the_instructions_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = hardware.resolve(preset("digits"))
    for name in hardware.LIMITING:
        monkeypatch.delenv(name, raising=False)
    plain = hardware.describe(recipe)["cpu_capability"]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert hardware.describe(recipe)["cpu_capability"] == f"{plain}, ONEDNN_MAX_CPU_ISA=SSE41"


def test_a_seed_is_that_of_torch() -> None:
    numbers = []
    for seeded in (lambda: torch.manual_seed(7), lambda: hardware.seed(torch.device("cpu"), 7),
                   lambda: hardware.seed(torch.device("cpu"), 8)):
        seeded()
        numbers.append(torch.rand(4))
    assert torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[2])
