"""Convolution, batch normalisation, ReLU: the unit of the Inception networks from 2015 on, and chains of it.

Ioffe, Szegedy 2015, "Batch normalization", section 3.2: normalisation stands right before the non-linearity, and the
convolution needs no bias, whose part the shift takes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

Size = int | tuple[int, int]
# (out_channels, kernel_size) and, where they are not the unit's own, stride and padding
Layer = tuple[int, Size] | tuple[int, Size, int] | tuple[int, Size, int, Size]


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    stride: int = 1,
    padding: Size | None = None,
    epsilon: float = 1e-3,
) -> nn.Sequential:
    """`conv` without bias, `bn`, `relu`; padding None is half the kernel (the same size of map at stride 1).

    Input (N, in_channels, H, W), output (N, out_channels, H', W').
    """
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, _half(kernel_size) if padding is None else padding, bias=False
    )
    bn = nn.BatchNorm2d(out_channels, eps=epsilon)
    return nn.Sequential(OrderedDict({"conv": conv, "bn": bn, "relu": nn.ReLU()}))


def conv_relu(
    in_channels: int, out_channels: int, kernel_size: Size, stride: int = 1, padding: Size | None = None
) -> nn.Sequential:
    """`conv` with bias, `relu`: as `conv_bn_relu` before batch normalisation was known."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, _half(kernel_size) if padding is None else padding)
    return nn.Sequential(OrderedDict({"conv": conv, "relu": nn.ReLU()}))


def convolutions(
    in_channels: int, *layers: Layer, first: nn.Module | None = None, unit: Callable[..., nn.Module] = conv_bn_relu
) -> nn.Sequential:
    """Units one after the other, called layer1, layer2 ...; `first`, a pooling layer, stands before them as `pool`."""
    modules: dict[str, nn.Module] = {} if first is None else {"pool": first}
    for number, (out_channels, *form) in enumerate(layers, 1):
        modules[f"layer{number}"] = unit(in_channels, out_channels, *form)
        in_channels = out_channels
    return nn.Sequential(OrderedDict(modules))


def _half(kernel_size: Size) -> Size:
    if isinstance(kernel_size, int):
        return kernel_size // 2
    return kernel_size[0] // 2, kernel_size[1] // 2
