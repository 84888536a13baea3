"""Fully connected layers of a hundred million weights, made without filling them twice."""

from __future__ import annotations

import torch
from torch import nn


def unfilled_linear(in_features: int, out_features: int) -> nn.Linear:
    """nn.Linear whose weights and biases hold no numbers yet: the network's own rule must fill them.

    nn.Linear fills its weights when it is made, which for AlexNet's and VGG's takes as long as all else. Made on the
    default device, in the default dtype.
    """
    layer = nn.utils.skip_init(nn.Linear, in_features, out_features, device=torch.get_default_device())
    assert isinstance(layer, nn.Linear)
    return layer
