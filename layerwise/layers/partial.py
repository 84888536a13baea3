"""Convolution in which each output map sees only some input maps (LeCun et al. 1989, 1990 and 1998)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PartialConv2d(nn.Module):
    """Convolution after a table of connections (LeCun et al. 1998, table I): `table[o]` lists the inputs of map o.

    `weight` holds one kernel for each connection and nothing for the missing ones, in the order of the table:
    (connections, kernel_size, kernel_size). Input (N, in_channels, H, W), output (N, len(table), H', W').
    """

    outputs: Tensor
    inputs: Tensor

    def __init__(
        self,
        in_channels: int,
        table: Sequence[Sequence[int]],
        kernel_size: int,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        pairs = [(o, i) for o, row in enumerate(table) for i in row]
        assert all(0 <= i < in_channels for _, i in pairs), "the table names an input map that does not exist"
        assert len(set(pairs)) == len(pairs), "the table names a connection twice"
        self.table = tuple(tuple(row) for row in table)
        self.in_channels, self.out_channels, self.stride = in_channels, len(table), stride
        self.kernel_size = (kernel_size, kernel_size)
        self.register_buffer("outputs", torch.tensor([o for o, _ in pairs]), persistent=False)
        self.register_buffer("inputs", torch.tensor([i for _, i in pairs]), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(len(table))) if bias else None
        for kernels in self.kernels():
            nn.init.normal_(kernels, std=kernels.numel() ** -0.5)

    def kernels(self) -> tuple[Tensor, ...]:
        """For each output map its kernels, (connections, k, k), as views of the weight without a gradient."""
        return torch.split(self.weight.detach(), [len(row) for row in self.table])

    def full_weight(self) -> Tensor:
        """The same convolution's kernels with zeros for the missing connections, (out, in, k, k)."""
        full = self.weight.new_zeros(self.out_channels, self.in_channels, *self.kernel_size)
        return full.index_put((self.outputs, self.inputs), self.weight)

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.full_weight(), self.bias, self.stride)

    def extra_repr(self) -> str:
        connections = len(self.weight)
        return f"{self.in_channels}, {self.out_channels}, {connections} connections, {self.kernel_size}, {self.stride}"
