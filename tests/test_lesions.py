"""Blocks deleted and swapped: toy networks with answers worked out by hand, and networks that come back unchanged."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from layerwise import models
from layerwise.errors import InputError
from layerwise.explain.lesions import (
    Block,
    WindowMiddle,
    blocks,
    delete_each,
    delete_some,
    deleted,
    error_rate,
    exchangeable,
    kendall_tau,
    rearranged,
    swap_some,
)
from layerwise.explain.paths import count_paths, path_gradients


class Times(nn.Module):
    """F(x) = factor * x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, maps: Tensor) -> Tensor:
        return self.factor * maps


class ToyBlock(nn.Module):
    """y = factor * x + x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.residual, self.shortcut = Times(factor), nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.residual(maps) + self.shortcut(maps)
        return output


class Affine(nn.Module):
    """A residual block y = x + (factor - 1) x + shift, so that the order of two of them matters."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift
        self.residual = nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return maps + (self.factor - 1) * self.residual(maps) + self.shift


def value(model: nn.Module) -> float:
    """What a network of toy blocks makes of the number 1."""
    return float(model(torch.ones(1, 1, 1, 1)).detach())


def toy() -> nn.Sequential:
    """(1 + 1)(1 + 2)(1 + 4) = 30."""
    return nn.Sequential(ToyBlock(1.0), ToyBlock(2.0), ToyBlock(4.0))


ONE = torch.ones(1, 1, 1, 1)


def test_a_deleted_block_is_the_identity() -> None:
    model = toy()
    known = blocks(model, ONE)
    assert [block.name for block in known] == ["0", "1", "2"]
    assert {block.kind for block in known} == {"residual"}
    assert value(model) == 30
    assert delete_each(model, known, value) == {"0": 15.0, "1": 10.0, "2": 6.0}
    assert value(model) == 30


def test_k_blocks_are_deleted_at_random_and_again_in_the_same_way() -> None:
    model = toy()
    known = blocks(model, ONE)
    found = delete_some(model, known, value, (0, 1, 2, 3), draws=20, seed=0)
    assert found[0] == [30.0] * 20
    assert set(found[1]) == {15.0, 10.0, 6.0}
    assert set(found[2]) == {5.0, 3.0, 2.0}  # two of three are gone
    assert found[3] == [1.0] * 20
    assert delete_some(model, known, value, (0, 1, 2, 3), draws=20, seed=0) == found
    assert delete_some(model, known, value, (1,), draws=20, seed=1)[1] != found[1]
    with pytest.raises(InputError, match="4 blocks to delete, but the network has 3"):
        delete_some(model, known, value, (4,), draws=1, seed=0)


def test_swapped_blocks_change_places() -> None:
    """3 (2 x + 1) is not 2 (3 x) + 1, and a swap of the only pair twice over is none."""
    model = nn.Sequential(Affine(2.0, 1.0), Affine(3.0, 0.0))
    known = blocks(model, ONE)
    assert exchangeable(known) == ((0, 1),)
    assert value(model) == 9.0
    found = swap_some(model, known, value, (0, 1, 2), draws=2, seed=0)
    assert [(one.measured, one.tau) for one in found[0]] == [(9.0, 1.0)] * 2
    assert [(one.measured, one.tau) for one in found[1]] == [(7.0, -1.0)] * 2
    assert [(one.measured, one.tau) for one in found[2]] == [(9.0, 1.0)] * 2
    assert value(model) == 9.0


def test_a_network_is_rearranged_as_told() -> None:
    model = nn.Sequential(Affine(2.0, 1.0), Affine(3.0, 0.0), Affine(1.0, 5.0))
    known = blocks(model, ONE)
    with rearranged(model, {"0": known[2], "1": known[0], "2": known[1]}, known):
        assert value(model) == 3 * (2 * (1 + 5) + 1)
    with pytest.raises(InputError, match="1 blocks are not of this network"), rearranged(model, {"9": known[0]}, known):
        raise AssertionError("not reached")


def test_only_blocks_of_equal_shape_change_places() -> None:
    """ResNet-20: three blocks a stage; the first of the second and third stages change the shape."""
    known = blocks(models.build("resnet20"), torch.randn(1, 3, 32, 32))
    pairs = [(known[i].name[-3:], known[j].name[-3:]) for i, j in exchangeable(known)]
    assert pairs == [("2_1", "2_2"), ("2_1", "2_3"), ("2_2", "2_3"), ("3_2", "3_3"), ("4_2", "4_3")]
    with pytest.raises(InputError, match="no two blocks"):
        swap_some(nn.Sequential(ToyBlock(1.0)), blocks(nn.Sequential(ToyBlock(1.0)), ONE), value, (1,), 1, 0)


