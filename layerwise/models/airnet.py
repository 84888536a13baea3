"""AirNet: the plain network of the CIFAR-10 speed runs, a few wide stages behind a whitening first layer.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498), sections 2 and 3, and its code,
cifar10-airbench; it grew out of the networks of Page ("How to train your ResNet", 2018) and of hlb-CIFAR10. `airnet`
and `airnet95` are the networks of its runs to 94 and 95 % on CIFAR-10.

Deviations from the source: the last pooling is over the whole map, so that pictures of other sizes fit (at 32x32 and
28x28, where the source's 3x3 window is the whole map, the two are the same); epsilon of the batch normalisation is
1e-5 for the source's 1e-12, which belongs to its half precision. What the source does to the first layer with its data
is a recipe's: with whiten=first the layer whitens the training pictures and stays so; else it learns from a random
start. `airnet_narrow` is not the source's: the same layers, as narrow as 28x28 grey pictures allow on a processor.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from layerwise.layers.repeatable import AdaptiveMaxPool2d
from layerwise.models.network import Network, Paper, Reported, named

FORGETTING = 0.4  # torch's momentum of the running statistics: the source keeps 0.6 of the old
LOGIT_SCALE = 1 / 9


class ShiftNorm(nn.BatchNorm2d):
    """Batch normalisation that learns a shift and no scale (section 3): (N, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=FORGETTING)
        # A fixed scale of 1, in no state: torch's second derivative without any scale leaves the shift out.
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)

    def reset_parameters(self) -> None:
        """Statistics of mean 0 and variance 1; the shift at 0."""
        self.reset_running_stats()
        nn.init.zeros_(self.bias)


class Scaled(nn.Module):
    """Logits times a constant: without it large logits would saturate the loss at the start (section 3)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:g}"


def dirac_convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution without bias whose first `in_channels` maps start as copies of its input (section 3.2).

    The others start as torch fills them: uniform within the inverse root of the inputs.
    """
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:in_channels])
    return conv


def stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Convolution, maximum over 2x2, normalisation, GELU; then convolution, normalisation, GELU at half the side."""
    return named({
        "conv1": dirac_convolution(in_channels, out_channels), "pool": nn.MaxPool2d(2), "bn1": ShiftNorm(out_channels),
        "gelu1": nn.GELU(), "conv2": dirac_convolution(out_channels, out_channels), "bn2": ShiftNorm(out_channels),
        "gelu2": nn.GELU(),
    })  # fmt: skip


class AirNet(Network):
    """Whitening over patches, three stages, global maximum, logits / 9; pictures (N, C, H, W) from 9x9 on."""

    def __init__(
        self, patch: int, num_classes: int = 10, in_channels: int = 3, widths: tuple[int, int, int] = (64, 256, 256)
    ) -> None:
        """`patch` is the side of the whitened patches; each of their directions is there twice, with both signs."""
        whitened = 2 * in_channels * patch**2
        features: dict[str, nn.Module] = {
            "whiten": nn.Conv2d(in_channels, whitened, patch),
            "gelu": nn.GELU(),
        }
        before = whitened
        for number, width in enumerate(widths, 1):
            features[f"stage{number}"] = stage(before, width)
            before = width
        head: dict[str, nn.Module] = {
            "pool": AdaptiveMaxPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(before, num_classes, bias=False),
            "scale": Scaled(LOGIT_SCALE),
        }
        super().__init__(features, head)


VARIANTS = {
    "airnet": partial(AirNet, 2),
    "airnet95": partial(AirNet, 2, widths=(128, 384, 384)),
    # not the source's
    "airnet_narrow": partial(AirNet, 2, in_channels=1, widths=(32, 64, 128)),
}
INPUTS = {"airnet": (3, 32, 32), "airnet95": (3, 32, 32), "airnet_narrow": (1, 28, 28)}
FOR_SMALL_PICTURES: dict[str, str] = {}
PAPERS = dict.fromkeys(VARIANTS, Paper("Jordan", 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", "chain"))
REPORTED = {
    "airnet": (Reported(5.99, "top-1, mean of 1,000 runs, six views", "CIFAR-10 test", "the code's table"),),
}
