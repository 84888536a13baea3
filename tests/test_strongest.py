"""The strongest patches of the data: which, where, and what is cut out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from layerwise import models
from layerwise.errors import InputError
from layerwise.explain.activations import strongest_patches
from layerwise.explain.deconvolution import deconvolution
from layerwise.explain.stages import map_at
from tests.left_as_it_was import Breaks, breaking, left_as_it_was, small


def batches(images: torch.Tensor, size: int) -> list[dict[str, Any]]:
    numbers = 100 + torch.arange(len(images))
    return [{"image": part, "index": index}
            for part, index in zip(images.split(size), numbers.split(size), strict=True)]


def bright_spots() -> torch.Tensor:
    """Six pictures of 6x6, each with one bright pixel of 1 to 6 at (row, column) = (number, 5 - number)."""
    images = torch.zeros(6, 1, 6, 6)
    for number in range(6):
        images[number, 0, number, 5 - number] = number + 1.0
    return images


def test_the_strongest_by_hand() -> None:
    """A 3x3 window that sums: the strongest unit is the first whose window holds the pixel."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU())
    model[0].weight.data = torch.stack([torch.ones(1, 3, 3), -torch.ones(1, 3, 3)])
    first, dead = strongest_patches(model, batches(bright_spots(), 4), {"1": (0, 1)}, count=3)
    assert (first.layer, first.channel, dead.channel) == ("1", 0, 1)
    assert first.indices.tolist() == [105, 104, 103]
    assert first.activations.tolist() == [6, 5, 4]
    # Picture 5 has its pixel at (5, 0): the first unit in reading order that sees it is (4, 0): rows 3 to 5.
    assert first.boxes.tolist() == [[3, -1, 6, 2], [2, -1, 5, 2], [1, 0, 4, 3]]
    assert first.patches[0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 6, 0]]  # the left column is padding
    assert first.patches[2, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 4]]
    assert first.deconvolutions[2, 0].tolist() == [[4] * 3] * 3  # the signal 4 through the filter of ones
    assert first.deconvolutions[0, 0].tolist() == [[0, 6, 6]] * 3  # nothing is shown beyond the picture
    assert (len(dead.indices), dead.patches.shape, dead.deconvolutions.shape) == (0, (0, 1, 3, 3), (0, 1, 3, 3))


@pytest.mark.parametrize("size", [1, 5, 40])
def test_one_pass_in_parts_equals_all_at_once(size: int) -> None:
    model = small()
    images = torch.randn(40, 2, 8, 8)
    passes = 0

    def once() -> Iterator[dict[str, Any]]:
        nonlocal passes
        passes += 1
        yield from batches(images, size)

    found = strongest_patches(model, once(), {"5": (0, 3), "2": (1,)}, count=4)
    assert passes == 1
    assert [(one.layer, one.channel) for one in found] == [("5", 0), ("5", 3), ("2", 1)]
    for one in found:
        maps = map_at(model, images, one.layer)[:, one.channel].detach().flatten(1)
        order = maps.amax(1).argsort(descending=True)[:4]
        assert one.indices.tolist() == (100 + order).tolist()
        np.testing.assert_allclose(one.activations, maps.amax(1)[order], atol=1e-6)
        side = (8, 3)[one.layer == "2"]  # 3x3, and behind the pooling 3 + 1 + 2 * 2 = 8
        assert one.patches.shape == (4, 2, side, side)


def test_the_patch_holds_all_that_the_unit_sees() -> None:
    """Nothing of the projection falls outside the box, and nothing outside the box changes the unit."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU())
    images = torch.randn(12, 1, 33, 33)
    for one in strongest_patches(model, batches(images, 5), {"4": (0, 1, 2)}, count=3):
        assert one.patches.shape[2:] == (13, 13)  # 3, then 3 + 2, then 5 + 2 * 4
        for number, index in enumerate(one.indices - 100):
            top, left, bottom, right = (max(0, edge) for edge in one.boxes[number])
            whole = deconvolution(model, images[index : index + 1], "4", [one.channel]).projections[0, 0]
            assert np.abs(whole).sum() == pytest.approx(np.abs(one.deconvolutions[number]).sum(), rel=1e-5)
            changed = torch.randn(1, 1, 33, 33)
            changed[0, 0, top:bottom, left:right] = images[index, 0, top:bottom, left:right]
            rows, columns = one.boxes[number][:2] + 13 // 2
            unit = map_at(model, changed, "4").detach()[0, one.channel, (rows - 2) // 4, (columns - 2) // 4]
            assert float(unit) == pytest.approx(float(one.activations[number]), rel=1e-5)
            changed[0, 0, top:bottom, left:right] += 1  # the control: inside the box it does
            unit = map_at(model, changed, "4").detach()[0, one.channel, (rows - 2) // 4, (columns - 2) // 4]
            assert float(unit) != pytest.approx(float(one.activations[number]), rel=1e-3)


def test_fields_as_large_as_the_picture_give_the_whole_picture() -> None:
    model = models.build("resnet20", in_channels=1)
    images = torch.randn(3, 1, 16, 16)
    (deep,) = strongest_patches(model, batches(images, 2), {"features.conv4_x": (0,)}, count=2)
    assert deep.boxes.tolist() == [[0, 0, 16, 16]] * 2
    np.testing.assert_array_equal(deep.patches[0], images[deep.indices[0] - 100])
    model = small()
    model[8].bias.data += 9.0
    (flat,) = strongest_patches(model, batches(torch.randn(4, 2, 8, 8), 2), {"8": (1,)})
    assert flat.boxes[0].tolist() == [0, 0, 8, 8]  # a fully connected layer


def test_pictures_are_kept_only_while_they_are_wanted() -> None:
    """Many batches, few winners: what is kept does not grow with the data."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.zero_()
    alive: list[torch.Tensor] = []

    def many() -> Iterator[dict[str, Any]]:
        import weakref

        for number in range(20):
            images = torch.full((4, 1, 2, 2), 20.0 - number)
            alive.append(weakref.ref(images))  # type: ignore[arg-type]
            yield {"image": images, "index": torch.arange(4 * number, 4 * number + 4)}
            del images
            assert sum(one() is not None for one in alive) <= 2  # type: ignore[operator]

    (one,) = strongest_patches(model, many(), {"1": (0,)}, count=9)
    assert one.indices.tolist() == list(range(9))


def test_the_network_is_left_as_it_was_also_after_an_exception() -> None:
    model, images = small(), torch.randn(6, 2, 8, 8)
    with left_as_it_was(model):
        strongest_patches(model, batches(images, 2), {"5": (0, 1)})
    broken = nn.Sequential(Breaks(2), small())
    with breaking(broken):
        strongest_patches(broken, batches(images, 2), {"1.5": (0, 1)})
    late = nn.Sequential(Breaks(3), small())  # when all batches have passed and the fields are traced
    with breaking(late):
        strongest_patches(late, batches(images, 2), {"1.5": (0, 1)})


def test_what_cannot_be_shown_is_said() -> None:
    model, images = small(), torch.randn(2, 2, 8, 8)
    with pytest.raises(InputError, match=r"layer 5 has no channels 6\nChoose from 0 to 5"):
        strongest_patches(model, batches(images, 2), {"5": (6,)})
    with pytest.raises(InputError, match="no pictures to see the strongest patches of"):
        strongest_patches(model, batches(images[:0], 2), {"5": (0,)})
    with pytest.raises(InputError, match="'55' is no layer"):
        strongest_patches(model, batches(images, 2), {"55": (0,)})
