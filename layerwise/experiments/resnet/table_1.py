"""Table 1: the architectures for ImageNet, counted from the networks of this library.

    layerwise reproduce resnet/table-1      # seconds, on any machine and at any scale: nothing is trained

Left open in the paper: which shortcuts the 18 and 34 layers of the table have. Closed here: option A, as in its first
comparison (table 2). FLOPs are multiply-adds of convolutions and fully connected layers for one picture of 224x224.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Verdict
from layerwise.models import build, shapes

TITLE = "ResNet, Table 1: architectures for ImageNet"
STAGES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
COLUMNS = ("conv1", *STAGES, "stride_2_in", "end", "flops")
GIGA = 1e9
_BLOCKS = {"resnet18_a": (2, 2, 2, 2), "resnet34_a": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
           "resnet152": (3, 8, 36, 3)}  # fmt: skip
_FLOPS = {"resnet18_a": 1.8, "resnet34_a": 3.6, "resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3}


def _printed(row: str) -> dict[str, float | str]:
    """A column of the printed table, in the words of `count`."""
    cells: dict[str, float | str] = {"conv1": "7x7, 64, stride 2: 112x112"}
    for stage, blocks, width, side in zip(STAGES, _BLOCKS[row], (64, 128, 256, 512), (56, 28, 14, 7), strict=True):
        pair = f"3x3, {width}; 3x3, {width}"
        bottleneck = f"1x1, {width}; 3x3, {width}; 1x1, {4 * width}"
        layers = pair if row in ("resnet18_a", "resnet34_a") else bottleneck
        pool = "3x3 max pool, stride 2; " if stage == "conv2_x" else ""
        cells[stage] = f"{pool}[{layers}] x{blocks}: {side}x{side}"
    return {**cells, "stride_2_in": "conv3_1, conv4_1, conv5_1", "end": "average pool, 1000-d fc", "flops": _FLOPS[row]}


def count(network: str, subject: Subject) -> Numbers:
    """The column of a network: each stage's blocks and output size, where it strides, its end, its multiply-adds."""
    with torch.device("meta"):
        model = build(network)
    sides = {stage: f"{shape[1]}x{shape[2]}" for stage, shape in shapes.stage_shapes(model).items()}
    stem = next(layer for layer in model.features.get_submodule("conv1").modules() if isinstance(layer, nn.Conv2d))
    cells = {"conv1": f"{_conv(stem)}, stride {stem.stride[0]}: {sides['conv1']}"}
    halving = []
    for stage in STAGES:
        before, blocks = "", []
        for name, block in model.features.get_submodule(stage).named_children():
            if isinstance(block, nn.MaxPool2d):
                before = f"{block.kernel_size}x{block.kernel_size} max pool, stride {block.stride}; "
                continue
            layers = [layer for layer in block.get_submodule("residual").modules() if isinstance(layer, nn.Conv2d)]
            blocks.append("; ".join(map(_conv, layers)))
            halving += [name] if any(layer.stride[0] == 2 for layer in layers) else []
        kinds = " + ".join(f"[{kind}] x{blocks.count(kind)}" for kind in dict.fromkeys(blocks))
        cells[stage] = f"{before}{kinds}: {sides[stage]}"
    pooled = "average pool" if isinstance(model.head.pool, nn.AdaptiveAvgPool2d) else type(model.head.pool).__name__
    end = f"{pooled}, {model.head.get_submodule('fc').out_features}-d fc"
    flops = round(shapes.cost(model).multiply_adds / GIGA, 3)
    return {**cells, "stride_2_in": ", ".join(halving), "end": end, "flops": flops}


def _conv(layer: nn.Conv2d) -> str:
    return f"{layer.kernel_size[0]}x{layer.kernel_size[1]}, {layer.out_channels}"


def as_printed(results: Results) -> Verdict:
    """Whether every cell but the FLOPs is as printed."""
    if missing := [row for row in ROWS if not results.rows.get(row)]:
        return Verdict("not measured", f"no result of {' and '.join(missing)}")
    found = {row: results.rows[row][0].numbers for row in ROWS}
    wrong = [f"{row} {name}: {found[row][name]}, printed {printed}" for row in ROWS
             for name, printed in PAPER[row].items() if name != "flops" and found[row][name] != printed]
    cells = sum(len(PAPER[row]) - 1 for row in ROWS)
    return Verdict("fails" if wrong else "holds", "; ".join(wrong) or f"all {cells} cells are as printed")


def flops_as_printed(results: Results) -> Verdict:
    """Whether the multiply-adds round to the printed digit; holds only if one digit more or less is allowed."""
    found = {row: results.mean(row, "flops") for row in ROWS}
    if missing := [row for row, value in found.items() if value is None]:
        return Verdict("not measured", f"no result of {' and '.join(missing)}")
    measured = {row: value for row, value in found.items() if value is not None}
    told = [f"{row} {value:.3f}, printed {_FLOPS[row]}" for row, value in measured.items()]
    odd = [text for text, (row, value) in zip(told, measured.items(), strict=True) if round(value, 1) != _FLOPS[row]]
    if not odd:
        return Verdict("holds", "; ".join(told))
    near = all(abs(value - _FLOPS[row]) < 0.1 for row, value in measured.items())
    if near:
        return Verdict("holds only if", f"{'; '.join(odd)}: only if the last digit may be cut instead of rounded")
    return Verdict("fails", "; ".join(odd))


ROWS = {row: Row(measure=partial(count, row)) for row in _BLOCKS}
PAPER = {row: _printed(row) for row in _BLOCKS}
CLAIMS = {
    "stages": Claim("Kernels, maps, blocks, output sizes and strides of each stage are as printed.", as_printed),
    "flops": Claim("1.8, 3.6, 3.8, 7.6 and 11.3 billion multiply-adds (table 1, section 4.1).", flops_as_printed),
}
