"""What saving takes in memory: a checkpoint next to nothing, the model file what is predicted; the bytes on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from layerwise import checkpoint, hardware, modelfile, train
from layerwise.data.loader import plain_batches
from layerwise.data.preprocess import fit_preprocess
from layerwise.data.source import DataSet
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.training import memory, probe
from layerwise.training.state import Training, assemble, checkpoint_size
from layerwise.training.state import save as save_generation
from tests.random_samples import in_memory

# 45 MB of weights, and five times as much in a checkpoint.
SETTINGS = ["network=resnet18", "data=noise", "batch_size=2", "threads=1", "device=cpu", "precision=fp32", "compile=no",
            "memory_format=contiguous", "optimiser=adamw", "nesterov=no", "ema=0.9", "select=best", "input_size=64",
            "channels=3", "crop=none", "pad=0"]


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, probe.Need, int]:
    """A training after a step and a validation, with all that it then holds; its need, and its memory at the start."""
    samples = in_memory(20, 64, 3)
    data = DataSet(name="noise", train=samples, val=samples, test=None, notes=(), licence="none: noise")
    recipe = hardware.resolve(changed(preset("fast"), SETTINGS))
    preprocess = fit_preprocess(samples, recipe)
    training = assemble(tmp_path_factory.mktemp("run"), recipe, data, preprocess, None)
    held, need = memory._told("VmRSS"), probe.needed(training, 2)
    assert need is not None
    assert training.average is not None
    train.gradients(training, next(plain_batches(samples, preprocess, 2)))
    training.optimiser.step()
    training.average.update(training.model)
    training.best = {name: tensor.clone() for name, tensor in training.current().items()}
    return training, need, held or 0


def grown(training: Training, held: int) -> int:
    """The most bytes beyond `held` that a checkpoint and the model file take."""
    memory.reset_peak(training.device)
    save_generation(training)
    modelfile.write(training.run / modelfile.NAME, modelfile.ModelFile(
        training.model, training.train.class_names, training.preprocess, training.recipe))
    return (memory.peak(training.device) or 0) - held


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="this kernel keeps no account of a process's peak")
def test_what_is_predicted_covers_saving(
    trained: tuple[Training, probe.Need, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, need, held = trained
    predicted = need.peak + memory.LIBRARIES
    assert checkpoint_size(training) == 5 * need.weights
    assert grown(training, held) <= predicted
    training.position.samples += 2  # the control: all tensors made into bytes at once
    monkeypatch.setattr(checkpoint, "serialised", lambda tensors: [save(contiguous(tensors))])
    assert grown(training, held) > predicted + 2 * need.weights


def test_a_checkpoint_that_is_the_peak_is_counted() -> None:
    assert probe.Need(1, 5, 20, 3, 2, 4, 15).peak == 20 + 2 + 15
    assert probe.Need(1, 5, 20, 30, 2, 4, 15).peak == 20 + 2 + 30


def everything() -> Iterator[tuple[str, Tensor]]:
    """Tensors of each type and of many shapes, named so that neither order of names nor of types is theirs here."""
    drawn = torch.Generator().manual_seed(0)
    types = (torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.uint8, torch.float16, torch.float64,
             torch.int32, torch.int16, torch.int8)
    for number, kind in enumerate(types):
        yield f"b{number}/{kind}", (100 * torch.rand(3, 5, generator=drawn)).to(kind)
        yield f"a{number}", torch.ones((), dtype=kind)
        yield f"c{number}", torch.empty(0, 4, dtype=kind)
    yield "channels last", torch.rand(2, 3, 4, 5, generator=drawn).contiguous(memory_format=torch.channels_last)
    yield 'a "name" of \\ and ü', torch.rand(1, generator=drawn)


@pytest.mark.parametrize("tensors", [dict(everything()), {}])
def test_the_bytes_are_those_of_safetensors(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    assert b"".join(checkpoint.serialised(tensors)) == save(contiguous(tensors))
    written = checkpoint.write(tmp_path, 1, tensors, {})
    assert (written / checkpoint.TENSORS).read_bytes() == save(contiguous(tensors))
    back = checkpoint.read(written).tensors
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_no_piece_is_larger_than_a_tensor() -> None:
    tensors = {str(number): torch.from_numpy(np.full(1000, number)) for number in range(9)}
    sizes = [len(piece) for piece in checkpoint.serialised(tensors)]
    assert sizes[1:] == [8000] * 9
    assert load(b"".join(checkpoint.serialised(tensors))).keys() == tensors.keys()
