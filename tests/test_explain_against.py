"""Views of two networks: both are judged on the same pictures, by the names of their classes and not their numbers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from layerwise import models
from layerwise.data.source import Samples
from layerwise.errors import InputError
from layerwise.explain.lesions import error_rate
from layerwise.explain.subject import Subject, require_same_classes
from layerwise.explain.view import Chart, View
from layerwise.explain.views import gained_lost, lesions
from layerwise.modelfile import ModelFile
from tests.evaluated import NAMES, model_file

ORDER = [2, 0, 1]  # no class keeps its number


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a view takes a second."""
    monkeypatch.setattr(lesions, "DRAWS", 1)
    monkeypatch.setattr(lesions, "COUNTS", (1,))


def subject(file: ModelFile, test: Samples, other: ModelFile | None = None) -> Subject:
    return Subject(file, lambda on: test, Path(), against=None if other is None else subject(other, test))


def pictures(file: ModelFile) -> Samples:
    """Eighty pictures of noise, each labelled as the network answers."""
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    found = Samples("test", NAMES, np.zeros(80, np.int64), tuple(f"test/{i}" for i in range(80)), images)
    return dataclasses.replace(found, labels=subject(file, found).tested.predicted)


def reordered(file: ModelFile) -> ModelFile:
    """The same network with its classes in another order."""
    model = copy.deepcopy(file.model)
    last = model.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.data, last.bias.data = last.weight.data[ORDER], last.bias.data[ORDER]
    return dataclasses.replace(file, model=model, class_names=tuple(NAMES[place] for place in ORDER))


def test_classes_in_another_order_change_no_lesion() -> None:
    file = model_file()
    test, other = pictures(file), reordered(file)
    assert len(set(test.labels.tolist())) == 3
    charts = [part for part in lesions.view(subject(file, test, other)).parts if isinstance(part, Chart)]
    first, second = next(one.series for one in charts if one.caption == lesions.CHARTS["each"][0])
    assert first.y[0] == 0
    assert max(first.y) > 0
    assert first.y == second.y
    images, labels = subject(other, test).at_once(test)
    assert error_rate(other.model, images, labels) == 100, "the control: with the first network's numbers all are wrong"


def test_both_networks_lose_on_equally_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the dearer one can afford, also in what is said."""
    file = model_file()
    torch.manual_seed(0)
    dear = dataclasses.replace(file, model=models.build("resnet20", 3, 3, widths=(8, 8, 16)).eval())
    seen: list[int] = []
    measure = error_rate
    monkeypatch.setattr(lesions, "error_rate", lambda model, images, labels: seen.append(len(images)) or measure(
        model, images, labels))
    monkeypatch.setattr(lesions, "LEAST", 1)
    monkeypatch.setattr(lesions, "BUDGET", 12 * 40 * subject(file, pictures(file)).multiply_adds)  # 12 passes
    alone = lesions.view(subject(file, pictures(file)))
    assert set(seen) == {40}, "the control: the cheaper one alone"
    assert alone.bounds[0] == "errors on 40 pictures"
    seen.clear()
    for pair in ((file, dear), (dear, file)):
        found = lesions.view(subject(pair[0], pictures(file), pair[1]))
        assert found.bounds[0] == f"errors on {seen[0]} pictures"
    assert len(set(seen)) == 1
    assert seen[0] < 40


@pytest.mark.parametrize("view", [lesions.view, gained_lost.view])
@pytest.mark.parametrize("names", [("ant", "bee"), ("ant", "bee", "dog"), ("ant", "bee", "cat", "dog")])
def test_networks_of_other_classes_are_refused(names: tuple[str, ...], view: Callable[[Subject], View]) -> None:
    file = model_file()
    with pytest.raises(InputError, match="the two networks know different classes"):
        view(subject(file, pictures(file), model_file(1, names)))
    require_same_classes(subject(file, pictures(file)), subject(reordered(file), pictures(file)))  # the control
