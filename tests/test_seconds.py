"""benchmarks/seconds.py: the plain side's network, its resumed training, and what counts as reached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks import seconds
from layerwise.data.source import DataSet
from tests.random_samples import in_memory


def training(images: int, accuracy: float, mirrored: float = 0.0) -> dict[str, Any]:
    return {"images": images, "accuracy": accuracy, "accuracy_mirrored": mirrored}


def test_the_plain_network_has_the_parameters_of_resnet18() -> None:
    """11,173,962 in colour, as is well known; the stem of a grey one has 2 x 9 x 64 fewer."""
    with torch.device("meta"):
        assert sum(p.numel() for p in seconds.resnet18(10, 3).parameters()) == 11_173_962
        assert sum(p.numel() for p in seconds.resnet18(10, 1).parameters()) == 11_173_962 - 1152
        maps = seconds.resnet18()[:-3](torch.empty(2, 1, 28, 28))
    assert maps.shape == (2, 512, 4, 4)


def test_the_shortest_training_that_reached_it_is_what_is_needed() -> None:
    found = [training(100, 0.90), training(200, 0.92, 0.931), training(300, 0.94)]
    assert seconds.needed(found) == (200, "measured")
    assert seconds.needed(found[::2]) == (300, "measured")


def test_where_none_reached_it_the_longest_is_a_lower_bound() -> None:
    assert seconds.needed([training(100, 0.90), training(200, 0.929)]) == (200, "more than")
    assert seconds.needed([]) == (0, "not measured")


RUNS = [{"clock": 10.0, "processor": 9.0, "accuracy": 0.932, "images": 1000} for _ in range(3)]
RATES = [{"clock": 5.0, "processor": 10.0}]


def test_the_ratio_is_images_over_rate_over_our_seconds() -> None:
    found = seconds.verdict(RUNS, RATES, 1000, "measured")
    assert found["ratio by the clock"] == "20.0"
    assert found["ratio by the processor"] == "11.1"
    assert found["met"]
    assert seconds.verdict(RUNS, RATES, 1000, "more than")["ratio by the clock"] == "more than 20.0"
    assert found["plain, images for which 10 and 25 times our seconds would do, by the clock"] == "500 and 1250"


@pytest.mark.parametrize(
    ("runs", "images"),
    [
        ([*RUNS[:2], RUNS[2] | {"accuracy": 0.9299}], 1000),  # one seed misses
        (RUNS, 890),  # 9.9 by the processor
        (RUNS, 0),  # not measured
    ],
)
def test_what_misses_the_limit_is_not_met(runs: list[dict[str, Any]], images: int) -> None:
    assert not seconds.verdict(runs, RATES, images, "measured")["met"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain side whose training takes no time and saves after each step."""
    samples = in_memory(20, 8, 1)
    data = DataSet(name="noise", train=samples, val=None, test=samples, notes=(), licence="none: noise")

    def narrow() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
                                   torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3))

    monkeypatch.setattr(seconds, "open_data", lambda name, options: data)
    monkeypatch.setattr(seconds, "resnet18", narrow)
    monkeypatch.setattr(seconds, "BATCH", 4)
    monkeypatch.setattr(seconds, "SAVE_SECONDS", 0.0)


class StoppedError(Exception):
    """A process ends here."""


def steps_of(place: Path) -> str:
    with safe_open(place / "plain.safetensors", "pt") as file:
        return str(file.metadata()["steps"])


def require_equal(one: Path, other: Path) -> None:
    first, second = (load_file(place / "plain.safetensors") for place in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_plain_training_resumes_where_it_stopped(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after a save and begun again, it ends in the weights of the one that was not stopped."""
    whole = seconds.plain_training(tmp_path / "whole", 48, 1)
    assert whole["images"] == 48

    def stop(text: str, **_: object) -> None:
        if text.startswith("28 "):  # within the second epoch
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("builtins.print", stop)
        with pytest.raises(StoppedError):
            seconds.plain_training(tmp_path / "cut", 48, 1)
    assert steps_of(tmp_path / "cut") == "7"
    again = seconds.plain_training(tmp_path / "cut", 48, 1)
    assert (again["accuracy"], again["images"]) == (whole["accuracy"], 48)
    require_equal(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(SystemExit, match="holds a training of 12 steps, not 20"):
        seconds.plain_training(tmp_path / "cut", 80, 1)


def test_a_plain_training_that_is_killed_while_it_saves_has_weights_and_step_of_one_save(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds.plain_training(tmp_path / "whole", 48, 1)
    saves, replace = [0], os.replace

    def killed(*names: Path) -> None:
        saves[0] += 1
        if saves[0] == 7:  # what it was to be called by is not yet there
            raise StoppedError
        replace(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(StoppedError):
            seconds.plain_training(tmp_path / "cut", 48, 1)
    assert steps_of(tmp_path / "cut") == "6"
    seconds.plain_training(tmp_path / "cut", 48, 1)
    require_equal(tmp_path / "whole", tmp_path / "cut")


def test_weights_that_do_not_say_their_step_are_refused(tiny: None, tmp_path: Path) -> None:
    save_file({"model.0.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "plain.safetensors")
    with pytest.raises(SystemExit, match="holds a training of unknown steps, not 12; name another place"):
        seconds.plain_training(tmp_path, 48, 1)
