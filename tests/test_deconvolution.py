"""Projections to the pixels against unpooling, rectification and transposed filters written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise import models
from layerwise.errors import InputError
from layerwise.explain.deconvolution import Deconvnet, Rule, deconvolution, explained, guided, rectified, rule_for
from layerwise.explain.stages import map_at, stages, tapped
from layerwise.layers.maxout import Maxout
from layerwise.layers.response_norm import ResponseNorm
from tests.left_as_it_was import Breaks, breaking, left_as_it_was, small


def kept(maps: Tensor, channel: int) -> tuple[Tensor, tuple[int, int]]:
    """The map with all but the strongest unit of `channel` set to 0, and that unit's place."""
    place = divmod(int(maps[0, channel].argmax()), maps.shape[3])
    only = torch.zeros_like(maps)
    only[0, channel, place[0], place[1]] = maps[0, channel, place[0], place[1]]
    return only, place


def unpooled(signal: Tensor, switches: Tensor, side: int) -> Tensor:
    """Every value where its maximum was; values that meet are added."""
    flat = torch.zeros(*signal.shape[:2], side * side)
    return flat.scatter_add(2, switches.flatten(2), signal.flatten(2)).unflatten(2, (side, side))


def gradient(model: nn.Module, picture: Tensor, layer: str, channel: int) -> np.ndarray:
    """The negative control: the same signal sent back by the plain chain rule."""
    pixels = picture.clone().requires_grad_()
    maps = map_at(model, pixels, layer)
    (found,) = torch.autograd.grad(maps, pixels, kept(maps.detach(), channel)[0])
    return found.numpy()


