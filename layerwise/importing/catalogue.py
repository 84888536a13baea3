"""Which of our networks has weights elsewhere: the source, its name there, its table of names, its preprocessing."""

from __future__ import annotations

from dataclasses import dataclass

from layerwise.errors import InputError, nearest
from layerwise.importing import from_efficientnet, from_timm, from_torchvision, preprocessing
from layerwise.importing.preprocessing import View
from layerwise.importing.tables import Table

TORCHVISION, TIMM, EFFICIENTNET = "torchvision", "timm", "efficientnet-pytorch"
SOURCES = (TORCHVISION, TIMM, EFFICIENTNET)


@dataclass(frozen=True)
class Origin:
    """A network of another library that is one of ours: with the same weights both answer the same."""

    source: str
    name: str
    table: Table
    view: View


def _both(table: Table, view: View, timm_view: View, names: dict[str, str]) -> dict[str, tuple[Origin, ...]]:
    """Networks that torchvision and timm have under one name with the same entries: our name to theirs."""
    return {ours: (Origin(TORCHVISION, theirs, table, view), Origin(TIMM, theirs, table, timm_view))
            for ours, theirs in names.items()}  # fmt: skip


def _torchvision(name: str, table: Table, view: View = preprocessing.TORCHVISION) -> tuple[Origin, ...]:
    return (Origin(TORCHVISION, name, table, view),)


def _timm(name: str, table: Table, view: View) -> tuple[Origin, ...]:
    return (Origin(TIMM, name, table, view),)


ORIGINS: dict[str, tuple[Origin, ...]] = {
    "alexnet_one_tower": _torchvision("alexnet", from_torchvision.ALEXNET),
    **{name: _torchvision(name, table) for name, table in from_torchvision.VGG.items()},
    "googlenet_3x3": _torchvision("googlenet", from_torchvision.GOOGLENET, preprocessing.TORCHVISION_GOOGLENET),
    **_both(from_torchvision.INCEPTION_V3, preprocessing.TORCHVISION_INCEPTION, preprocessing.TIMM_INCEPTION_V4,
            {"inception_v3": "inception_v3"}),
    "inception_v4": _timm("inception_v4", from_timm.INCEPTION_V4, preprocessing.TIMM_INCEPTION_V4),
    "inception_resnet_v2": _timm("inception_resnet_v2", from_timm.INCEPTION_RESNET_V2,
                                 preprocessing.TIMM_INCEPTION_RESNET),
    "xception": _timm("legacy_xception", from_timm.XCEPTION, preprocessing.TIMM_XCEPTION),
    **_both(from_torchvision.RESNET, preprocessing.TORCHVISION, preprocessing.TIMM_RESNET,
            {"resnet18": "resnet18", "resnet34": "resnet34", "resnet50_v1_5": "resnet50",
             "resnet101_v1_5": "resnet101", "resnet152_v1_5": "resnet152",
             **{name: name for name in ("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2",
                                        "wide_resnet101_2")}}),
    # The only weights of this one are of torchvision's second recipe.
    **_both(from_torchvision.RESNET, preprocessing.TORCHVISION_SECOND, preprocessing.TIMM_RESNET,
            {"resnext101_64x4d": "resnext101_64x4d"}),
    **_both(from_torchvision.DENSENET, preprocessing.TORCHVISION, preprocessing.TIMM_USUAL,
            {name: name for name in ("densenet121", "densenet161", "densenet169", "densenet201")}),
    "mobilenet_100_relu6": _timm("mobilenetv1_100", from_timm.MOBILENET, preprocessing.TIMM_MOBILE_V1),
    **{ours: (*_torchvision("mobilenet_v2", from_torchvision.MOBILENET_V2),
              *_timm("mobilenetv2_100", from_timm.MOBILENET_V2, preprocessing.TIMM_USUAL))
       for ours in ("mobilenet_v2", "mobilenet_v2_100")},
    **{f"mobilenet_v2_{width}": _timm(f"mobilenetv2_{width}", from_timm.MOBILENET_V2, preprocessing.TIMM_USUAL)
       for width in ("050", "140")},
    "efficientnet_lite0": (
        Origin(EFFICIENTNET, "efficientnet-lite0", from_efficientnet.LITE0, preprocessing.EFFICIENTNET_LITE),
    ),
    "nasnet_large": _timm("nasnetalarge", from_timm.NASNET, preprocessing.TIMM_NASNET),
}  # fmt: skip

# Names that others use for another network than ours of the same name: (ours that it is, why).
OTHERWISE_NAMED = {
    "alexnet": ("alexnet_one_tower", "The paper's network has two towers with response normalisation; the file's of "
                                     "this name has one tower without."),
    "googlenet": ("googlenet_3x3", "The paper's third branch has a 5x5 convolution and no batch normalisation; the "
                                   "file's of this name has a 3x3 with it."),
    **dict.fromkeys(("mobilenet", "mobilenet_100"),
                    ("mobilenet_100_relu6", "The paper's network has ReLU, the file's of this name ReLU6.")),
    **{f"resnet{depth}": (f"resnet{depth}_v1_5", "The paper strides in a block's first 1x1 convolution; the file's "
                                                 "network of this name in the 3x3. The entries look the same, the "
                                                 "answers would be wrong.") for depth in (50, 101, 152)},
}  # fmt: skip


def origins(name: str, source: str = "auto") -> tuple[Origin, ...]:
    """The networks of other libraries (of `source` alone where it is named) whose weights are ours of `name`.

    Raises InputError where there are none, with the name that is meant.
    """
    if source not in (*SOURCES, "auto"):
        raise InputError(f"--source {source}: no such source{nearest(source, SOURCES)}",
                         mend=f"It is {', '.join(SOURCES)} or auto.")
    if name in OTHERWISE_NAMED:
        meant, why = OTHERWISE_NAMED[name]
        raise InputError(f"--as {name}: no other library has weights for the network of the paper", why,
                         f"Use --as {meant}.")
    found = ORIGINS.get(name, ())
    if not found:
        raise InputError(f"--as {name}: no network that can be imported{nearest(name, ORIGINS)}",
                         mend=f"These can: {', '.join(ORIGINS)}.")
    of_source = tuple(origin for origin in found if source in ("auto", origin.source))
    if not of_source:
        raise InputError(f"--as {name}: {source} has no such network",
                         mend=f"It is imported from {' or '.join(origin.source for origin in found)}.")
    return of_source
