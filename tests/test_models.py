"""Every network by name: counts, shapes, a batch of one, gradients, state, and what `build` refuses."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.errors import InputError
from layerwise.models import build, names, published_input
from layerwise.models.shapes import Cost, cost

# name: learnable parameters, multiply-adds of convolutions and fully connected layers for one picture
COUNTS = {
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 3_857_973_248),
    "resnet101": (44_549_160, 7_570_194_432),
    "resnet152": (60_192_808, 11_282_415_616),
    "plain18": (11_515_688, 1_794_805_760),
    "plain34": (21_623_848, 3_644_493_824),
    "resnet18_a": (11_515_688, 1_794_805_760),
    "resnet34_a": (21_623_848, 3_644_493_824),
    "resnet18_c": (12_043_816, 1_878_298_624),
    "resnet34_c": (22_716_840, 3_830_747_136),
    "resnet50_v1_5": (25_557_032, 4_089_184_256),
    "resnet101_v1_5": (44_549_160, 7_801_405_440),
    "resnet152_v1_5": (60_192_808, 11_513_626_624),
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet44": (658_586, 97_174_144),
    "resnet56": (853_018, 125_485_696),
    "resnet110": (1_727_962, 252_887_680),
    "resnet1202": (19_421_274, 2_829_238_912),
    "plain20": (269_722, 40_551_040),
    "plain32": (464_154, 68_862_592),
    "plain44": (658_586, 97_174_144),
    "plain56": (853_018, 125_485_696),
    "plain110": (1_727_962, 252_887_680),
    "resnet20_one_layer": (269_722, 40_551_040),
    "resnet20_three_layer": (269_722, 40_551_040),
    "alexnet": (60_965_224, 724_406_816),
    "alexnet_one_gpu": (40_702_632, 335_259_920),
    "alexnet_one_tower": (61_100_840, 714_188_480),
    "lenet1989": (9_760, 63_660),
    "lenet1990": (2_578, 91_520),
    "lenet5": (60_806, 326_520),
    "lenet5_1998": (60_000, 325_680),
}
IMAGENET = [name for name in COUNTS if published_input(name)[1] == 224 and "net" in name and "alex" not in name]
IMAGENET += ["plain18", "plain34"]
CIFAR = [name for name in COUNTS if published_input(name)[1:] == (32, 32) and not name.startswith("lenet")]


def small_side(name: str) -> int:
    """A small picture that still goes through: the residual networks take any, the others their own."""
    return 33 if name in IMAGENET else 8 if name in CIFAR else published_input(name)[1]


def pictures(name: str, count: int, seed: int = 0) -> torch.Tensor:
    side = small_side(name)
    return torch.randn(count, published_input(name)[0], side, side, generator=torch.Generator().manual_seed(seed))


@cache
def walked(name: str) -> Cost:
    return cost(name)


def stages(name: str) -> dict[str, tuple[int, ...]]:
    """The output of the last layer of each child of `features`."""
    rows = [(row.name.split("."), row.output) for row in walked(name).rows]
    return {path[1]: output for path, output in rows if path[0] == "features"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module", params=list(COUNTS))
def network(request):
    torch.manual_seed(1)
    model = build(request.param, num_classes=3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the running statistics become the first batch's own: 1,202 layers overflow without
    if norms:
        with torch.no_grad():
            model(pictures(request.param, 4))
    for norm in norms:
        norm.momentum = 0.1
    return model


def test_the_table_has_every_name():
    assert sorted(names()) == sorted(COUNTS)
    assert set(IMAGENET) | set(CIFAR) | {name for name in COUNTS if name.startswith(("alex", "le"))} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    counted = walked(name)
    assert (counted.parameters, counted.multiply_adds) == COUNTS[name]
    assert sum(row.parameters for row in counted.rows) == counted.parameters


def test_a_batch_of_one(network):
    name = network.architecture["name"]
    with torch.no_grad():
        logits = network.eval()(pictures(name, 1))
    assert logits.shape == (1, 3)
    assert logits.isfinite().all()


def test_every_parameter_has_a_gradient(network):
    name = network.architecture["name"]
    network.train().zero_grad()
    F.cross_entropy(network(pictures(name, 2)), torch.tensor([0, 2])).backward()
    without = [
        key
        for key, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    network.zero_grad(set_to_none=True)
    assert without == []


def test_state_round_trip_into_a_network_rebuilt_from_its_architecture(network):
    architecture = json.loads(json.dumps(network.architecture))
    copy = build(architecture["name"], **architecture["arguments"])
    assert copy.architecture == network.architecture
    copy.load_state_dict(network.state_dict(), strict=True)
    image = pictures(architecture["name"], 1)
    with torch.no_grad():
        assert torch.equal(copy.eval()(image), network.eval()(image))
        next(copy.parameters()).add_(0.1)  # the control: another weight, another answer
        assert not torch.equal(copy(image), network(image))


@pytest.mark.parametrize("name", ["resnet18", "resnet34_a", "resnet50", "resnet20", "plain20", "lenet1990", "lenet5"])
def test_memory_format_does_not_matter(name):
    model, images = build(name, num_classes=5).eval(), pictures(name, 3)
    with torch.no_grad():
        expected = model(images)
        found = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "alexnet", "lenet1989", "lenet5"])
def test_channels_and_classes_are_arguments(name):
    channels, side, _ = published_input(name)
    with torch.device("meta"):
        model = build(name, num_classes=7, in_channels=channels + 1)
        assert model(torch.empty(2, channels + 1, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", IMAGENET)
def test_stages_of_table_1(name):
    expansion = 4 if re.search("50|101|152", name) else 1
    widths = {"conv1": 64} | {f"conv{i}_x": 64 * 2 ** (i - 2) * expansion for i in range(2, 6)}
    sides = dict(zip(widths, (112, 56, 28, 14, 7), strict=True))
    assert stages(name) == {stage: (width, sides[stage], sides[stage]) for stage, width in widths.items()}


@pytest.mark.parametrize("name", CIFAR)
def test_stages_of_section_4_2(name):
    expected = {"conv1": (16, 32, 32), "conv2_x": (16, 32, 32), "conv3_x": (32, 16, 16), "conv4_x": (64, 8, 8)}
    assert stages(name) == expected


def test_depth_is_in_the_name():
    for name in (*IMAGENET, *CIFAR):
        layers = [row for row in walked(name).rows if row.kind in ("Conv2d", "Linear") and "shortcut" not in row.name]
        assert len(layers) == int(re.findall(r"\d+", name)[0])


def test_table_1_of_the_paper_to_its_printed_digit():
    for depth, printed in {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}.items():
        name = f"resnet{depth}_a" if depth < 50 else f"resnet{depth}"
        assert abs(COUNTS[name][1] / 1e9 - printed) < 0.06


def test_an_unknown_name():
    with pytest.raises(InputError, match=r"'resnet19' is not a network of this library, did you mean 'resnet1"):
        build("resnet19")
    with pytest.raises(InputError, match="'lenet' is not a network"):
        published_input("lenet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_class": 5}, "num_class is not an argument of resnet20, did you mean 'num_classes'"),
        ({"num_classes": 0}, "num_classes=0: expected a whole number of at least 1"),
        ({"in_channels": True}, "in_channels=True: expected a whole number of at least 1"),
        ({"num_classes": 2.0}, "num_classes=2.0: expected a whole number of at least 1"),
        ({"widths": [16, 32]}, "widths=[16, 32]: expected 3 numbers"),
        ({"widths": [16, 32, "x"]}, "'x': expected a whole number"),
        ({"widths": 16}, "widths=16: expected 3 numbers"),
        ({"shortcut": "a"}, "shortcut is not an argument of resnet20"),
        ({"n": 3}, "n is not an argument of resnet20"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        build("resnet20", **arguments)


def test_all_wrong_arguments_at_once():
    with pytest.raises(InputError, match=r"alexnet cannot be built so") as caught:
        build("alexnet", num_classes=-1, dropout=1.5, groups=2)
    assert len(caught.value.details) == 3
    assert "dropout=1.5: expected a number from 0 up to, but not including, 1" in str(caught.value)
    assert "It takes: num_classes (1000), in_channels (3), dropout (0.5)." in str(caught.value)