def test_two_layers_by_hand() -> None:
    """Pixels 3, 1, 2, -1 and a unit that answers 2 * max(3 - 1, ...): every number on the way down can be followed."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Conv2d(2, 1, 1), nn.ReLU())
    model[0].weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    model[0].bias.data = torch.tensor([-1.0, 0.5])
    model[3].weight.data = torch.tensor([2.0, -4.0]).reshape(1, 2, 1, 1)
    model[3].bias.data = torch.zeros(1)
    picture = torch.tensor([3.0, 1.0, 2.0, -1.0]).reshape(1, 1, 1, 4)
    # Up: maps (2, 0, 1, 0) and (0, 0, 0, 1.5); pooled (2, 1) and (0, 1.5); the unit (4, 0).
    # Down: 4 becomes 8 and -16; unpooled at pixel 0 each; -16 is rectified away; 8 times the filter 1.
    found = deconvolution(model, picture, "4", [0])
    assert found.projections.tolist() == [[[[8.0, 0.0, 0.0, 0.0]]]]
    assert (found.positions.tolist(), found.activations.tolist(), found.channels.tolist()) == ([[0, 0]], [4.0], [0])
    # A signal above 0 passes where the map itself was 0 (map 1 at pixel 0), which a gradient does not.
    model[3].weight.data[0, 1] = 0.5
    # Up: the units are 2 * 2 + 0.5 * 0 = 4 and 2.75. Down: 4 becomes 8 and 2; 8 times the filter 1, 2 times -1.
    assert deconvolution(model, picture, "4", [0]).projections.tolist() == [[[[8.0 - 2.0, 0.0, 0.0, 0.0]]]]
    assert gradient(model, picture, "4", 0).tolist() == [[[[8.0, 0.0, 0.0, 0.0]]]]
    second = deconvolution(model, picture, "4", [0], np.array([[0, 1]]))  # pixels 2 and 3 hold the maxima
    assert (second.activations.tolist(), second.projections.tolist()) == ([2.75], [[[[0.0, 0.0, 5.5, -1.375]]]])


def test_three_layers_equal_unpool_rectify_transpose() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 5, 2, 1), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.ReLU())
    for layer in (0, 3, 6):
        model[layer].weight.data *= 4
    picture = torch.randn(1, 3, 31, 31)
    with torch.no_grad():
        pooled1, switches1 = F.max_pool2d(model[:2](picture), 2, return_indices=True)
        pooled2, switches2 = F.max_pool2d(model[3:5](pooled1), 2, return_indices=True)
        only, place = kept(model[6:](pooled2), 2)
        signal = F.conv_transpose2d(only.clamp(min=0), model[6].weight)
        signal = F.max_unpool2d(signal, switches2, 2, output_size=(7, 7)).clamp(min=0)
        signal = F.conv_transpose2d(signal, model[3].weight, padding=1)
        signal = F.max_unpool2d(signal, switches1, 2, output_size=(15, 15)).clamp(min=0)
        expected = F.conv_transpose2d(signal, model[0].weight, stride=2, padding=1, output_padding=0)
    found = deconvolution(model, picture, "7", [2])
    assert tuple(found.positions[0]) == place
    np.testing.assert_allclose(found.projections, expected.numpy(), atol=1e-6)
    assert np.abs(expected.numpy()).max() > 0.01
    assert not np.allclose(gradient(model, picture, "7", 2), expected.numpy(), atol=1e-3)


def test_alexnet_s_groups_overlapping_windows_and_normalisation() -> None:
    """Windows of 3 in steps of 2 share maxima, where signals add up; the normalisation is the scale of the way up."""
    torch.manual_seed(1)
    norm = ResponseNorm(size=3, alpha=0.5, beta=0.75, k=1.0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), norm, nn.MaxPool2d(3, 2),
                          nn.Conv2d(4, 6, 3, groups=2), nn.ReLU())
    model[0].weight.data *= 5
    model[4].weight.data *= 5
    picture = torch.randn(1, 2, 13, 13)
    with torch.no_grad():
        first = model[:2](picture)
        pooled, switches = F.max_pool2d(norm(first), 3, 2, return_indices=True)
        only, _ = kept(model[4:](pooled), 4)
        signal = unpooled(F.conv_transpose2d(only, model[4].weight, groups=2), switches, 11)
        squares = first.square()
        near = squares.clone()
        near[:, 1:] += squares[:, :-1]
        near[:, :-1] += squares[:, 1:]
        signal = signal / (1.0 + 0.5 * near) ** 0.75
        expected = F.conv_transpose2d(signal.clamp(min=0), model[0].weight)
    found = deconvolution(model, picture, "5", [4])
    np.testing.assert_allclose(found.projections, expected.numpy(), atol=1e-6)
    assert np.abs(found.projections).max() > 0.01
    with torch.no_grad():
        half = F.conv_transpose2d(only, model[4].weight, groups=2)
    assert not half[:, :2].any()  # channel 4 is of the second group: nothing reaches the first group's maps
    assert half[:, 2:].any()
    # The control: with the normalisation taken out the picture is another.
    model[2] = nn.Identity()
    assert not np.allclose(deconvolution(model, picture, "5", [4]).projections, expected.numpy(), atol=1e-3)
    # The mode does not change what the network computes.
    model[2] = norm
    with torch.no_grad(), Deconvnet():
        inside = model(picture)
    torch.testing.assert_close(inside, model(picture).detach())


class Block(nn.Module):
    """relu(bn(conv(x)) + x) beside x, put together: a sum and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self.relu(self.bn(self.conv(maps)) + maps), maps], 1)


def test_sums_concatenations_and_batch_normalisation() -> None:
    torch.manual_seed(2)
    block, last = Block(), nn.Conv2d(4, 1, 3)
    block.bn.running_var.uniform_(0.5, 2)
    block.bn.running_mean.uniform_(-1, 1)
    block.bn.weight.data.uniform_(-1, 1)
    model = nn.Sequential(block, last, nn.ReLU())
    picture = torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        only, _ = kept(model.eval()(picture), 0)
        signal = F.conv_transpose2d(only, last.weight)
        added, beside = signal[:, :2].clamp(min=0), signal[:, 2:]
        scale = block.bn.weight / (block.bn.running_var + block.bn.eps).sqrt()
        expected = F.conv_transpose2d(added * scale[:, None, None], block.conv.weight, padding=1) + added + beside
    model.train()
    found = deconvolution(model, picture, "2", [0])
    np.testing.assert_allclose(found.projections, expected.numpy(), atol=1e-6)
    assert not np.allclose(gradient(model, picture, "2", 0), expected.numpy(), atol=1e-3)


