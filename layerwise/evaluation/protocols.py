"""How pictures are shown to a network when it is tested: a number is nothing without it.

A `Protocol` of the table `PROTOCOLS` leaves to the network's preprocessing what that alone knows (sizes,
interpolation); `views.resolved` fills it in, and every result carries the resolved protocol.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerwise.errors import InputError, nearest

AS_TRAINED = "as-trained"
AVERAGES = ("softmax", "logits")
CROPS = ("whole", "centre", "corners-and-centre")


@dataclass(frozen=True)
class Protocol:
    """How one picture becomes views of it, and how the answers to the views become one answer.

    `resize` is the preprocessing's rule (none, short-side, squash, letterbox); `resize_to` its shorter side and `size`
    the side of a crop, in pixels, 0 where the network does not say yet; `scales` the shorter sides of whole-picture
    views; `crops` is whole, centre, or corners-and-centre; `mirror` adds each view's mirror image; `averaging` is of
    softmax probabilities or of logits.
    """

    name: str
    description: str
    resize: str = AS_TRAINED
    resize_to: int = 0
    size: int = 0
    interpolation: str = AS_TRAINED
    antialias: bool = True
    scales: tuple[int, ...] = ()
    crops: str = "whole"
    mirror: bool = False
    averaging: str = "softmax"
    fully_convolutional: bool = False
    exif: str = AS_TRAINED
    mean: str = AS_TRAINED

    @property
    def views(self) -> int:
        """How many views one picture has."""
        return (5 if self.crops == "corners-and-centre" else max(1, len(self.scales))) * (2 if self.mirror else 1)

    def to_json(self) -> dict[str, Any]:
        """The fields, with `scales` as a list."""
        return dataclasses.asdict(self) | {"scales": list(self.scales)}

    @staticmethod
    def from_json(record: object, source: str) -> Protocol:
        """Reads what `to_json` wrote; raises InputError with every problem, as in a result without its protocol."""
        why = "A number without its protocol can't be compared with any other."
        if not isinstance(record, Mapping) or not record:
            raise InputError(f"{source}: the protocol is missing", why, "Evaluate the model again.")
        fields = {field.name: field for field in dataclasses.fields(Protocol)}
        problems = [f"protocol.{name}: missing" for name in fields if name not in record]
        problems += [f"protocol.{name}: not a field of a protocol{nearest(str(name), fields)}"
                     for name in record if name not in fields]
        for name, value in record.items():
            kinds = {"str": str, "bool": bool, "int": int, "tuple[int, ...]": list}
            kind = kinds[str(fields[name].type)] if name in fields else object
            right = isinstance(value, object) if kind is object else type(value) is kind
            if right and kind is list:
                right = all(type(each) is int for each in value)
            if not right:
                problems.append(f"protocol.{name}: {value!r} is not a {kind.__name__}")
        if not problems:
            problems += [f"protocol.{name}: {record[name]!r} is not one of {', '.join(allowed)}"
                         for name, allowed in (("averaging", AVERAGES), ("crops", CROPS))
                         if record[name] not in allowed]
        if problems:
            raise InputError(f"{source}: its protocol is not as it must be", why, "Evaluate the model again.", problems)
        return Protocol(**{**record, "scales": tuple(record["scales"])})


_ALL = (
    Protocol("single", "each picture once, as the network's preprocessing places it"),
    Protocol("mirror", "each picture as the preprocessing places it, and its mirror image", mirror=True),
    Protocol("centre", "the shorter side resized as in training, the centre cropped (the curves of He et al. "
                       "2015, figure 4)", crops="centre"),
    Protocol("ten-crop", "the shorter side resized, of the central square the four corners and the centre, and their "
                         "mirror images (Krizhevsky et al. 2012, section 4.1)",
             crops="corners-and-centre", mirror=True),
    Protocol("multi-scale", "the whole picture at five shorter sides through the fully convolutional network, and its "
                            "mirror image; logits averaged over positions, probabilities over scales and mirror images "
                            "(He et al. 2015, section 3.4)",
             scales=(224, 256, 384, 480, 640), mirror=True, fully_convolutional=True),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def protocol_named(name: str) -> Protocol:
    """The protocol called `name`. Raises InputError with the nearest names."""
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r}: there is no such protocol{nearest(name, PROTOCOLS)}",
                         "The protocol is part of the number.", f"Choose one of: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
