"""compile=norm: the same answers, slopes and statistics as torch's own layers, where it is possible, nothing else."""

from __future__ import annotations

import copy
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

import layerwise.train as loop
from layerwise import models, rundir
from layerwise.errors import InputError, Interrupted, MachineError
from layerwise.jobs import benchmark
from layerwise.jobs.tune import tune
from layerwise.models.resnet import Residual
from layerwise.recipe import Recipe, changed, check
from layerwise.recipes.exact import made_exact
from layerwise.recipes.presets import preset
from layerwise.train import resume, train
from layerwise.training import fused, memory
from layerwise.training.fused import can_fuse, compiled_for, fuse_normalisation
from layerwise.training.preparation import RunOptions
from layerwise.training.state import Training

BF16 = replace(preset("fast"), device="cpu", precision="bf16", memory_format="channels-last", compile="norm",
               network="resnet18", channels=3, input_size=224)
REAL = fused._compiled


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops as they are written, which takes no compiler, for maps of every size."""
    monkeypatch.setattr(fused, "_compiled", lambda loop: loop)
    monkeypatch.setattr(fused, "FEWEST", 1)
    monkeypatch.setattr(fused, "missing_for_compiler", lambda: "")


class Sum(Residual):
    """A residual block whose function is batch normalisation alone."""

    def function(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.BatchNorm2d(width))


def network(kind: str, channels: int) -> nn.Module:
    """Batch normalisation with what may follow it, with a scale, shift and statistics of its own."""
    torch.manual_seed(3)
    layer: nn.Module
    if kind == "sum":
        layer = nn.Sequential(Sum(channels, channels, 1, lambda *_: nn.Identity()))
    else:
        after = {"ReLU": [nn.ReLU()], "ReLU6": [nn.ReLU6()], "GELU": [nn.GELU()], "alone": []}[kind]
        layer = nn.Sequential(nn.BatchNorm2d(channels), *after)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor.data, 0.5, 2)
    return layer.train()


def learnt(layer: nn.Module, maps: Tensor, bf16: bool) -> dict[str, Tensor]:
    """The answer, the slope that comes back, gradients and statistics after a step."""
    maps = maps.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        answer = layer(maps)
    answer.backward(torch.linspace(-1, 2, answer.numel()).reshape(answer.shape).to(answer.dtype))
    assert maps.grad is not None
    found = {"answer": answer.detach(), "slope": maps.grad}
    found |= {name: one.grad for name, one in layer.named_parameters() if one.grad is not None}
    return {name: one.double() for name, one in (found | dict(layer.named_buffers())).items()}


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


SHAPES = [(4, 16, 8, 8), (5, 24, 7, 9), (3, 100, 5, 5), (2, 3, 13, 11), (4, 96, 1, 1), (16, 256, 14, 14)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["ReLU", "ReLU6", "GELU", "alone", "sum"])
def test_answers_slopes_and_statistics_are_those_of_the_layers(kind: str, shape: tuple[int, ...],
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """No further from fp32 than torch's own layers in bf16 are, but for a tenth."""
    torch.manual_seed(0)
    maps = (3 + 2 * torch.randn(shape)).bfloat16().contiguous(memory_format=torch.channels_last)
    calls = []
    real: Callable[..., Tensor] = fused._normalised
    monkeypatch.setattr(fused, "_normalised", lambda *words: calls.append(words[3]) or real(*words))  # type: ignore[func-returns-value]
    exact = learnt(network(kind, shape[1]), maps.float(), False)
    usual = learnt(network(kind, shape[1]), maps, True)
    assert not calls
    ours = network(kind, shape[1])
    assert fuse_normalisation(ours, BF16) == 1
    found = learnt(ours, maps, True)
    assert calls == [{"sum": "ReLU", "GELU": "", "alone": ""}.get(kind, kind)]
    assert found.keys() == exact.keys() == usual.keys()
    for name, value in found.items():
        assert apart(value, exact[name]) <= 1.1 * apart(usual[name], exact[name]) + 1e-6, name


