"""The moving average against its closed form, and its exact restore."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from layerwise.errors import InputError
from layerwise.recipes.presets import preset
from layerwise.training.average import Average
from layerwise.training.optimiser import build_optimiser, parameter_groups
from tests.small_network import differing, learn, network, snapshot

FAST = replace(preset("fast"), weight_decay=0.01)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.0])
def test_the_average_is_its_closed_form(decay: float) -> None:
    """a_n = a_0 prod d_t + sum_t (1 - d_t) w_t prod_{s > t} d_s, with d_t = min(decay, (1 + t) / (10 + t))."""
    model = network().double()
    courses = [snapshot(model)]
    average = Average(model, decay)
    for step in range(15):
        generator = torch.Generator().manual_seed(step)
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype) + 1)
        average.update(model)
        courses.append(snapshot(model))
    decays = np.minimum(decay, (1 + np.arange(15)) / (10 + np.arange(15)))
    weights = [np.prod(decays), *((1 - decays[t]) * np.prod(decays[t + 1 :]) for t in range(15))]
    assert sum(weights) == pytest.approx(1)
    for name, tensor in average.state_tensors().items():
        if tensor.is_floating_point():
            expected = sum(weight * course[name].numpy() for weight, course in zip(weights, courses, strict=True))
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-10, atol=1e-12)
        else:
            assert torch.equal(tensor, courses[-1][name])
    assert average.count == 15
    assert average.state_tensors().keys() == model.state_dict().keys()


def test_running_statistics_are_averaged_too() -> None:
    model = network()
    average = Average(model, 0.9)
    optimiser = build_optimiser(parameter_groups(model, FAST), FAST)
    learn(model, optimiser, 0, 2)
    average.update(model)
    mean = average.state_tensors()["features.conv1.1.running_mean"]
    torch.testing.assert_close(mean, 0.9 * model.get_buffer("features.conv1.1.running_mean"))  # d_0 = 0.1, from 0
    assert average.state_tensors()["features.conv1.1.num_batches_tracked"].item() == 2


def test_the_average_does_not_follow_the_model_by_itself_and_can_be_copied_out() -> None:
    model, other = network(0), network(1)
    average = Average(model, 0.9)
    before = {name: tensor.clone() for name, tensor in average.state_tensors().items()}
    with torch.no_grad():
        model.get_parameter("head.3.weight").add_(1)
    assert differing(before, average.state_tensors()) == []
    average.copy_to(other)
    assert differing(before, snapshot(other)) == []
    with torch.no_grad():
        other.get_parameter("head.3.weight").add_(1)
    assert differing(before, average.state_tensors()) == []


def test_the_average_is_restored_bit_for_bit(tmp_path: Path) -> None:
    model = network()
    average, again = Average(model, 0.99), Average(network(1), 0.99)
    optimiser = build_optimiser(parameter_groups(model, FAST), FAST)
    learn(model, optimiser, 0, 2)
    average.update(model)
    save_file(average.state_tensors(), tmp_path / "average.safetensors")
    again.restore(load_file(tmp_path / "average.safetensors"), average.count)
    forgotten = Average(network(1), 0.99)
    forgotten.restore(load_file(tmp_path / "average.safetensors"), 0)
    learn(model, optimiser, 2, 4)
    for one in (average, again, forgotten):
        one.update(model)
    assert differing(average.state_tensors(), again.state_tensors()) == []
    assert differing(average.state_tensors(), forgotten.state_tensors())  # the control: the count matters


def test_an_average_of_another_network_is_refused() -> None:
    average = Average(network(), 0.9)
    tensors = dict(average.state_tensors())
    tensors["head.3.weight"] = torch.zeros(2, 2)
    tensors["tail.weight"] = tensors.pop("head.3.bias")
    with pytest.raises(InputError, match="averaged weights: they are not this model's") as caught:
        average.restore(tensors, 1)
    assert caught.value.details == (
        "head.3.bias: missing",
        "head.3.weight: (2, 2) torch.float32, expected (4, 8) torch.float32",
        "tail.weight: not in the model",
    )
    assert average.count == 0