def test_average_pooling_spreads_and_maxout_goes_to_the_winner() -> None:
    model = nn.Sequential(nn.AvgPool2d(2), Maxout(2))
    picture = torch.zeros(1, 2, 2, 2)
    picture[0, 1] = 8.0
    found = deconvolution(model, picture, "1", [0])
    assert found.projections.tolist() == [[[[0.0, 0.0], [0.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]]]]


@pytest.mark.parametrize("rectifier", [
    nn.ReLU(inplace=True), torch.relu, torch.Tensor.relu, F.relu, lambda maps: F.relu(maps, True),
    lambda maps: F.relu_(maps), lambda maps: maps.relu_(), lambda maps: F.relu(input=maps, inplace=True),
])
def test_every_way_to_write_relu_is_rectified(rectifier: object) -> None:
    class Net(nn.Module):
        def __init__(self, function: object) -> None:
            super().__init__()
            self.first, self.second, self.function = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 1, 3), function

        def forward(self, maps: Tensor) -> Tensor:
            return self.second(self.function(self.first(maps)))

    torch.manual_seed(4)
    plain, other = Net(nn.ReLU()), Net(rectifier)
    other.load_state_dict(plain.state_dict())
    picture = torch.randn(1, 1, 7, 7)
    expected = deconvolution(plain, picture, "second", [0]).projections
    np.testing.assert_array_equal(deconvolution(other, picture, "second", [0]).projections, expected)
    assert not np.allclose(gradient(plain, picture, "second", 0), expected)


def test_relu6_is_rectified_too() -> None:
    """Pixel 10 saturates: the gradient is 0, the projection passes the signal."""
    model = nn.Sequential(nn.ReLU6())
    picture = torch.full((1, 1, 1, 1), 10.0)
    assert deconvolution(model, picture, "0", [0]).projections.item() == 6.0
    assert gradient(model, picture, "0", 0).item() == 0.0


def test_without_switches_a_deconvolution_is_the_same_for_every_picture_and_guided_backpropagation_is_not() -> None:
    """One unit for two pictures, whose projections are compared for an activation of 1."""
    torch.manual_seed(5)
    first, second, last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 1, 3)
    last.bias.data += 100  # both units answer
    without, pooled = (nn.Sequential(first, nn.ReLU(), halved, nn.ReLU(), last) for halved in (second, nn.MaxPool2d(2)))
    pictures = torch.randn(2, 1, 8, 8)

    def shown(model: nn.Module, rule: Rule) -> np.ndarray:
        found = deconvolution(model, pictures, "4", [0, 0], np.zeros((2, 2), np.int64), rule)
        return found.projections / found.activations[:, None, None, None]

    one, other = shown(without, rectified)
    assert np.abs(one).max() > 0.01
    np.testing.assert_allclose(one, other, atol=1e-6)
    for model, rule in ((pooled, rectified), (without, guided)):
        assert np.abs(np.subtract(*shown(model, rule))).max() > 0.01
        assert rule_for(model) is rule
    assert "the same for every picture" in " ".join(explained(without))
    assert "the same for every picture" not in " ".join(explained(pooled))


def test_guided_backpropagation_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    model[0].weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    model[0].bias.data = torch.zeros(2)
    model[2].weight.data = torch.tensor([2.0, 0.5]).reshape(1, 2, 1, 1)
    model[2].bias.data = torch.zeros(1)
    picture = torch.full((1, 1, 1, 1), 3.0)
    # Up: maps 3 and 0, the unit 6. Down: 12 and 3, through the filters 1 and -1; the second map gave 0.
    assert deconvolution(model, picture, "2", [0]).projections.item() == 12.0 - 3.0
    assert deconvolution(model, picture, "2", [0], rule=guided).projections.item() == 12.0
    # Up: 3 and 0, the unit -6 + 10. Down: -8, rectified away, and 2, which is stopped; the gradient lets -8 through.
    model[2].weight.data[0, 0] = -2.0
    model[2].bias.data[:] = 10.0
    assert gradient(model, picture, "2", 0).item() == -8.0
    assert deconvolution(model, picture, "2", [0], rule=guided).projections.item() == 0.0