@pytest.mark.parametrize("near", [True, False])
def test_a_mean_far_from_zero_costs_no_digits(near: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of numbers around 1,000 with a deviation of 4 leave none; taken from a number nearby they do. The control
    takes them from zero."""
    maps = (1000 + 4 * torch.randn(4, 16, 32, 32)).bfloat16().contiguous(memory_format=torch.channels_last)
    layer = nn.BatchNorm2d(16, momentum=1.0)
    fuse_normalisation(nn.Sequential(layer), BF16)
    if not near:
        def from_zero(x: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
            wide = x.float()
            return (wide - middle).sum(1), (wide * wide - 2 * middle * wide + middle * middle).sum(1)
        monkeypatch.setattr(fused, "_moments", from_zero)
    with torch.autocast("cpu", torch.bfloat16):
        layer(maps)
    assert layer.running_var is not None
    worst = float((layer.running_var / maps.double().var((0, 2, 3)) - 1).abs().max())
    assert (worst < 1e-5) == near


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports what torch calls outdated
def test_the_compiled_loops_say_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit where nothing is added up; sums in another order. One compilation serves all shapes."""
    monkeypatch.undo()
    if missing := fused.missing_for_compiler():
        pytest.skip(f"torch's compiler can't work here: {missing}")
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    torch._dynamo.utils.counters.clear()
    for shape in ((4, 16, 33, 32), (3, 100, 17, 21)):
        torch.manual_seed(0)
        maps, slope = (torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last) for _ in range(2))
        rows, slopes = fused._rows(maps), fused._rows(slope)
        numbers = [torch.rand(rows.shape[2]) for _ in range(4)]
        for one_loop, words in (
                (fused._applied, ("ReLU", rows, *numbers[:2])), (fused._moments, (rows, numbers[0])),
                (fused._applied_to_sum, ("ReLU", rows, *numbers[:2], slopes)),
                (fused._slopes, ("ReLU", slopes, rows, *numbers[:3])),
                (fused._slopes_of_sum, (slopes, rows, rows, numbers[0])),
                (fused._returned, ("ReLU", slopes, rows, *numbers))):
            found, expected = REAL(one_loop)(*words), one_loop(*words)
            for one, other in zip(*((part,) if isinstance(part, Tensor) else part for part in (found, expected)),
                                  strict=True):
                if one.dtype == torch.bfloat16:
                    assert torch.equal(one, other), one_loop.__name__
                else:
                    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled == 6