@pytest.mark.parametrize("name", ["resnet20", "plain20", "preact_resnet110", "vgg11_bn", "mobilenet_v2", "xception",
                                  "inception_resnet_v1", "wrn16_8", "alexnet"])
def test_every_block_can_be_deleted_and_the_network_comes_back(name: str) -> None:
    side = {"xception": 96, "inception_resnet_v1": 96, "alexnet": 67}.get(name, 32)
    small = {"map_side": 1, "hidden_features": 8} if name in ("vgg11_bn", "alexnet") else {}
    torch.manual_seed(0)
    with torch.device("meta"):
        model = models.build(name, num_classes=3, **small)
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    for buffer in model.buffers():
        nn.init.ones_(buffer)
    image = torch.randn(1, 3, side, side)
    known = blocks(model, image)
    assert len(known) >= 5
    before = {path: id(module) for path, module in model.named_modules()}
    chosen = known if len(known) < 12 else known[:2] + known[-2:]
    model.eval()
    for block in chosen:
        with deleted(model, [block]), torch.no_grad():
            assert model(image).shape == (1, 3)
            assert {path: id(module) for path, module in model.named_modules()} != before
    assert {path: id(module) for path, module in model.named_modules()} == before


def test_a_residual_block_gone_is_its_shortcut() -> None:
    """ResNet-20 without a block equals the network built without its residual function: y = x, or option A."""
    torch.manual_seed(0)
    model = models.build("resnet20", in_channels=1).eval()
    known = {block.name[-3:]: block for block in blocks(model, torch.randn(1, 1, 16, 16))}
    image = torch.randn(2, 1, 16, 16)
    stage = model.features.conv2_x
    with torch.no_grad():
        entered = stage.conv2_1(model.features.conv1(image))
        skipped = model.head(model.features.conv4_x(model.features.conv3_x(stage.conv2_3(entered))))
        with deleted(model, [known["2_2"]]):
            assert torch.equal(model(image), skipped)
        maps = stage(model.features.conv1(image))
        padded = torch.cat([maps[:, :, ::2, ::2], torch.zeros(2, 16, 8, 8)], 1)
        with deleted(model, [known["3_1"]]):
            assert torch.equal(model.features.conv3_x.conv3_1(maps), padded)


def test_a_plain_block_gone_is_what_option_a_leaves() -> None:
    torch.manual_seed(0)
    model = models.build("plain20", in_channels=1).eval()
    known = {block.name[-3:]: block for block in blocks(model, torch.randn(1, 1, 16, 16))}
    assert {block.kind for block in known.values()} == {"plain"}
    maps = torch.rand(2, 16, 16, 16)
    with deleted(model, [known["2_2"], known["3_1"]]), torch.no_grad():
        assert torch.equal(model.features.conv2_x.conv2_2(maps), maps)
        padded = torch.cat([maps[:, :, ::2, ::2], torch.zeros(2, 16, 8, 8)], 1)
        assert torch.equal(model.features.conv3_x.conv3_1(maps), padded)


def test_the_middle_of_each_window() -> None:
    """A 3x3 at stride 2 without padding looks at 1, 3, 5; an 11x11 at stride 4 at 5, 9; two maps are cut to one."""
    row = torch.arange(8.0)
    maps = row.expand(1, 2, 8, 8)
    answer = WindowMiddle(nn.Conv2d(2, 1, 3, stride=2))(maps)
    assert answer.shape == (1, 1, 3, 3)
    assert answer[0, 0, 0].tolist() == [1, 3, 5]
    wide = torch.arange(15.0).expand(1, 1, 15, 15)
    answer = WindowMiddle(nn.Conv2d(1, 3, 11, stride=4))(wide)
    assert answer[0, 0, 0].tolist() == [5, 9]
    assert not answer[0, 1:].any()
    for kernel, padding, stride in ((3, 1, 1), (5, 2, 2), (1, 0, 2), (2, 0, 2), (3, 1, 2)):
        convolution = nn.Conv2d(2, 2, kernel, stride, padding)
        assert WindowMiddle(convolution)(maps).shape == convolution(maps).shape


def test_layers_of_a_chain_take_their_normalisation_and_activation_along() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1))
    known = blocks(model, torch.randn(1, 1, 8, 8))
    assert [(block.parts, block.kind) for block in known] == [(("0", "1", "2"), "layer"), (("4",), "layer")]
    assert [(block.input, block.output) for block in known] == [((1, 8, 8), (2, 6, 6)), ((2, 3, 3), (2, 3, 3))]


