"""The whitening start: answers without correlation, the same for every seed and size of batch, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from layerwise.data.preprocess import fit_preprocess, to_tensor
from layerwise.data.source import DataSet, Samples
from layerwise.errors import InputError
from layerwise.models import build
from layerwise.training.state import assemble
from layerwise.training.whitening import patch_moments, whiten_first, whitening_filters
from tests.random_samples import as_files, in_memory, recipe


def smooth(number: int, channels: int = 1) -> Samples:
    """Pictures whose neighbouring pixels are alike, as those of the world are."""
    samples = in_memory(number, 14, channels)
    assert samples.images is not None
    wide = samples.images.astype(np.float64)
    mean = (wide + np.roll(wide, 1, 1) + np.roll(wide, 1, 2) + np.roll(wide, 2, 1)) / 4
    return replace(samples, images=mean.astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_answers_are_uncorrelated_and_of_variance_one(channels: int) -> None:
    samples = smooth(60, channels)
    preprocess = fit_preprocess(samples, recipe())
    model = build("airnet_narrow", in_channels=channels)
    images = preprocess.normalise(to_tensor(samples.images))

    def moments() -> torch.Tensor:
        answers = model.features.whiten(images).detach().double()
        rows = answers[:, : 4 * channels].permute(0, 2, 3, 1).reshape(-1, 4 * channels)
        return rows.T @ rows / len(rows)

    unit = torch.eye(4 * channels, dtype=torch.float64)
    before = moments()
    whiten_first(model, samples, preprocess)
    torch.testing.assert_close(moments(), unit, atol=0.02, rtol=0)
    assert (before - unit).abs().max() > 0.2  # the control: the random start whitens nothing
    weight = model.features.whiten.weight
    torch.testing.assert_close(weight[4 * channels:], -weight[: 4 * channels])
    assert not weight.requires_grad
    assert not model.features.whiten.bias.any()
    assert model.features.whiten.bias.requires_grad


def test_the_moments_are_those_of_all_patches_by_hand() -> None:
    samples = in_memory(3, 5, 2 + 1)
    preprocess = fit_preprocess(samples, recipe())
    images = preprocess.normalise(to_tensor(samples.images)).double()
    rows = [images[n, :, y:y + 2, x:x + 2].reshape(-1) for n in range(3) for y in range(4) for x in range(4)]
    expected = sum(torch.outer(row, row) for row in rows) / 48
    torch.testing.assert_close(patch_moments(samples, preprocess, 2), expected, rtol=1e-6, atol=1e-9)


def test_filters_of_known_moments() -> None:
    """Moments 4 and 1 along the axes: the rows are the axes over the roots, the largest first, e aside."""
    found = whitening_filters(torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.5], [1.0, 0.0]]), rtol=1e-3, atol=1e-6)
    flat = whitening_filters(torch.zeros(2, 2, dtype=torch.float64))  # pictures of one colour
    assert flat.isfinite().all()


def test_files_and_memory_give_the_same_filters(tmp_path: Path) -> None:
    samples = smooth(20)
    preprocess = fit_preprocess(samples, recipe(channels=1))
    found = []
    for source in (samples, as_files(samples, tmp_path)):
        model = build("airnet_narrow")
        whiten_first(model, source, preprocess)
        found.append(model.features.whiten.weight.detach())
    assert torch.equal(*found)


def test_a_training_starts_from_it_whatever_the_seed(tmp_path: Path) -> None:
    samples = smooth(40)
    data = DataSet(name="noise", train=samples, val=None, test=None, notes=(), licence="none: noise")
    starts = {}
    for seed, whiten in ((0, "first"), (1, "first"), (0, "none")):
        chosen = recipe(network="airnet_narrow", whiten=whiten, seed=seed, device="cpu", precision="fp32", threads=1,
                        memory_format="contiguous", compile="no", micro_batch=8, channels=1)
        (tmp_path / f"{seed}{whiten}").mkdir()
        training = assemble(tmp_path / f"{seed}{whiten}", chosen, data, fit_preprocess(samples, chosen), None)
        names = [name for group in training.groups for name in group["names"]]
        assert ("features.whiten.weight" in names) == (whiten == "none")
        assert "features.whiten.bias" in names
        starts[seed, whiten] = training.model.features.whiten.weight.detach()
    assert torch.equal(starts[0, "first"], starts[1, "first"])
    assert not torch.equal(starts[0, "first"], starts[0, "none"])  # the control


def test_a_network_that_cannot_whiten_is_refused() -> None:
    samples = in_memory(4)
    preprocess = fit_preprocess(samples, recipe())
    with pytest.raises(InputError, match="whiten=first: the network can't whiten, its first convolution has 16 filters "
                                         "over 27 numbers") as caught:
        whiten_first(build("resnet20"), samples, preprocess)
    assert "Set whiten=none, or choose airnet or airnet_narrow." in str(caught.value)
    with pytest.raises(InputError, match="it has no convolution"):
        whiten_first(nn.Linear(3, 3), samples, preprocess)