def test_a_copy_keeps_statistics_of_its_own_and_tests_see_the_layers() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    plain = models.build("resnet20", num_classes=4, in_channels=3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = copy.deepcopy(plain)
    assert fuse_normalisation(ours, BF16) == 19
    assert list(ours.state_dict()) == list(plain.state_dict())
    other = copy.deepcopy(ours)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        other.train()(maps)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    moved = [name for name, value in other.state_dict().items() if not torch.equal(value, before[name])]
    assert len(moved) == 3 * 19  # mean, variance and count of each
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(ours.eval()(maps), plain.eval()(maps))


def test_without_it_nothing_changes_and_what_it_can_not_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build("resnet20", num_classes=4, in_channels=3)
    assert fuse_normalisation(model, replace(BF16, compile="no")) == 0
    assert not any("forward" in vars(module) for module in model.modules())
    with pytest.raises(InputError, match="lenet5 has no batch normalisation"):
        fuse_normalisation(models.build("lenet5", num_classes=4, in_channels=1), replace(BF16, network="lenet5"))
    monkeypatch.setattr(fused, "missing_for_compiler", lambda: "there is no C++ compiler g++")
    with pytest.raises(MachineError, match="there is no C\\+\\+ compiler"):
        fuse_normalisation(model, BF16)


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in fused.missing_for_compiler()
    monkeypatch.setenv("CXX", "python3")  # something that is there
    monkeypatch.setattr(fused.sysconfig, "get_path", lambda _: "nowhere")
    assert "Python.h" in fused.missing_for_compiler()


def test_it_is_chosen_where_a_training_is_long_enough_to_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-18 does 1.8e9 multiply-adds a picture: 9.2e3 pictures are worth the compiler, and as many iterations."""
    recipe = replace(BF16, compile="no", duration=1, batch_size=16)
    assert compiled_for(recipe, 9_000) == "no"
    assert compiled_for(recipe, 9_500) == "norm"
    assert compiled_for(replace(recipe, duration=2), 5_000) == "norm"
    assert compiled_for(replace(recipe, unit="iterations", duration=600), 10) == "norm"
    for impossible in ({"precision": "fp32"}, {"device": "cuda:0"}, {"memory_format": "contiguous"},
                       {"virtual_workers": 4}, {"batch_norm": "all"}, {"network": "vgg11"}):
        assert compiled_for(replace(recipe, **impossible), 10**9) == "no"  # type: ignore[arg-type]
    assert can_fuse(recipe)
    monkeypatch.setattr(fused, "missing_for_compiler", lambda: "there is no C++ compiler g++")
    assert not can_fuse(recipe)
    assert compiled_for(recipe, 10**9) == "no"


@pytest.mark.parametrize("setting", ["precision=fp32", "memory_format=contiguous", "device=cuda:0", "batch_norm=all",
                                     "virtual_workers=4"])
def test_contradictions_are_told(setting: str) -> None:
    check(changed(preset("fast"), ["compile=norm"]))
    with pytest.raises(InputError) as error:
        check(changed(preset("fast"), ["compile=norm", setting]))
    assert any("compile=norm" in line for line in error.value.details)


def test_it_is_not_exact() -> None:
    with pytest.raises(InputError) as error:
        made_exact(BF16)
    assert any("compile=norm" in line for line in error.value.details)


def recipe_of_digits() -> Recipe:
    return changed(preset("digits"), [
        "network=resnet20", "data=digits", "duration=12", "unit=iterations", "batch_size=16", "compile=norm",
        "precision=bf16", "memory_format=channels-last", "device=cpu", "threads=2", "evaluate_every=100"])


def test_a_training_that_was_stopped_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = fused._normalised
    monkeypatch.setattr(fused, "_normalised", lambda *words: calls.append(1) or real(*words))  # type: ignore[func-returns-value]
    whole = train(recipe_of_digits(), RunOptions(out=tmp_path / "whole", quiet=True))
    assert len(calls) == 12 * 19
    gradients = loop.gradients

    def stopping(training: Training, batch: dict[str, Any]) -> dict[str, float]:
        if training.position.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return gradients(training, batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "gradients", stopping)
        with pytest.raises(Interrupted):
            train(recipe_of_digits(), RunOptions(out=tmp_path / "stopped", quiet=True))
    stopped = resume(tmp_path / "stopped", RunOptions(quiet=True))
    assert rundir.read_recipe(stopped).compile == "norm"
    plain = train(changed(recipe_of_digits(), ["compile=no"]), RunOptions(out=tmp_path / "plain", quiet=True))
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
        assert (plain / name).read_bytes() != (whole / name).read_bytes(), name  # the control: other loops


def test_blocks_that_compute_again_learn_the_same(tmp_path: Path) -> None:
    """With an odd last batch, whose maps group otherwise. The control: other data learn something else."""
    learnt = []
    for number, setting in enumerate(("recompute=none", "recompute=blocks", "seed=1")):
        run = train(changed(recipe_of_digits(), ["duration=8", "batch_size=15", setting]),
                    RunOptions(out=tmp_path / f"{number}", quiet=True))
        learnt.append(load((run / "model.safetensors").read_bytes()))
    assert all(torch.equal(value, learnt[1][name]) for name, value in learnt[0].items())
    assert not all(torch.equal(value, learnt[2][name]) for name, value in learnt[0].items())


@pytest.mark.parametrize(("setting", "worth", "expected"), [
    ("compile=auto", 1.0, "norm"), ("compile=auto", 1e30, "no"), ("compile=no", 1.0, "no")])
def test_a_training_chooses_it_by_its_length(
    setting: str, worth: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says so before the first step and counts the compiler's memory."""
    monkeypatch.setattr(fused, "WORTH", worth)
    monkeypatch.setattr(memory, "COMPILER", 1 << 50)
    run = train(changed(recipe_of_digits(), ["duration=8", setting]), RunOptions(out=tmp_path / "run"))
    assert rundir.read_recipe(run).compile == expected
    assert ("compile=norm: batch normalisation is compiled" in "".join(capsys.readouterr())) == (expected == "norm")
    assert (rundir.read_run(run)["memory"]["predicted"] > 1 << 50) == (expected == "norm")


def test_a_forward_pass_alone_is_not_timed_with_it_and_both_passes_are() -> None:
    settings = ("precision=bf16", "device=cpu", "memory_format=channels-last", "compile=norm", "threads=1")
    with pytest.raises(InputError, match="a forward pass alone does not depend on it"):
        benchmark.bench("resnet20", benchmark.BenchOptions(batches="2", repeats=3, settings=settings))
    timed = benchmark.BenchOptions(batches="2", repeats=3, max_spread=1e9, settings=settings, training=True)
    assert any("batch normalisation compiled" in line for line in benchmark.bench("resnet20", timed).lines())


@pytest.mark.parametrize("missing", ["", "there is no C++ compiler g++"])
def test_tune_measures_it_where_it_is_possible(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "missing_for_compiler", lambda: missing)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # compile=yes, which is measured after it
    monkeypatch.setattr(time, "perf_counter", partial(next, itertools.count(step=0.05)))
    small = ("threads=1", "batch_size=4", "micro_batch=4", "input_size=8", "resize_to=8", "pad=1", "device=cpu")
    report = tune("resnet20", (*small, "precision=bf16", "memory_format=channels-last"), 50)
    compiled = [row.settings["compile"] for row in report.rows if row.images_per_second]
    assert list(dict.fromkeys(compiled)) == (["no", "yes"] if missing else ["no", "norm", "yes"])