def test_nothing_to_delete() -> None:
    with pytest.raises(InputError, match="no blocks that could be deleted"):
        blocks(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), ONE)


def test_the_network_is_restored_after_an_exception() -> None:
    """To the object and to the bit; a measure that fails in the middle leaves nothing behind."""
    model = models.build("resnet20", in_channels=1)
    image = torch.randn(2, 1, 16, 16)
    known = blocks(model, image)
    before = {path: id(module) for path, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]

    def broken(network: nn.Module) -> float:
        assert {path: id(module) for path, module in network.named_modules()} != before
        raise KeyError("the data went away")

    for act in (lambda: delete_each(model, known, broken), lambda: delete_some(model, known, broken, (3,), 1, 0),
                lambda: swap_some(model, known, broken, (1,), 1, 0)):
        with pytest.raises(KeyError):
            act()
        assert {path: id(module) for path, module in model.named_modules()} == before
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_error_rate_counts_over_batches_in_evaluation_mode() -> None:
    class Sign(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert not self.training
            total = images.flatten(1).sum(1)
            return torch.stack([-total, total], 1)

    images = torch.tensor([1.0, -1.0, 2.0, -2.0, 3.0]).reshape(5, 1, 1, 1)
    labels = torch.tensor([1, 0, 0, 0, 1])
    model = Sign()
    assert error_rate(model, images, labels, batch_size=2) == 20.0
    assert model.training


def test_kendalls_tau() -> None:
    """Against its definition: of 0 2 1 two pairs of three agree, so (2 - 1) / 3."""
    assert kendall_tau((0, 1, 2)) == 1.0
    assert kendall_tau((2, 1, 0)) == -1.0
    assert kendall_tau((0, 2, 1)) == pytest.approx(1 / 3)


def test_paths_are_counted() -> None:
    assert count_paths(3) == (1, 3, 3, 1)
    assert sum(count_paths(54)) == 2**54


class Scores(nn.Module):
    """Logits (0, x): the gradient of the loss by x is p - y, the same for every network of equal output."""

    def forward(self, maps: Tensor) -> Tensor:
        one = maps.flatten(1)[:, :1]
        return torch.cat([torch.zeros_like(one), one], 1)


def test_gradients_of_paths_by_hand() -> None:
    """Through F = factor * x the gradient is multiplied by the factor, through the shortcut by 1."""
    model = nn.Sequential(ToyBlock(0.1), ToyBlock(0.1), Scores())
    output = 1.1 * 1.1
    slope = 1 / (1 + math.exp(-output))  # label 0: the loss's slope is the probability of class 1
    found = path_gradients(model, ONE, torch.tensor([0]), (0, 1, 2), draws=3, seed=0)
    assert [one.paths for one in found] == [1, 2, 1]
    assert [one.gradient for one in found] == pytest.approx([slope, 0.1 * slope, 0.01 * slope], rel=1e-5)
    assert [one.contribution for one in found] == pytest.approx([1 / 1.21, 0.2 / 1.21, 0.01 / 1.21], rel=1e-5)
    whole = ONE.clone().requires_grad_(True)
    nn.functional.cross_entropy(model(whole), torch.tensor([0])).backward()
    # All paths together are the gradient: 1 + 2 * 0.1 + 0.01 = 1.21.
    assert sum(one.paths * one.gradient for one in found) == pytest.approx(float(whole.grad), rel=1e-5)


def test_paths_leave_the_network_alone_and_name_what_has_none() -> None:
    model = models.build("resnet20", in_channels=1)
    path_gradients(model, torch.randn(2, 1, 8, 8), torch.tensor([0, 1]), (0, 9), draws=1, seed=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    with pytest.raises(InputError, match="paths of length 10, but the network has 9"):
        path_gradients(model, torch.randn(2, 1, 8, 8), torch.tensor([0, 1]), (10,), draws=1, seed=0)
    with pytest.raises(InputError, match="9 blocks do not consist of a residual function and a shortcut"):
        path_gradients(models.build("plain20"), torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), (1,), draws=1, seed=0)


def test_blocks_come_in_the_order_of_the_computation() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = ToyBlock(1.0), ToyBlock(2.0)

        def forward(self, maps: Tensor) -> Tensor:
            output: Tensor = self.second(self.first(maps))
            return output

    found: tuple[Block, ...] = blocks(Backwards(), ONE)
    assert [block.name for block in found] == ["first", "second"]