def test_each_picture_has_its_own_unit() -> None:
    model = small()
    pictures = torch.randn(3, 2, 8, 8)
    together = deconvolution(model, pictures, "5", [0, 5, 2])
    for number, channel in enumerate((0, 5, 2)):
        alone = deconvolution(model, pictures[number : number + 1], "5", [channel])
        np.testing.assert_allclose(together.projections[number], alone.projections[0], atol=1e-6)
        assert (together.positions[number] == alone.positions[0]).all()
    again = deconvolution(model, pictures, "5", [0, 5, 2], together.positions)
    np.testing.assert_array_equal(again.projections, together.projections)


def test_the_network_is_left_as_it_was_also_after_an_exception() -> None:
    model, pictures = small(), torch.randn(2, 2, 8, 8)
    with left_as_it_was(model):
        deconvolution(model, pictures, "5", [0, 1])
    with left_as_it_was(model), torch.no_grad():
        assert deconvolution(model, pictures, "8", [0, 1]).projections.any()  # a fully connected layer, no gradients
    broken = nn.Sequential(Breaks(0), small())
    with breaking(broken):
        deconvolution(broken, pictures, "1.5", [0, 1])
    with pytest.raises(AssertionError), left_as_it_was(model):  # the control
        model.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "nin", "densenet40_k12"])
def test_networks_of_the_lineage(name: str) -> None:
    channels, side = (1, 32) if name == "lenet5" else (3, 32)
    model = models.build(name, num_classes=10, in_channels=channels)
    picture = torch.randn(1, channels, side, side)
    layers = stages(model, picture)
    assert layers == tuple(f"features.{stage}" for stage, _ in model.features.named_children())
    found = deconvolution(model, picture, layers[len(layers) // 2], [0])
    assert found.projections.shape == (1, channels, side, side)
    assert np.isfinite(found.projections).all()


def test_what_is_done_is_said() -> None:
    said = " ".join(explained(models.build("resnet20")))
    assert "rectified" in said
    assert "added below" in said
    assert "batch normalisation" in said
    assert "(switches)" not in said
    said = " ".join(explained(small()))
    assert "(switches)" in said
    assert "added below" not in said
    assert "spread" in " ".join(explained(models.build("lenet5")))


def test_unknown_layers_and_channels_are_named() -> None:
    model = models.build("resnet20")
    picture = torch.randn(2, 3, 8, 8)
    with pytest.raises(InputError, match=r"'features.conv2x' is no layer of this network, did you mean .*conv2_x"):
        deconvolution(model, picture, "features.conv2x", [0, 0])
    with pytest.raises(InputError, match=r"has no channels -1, 16\n.*0 to 15"):
        deconvolution(model, picture, "features.conv2_x", [16, -1])


def test_layers_without_one_map_and_layers_that_are_passed_by() -> None:
    class Two(nn.Module):
        def forward(self, maps: Tensor) -> list[Tensor]:
            return [maps, maps]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two, self.head, self.conv = Two(), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

        def forward(self, maps: Tensor) -> Tensor:
            return self.conv(self.two(maps)[0])

    picture = torch.randn(1, 1, 2, 2)
    with pytest.raises(InputError, match="layer two gives list, not one map"):
        map_at(Net(), picture, "two")
    with pytest.raises(InputError, match="pictures do not pass layer head"):
        map_at(Net(), picture, "head")
    assert stages(Net(), picture) == ("conv",)


def test_nothing_behind_the_layer_is_computed() -> None:
    model = small(Breaks(0))
    map_at(model, torch.randn(1, 2, 8, 8), "5")
    with pytest.raises(KeyError):
        map_at(model, torch.randn(1, 2, 8, 8), "9")


def test_what_follows_cannot_change_what_was_taken() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    with tapped(model, "0") as taken:
        model(torch.tensor([-1.0, 1.0]))
    assert taken[0].tolist() == [-1.0, 1.0]
