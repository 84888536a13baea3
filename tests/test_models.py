"""Every network by name: counts, shapes, a batch of one, gradients, state, and what `build` refuses.

Large networks whose smaller siblings are made of the same blocks are counted in every run of the tests, and run
through where LAYERWISE_ALL_NETWORKS=1: they take as long as all the others together.
"""

from __future__ import annotations

import gc
import json
import os
import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.errors import InputError
from layerwise.models import build, for_small_pictures, names, paper, published_input, reported, resnet
from layerwise.models.costs import costs
from layerwise.models.network import FLOWS, SupervisedNetwork
from layerwise.models.shapes import Cost, cost
from tests.model_counts import COUNTS, SMALL_ARGUMENTS
from tests.nan_memory import nan_memory

EVERY = os.environ.get("LAYERWISE_ALL_NETWORKS") == "1"
SIBLINGS = {
    "wide_resnet101_2": "wide_resnet50_2", "nasnet_large": "nasnet_mobile", "resnext101_64x4d": "resnext50_32x4d",
    "resnext101_32x8d": "resnext50_32x4d", "resnext101_32x4d": "resnext50_32x4d", "resnet1202": "resnet110",
    "resnet101": "resnet50", "resnet152": "resnet50", "resnet101_v1_5": "resnet50_v1_5", "plain101": "plain50",
    "resnet152_v1_5": "resnet50_v1_5", "preact_resnet200": "preact_resnet152", "preact_resnet1001": "preact_resnet164",
    "resnext29_16x64d": "resnext29_8x64d", "densenet264": "densenet121", "densenet161": "densenet121",
    "densenet201": "densenet121", "densenet100_k24": "densenet100_k12", "densenet_bc190_k40": "densenet_bc100_k12",
    "densenet_bc250_k24": "densenet_bc100_k12",
}  # fmt: skip


def small_side(name: str) -> int:
    """A small picture that still goes through."""
    return COUNTS[name][2]


def pictures(name: str, count: int, seed: int = 0) -> torch.Tensor:
    side = small_side(name)
    return torch.randn(count, published_input(name)[0], side, side, generator=torch.Generator().manual_seed(seed))


@cache
def walked(name: str) -> Cost:
    return cost(name)


def walked_classes(name: str) -> int:
    """The outputs of the last layer: what the network of the paper tells apart."""
    return walked(name).rows[-1].output[0]


def stages(name: str) -> dict[str, tuple[int, ...]]:
    """The output of the last layer of each child of `features`."""
    rows = [(row.name.split("."), row.output) for row in walked(name).rows]
    return {path[1]: output for path, output in rows if path[0] == "features"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module", params=list(COUNTS))
def network(request):
    if request.param in SIBLINGS and not EVERY:
        pytest.skip("large, and a smaller one of the same blocks is run: LAYERWISE_ALL_NETWORKS=1 runs all")
    torch.manual_seed(1)
    with nan_memory():  # no weight is forgotten
        model = build(request.param, num_classes=3, **SMALL_ARGUMENTS.get(request.param, {}))
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
    assert set(SIBLINGS) <= set(COUNTS)
    assert set(SIBLINGS.values()) <= set(COUNTS) - set(SIBLINGS)
    assert len(names()) == len(set(names()))


def test_every_name_has_its_paper_and_input():
    for name in names():
        assert paper(name).flow in FLOWS
        assert 1980 < paper(name).year < 2025
        assert len(published_input(name)) == 3
        assert all(0 < one.error < 100 for one in reported(name))
        assert (for_small_pictures(name) or name) in names()


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    counted = walked(name)
    assert (counted.parameters, counted.multiply_adds) == COUNTS[name][:2]
    kept = costs()[name]  # what `layerwise models` lists: `python -m layerwise.models.costs` counts it again
    assert (kept.parameters, kept.multiply_adds) == COUNTS[name][:2]
    assert kept.classes == walked_classes(name)
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
    answers = [network(pictures(name, 2))]
    if isinstance(network, SupervisedNetwork):
        logits, auxiliary = network.with_auxiliary(pictures(name, 2))
        answers = [logits, *auxiliary.values()]
    torch.stack([F.cross_entropy(answer, torch.tensor([0, 2])) for answer in answers]).sum().backward()
    without = [
        key
        for key, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    network.zero_grad(set_to_none=True)
    assert without == []


def test_every_layer_without_children_is_used_once(network):
    used = dict.fromkeys((key for key, layer in network.named_modules() if not list(layer.children())), 0)
    handles = []
    for key in used:

        def count(layer, inputs, output, key=key):
            used[key] += 1

        handles.append(network.get_submodule(key).register_forward_hook(count))
    with torch.no_grad():
        network.eval()(pictures(network.architecture["name"], 1))
    for handle in handles:
        handle.remove()
    assert {key: times for key, times in used.items() if times != 1 and not key.startswith("auxiliary.")} == {}


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


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet34_a", "resnet50", "resnet20", "plain20", "lenet1990", "lenet5", "alexnet_six_conv", "vgg11_bn",
     "nin", "maxout", "dsn", "fitnet11_250k", "highway19"],
)  # fmt: skip
def test_memory_format_does_not_matter(name):
    model, images = build(name, num_classes=5, **SMALL_ARGUMENTS.get(name, {})).eval(), pictures(name, 3)
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


@pytest.mark.parametrize("name", resnet.IMAGENET)
def test_stages_of_table_1(name):
    expansion = 4 if re.search("50|101|152", name) else 1
    widths = {"conv1": 64} | {f"conv{i}_x": 64 * 2 ** (i - 2) * expansion for i in range(2, 6)}
    sides = dict(zip(widths, (112, 56, 28, 14, 7), strict=True))
    assert stages(name) == {stage: (width, sides[stage], sides[stage]) for stage, width in widths.items()}


@pytest.mark.parametrize("name", resnet.CIFAR)
def test_stages_of_section_4_2(name):
    expected = {"conv1": (16, 32, 32), "conv2_x": (16, 32, 32), "conv3_x": (32, 16, 16), "conv4_x": (64, 8, 8)}
    assert stages(name) == expected


def test_depth_is_in_the_name():
    for name in (*resnet.IMAGENET, *resnet.CIFAR):
        layers = [row for row in walked(name).rows if row.kind in ("Conv2d", "Linear") and "shortcut" not in row.name]
        assert len(layers) == int(re.findall(r"\d+", name)[0])


def test_table_1_of_the_paper_to_its_printed_digit():
    for depth, printed in {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}.items():
        name = f"resnet{depth}_a" if depth < 50 else f"resnet{depth}"
        assert abs(COUNTS[name][1] / 1e9 - printed) < 0.06


@pytest.mark.parametrize(("name", "called_old"), [("lenet5", False), ("preact_resnet1001", True)])
def test_only_a_deep_network_is_called_old(name, called_old):
    """What is old doesn't count towards the next search for old garbage: many small builds would never see one."""
    gc.collect()
    young = [[]]
    network = build(name)
    assert any(one is young for one in gc.get_objects(generation=2)) == called_old
    assert gc.isenabled()
    del network


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
    assert "It takes: num_classes (1000), in_channels (3), dropout (0.5), map_side (6)" in str(caught.value)
