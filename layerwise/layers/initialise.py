"""How weights start: each function names its paper and works in place on all convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from layerwise.layers.fill import fill_normal, fill_normals, fill_uniforms
from layerwise.layers.partial import PartialConv2d
from layerwise.layers.subsampling import Subsampling


def he_normal(model: nn.Module) -> None:
    """Weights ~ N(0, 2 / n) with n = k^2 c, c the *input* channels of a group; biases 0.

    He et al. 2015, "Delving deep into rectifiers", eq. 10 (the forward case; eq. 14 would do as well). Batch
    normalisation keeps scale 1 and shift 0.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    fill_normals((layer.weight, (2 / layer.weight[0].numel()) ** 0.5) for layer in layers)
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def glorot_uniform(model: nn.Module) -> None:
    """Weights ~ U(-b, b) with b^2 = 6 / (inputs + outputs) of a unit; biases 0 (Glorot & Bengio 2010, eq. 16)."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    fill_uniforms((layer.weight, _glorot_bound(layer.weight)) for layer in layers)
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _glorot_bound(weight: Tensor) -> float:
    outputs, inputs = weight.shape[0], weight[0].numel()
    outputs *= inputs // weight.shape[1]  # a kernel's every position is an output, as in torch
    return float((6 / (inputs + outputs)) ** 0.5)


def normal(model: nn.Module, deviation: float) -> None:
    """Weights ~ N(0, deviation^2); biases 0: one width for all layers, as in the papers before He et al. 2015."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    fill_normals((layer.weight, deviation) for layer in layers)
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def uniform_by_inputs(model: nn.Module) -> None:
    """Weights and biases ~ U(-2.4 / F, 2.4 / F) with F the number of inputs of the unit (LeCun et al. 1989 and 1998).

    A unit of a subsampling layer has four inputs.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _uniform(list(module.parameters(recurse=False)), module.weight[0].numel())
        elif isinstance(module, Subsampling):
            _uniform([module.coefficient, module.bias], 4)
        elif isinstance(module, PartialConv2d):
            for output, kernels in enumerate(module.kernels()):
                biases = [] if module.bias is None else [module.bias.detach()[output : output + 1]]
                _uniform([kernels, *biases], kernels.numel())


def normal_by_inputs(model: nn.Module) -> None:
    """Weights ~ N(0, 1 / F) with F the number of inputs of the unit; biases 0.

    LeCun, Bottou, Orr, Mueller 1998, "Efficient BackProp", eq. 16, made for the scaled tanh.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fill_normal(module.weight, module.weight[0].numel() ** -0.5)
        elif isinstance(module, PartialConv2d):
            for kernels in module.kernels():
                nn.init.normal_(kernels, std=kernels.numel() ** -0.5)
        if isinstance(module, nn.Conv2d | nn.Linear | PartialConv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _uniform(tensors: Iterable[Tensor], inputs: int) -> None:
    for tensor in tensors:
        nn.init.uniform_(tensor, -2.4 / inputs, 2.4 / inputs)
