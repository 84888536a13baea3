"""The sources' preprocessing as data, and as a `Preprocess` for our model file.

All resize the shorter side and crop the centre. Ours rounds the longer side half up and leaves an odd pixel of the
crop at the bottom and right; torchvision and timm cut off or round otherwise, so that a crop may lie one pixel aside.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.data.preprocess import Preprocess
from layerwise.data.resize import INTERPOLATIONS
from layerwise.errors import InputError

Colours = tuple[float, float, float]

IMAGENET_MEAN: Colours = (0.485, 0.456, 0.406)
IMAGENET_STD: Colours = (0.229, 0.224, 0.225)
HALF: Colours = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class View:
    """What a source does to a picture: shorter side to `resize_to`, centre crop of `size`, (x / 255 - mean) / std."""

    resize_to: int
    size: int
    interpolation: str = "bilinear"
    mean: Colours = IMAGENET_MEAN
    std: Colours = IMAGENET_STD

    def preprocess(self) -> Preprocess:
        """The same for RGB pictures, as a model file holds it; EXIF's orientation is applied."""
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        return Preprocess(3, self.size, "short-side", self.resize_to, self.interpolation, "apply", mean, std)

    def __str__(self) -> str:
        colours = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        mean, std = colours
        return (f"shorter side to {self.resize_to} ({self.interpolation}), centre {self.size}x{self.size}, "
                f"mean {mean}, deviation {std}")


def fraction(size: int, crop: float, interpolation: str, mean: Colours, std: Colours) -> View:
    """timm's way of saying it: the crop is the part `crop` of the resized side, which is rounded down."""
    return View(math.floor(size / crop), size, interpolation, mean, std)


# torchvision's evaluation transforms.
TORCHVISION = View(256, 224)
TORCHVISION_SECOND = replace(TORCHVISION, resize_to=232)
# Its googlenet and inception_v3 take pictures normalised as all others and, made with weights, undo that within the
# network: ((x - 0.485) / 0.229) * (0.229 / 0.5) + (0.485 - 0.5) / 0.5 = (x - 0.5) / 0.5, and so for green and blue.
TORCHVISION_GOOGLENET = replace(TORCHVISION, mean=HALF, std=HALF)
TORCHVISION_INCEPTION = View(342, 299, mean=HALF, std=HALF)

# timm's defaults of the weights that bear a network's bare name; a config.json beside the file says it of the file.
TIMM_RESNET = fraction(224, 0.95, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
TIMM_USUAL = fraction(224, 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
TIMM_MOBILE_V1 = fraction(224, 0.875, "bicubic", HALF, HALF)
TIMM_XCEPTION = fraction(299, 0.8975, "bicubic", HALF, HALF)
TIMM_INCEPTION_V4 = fraction(299, 0.875, "bicubic", HALF, HALF)
TIMM_INCEPTION_RESNET = fraction(299, 0.8975, "bicubic", HALF, HALF)
TIMM_NASNET = fraction(331, 0.911, "bicubic", HALF, HALF)

# EfficientNet-PyTorch's Lite0: (x - 127) / 128 of values from 0 to 255.
EFFICIENTNET_LITE = View(256, 224, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)

# torchvision's second weights of a network, by the first digits of the file's SHA-256, which its name also has: they
# were measured with the shorter side at 232 pixels.
SECOND_WEIGHTS = ("11ad3fa6", "cd907fc2", "f82ba261", "1a0047aa", "110c445d", "173b62eb", "9ba9bcbe", "d733dc28",
                  "7ebf99e0")  # fmt: skip

CONFIG = "config.json"
_KEY = "pretrained_cfg"


def described_beside(path: Path) -> View | None:
    """What timm's config.json in the same folder says of the weights; None where there is none of timm's.

    Raises InputError with all that can't be used in it.
    """
    file = path.with_name(CONFIG)
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error})", "It lies beside the weights and should describe them.",
                         "Move it away, or copy it again.") from None
    found = config.get(_KEY) if isinstance(config, dict) else None
    if not isinstance(found, dict):
        return None
    problems = _problems(found)
    if problems:
        raise InputError(f"{file}: the preprocessing in it can't be used", "It would change every answer.",
                         "Move it away to take timm's default of the network.", problems)
    size, mean, std = found["input_size"][1], tuple(found["mean"]), tuple(found["std"])
    return fraction(size, found["crop_pct"], found["interpolation"], mean, std)


def _problems(found: dict[str, Any]) -> list[str]:
    size, crop, way = found.get("input_size"), found.get("crop_pct"), found.get("interpolation")
    problems = []
    if not (isinstance(size, list) and len(size) == 3 and size[0] == 3 and size[1] == size[2]
            and isinstance(size[1], int) and 1 <= size[1] <= 4096):
        problems.append(f"input_size is {size!r}; expected [3, side, side]")
    if not (isinstance(crop, int | float) and 0.1 <= crop <= 1):
        problems.append(f"crop_pct is {crop!r}; expected a number from 0.1 to 1")
    if way not in INTERPOLATIONS:
        problems.append(f"interpolation is {way!r}; expected one of {', '.join(INTERPOLATIONS)}")
    if found.get("crop_mode", "center") != "center":
        problems.append(f"crop_mode is {found['crop_mode']!r}; expected 'center'")
    for name, low in (("mean", -1e-9), ("std", 1e-9)):
        values = found.get(name)
        if not (isinstance(values, list) and len(values) == 3
                and all(isinstance(value, int | float) and low <= value <= 1 for value in values)):
            problems.append(f"{name} is {values!r}; expected three numbers from 0 to 1")
    return problems
