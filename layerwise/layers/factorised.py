"""Spatial factorisation into asymmetric convolutions (Szegedy et al. 2016, section 3.2)."""

from __future__ import annotations

from torch import nn


def factorised_convolution(in_channels: int, out_channels: int, size: int) -> nn.Sequential:
    """An n x 1, then a 1 x n convolution (children `vertical`, `horizontal`) in the place of an n x n one.

    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016, "Rethinking the inception architecture", section 3.2 and figure 3:
    for as many maps before as after it costs 2/n of the n x n convolution, a third less for n = 3. Padded by half
    their length, so n is odd; the first has no bias, which the second's holds. Input (N, in_channels, H, W), output
    (N, out_channels, H, W).
    """
    assert size % 2 == 1, "a kernel of an even size has no centre"
    layers = nn.Sequential()
    layers.add_module("vertical", nn.Conv2d(in_channels, out_channels, (size, 1), padding=(size // 2, 0), bias=False))
    layers.add_module("horizontal", nn.Conv2d(out_channels, out_channels, (1, size), padding=(0, size // 2)))
    return layers
