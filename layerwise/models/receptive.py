"""What each layer's unit sees of the picture: its receptive field, traced through any network on the meta device.

Every operation of the forward pass is watched. A unit's field grows with the windows of convolutions and poolings and
unites where branches meet, so no network has to describe itself. (Araujo, Norris, Sim, "Computing receptive fields of
convolutional neural networks", 2019, sections 2 and 3, has the same recursion.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Axis:
    """Unit 0 along one axis sees pixels `first` to `last` (beyond 0: padding); unit i sees them moved by i * `step`."""

    first: int
    last: int
    step: int

    @property
    def size(self) -> int:
        """Pixels along the axis."""
        return self.last - self.first + 1

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
        """The field after a window of `kernel` units."""
        first = self.first - padding * self.step
        reach = (kernel - 1) * dilation * self.step
        return Axis(first, self.last - padding * self.step + reach, self.step * stride)

    def transposed(self, kernel: int, stride: int) -> Axis:
        """The field after a transposed convolution: ceil(kernel / stride) inputs meet in a unit."""
        inputs = -(-kernel // stride)
        return Axis(self.first - (inputs - 1) * self.step, self.last, max(1, self.step // stride))

    def whole(self, units: int) -> Axis:
        """The field of what has seen all `units` along the axis."""
        return Axis(self.first, self.last + (units - 1) * self.step, self.step)

    def united(self, other: Axis) -> Axis:
        """The field of a sum or concatenation."""
        return Axis(min(self.first, other.first), max(self.last, other.last), max(self.step, other.step))


Field = tuple[Axis, Axis]  # height, width


class Fields(TorchDispatchMode):
    """While active, notes the receptive field of every tensor made from `picture` (N, C, H, W).

    `of(tensor)` is (height, width, step) in pixels, or None for what has seen the whole map or nothing of it.
    """

    def __init__(self, picture: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        pixel = Axis(0, 0, 1)
        # The tensors are kept with their fields: an id is free again when its tensor is gone.
        self._known: dict[int, tuple[Tensor, Field, bool]] = {id(picture): (picture, (pixel, pixel), False)}

    def of(self, tensor: Tensor) -> tuple[int, int, int] | None:
        """Height and width of a unit's field and the distance of two units' fields, in pixels."""
        axes = self.axes(tensor)
        return axes and (axes[0].size, axes[1].size, max(axes[0].step, axes[1].step))

    def axes(self, tensor: Tensor) -> Field | None:
        """What its units see along the height and along the width; None as for `of`."""
        if id(tensor) not in self._known or self._known[id(tensor)][2]:
            return None
        return self._known[id(tensor)][1]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [one for arg in args for one in (arg if isinstance(arg, list | tuple) else [arg])
                  if isinstance(one, Tensor) and id(one) in self._known]  # fmt: skip
        outputs = [one for one in (result if isinstance(result, list | tuple) else [result]) if isinstance(one, Tensor)]
        if inputs and outputs:
            name = func.overloadpacket.__name__
            field, flat = self._united(inputs)
            if name in WINDOWS and not flat:
                field = WINDOWS[name](field, inputs[0], args)
            elif not flat and _collapses(inputs[0], outputs[0]):
                units = inputs[0].shape[-2:]
                field, flat = (field[0].whole(units[0]), field[1].whole(units[1])), True
            for output in outputs:
                self._known[id(output)] = (output, field, flat)
        return result

    def _united(self, inputs: list[Tensor]) -> tuple[Field, bool]:
        _, field, flat = self._known[id(inputs[0])]
        for one in inputs[1:]:
            _, other, also = self._known[id(one)]
            field, flat = (field[0].united(other[0]), field[1].united(other[1])), flat and also
        return field, flat


def _collapses(before: Tensor, after: Tensor) -> bool:
    """Whether an operation other than a window mixes the positions of a map: flattening, global pooling."""
    return before.ndim >= 3 and (after.ndim < 3 or after.shape[-2:] != before.shape[-2:])


def _pair(value: int | Sequence[int], size: int = 2) -> tuple[int, int]:
    values = [value] * size if isinstance(value, int) else list(value)
    values = values * size if len(values) == 1 else values
    return values[-2], values[-1]


def _convolution(field: Field, maps: Tensor, args: Sequence[Any]) -> Field:
    kernel, stride, padding, dilation = args[1].shape[-2:], _pair(args[3]), _pair(args[4]), _pair(args[5])
    if args[6]:
        return field[0].transposed(kernel[0], stride[0]), field[1].transposed(kernel[1], stride[1])
    rows, columns = (field[i].window(kernel[i], stride[i], padding[i], dilation[i]) for i in (0, 1))
    return rows, columns


def _pooling(field: Field, maps: Tensor, args: Sequence[Any]) -> Field:
    kernel = _pair(args[1])
    stride = _pair(args[2]) if len(args) > 2 and args[2] else kernel
    padding = _pair(args[3]) if len(args) > 3 else (0, 0)
    rows, columns = (field[i].window(kernel[i], stride[i], padding[i]) for i in (0, 1))
    return rows, columns


def _slice(field: Field, maps: Tensor, args: Sequence[Any]) -> Field:
    axis = (args[1] if len(args) > 1 else 0) % maps.ndim - (maps.ndim - 2)
    if axis < 0:
        return field
    start = args[2] if len(args) > 2 and args[2] else 0
    start = start + maps.shape[axis - 2] if start < 0 else start
    step = args[4] if len(args) > 4 else 1
    moved = [*field]
    shift = start * field[axis].step
    moved[axis] = Axis(field[axis].first + shift, field[axis].last + shift, field[axis].step * step)
    return moved[0], moved[1]


def _padding(field: Field, maps: Tensor, args: Sequence[Any]) -> Field:
    left = args[1][0]
    top = args[1][2] if len(args[1]) > 2 else 0
    rows, columns = field
    rows = Axis(rows.first - top * rows.step, rows.last - top * rows.step, rows.step)
    return rows, Axis(columns.first - left * columns.step, columns.last - left * columns.step, columns.step)


def _adaptive(field: Field, maps: Tensor, args: Sequence[Any]) -> Field:
    units, outputs = maps.shape[-2:], _pair(args[1])
    rows, columns = (
        field[i].window(-(-units[i] // outputs[i]), max(1, units[i] // outputs[i]), 0) for i in (0, 1)
    )
    return rows, columns


WINDOWS: dict[str, Callable[[Field, Tensor, Sequence[Any]], Field]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "avg_pool2d": _pooling,
    "avg_pool3d": _pooling,
    "slice": _slice,
    "constant_pad_nd": _padding,
    "_adaptive_avg_pool2d": _adaptive,
}
assert all(hasattr(torch.ops.aten, name) for name in WINDOWS), "torch has renamed an operation"
