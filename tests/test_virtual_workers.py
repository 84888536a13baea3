"""Virtual workers: sums that no division among processes changes; beside it the sum in order, which does change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from layerwise import hardware
from layerwise.errors import InputError
from layerwise.recipe import changed, check
from layerwise.recipes import exact
from layerwise.recipes.presets import preset
from layerwise.training.virtual_workers import Tree, require_divisible


def vectors(number: int, missing: frozenset[int] = frozenset()) -> list[Tensor | None]:
    """Numbers of very different sizes, so that each order of adding them rounds differently."""
    drawn = torch.randn(number, 257, generator=torch.Generator().manual_seed(number))
    drawn *= 10.0 ** torch.arange(number)[:, None]
    return [None if at in missing else row.clone() for at, row in enumerate(drawn)]


def summed(parts: list[Tensor | None]) -> Tensor | None:
    tree = Tree()
    for one in parts:
        tree.add(one)
    return tree.total()


def shared(parts: list[Tensor | None], processes: int) -> Tensor | None:
    size = len(parts) // processes
    return summed([summed(parts[rank * size : (rank + 1) * size]) for rank in range(processes)])


@pytest.mark.parametrize(("workers", "processes"), [(8, 1), (8, 2), (8, 4), (8, 8), (4, 2), (6, 3), (6, 6), (12, 3)])
@pytest.mark.parametrize("missing", [frozenset(), frozenset({1}), frozenset({2, 3}), frozenset({3, 4, 5})])
def test_the_sum_has_the_same_bits_for_any_number_of_processes(
    workers: int, processes: int, missing: frozenset[int]
) -> None:
    require_divisible(workers, processes)
    alone, together = summed(vectors(workers, missing)), shared(vectors(workers, missing), processes)
    assert alone is not None
    assert together is not None
    assert torch.equal(alone, together)


def test_the_control_a_sum_in_order_changes_with_the_processes() -> None:
    parts = [one for one in vectors(8) if one is not None]
    in_order = torch.stack(parts).cumsum(0)[-1]
    halves = torch.stack(parts[:4]).cumsum(0)[-1] + torch.stack(parts[4:]).cumsum(0)[-1]
    assert not torch.equal(in_order, halves)


def test_at_most_a_branch_a_height_is_held() -> None:
    tree = Tree()
    for _ in range(64):
        tree.add(torch.ones(1))
        assert len(tree._branches) <= 7
    assert tree.total() == 64


@pytest.mark.parametrize(("workers", "processes"), [(8, 3), (6, 2), (6, 4), (4, 8)])
def test_processes_that_would_cut_a_branch_are_refused(workers: int, processes: int) -> None:
    with pytest.raises(InputError, match=rf"virtual_workers={workers} can't be shared by {processes} processes"):
        require_divisible(workers, processes)


@pytest.mark.parametrize(("settings", "workers"), [
    ([], 8), (["batch_size=12"], 4), (["batch_size=6"], 2), (["batch_size=17"], 8), (["batch_size=9"], 4),
    (["virtual_workers=6"], 6), (["virtual_workers=8", "batch_size=100"], 8),
])
def test_an_exact_recipe_has_workers_with_two_pictures_each_and_one_thread(settings: list[str], workers: int) -> None:
    made = exact.made_exact(changed(preset("digits"), settings))
    assert (made.virtual_workers, made.threads) == (workers, 1)
    check(made)
    check(hardware.resolve(made))  # which has a micro-batch, that of the largest part


@pytest.mark.parametrize(("setting", "says"), [
    ("threads=2", "threads=2: the order of a sum"), ("deterministic=no", "deterministic=False: equal runs may differ"),
    ("compile=yes", "compile=yes: the compiler"), ("device=mps", "device=mps: it promises no order"),
    ("batch_size=3", "batch_size=3: at least two workers"),
])
def test_what_can_not_be_exact_is_refused(setting: str, says: str) -> None:
    with pytest.raises(InputError, match="--exact: recipe 'digits' can't be exact") as found:
        exact.made_exact(changed(preset("digits"), [setting]))
    assert says in found.value.details[0]


def test_the_price_is_said_of_the_machine_that_it_was_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "exact.json"
    monkeypatch.setattr(exact, "MEASURED", file)
    nothing = "what it costs on this machine is measured by benchmarks/exact.py"
    assert exact.price("lenet5", "here") == nothing
    rows = [{"network": "lenet5", "ratio": 1.5}, {"network": "resnet20", "ratio": 1.25}]
    file.write_text(json.dumps({"machine": "here", "rows": rows}))
    assert exact.price("lenet5", "here") == "costs about 1.50x the time of a step, measured by benchmarks/exact.py"
    assert exact.price("vgg_a", "here").startswith("costs about 1.25x to 1.50x the time of a step (lenet5, resnet20)")
    assert exact.price("lenet5", "elsewhere") == nothing
    file.write_text("{")
    assert exact.price("lenet5", "here") == nothing
