"""Back-propagation written out, as a reference for autograd (Yin, Wang, Wang 2015, "Review of deep learning").

Their section 2.2, in their symbols: layer L has inputs X_i, outputs Y_j and weights w_ij; T_j is what Y_j should be, h
the non-linearity, alpha the learning rate.

    (6)  change of w_ij = alpha delta_j X_i
    (7)  delta_j = (T_j - Y_j) h'                              in the last layer
    (8)  delta_j = h' * sum over m of delta_m w_jm             else; m runs over the outputs of layer L + 1

They are steps downhill on E = 1/2 sum of (T_j - Y_j)^2. The paper writes h'(X_i); what is meant, and stands here, is
the slope at the weighted sum y_j of its eq. 1, from which Y_j = h(y_j). For a convolution the product in (6) is a
correlation of delta_j with X_i and that in (8) spreads delta_m through the kernel w_jm; pooling has no weights and
hands the sum of (8) on to the positions it came from. No gradient of torch's is used: plain loops over windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Slopes = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]

# Eqs. 2 to 5 and "linear": h(y) and its derivative h'(y).
NONLINEARITIES: dict[str, Slopes] = {
    "sigmoid": (lambda y: 1 / (1 + (-y).exp()), lambda y: (-y).exp() / (1 + (-y).exp()).square()),
    "tanh": (lambda y: (y.exp() - (-y).exp()) / (y.exp() + (-y).exp()), lambda y: 4 / (y.exp() + (-y).exp()).square()),
    "softsign": (lambda y: y / (1 + y.abs()), lambda y: 1 / (1 + y.abs()).square()),
    "relu": (lambda y: y.clamp_min(0), lambda y: (y > 0).to(y.dtype)),
    "linear": (lambda y: y, torch.ones_like),
}


@dataclass(frozen=True)
class FullyConnected:
    """X (N, I) to Y (N, J); maps (N, C, H, W) are put in a row first. `weight` (J, I) holds w_ij, `bias` (J,)."""

    weight: Tensor
    bias: Tensor
    nonlinearity: str

    def sums(self, inputs: Tensor) -> Tensor:
        """y_j = b_j + sum over i of w_ij X_i."""
        return inputs.flatten(1) @ self.weight.T + self.bias

    def products(self, deltas: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """delta_j X_i of eq. 6, summed over the batch, for the weights and the bias (whose input is 1)."""
        return deltas.T @ inputs.flatten(1), deltas.sum(0)

    def spread(self, deltas: Tensor, inputs: Tensor) -> Tensor:
        """The sum over m in eq. 8, for each input."""
        return (deltas @ self.weight).view_as(inputs)


@dataclass(frozen=True)
class Convolution:
    """X (N, I, H, W) to Y (N, J, H', W'). `weight` (J, I, k, k) holds the kernels w_ij, `bias` (J,). No padding."""

    weight: Tensor
    bias: Tensor
    nonlinearity: str
    stride: int = 1

    def sums(self, inputs: Tensor) -> Tensor:
        """Eq. 1, y_j = b_j + sum over i of w_ij * X_i; the kernels are not turned."""
        size = self.weight.shape[-1]
        sides = ((side - size) // self.stride + 1 for side in inputs.shape[2:])
        result = inputs.new_empty(len(inputs), len(self.weight), *sides)
        for i, j, window in _windows(result, size, self.stride):
            result[:, :, i, j] = torch.einsum("nirc,jirc->nj", inputs[window], self.weight) + self.bias
        return result

    def products(self, deltas: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """delta_j X_i of eq. 6, summed over the batch and over the positions that share the kernel."""
        total = torch.zeros_like(self.weight)
        for i, j, window in _windows(deltas, self.weight.shape[-1], self.stride):
            total += torch.einsum("nj,nirc->jirc", deltas[:, :, i, j], inputs[window])
        return total, deltas.sum((0, 2, 3))

    def spread(self, deltas: Tensor, inputs: Tensor) -> Tensor:
        """The sum over m in eq. 8: each delta_m goes back through its kernel to the window it came from."""
        total = torch.zeros_like(inputs)
        for i, j, window in _windows(deltas, self.weight.shape[-1], self.stride):
            total[window] += torch.einsum("nm,mirc->nirc", deltas[:, :, i, j], self.weight)
        return total


@dataclass(frozen=True)
class AveragePooling:
    """P_A: the mean of each window; an input has its share of delta, 1 / size^2."""

    size: int
    stride: int

    def sums(self, inputs: Tensor) -> Tensor:
        """The pooled maps (N, C, H', W')."""
        return _pooled(self, inputs, lambda window: window.mean((2, 3)))

    def spread(self, deltas: Tensor, inputs: Tensor) -> Tensor:
        """delta of each window in equal parts to its inputs."""
        total = torch.zeros_like(inputs)
        for i, j, window in _windows(deltas, self.size, self.stride):
            total[window] += deltas[:, :, i, j, None, None] / self.size**2
        return total


@dataclass(frozen=True)
class MaximumPooling:
    """P_M: the largest value of each window, which alone has its delta; the first of equal ones."""

    size: int
    stride: int

    def sums(self, inputs: Tensor) -> Tensor:
        """The pooled maps (N, C, H', W')."""
        return _pooled(self, inputs, lambda window: window.amax((2, 3)))

    def spread(self, deltas: Tensor, inputs: Tensor) -> Tensor:
        """delta of each window to its largest input."""
        total = torch.zeros_like(inputs)
        for i, j, window in _windows(deltas, self.size, self.stride):
            values = inputs[window].flatten(2)
            largest = torch.zeros_like(values).scatter_(2, values.argmax(2, keepdim=True), 1.0)
            total[window] += (largest * deltas[:, :, i, j, None]).unflatten(2, (self.size, self.size))
        return total


Weighted = FullyConnected | Convolution
Layer = Weighted | AveragePooling | MaximumPooling


def outputs(layers: Sequence[Layer], inputs: Tensor) -> Tensor:
    """What the last layer gives."""
    return _forward(layers, inputs)[-1][2]


def weight_changes(layers: Sequence[Layer], inputs: Tensor, targets: Tensor, rate: float) -> list[tuple[Tensor, ...]]:
    """The change of each layer's weights and bias by eqs. 6 to 8, summed over the batch; () for pooling.

    `inputs` (N, ...), `targets` (N, J) as the last layer's outputs, `rate` alpha.
    """
    passed = _forward(layers, inputs)
    changes: list[tuple[Tensor, ...]] = []
    carried = targets - passed[-1][2]
    for layer, (layer_inputs, sums, _) in zip(reversed(layers), reversed(passed), strict=True):
        if isinstance(layer, Weighted):
            deltas = NONLINEARITIES[layer.nonlinearity][1](sums) * carried  # (7), then (8)
            changes.append(tuple(rate * product for product in layer.products(deltas, layer_inputs)))  # (6)
        else:
            deltas = carried
            changes.append(())
        carried = layer.spread(deltas, layer_inputs)
    return changes[::-1]


def _forward(layers: Sequence[Layer], inputs: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """X, y and Y = h(y) of each layer."""
    passed = []
    for layer in layers:
        sums = layer.sums(inputs)
        result = NONLINEARITIES[layer.nonlinearity][0](sums) if isinstance(layer, Weighted) else sums
        passed.append((inputs, sums, result))
        inputs = result
    return passed


def _windows(result: Tensor, size: int, stride: int) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    """Each output position with the part of the input that it sees."""
    everything = slice(None)
    for i in range(result.shape[2]):
        for j in range(result.shape[3]):
            rows, columns = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
            yield i, j, (everything, everything, rows, columns)


def _pooled(layer: AveragePooling | MaximumPooling, inputs: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    sides = ((side - layer.size) // layer.stride + 1 for side in inputs.shape[2:])
    result = inputs.new_empty(*inputs.shape[:2], *sides)
    for i, j, window in _windows(result, layer.size, layer.stride):
        result[:, :, i, j] = pool(inputs[window])
    return result
