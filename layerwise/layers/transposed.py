"""Transposed convolution as multiplication by the transpose of an explicit matrix (Long et al. 2015; Zeiler 2010)."""

from __future__ import annotations

from torch import Tensor


def convolution_matrix(weight: Tensor, input_shape: tuple[int, int, int], stride: int = 1, padding: int = 0) -> Tensor:
    """The matrix C with conv2d(x) = C x, for x of `input_shape` (C, H, W) in a row: (out * H' * W', C * H * W).

    A transposed convolution with the same `weight` (out, C, k, k) is y -> C^T y (Dumoulin & Visin 2016, section 4.1;
    "backwards strided convolution" in Long, Shelhamer, Darrell 2015, section 3.3), and so is the gradient of the
    convolution by its input. For tests and small maps: most of it is zeros. Differentiable by `weight`.
    """
    channels, height, width = input_shape
    out_channels, in_channels, rows, columns = weight.shape
    assert in_channels == channels, "the kernels are made for another number of maps"
    down, across = (height + 2 * padding - rows) // stride + 1, (width + 2 * padding - columns) // stride + 1
    matrix = weight.new_zeros(out_channels, down, across, channels, height, width)
    for i in range(down):
        for j in range(across):
            top, left = i * stride - padding, j * stride - padding
            bottom, right = min(top + rows, height), min(left + columns, width)
            first, start = max(top, 0), max(left, 0)
            part = weight[:, :, first - top : bottom - top, start - left : right - left]
            matrix[:, i, j, :, first:bottom, start:right] = part
    return matrix.flatten(3).flatten(0, 2)
