"""Which of our networks has weights elsewhere: the source, its name there, its table of names, its preprocessing."""

from __future__ import annotations

from dataclasses import dataclass

from layerwise.errors import InputError, nearest
from layerwise.importing import from_torchvision, preprocessing
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


def _resnets() -> dict[str, tuple[Origin, ...]]:
    theirs = {"resnet18": "resnet18", "resnet34": "resnet34", "resnet50_v1_5": "resnet50",
              "resnet101_v1_5": "resnet101", "resnet152_v1_5": "resnet152"}  # fmt: skip
    return {ours: (Origin(TORCHVISION, name, from_torchvision.RESNET, preprocessing.TORCHVISION),
                   Origin(TIMM, name, from_torchvision.RESNET, preprocessing.TIMM_RESNET))
            for ours, name in theirs.items()}  # fmt: skip


ORIGINS: dict[str, tuple[Origin, ...]] = {
    "alexnet_one_tower": (
        Origin(TORCHVISION, "alexnet", from_torchvision.ALEXNET, preprocessing.TORCHVISION),
    ),
    **{name: (Origin(TORCHVISION, name, table, preprocessing.TORCHVISION),)
       for name, table in from_torchvision.VGG.items()},
    **_resnets(),
}  # fmt: skip

# Names that others use for another network than ours of the same name: (ours that it is, why).
OTHERWISE_NAMED = {
    "alexnet": ("alexnet_one_tower", "The paper's network has two towers with response normalisation; the file's of "
                                     "this name has one tower without."),
    "googlenet": ("googlenet_3x3", "The paper's third branch has a 5x5 convolution and no batch normalisation; the "
                                   "file's of this name has a 3x3 with it."),
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
