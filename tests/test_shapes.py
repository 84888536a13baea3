"""What a network does to the size of a picture: what fits, what does not and where, what it costs."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from layerwise.errors import InputError
from layerwise.models import build, names, published_input
from layerwise.models.shapes import check_auxiliary, check_input, cost, stage_shapes
from layerwise.recipe import changed
from layerwise.recipes.presets import preset
from layerwise.train import train
from layerwise.training.preparation import RunOptions

IMAGENET = [name for name in names() if re.match(r"(resnet|plain)(18|34|50|101|152)", name)]
CIFAR = [name for name in names() if re.match(r"(resnet|plain)(20|32|44|56|110|1202)", name)]
# the sizes that fit, smallest and largest
FITTING = {
    "alexnet": (227, 258),
    "alexnet_one_gpu": (227, 258),
    "alexnet_one_tower": (223, 254),
    "lenet1989": (15, 16),
    "lenet1990": (28, 31),
    "lenet5": (32, 35),
    "lenet5_1998": (32, 35),
}


@pytest.mark.parametrize("name", IMAGENET)
def test_the_imagenet_stem_on_small_pictures_is_said(name):
    sizes = ((28, 1), (32, 1), (64, 2)) if "18" in name or "34" in name else ((32, 1),)  # the deep ones take seconds
    for size, side in sizes:
        (warning,) = check_input(name, 3, size, 10)
        assert warning.startswith(f"input {size}x{size} is reduced to {side}x{side} by conv5_x (7x7 by conv5_x at the")
        assert re.search(r"the paper's network for small pictures is (resnet|plain)(20|32|56|110)$", warning)
    if len(sizes) > 1:
        assert check_input(name, 3, 224, 10) == []


def test_the_first_stage_that_is_too_small_is_named():
    assert "input 8x8 is reduced to 1x1 by conv3_x" in check_input("resnet34", 3, 8, 10)[0]
    assert check_input("resnet34", 3, 32, 10)[0].endswith("the paper's network for small pictures is resnet32")
    assert check_input("resnet34", 3, 96, 10) == []


@pytest.mark.parametrize("name", [name for name in CIFAR if not name.endswith(("110", "1202"))])
def test_the_cifar_networks_take_any_size(name):
    for size in (8, 28, 32, 64, 224):
        assert check_input(name, 1, size, 10) == []


@pytest.mark.parametrize("name", FITTING)
def test_the_others_take_what_their_last_layers_fit(name):
    lowest, highest = FITTING[name]
    for size in {28, 32, 64, 224, lowest - 1, lowest, highest, highest + 1}:
        if lowest <= size <= highest:
            assert check_input(name, 3, size, 10) == []
        else:
            with pytest.raises(InputError, match=f"{name} takes {lowest}x{lowest} to {highest}x{highest}\n"):
                check_input(name, 3, size, 10)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("alexnet", 63, "63x63 becomes 0x0 at layer features.pool5"),
        ("alexnet", 63, "Its 3x3 window does not fit into the 2x2 map that reaches it."),
        ("alexnet", 8, "8x8 becomes 0x0 at layer features.conv1"),
        ("lenet5", 28, "28x28 becomes 0x0 at layer features.C5.conv"),
        ("lenet5", 8, "8x8 becomes 0x0 at layer features.C3.conv"),
        ("lenet5", 8, "Its 5x5 window does not fit into the 2x2 map that reaches it."),
        ("alexnet", 224, "224x224 pictures give head.fc6 6400 inputs, not 9216"),
        ("alexnet", 300, "A fully connected layer fits one size of map only."),
        (
            "alexnet",
            300,
            "Resize the pictures: --set resize=short-side --set resize_to=227 --set input_size=227; or choose another "
            "network, such as resnet20",
        ),
        ("lenet1989", 28, "28x28 pictures do not fit layer features.H1.bias, which a 14x14 map reaches"),
        ("lenet1989", 1, "The layer is made for one size of map."),
        ("resnet20", 0, "input_size=0: pictures have at least one pixel a side"),
    ],
)
def test_what_is_said(name, size, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_input(name, 3, size, 10)


def test_the_advice_is_all_that_is_missing(tmp_path):
    """Pictures of 8x8 pixels: with the fields that the message names, and no others, the network trains."""
    recipe = changed(preset("digits"), ["network=lenet5", "unit=iterations", "duration=1", "evaluate_every=1",
                                        "warmup=none", "warmup_length=0", "schedule=constant", "threads=1"])
    options = RunOptions(tmp_path / "run", quiet=True, offline=True)
    with pytest.raises(InputError, match="8x8 becomes 0x0") as error:
        train(recipe, options)
    assert train(changed(recipe, re.findall(r"--set (\S+=[^\s;]+)", error.value.mend)), options) == tmp_path / "run"


@pytest.mark.parametrize("name", ["resnet20", "alexnet_one_gpu", "lenet5", "lenet1989"])
@pytest.mark.parametrize("size", [1, 15, 27, 32, 48])
def test_the_check_agrees_with_the_network_itself(name, size):
    """The control: what the check refuses does fail, what it lets through runs."""
    model = build(name, num_classes=2, in_channels=1).eval()
    try:
        check_input(name, 1, size, 2)
    except InputError:
        with pytest.raises((RuntimeError, InputError)):
            model(torch.zeros(1, 1, size, size))
    else:
        assert model(torch.zeros(1, 1, size, size)).shape == (1, 2)


def test_a_network_that_takes_all_sizes_above_a_minimum():
    """No published network here vanishes and takes any larger size; 63 is the least for this one."""
    from layerwise.models.network import Network
    from layerwise.models.shapes import MisfitError, _fitting, _message, _walk

    features = {f"conv{i}": nn.Conv2d(3 if i == 1 else 4, 4, 3, stride=2) for i in range(1, 6)}
    pool, fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)
    model = Network(features, {"pool": pool, "flatten": nn.Flatten(), "fc": fc})
    assert _fitting(model, 224) == (63, 4096)
    with pytest.raises(MisfitError) as caught:
        _walk(model, (3, 31, 31))
    model.architecture = {"name": "resnet18", "arguments": {}}
    message = str(_message(model, 31, caught.value, ""))
    assert "31x31 becomes 0x0 at layer features.conv5; the minimum is 63" in message


def test_cost_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, groups=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Flatten(),
        nn.Linear(72, 5),
    )
    counted = cost(model, (3, 11, 11))
    assert [row.multiply_adds for row in counted.rows] == [8 * 27 * 25, 0, 8 * 18 * 9, 0, 360]
    assert [row.parameters for row in counted.rows] == [224, 16, 152, 0, 365]
    assert [row.output for row in counted.rows] == [(8, 5, 5), (8, 5, 5), (8, 3, 3), (72,), (5,)]
    assert [row.kind for row in counted.rows] == ["Conv2d", "BatchNorm2d", "Conv2d", "Flatten", "Linear"]
    assert counted.multiply_adds == 8 * 27 * 25 + 8 * 18 * 9 + 360
    assert counted.parameters == 224 + 16 + 152 + 365


def test_cost_leaves_the_model_as_it_is():
    model = build("resnet20", in_channels=1)
    model.features.conv2_x.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert cost(model) == cost(model, (1, 32, 32))
    assert stage_shapes(model)["conv4_x"] == (64, 8, 8)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["resnet18_c", "resnet50", "plain20", "alexnet_one_gpu", "lenet5_1998"])
def test_a_name_costs_what_its_model_costs(name):
    """By name, batch normalisation is passed over; a model is walked as it is, on the meta device or not."""
    with torch.device("meta"):
        model = build(name)
    assert cost(name) == cost(model)
    assert stage_shapes(name) == stage_shapes(model)


def test_published_inputs():
    assert published_input("alexnet") == (3, 227, 227)
    assert published_input("lenet1989") == (1, 16, 16)
    assert {published_input(name) for name in IMAGENET} == {(3, 224, 224)}
    assert {published_input(name) for name in CIFAR} == {(3, 32, 32)}


def test_auxiliary_heads_that_pictures_do_not_fit():
    with torch.device("meta"):
        network = build("inception_v3")
    check_auxiliary(network, (3, 299, 299))
    with pytest.raises(InputError, match=r"head after mixed_6e does not take the 6x6 map that 128x128") as caught:
        check_auxiliary(network, (3, 128, 128))
    assert "input_size=299" in str(caught.value)
