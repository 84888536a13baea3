"""What torch refuses on CUDA under deterministic=true is met in no network there. No GPU is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from layerwise.layers import repeatable
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models import build, names, published_input
from layerwise.models.nasnet import AuxiliaryPool
from layerwise.models.network import SupervisedNetwork
from layerwise.tasks.classify import Classify

# The operations behind torch's list at `torch.use_deterministic_algorithms`, for what a network may be made of.
REFUSED = {
    "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
    "max_unpool2d", "max_unpool3d", "upsample_linear1d_backward", "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward", "upsample_trilinear3d_backward", "reflection_pad1d_backward",
    "reflection_pad2d_backward", "reflection_pad3d_backward", "nll_loss2d_forward", "nll_loss2d_backward",
    "_ctc_loss_backward", "put", "put_", "histc", "kthvalue", "median", "grid_sampler_2d_backward", "cumsum",
}  # fmt: skip
assert all(hasattr(torch.ops.aten, name) for name in REFUSED), "torch has renamed an operation"
# Those whose layers are put otherwise on CUDA.
OTHERWISE = ("alexnet", "alexnet_two_gpus", "zfnet", "vgg11_lrn", "four_layer_lrn", "four_layer_local_lrn", "googlenet",
             "googlenet_3x3", "airnet_narrow", "fitnet11_250k")
OTHERS = ("lenet5", "nin", "maxout", "dsn", "highway19_plain", "resnet20", "wrn16_2", "resnext29_32x4d",
          "mobilenet_shallow", "xception")
EVERY = os.environ.get("LAYERWISE_ALL_NETWORKS") == "1"  # they take ten minutes


class Met(TorchDispatchMode):
    """Keeps the refused operations that are called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple[Any, ...] = (),
                           named: Mapping[str, Any] | None = None) -> Any:
        self.found |= {function.overloadpacket.__name__} & REFUSED
        return function(*arguments, **(named or {}))


def met(name: str) -> set[str]:
    """What of REFUSED a step of the network calls, auxiliary heads included; nothing is computed."""
    channels, side, _ = published_input(name)
    with torch.device("meta"):
        model = build(name)
        batch = {"image": torch.empty(2, channels, side, side), "label": torch.zeros(2, dtype=torch.long)}
        with Met() as seen:
            task = Classify(auxiliary_weight=0.3 if isinstance(model, SupervisedNetwork) else 0.0)
            task.loss(model, batch)["loss"].backward()
    return seen.found


@pytest.mark.parametrize("name", names() if EVERY else (*OTHERWISE, *OTHERS))
def test_no_network_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in OTHERWISE:  # the control: torch's own layers are
        assert met(name)
    monkeypatch.setattr(repeatable, "refused", lambda maps: True)
    assert met(name) == set()


def test_nasnets_auxiliary_pooling_of_other_sizes_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def called() -> set[str]:
        with Met() as seen:
            AuxiliaryPool(4)(torch.ones(1, 2, 13, 13, requires_grad=True)).sum().backward()
        return seen.found

    assert called() == {"_adaptive_avg_pool2d_backward"}  # the control
    monkeypatch.setattr(repeatable, "refused", lambda maps: True)
    assert called() == set()


def test_only_on_cuda_they_are_put_otherwise() -> None:
    class There:
        is_cuda = True

    assert repeatable.refused(There())  # type: ignore[arg-type]
    assert not repeatable.refused(torch.zeros(1))
    assert not repeatable.refused(torch.zeros(1, device="meta"))


def both(layer: nn.Module, maps: Tensor, patch: pytest.MonkeyPatch) -> list[Tensor]:
    """The layer's maps and its gradient, torch's own way and then ours."""
    found = list[Tensor]()
    for refused in (False, True):
        patch.setattr(repeatable, "refused", lambda _, refused=refused: refused)
        given = maps.clone(memory_format=torch.preserve_format).requires_grad_()
        answer = layer(given)
        (answer * torch.arange(answer.numel(), dtype=answer.dtype).view(answer.shape).cos()).sum().backward()
        assert given.grad is not None
        found += [answer.detach(), given.grad]
    return found


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_response_norm_is_the_same(groups: int, order: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 8, 5, 4, dtype=torch.float64).contiguous(memory_format=order)
    own, slope, ours, our_slope = both(ResponseNorm(3, 0.1, groups=groups), maps, monkeypatch)
    torch.testing.assert_close(ours, own, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(our_slope, slope, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(both(ResponseNorm(3, 0.1, groups=3 - groups), maps, monkeypatch)[2], own)


@pytest.mark.parametrize("layer", [repeatable.AdaptiveAvgPool2d, repeatable.AdaptiveMaxPool2d])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 4), (13, 17), (8, 8)])
@pytest.mark.parametrize("side", [1, 4])
def test_adaptive_pooling_is_the_same(layer: type[nn.Module], height: int, width: int, side: int,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, height, width, dtype=torch.float64)
    own, slope, ours, our_slope = both(layer(side), maps, monkeypatch)
    torch.testing.assert_close(ours, own, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(our_slope, slope, rtol=1e-12, atol=1e-14)
