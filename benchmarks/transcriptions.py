"""Five networks written down from their papers' tables as plainly as torch allows: the other side of models.py.

Nothing of the package is used here. Each function gives a module whose parameters are as many as those of the
package's network of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless `active` is False, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1,
                 padding: int | tuple[int, int] = 0, groups: int = 1, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.active = active

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.norm(self.conv(maps))
        return F.relu(maps) if self.active else maps


class Join(nn.Module):
    """Branches whose maps are concatenated; a branch is a list of layers."""

    def __init__(self, *branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([branch(maps) for branch in self.branches], 1)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; the first 1x1 carries the stride."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.one = ConvNorm(inputs, width, 1, stride)
        self.two = ConvNorm(width, width, 3, padding=1)
        self.three = ConvNorm(width, 4 * width, 1, active=False)
        changes = stride != 1 or inputs != 4 * width
        self.shortcut = ConvNorm(inputs, 4 * width, 1, stride, active=False) if changes else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.three(self.two(self.one(maps))) + self.shortcut(maps))


def resnet50() -> nn.Module:
    """He et al. 2015, table 1."""
    layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(depth):
            layers.append(Bottleneck(inputs, width, 2 if number == 0 and width > 64 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def vgg16() -> nn.Module:
    """Simonyan & Zisserman 2014, table 1, column D."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for inputs, outputs in ((25088, 4096), (4096, 4096)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(4096, 1000))


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3; the new maps are put beside the old ones."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(maps))))))
        return torch.cat([maps, new], 1)


def densenet121() -> nn.Module:
    """Huang et al. 2016, table 1."""
    layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for depth in (6, 12, 24, 16):
        for _ in range(depth):
            layers.append(DenseLayer(channels, 32))
            channels += 32
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if depth != 16:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def _average(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvNorm(inputs, outputs, 1)]


def _factors(inputs: int, widths: Sequence[int], kernels: Sequence[int | tuple[int, int]]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width, kernel in zip(widths, kernels, strict=True):
        padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
        layers.append(ConvNorm(inputs, width, kernel, padding=padding))
        inputs = width
    return layers


def inception_v3() -> nn.Module:
    """Szegedy et al. 2015, table 1 and figures 5 to 7, with the widths of its authors' network; no auxiliary head."""
    layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2), ConvNorm(32, 32, 3), ConvNorm(32, 64, 3, padding=1)]
    layers += [nn.MaxPool2d(3, 2), ConvNorm(64, 80, 1), ConvNorm(80, 192, 3), nn.MaxPool2d(3, 2)]
    for inputs, pooled in ((192, 32), (256, 64), (288, 64)):
        layers.append(Join([ConvNorm(inputs, 64, 1)], _factors(inputs, (48, 64), (1, 5)),
                           _factors(inputs, (64, 96, 96), (1, 3, 3)), _average(inputs, pooled)))
    layers.append(Join([ConvNorm(288, 384, 3, 2)], [*_factors(288, (64, 96), (1, 3)), ConvNorm(96, 96, 3, 2)],
                       [nn.MaxPool2d(3, 2)]))
    row, column = (1, 7), (7, 1)
    for width in (128, 160, 160, 192):
        layers.append(Join([ConvNorm(768, 192, 1)], _factors(768, (width, width, 192), (1, row, column)),
                           _factors(768, (*[width] * 4, 192), (1, column, row, column, row)), _average(768, 192)))
    layers.append(Join([ConvNorm(768, 192, 1), ConvNorm(192, 320, 3, 2)],
                       [*_factors(768, (192, 192, 192), (1, row, column)), ConvNorm(192, 192, 3, 2)],
                       [nn.MaxPool2d(3, 2)]))
    for inputs in (1280, 2048):
        layers.append(Join([ConvNorm(inputs, 320, 1)], [ConvNorm(inputs, 384, 1), _fork(384)],
                           [*_factors(inputs, (448, 384), (1, 3)), _fork(384)], _average(inputs, 192)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(2048, 1000))


def _fork(width: int) -> nn.Module:
    return Join(_factors(width, (width,), ((1, 3),)), _factors(width, (width,), ((3, 1),)))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1, and a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
        layers += [nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
        layers += [nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers, self.added = nn.Sequential(*layers), stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        new: Tensor = self.layers(maps)
        return maps + new if self.added else new


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018, table 2."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    inputs = 32
    for expansion, outputs, depth, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                              (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for number in range(depth):
            layers.append(InvertedResidual(inputs, outputs, stride if number == 0 else 1, expansion))
            inputs = outputs
    layers += [nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000))


TRANSCRIPTIONS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": resnet50, "vgg16": vgg16, "densenet121": densenet121, "inception_v3": inception_v3,
    "mobilenet_v2_100": mobilenet_v2,
}
