"""The shares of several processes put together are the batch of one, to the last bit (no process is started here)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from layerwise.data import loader
from layerwise.data.loader import shared_batches, training_batches
from layerwise.data.order import Place, epoch_batches, epoch_order
from layerwise.data.preprocess import fit_preprocess
from layerwise.recipe import Recipe, changed
from layerwise.recipes.presets import preset
from layerwise.training.preparation import RunOptions, open_split
from tests.evaluated import files


def recipe(*settings: str) -> Recipe:
    return changed(preset("digits"), settings)


@pytest.mark.parametrize("settings", [
    ["batch_size=48"], ["mixup=0.4", "batch_size=48"], ["balance=sampler", "batch_size=5"]])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_put_together_are_the_batch_of_one_process(settings: list[str], size: int) -> None:
    chosen = recipe(*settings)
    data = open_split(chosen, RunOptions(offline=True, quiet=True))
    samples = data.train.subset(range(101), "train")  # two batches of 48 and one of 5, or twenty of 5, the last with 6
    preprocess = fit_preprocess(samples, chosen)
    whole = list(training_batches(samples, chosen, preprocess, 3, 1))
    shares = [list(shared_batches(samples, chosen, preprocess, Place(3, 1, rank, size))) for rank in range(size)]
    assert len(whole) == len(epoch_batches(epoch_order(samples, chosen, 3), chosen.batch_size)) - 1
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert batch.keys() == parts[0].keys()
        for name, value in batch.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(torch.cat([part[name] for part in parts if len(part["label"])]), value), name
        assert max(len(part["label"]) for part in parts) == -(-len(batch["label"]) // size)
    assert all(tuple(part["image"].shape[1:]) == (1, 8, 8) for share in shares for part in share)


def test_without_its_neighbour_a_share_is_mixed_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the last picture of a share is mixed with the first of it."""
    chosen = recipe("mixup=0.4", "batch_size=48")
    data = open_split(chosen, RunOptions(offline=True, quiet=True))
    preprocess = fit_preprocess(data.train, chosen)
    whole = next(training_batches(data.train, chosen, preprocess, 0, 0))
    monkeypatch.setattr(loader, "_own", lambda batch, place, recipe: place.share(batch))
    parts = [next(shared_batches(data.train, chosen, preprocess, Place(0, 0, rank, 2))) for rank in range(2)]
    same = (torch.cat([part["image"] for part in parts]) == whole["image"]).flatten(1).all(1)
    assert [row for row in range(48) if not same[row]] == [23, 47]


def test_a_picture_that_can_not_be_read_is_missed_once(tmp_path: Path) -> None:
    samples = files(tmp_path, 110)
    chosen = recipe("resize=squash", "input_size=8", "mixup=0.4", "batch_size=8", "crop=none", "pad=0")
    preprocess = fit_preprocess(samples, chosen)
    order = epoch_order(samples, chosen, 0)
    assert samples.paths is not None
    gone = int(order[3])  # the neighbour with which the first share's last picture is mixed; the second share's own
    samples.paths[gone].unlink()
    shares = [[next(shared_batches(samples, chosen, preprocess, Place(0, 0, rank, 3)))][0] for rank in range(3)]
    assert [share["bad"] for share in shares] == [[], [samples.ids[gone]], []]
    assert [share["index"].tolist() for share in shares] == [order[:3].tolist(), order[4:6].tolist(),
                                                             order[6:8].tolist()]
