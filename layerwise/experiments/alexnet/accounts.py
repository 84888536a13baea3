"""What the AlexNet paper says that can be counted: parameters, neurons, shapes, the size of its augmentation, its days.

    layerwise reproduce alexnet/accounts      # seconds, on any machine and at any scale: nothing is trained

Counted from the network of this library, which takes pictures of 227x227, since an 11x11 kernel at stride 4 gives the
55x55 maps of figure 2 from them and not from the printed 224x224 (`layerwise models alexnet` shows it layer by layer).
The last account is the history's. Where a sentence is vague, the bound that it is held to stands with it.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import torch
from torch import nn

from layerwise.experiments import accounts
from layerwise.experiments.accounts import Account, Counts, both, exactly, only_if, provided, rounds_to, within
from layerwise.models import build, shapes
from layerwise.models.network import Network

TITLE = "AlexNet: the checkable sentences, counted"
PRINTED_LAYERS = (253_440, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000)  # figure 2
PICTURES, EPOCHS = 1_200_000, 90
GTX_580 = 1.581  # TFLOP/s in float32: 512 cores at 1.544 GHz, two operations each


@cache
def alexnet() -> tuple[Network, shapes.Cost]:
    """The network of figure 2 and what it costs."""
    with torch.device("meta"):
        network = build("alexnet")
    return network, shapes.cost(network)


def million_parameters() -> Counts:
    """Millions of parameters."""
    return {"million_parameters": alexnet()[1].parameters / 1e6}


def layer_units() -> dict[str, int]:
    """Units of each layer with weights, by its name."""
    rows = [row for row in alexnet()[1].rows if row.kind in ("Conv2d", "Linear")]
    return {row.name.rpartition(".")[2]: math.prod(row.output) for row in rows}


def neurons() -> Counts:
    """Thousands of units: of the printed layers, of ours, of our convolutions alone, of ours with the input."""
    units = layer_units()
    ours, convolutions = sum(units.values()), sum(count for name, count in units.items() if name.startswith("conv"))
    return {"printed_layers": sum(PRINTED_LAYERS) / 1000, "ours": ours / 1000, "convolutions": convolutions / 1000,
            "printed_with_input": (sum(PRINTED_LAYERS) + 150_528) / 1000}


def input_size() -> Counts:
    """Numbers in a picture of 224 and of 227 a side, and the side of conv1's maps that each gives."""
    conv1 = alexnet()[0].features.conv1
    assert isinstance(conv1, nn.Conv2d)
    steps = {side: (side - conv1.kernel_size[0]) // conv1.stride[0] + 1 for side in (224, 227)}
    return {"inputs": 3.0 * 224**2, "inputs_of_227": 3.0 * 227**2, "maps_of_224": float(steps[224]),
            "maps_of_227": float(steps[227])}


def units_of_layers() -> Counts:
    """Units of each layer with weights."""
    return {name: float(count) for name, count in layer_units().items()}


def convolution_parts() -> Counts:
    """Each convolution's part of the parameters, in percent."""
    cost = alexnet()[1]
    return {row.name.rpartition(".")[2]: 100 * row.parameters / cost.parameters
            for row in cost.rows if row.kind == "Conv2d"}


def patches() -> Counts:
    """Different 224x224 parts of 256x256 pictures, mirrored or not: with 32 places a direction, and with all 33."""
    places = 256 - 224 + 1
    return {"with_32_places": 2.0 * 32**2, "places": float(places), "with_all_places": 2.0 * places**2}


def kernels() -> Counts:
    """Kernels of each convolution and the numbers in one of them."""
    found: dict[str, float] = {}
    for name, layer in alexnet()[0].features.named_children():
        if isinstance(layer, nn.Conv2d):
            found |= {f"{name}_kernels": float(layer.out_channels), f"{name}_size": float(layer.weight[0].numel())}
    return found


def layers() -> Counts:
    """Convolutions and fully connected layers."""
    kinds = [row.kind for row in alexnet()[1].rows]
    return {"convolutions": float(kinds.count("Conv2d")), "fully_connected": float(kinds.count("Linear"))}


def pooled() -> Counts:
    """Sides of the three pooled maps with windows of 3 and of 2 at stride 2."""
    shapes_of = shapes.stage_shapes(alexnet()[0])
    before = {"pool1": "norm1", "pool2": "norm2", "pool5": "relu5"}
    sides = {name: shapes_of[layer][1] for name, layer in before.items()}
    found: dict[str, float] = {}
    for name, side in sides.items():
        for window in (2, 3):
            maps = torch.empty(1, 1, side, side, device="meta")
            found[f"{name}_window_{window}"] = float(nn.MaxPool2d(window, 2)(maps).shape[2])
    return found


def connections() -> Counts:
    """Millions of parameters: AlexNet's, and those of a net with the same layers that is fully connected."""
    sizes = (150_528, *PRINTED_LAYERS)
    dense = sum(before * after + after for before, after in pairwise(sizes))
    return {"alexnet": alexnet()[1].parameters / 1e6, "feedforward": dense / 1e6}


def speed() -> Counts:
    """TFLOP/s that 90 cycles in six and in five days mean, three passes an update, against the two GPUs' peak."""
    total = 2 * 3 * alexnet()[1].multiply_adds * PICTURES * EPOCHS / 1e12
    slow, fast = (total / (days * 24 * 3600) for days in (6, 5))
    peak = 100 * fast / (2 * GTX_580)
    return {"teraflops_in_six_days": slow, "teraflops_in_five_days": fast, "percent_of_peak": peak}


def fully_connected_part() -> Counts:
    """The fully connected layers' part of the parameters, in percent."""
    cost = alexnet()[1]
    return {"share": 100 * sum(row.parameters for row in cost.rows if row.kind == "Linear") / cost.parameters}


ACCOUNTS: dict[str, Account] = {
    "sixty-million": Account(
        "The network has 60 million parameters (abstract, section 4).", million_parameters,
        rounds_to("million_parameters", 60), "million_parameters", 60),
    "neurons": Account(
        "It has 650,000 neurons (abstract; thousands; here: within 1 %).", neurons,
        only_if(within("printed_layers", 643.5, 656.5), within("convolutions", 643.5, 656.5),
                "convolutions alone count, with 55x55 maps in conv1; figure 2 adds up to 622,312 and ours to 659,272"),
        "printed_layers", 650),
    "input": Account(
        "The input has 150,528 numbers, 224x224x3, and conv1 has a stride of 4 (figure 2, section 3.5).", input_size,
        only_if(exactly({"inputs": 150_528, "maps_of_224": 55}), exactly({"inputs": 150_528, "maps_of_227": 55}),
                "conv1 sees 227x227 for its 55x55 maps, as with a border of 3 pixels in all"),
        "inputs", 150_528),
    "conv1-units": Account(
        "conv1 has 253,440 units (figure 2).", units_of_layers,
        exactly({"conv1": 253_440}, "253,440 is 55 x 48 x 96: 48, a GPU's kernels, may have been taken for a side"),
        "conv1", 253_440),
    "other-units": Account(
        "The other layers have 186,624, 64,896, 64,896, 43,264, 4096, 4096 and 1000 units (figure 2).", units_of_layers,
        exactly(dict(zip(("conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"), map(float, PRINTED_LAYERS[1:]),
                         strict=True))), "conv2", 186_624),
    "one-percent": Account(
        "Each convolution contains no more than 1 % of the parameters (section 1).", convolution_parts,
        both(*(within(f"conv{number}", 0, 1) for number in range(1, 6))), "conv3", 1),
    "2048": Account(
        "Random patches and mirrors make the training set 2048 times as large (section 4.1).", patches,
        only_if(exactly({"with_all_places": 2048}), exactly({"with_32_places": 2048}),
                "a patch begins at 32 of the 33 possible places in each direction; with all of them it is 2178"),
        "with_all_places", 2048),
    "ten-bits": Account(
        "1000 classes make each example impose 10 bits of constraint (section 4).",
        lambda: {"bits": math.log2(1000)}, rounds_to("bits", 10), "bits", 10),
    "eight-layers": Account(
        "Eight layers with weights, five convolutions and three fully connected (section 3.5).", layers,
        exactly({"convolutions": 5, "fully_connected": 3})),
    "kernels": Account(
        "96 kernels of 11x11x3, 256 of 5x5x48, 384 of 3x3x256, 384 of 3x3x192, 256 of 3x3x192 (section 3.5).", kernels,
        exactly({"conv1_kernels": 96, "conv1_size": 363, "conv2_kernels": 256, "conv2_size": 1200, "conv3_kernels": 384,
                 "conv3_size": 2304, "conv4_kernels": 384, "conv4_size": 1728, "conv5_kernels": 256,
                 "conv5_size": 1728})),
    "pooling": Account(
        "Windows of 2 at stride 2 give maps as large as windows of 3 at stride 2 (section 3.4).", pooled,
        exactly({f"pool{number}_window_{window}": side for number, side in ((1, 27), (2, 13), (5, 6))
                 for window in (2, 3)})),
    "fewer-connections": Account(
        "Convolutional networks have much fewer parameters than feedforward ones with layers as large (section 1; "
        "millions; here: a hundred times fewer).", connections, within("feedforward", 100 * 60, 1e6), "feedforward"),
    "days": Account(
        "90 cycles took five to six days on two GTX 580 (section 5; here: what their peak of 3.2 TFLOP/s allows).",
        speed, within("percent_of_peak", 0, 100), "percent_of_peak"),
    "validation-and-test": Account(
        "Validation and test errors differ by no more than 0.1 points (section 6, table 2).",
        lambda: {"five": round(16.4 - 16.4, 6), "seven": round(15.4 - 15.3, 6)},
        provided(both(within("five", 0, 0.1), within("seven", 0, 0.1)),
                 "other networks behave as the two of which table 2 has both")),
    "fully-connected-part": Account(
        "Fully connected layers take up almost 90 % of AlexNet's parameters (the history; here: 85 to 90).",
        fully_connected_part, within("share", 85, 90), "share", 90),
}  # fmt: skip
ROWS = accounts.rows(ACCOUNTS)
PAPER = accounts.paper(ACCOUNTS)
COLUMNS = (accounts.COUNTED,)
CLAIMS = accounts.claims(ACCOUNTS)
