"""NASNet-A: counts by hand, the paper's printed figures, how cells are wired, the auxiliary head."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layerwise.models import build
from layerwise.models.nasnet import (
    CIFAR,
    LARGE,
    MOBILE,
    AuxiliaryPool,
    BorderedReductionCell,
    NASNet,
    NormalCell,
    PathReduction,
    ReductionCell,
    SkippedReductionCell,
    Stem,
    squeeze,
    strided_average_pool,
    unchanged,
)
from layerwise.models.shapes import Cost, cost, stage_shapes

PLAIN_MOBILE = MOBILE._replace(stem_cells=(ReductionCell, ReductionCell), reduction=ReductionCell)
TINY = CIFAR._replace(repeats=2, filters=96, stem=Stem(6, 1, 1, squeeze))
NORMAL_KERNELS = (5, 3, 5, 3, 3)


counted = cache(cost)


@cache
def plain_mobile() -> Cost:
    with torch.device("meta"):
        return cost(NASNet(PLAIN_MOBILE), (3, 224, 224))


def by_hand(repeats: int, filters: int, stem: tuple[int, int], sides: list[int], halved_stem: bool):
    """Parameters and multiply-adds of "N @ F"; `stem`: its maps and side; `sides`: those of the cells' outputs."""
    width, (maps, side) = filters // 24, stem
    total, work = 29 * maps, 27 * maps * side**2

    def separable(inputs: int, outputs: int, kernel: int, side: int) -> None:
        nonlocal total, work
        for entering in (inputs, outputs):
            weights = kernel**2 * entering + entering * outputs
            total, work = total + weights + 2 * outputs, work + weights * side**2

    def project(inputs: int, outputs: int, side: int) -> None:
        nonlocal total, work
        total, work = total + inputs * outputs + 2 * outputs, work + inputs * outputs * side**2

    current = previous = maps
    first = True
    plan = [("reduction", width // 4), ("reduction", width // 2)] if halved_stem else []
    for stage in range(3):
        plan += ([("reduction", width * 2**stage)] if stage else []) + [("normal", width * 2**stage)] * repeats
    for kind, w in plan:
        before = side
        if kind == "reduction":
            side = sides.pop(0)
        project(current, w, before)
        entering = previous if first and halved_stem else w
        if not (first and halved_stem):
            project(previous, w, before)
        if kind == "normal":
            for kernel in NORMAL_KERNELS:
                separable(w, w, kernel, side)
        else:
            for inputs, kernel in ((w, 5), (entering, 7), (entering, 7), (entering, 5), (w, 3)):
                separable(inputs, w, kernel, side)
        previous, current, first = current, (6 if kind == "normal" else 4) * w, False
    return total, work, current


@pytest.mark.parametrize(
    ("name", "plan", "classes", "stem", "sides"),
    [
        ("", PLAIN_MOBILE, 1000, (32, 111), [56, 28, 14, 7]),
        ("nasnet_large", LARGE, 1000, (96, 165), [83, 42, 21, 11]),
        ("nasnet_cifar", CIFAR, 10, (96, 32), [16, 8]),
    ],
)
def test_counts_by_hand(name, plan, classes, stem, sides):
    found = counted(name) if name else plain_mobile()
    total, work, last = by_hand(plan.repeats, plan.filters, stem, sides, len(plan.stem_cells) == 2)
    assert last == plan.filters
    assert found.parameters == total + (last + 1) * classes
    assert found.multiply_adds == work + last * classes


def test_the_border_of_nasnet_mobile_is_all_that_it_computes_more():
    """Table 3 prints 564 million: that is the network without the border."""
    plain, bordered = plain_mobile(), counted("nasnet_mobile")
    more = 0
    for w, side in ((22, 28), (88, 14), (176, 7)):
        strided = (25 + 49 + 49 + 25) * w + 4 * w * w
        more += (strided + 9 * w + w * w) * ((side + 1) ** 2 - side**2)
    assert bordered.multiply_adds - plain.multiply_adds == more
    assert bordered.parameters == plain.parameters
    assert round(plain.multiply_adds / 1e6) == 564
    assert round(bordered.multiply_adds / 1e6) == 568


@pytest.mark.parametrize("side", [8, 9, 14, 15])
def test_the_border_does_not_change_the_function(side):
    torch.manual_seed(0)
    plain = ReductionCell(6, 4, squeeze(5, 4), 4).eval()
    bordered = BorderedReductionCell(6, 4, squeeze(5, 4), 4).eval()
    bordered.load_state_dict(plain.state_dict())
    current, previous = torch.randn(2, 6, side, side), torch.randn(2, 5, side, side)
    with torch.no_grad():
        expected = plain(current, previous)
        torch.testing.assert_close(bordered(current, previous), expected)
        bordered.block1_right.crop1.padding = (0, -1, 0, -1)  # the control: cropped at the other end
        assert not torch.allclose(bordered(current, previous), expected)


def test_printed_figures_of_tables_1_to_3():
    mobile, large, cifar = (counted(name) for name in ("nasnet_mobile", "nasnet_large", "nasnet_cifar"))
    assert round(mobile.parameters / 1e6, 1) == 5.3
    assert round(large.multiply_adds / 1e9, 1) == 23.8
    assert round(cifar.parameters / 1e6, 1) == 3.3


def test_table_2_counts_running_statistics_as_parameters():
    with torch.device("meta"):
        network = build("nasnet_large")
    statistics = [b.numel() for name, b in network.named_buffers() if "running" in name and "auxiliary" not in name]
    assert round(88_753_150 / 1e6, 1) == 88.8  # printed: 88.9
    assert 88_753_150 + sum(statistics) == 88_949_818


@pytest.mark.parametrize(
    ("name", "sides", "widths"),
    [
        ("nasnet_mobile", (111, 56, 28, 28, 14, 14, 7, 7), (32, 44, 88, 264, 352, 528, 704, 1056)),
        ("nasnet_large", (165, 83, 42, 42, 21, 21, 11, 11), (96, 168, 336, 1008, 1344, 2016, 2688, 4032)),
    ],
)
def test_stages_on_imagenet(name, sides, widths):
    shapes = stage_shapes(name)
    n = 4 if name == "nasnet_mobile" else 6
    stages = ["conv0", "stem_0", "stem_1", f"normal_{n - 1}", "reduction_0", f"normal_{2 * n - 1}", "reduction_1",
              f"normal_{3 * n - 1}"]  # fmt: skip
    assert [shapes[stage] for stage in stages] == [(w, s, s) for w, s in zip(widths, sides, strict=True)]
    assert len(shapes) == 3 + 3 * n + 2


def test_stages_on_cifar():
    shapes = stage_shapes("nasnet_cifar")
    assert shapes["conv0"] == (96, 32, 32)
    assert shapes["normal_0"] == shapes["normal_5"] == (192, 32, 32)
    assert [shapes[stage] for stage in ("reduction_0", "normal_11")] == [(256, 16, 16), (384, 16, 16)]
    assert [shapes[stage] for stage in ("reduction_1", "normal_17")] == [(512, 8, 8), (768, 8, 8)]


def wiring(network: nn.Module) -> dict[str, list[str]]:
    """Which two maps reach each cell, by the names of the stages that made them."""
    made: dict[int, tuple[str, torch.Tensor]] = {}
    found: dict[str, list[str]] = {}
    for name, stage in network.features.named_children():

        def note(module, inputs, output, name=name):
            found[name] = [made[id(one)][0] for one in inputs if id(one) in made]
            made[id(output)] = (name, output)

        stage.register_forward_hook(note)
    network.eval()(torch.zeros(1, 3, 16, 16))
    return found


def test_each_cell_sees_the_two_cells_before_it():
    network = NASNet(TINY, num_classes=3)
    order = [name for name, _ in network.features.named_children()]
    found = wiring(network)
    assert found.pop("conv0") == []
    assert found.pop("normal_0") == ["conv0", "conv0"]
    assert found == {name: [order[i - 1], order[i - 2]] for i, name in enumerate(order) if i >= 2}


def test_the_large_one_skips_the_cell_before_a_reduction():
    found = wiring(NASNet(TINY._replace(reduction=SkippedReductionCell), num_classes=3))
    assert found["reduction_0"] == ["normal_1", "normal_0"]
    assert found["normal_2"] == ["reduction_0", "normal_0"]
    assert found["normal_3"] == ["normal_2", "reduction_0"]
    assert (LARGE.reduction, LARGE.stem_cells) == (SkippedReductionCell, (ReductionCell, ReductionCell))


def test_the_normal_cell_by_hand():
    torch.manual_seed(0)
    cell = NormalCell(6, 4, squeeze(5, 4), 4).eval()
    h, p = torch.randn(1, 6, 5, 5), torch.randn(1, 5, 5, 5)
    with torch.no_grad():
        output = cell(h, p)
        h, p = cell.current(h), cell.previous(p)
        ones = F.avg_pool2d(torch.ones_like(h), 3, 1, 1)
        mean = [F.avg_pool2d(maps, 3, 1, 1) / ones for maps in (h, p)]  # over the pixels that are there
        torch.testing.assert_close(output[:, :4], p)
        torch.testing.assert_close(output[:, 12:16], mean[0] + p)
        torch.testing.assert_close(output[:, 16:20], 2 * mean[1])
        torch.testing.assert_close(output[:, 20:], cell.block4_left(h) + h)
    assert output.shape == (1, 24, 5, 5)


def test_a_separable_operation_is_two_with_activation_first():
    names = [name for name, _ in NormalCell(6, 4, squeeze(5, 4), 4).block0_left.named_children()]
    assert names == ["relu1", "separable1", "bn1", "relu2", "separable2", "bn2"]
    strided = [name for name, _ in ReductionCell(6, 4, unchanged(5, 4), 5).block0_right.named_children()]
    assert strided == ["relu1", "pad1", "separable1", "bn1", "relu2", "separable2", "bn2"]


@pytest.mark.parametrize("side", [6, 7])
def test_path_reduction_takes_two_shifted_grids(side):
    torch.manual_seed(0)
    layer, maps = PathReduction(3, 4).eval(), torch.rand(2, 3, side, side)
    shifted = torch.zeros_like(maps)
    shifted[:, :, :-1, :-1] = maps[:, :, 1:, 1:]
    grids = maps[:, :, ::2, ::2], shifted[:, :, ::2, ::2]
    convolutions = layer.path1.conv, layer.path2.conv
    with torch.no_grad():
        expected = torch.cat([conv(grid) for conv, grid in zip(convolutions, grids, strict=True)], 1)
        torch.testing.assert_close(layer(maps), layer.bn(expected))
        wrong = torch.cat([conv(maps[:, :, ::2, ::2]) for conv in convolutions], 1)
        assert not torch.allclose(layer(maps), layer.bn(wrong))  # the control: no shift


def test_strided_average_pooling_counts_the_border_of_zeros():
    pooled = strided_average_pool()(torch.ones(1, 1, 5, 5))
    assert pooled[0, 0, 1, 1] == 1
    assert pooled[0, 0, 0, 0] == pytest.approx(4 / 9)


@pytest.mark.parametrize(("name", "maps", "side"), [("nasnet_mobile", 528, 4), ("nasnet_large", 2016, 6),
                                                   ("nasnet_cifar", 384, 4)])  # fmt: skip
def test_the_auxiliary_head_is_not_counted_and_stands_two_thirds_up(name, maps, side):
    with torch.device("meta"):
        network = build(name)
    classes = network.head.fc.out_features
    weights = maps * 128 + 256 + 128 * 768 * side**2 + 2 * 768 + 769 * classes
    assert sum(p.numel() for p in network.auxiliary.parameters()) == weights
    (stage,) = network.auxiliary
    assert stage == {"nasnet_mobile": "normal_7"}.get(name, "normal_11")
    assert (int(stage.removeprefix("normal_")) + 1) * 3 == 2 * sum("normal" in key for key in dict(
        network.features.named_children()))  # fmt: skip


@pytest.mark.parametrize(("pixels", "side"), [(14, 4), (21, 6), (16, 4), (18, 5)])
def test_auxiliary_pooling_has_5x5_windows_in_steps_of_3(pixels, side):
    maps = torch.rand(1, 2, pixels, pixels)
    assert torch.equal(AuxiliaryPool(side)(maps), F.avg_pool2d(maps, 5, 3))


@pytest.mark.parametrize("pixels", [1, 5, 13, 17, 30])
def test_auxiliary_pooling_takes_other_sizes(pixels):
    maps = torch.rand(1, 2, pixels, pixels)
    assert torch.equal(AuxiliaryPool(4)(maps), F.adaptive_avg_pool2d(maps, 4))


def test_with_auxiliary_gives_the_same_logits_and_those_of_the_middle():
    torch.manual_seed(0)
    network = NASNet(TINY, num_classes=3).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        logits, auxiliary = network.with_auxiliary(images)
        torch.testing.assert_close(logits, network(images))
        middle = network.features.outputs(images)
        kept = network.features.outputs(images, ("normal_3",))[1]["normal_3"]
        torch.testing.assert_close(auxiliary["normal_3"], network.auxiliary["normal_3"](kept))
    assert list(auxiliary) == ["normal_3"]
    assert middle[1] == {}


@pytest.mark.parametrize(("name", "epsilon", "dropout"), [("nasnet_mobile", 1e-3, 0.5), ("nasnet_large", 1e-3, 0.5),
                                                         ("nasnet_cifar", 1e-5, 0.0)])  # fmt: skip
def test_epsilon_and_dropout_are_those_of_its_data(name, epsilon, dropout):
    """The authors' code: `nasnet_cifar_arg_scope`, `cifar_config` and those of the other two (slim, nasnet.py)."""
    with torch.device("meta"):
        network, wanted = build(name), build(name, dropout=0.25)
    norms = {part: {layer.eps for layer in getattr(network, part).modules() if isinstance(layer, nn.BatchNorm2d)}
             for part in ("features", "auxiliary")}  # fmt: skip
    assert norms == {"features": {epsilon}, "auxiliary": {epsilon}}
    assert any(isinstance(layer, PathReduction) for layer in network.modules())  # its own normalisation is among them
    assert (network.head.dropout.p, wanted.head.dropout.p) == (dropout, 0.25)


def test_start():
    torch.manual_seed(0)
    network = build("nasnet_cifar", num_classes=3)
    weight = network.get_submodule("features.normal_17.current.conv").weight
    assert weight.std().item() == pytest.approx((2 / 768) ** 0.5, rel=0.02)


def test_any_size():
    network = build("nasnet_cifar", num_classes=3, in_channels=1).eval()
    assert network(torch.zeros(1, 1, 5, 7)).shape == (1, 3)
