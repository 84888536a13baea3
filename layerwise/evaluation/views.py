"""The views of a picture that a protocol asks for, made with the network's own preprocessing.

What the papers leave open about the protocols is closed here:

- ten-crop (Krizhevsky et al. 2012, sections 2 and 4.1): the corners are those of the *central square* of side
  `resize_to`, as the authors stored their pictures, not of the whole resized rectangle as later programs have it.
- multi-scale (He et al. 2015, section 3.4: "scores averaged"): each scale is shown as it is and mirrored; the logits
  are averaged over the positions of the score map, so each scale has one answer; the softmax probabilities of the ten
  answers are averaged with equal weights. A per-pixel mean has no other size than the crop's, so its mean over the
  pixels of each channel is subtracted.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from layerwise.data.preprocess import Preprocess
from layerwise.data.resize import centre_crop, resize_short_side, to_channels
from layerwise.errors import InputError
from layerwise.evaluation.protocols import Protocol

Picture = NDArray[np.uint8]


def resolved(protocol: Protocol, preprocess: Preprocess) -> Protocol:
    """The protocol with all that the preprocessing decides, as results state it.

    Raises InputError where it asks for a resized picture and the network was trained without a rule to resize, or for
    pictures smaller than the network takes.
    """
    if protocol.crops != "whole" or protocol.fully_convolutional:
        if preprocess.resize != "short-side":
            rule = "as they are (resize=none)" if preprocess.resize == "none" else f"with resize={preprocess.resize}"
            raise InputError(
                f"protocol {protocol.name} does not fit this network: it takes pictures of "
                f"{preprocess.size}x{preprocess.size} {rule}",
                f"{protocol.name} resizes the shorter side, as the networks for larger pictures are trained.",
                "Use --protocol single or --protocol mirror.",
            )
        small = [side for side in protocol.scales if side < preprocess.size]
        if small:
            raise InputError(
                f"protocol {protocol.name} does not fit this network: it takes {preprocess.size}x{preprocess.size} "
                f"pixels, and a shorter side of {small[0]} is less",
                mend="Use --protocol centre or --protocol ten-crop.",
            )
    per_pixel = preprocess.mean.shape[1] > 1
    mean = "per-pixel" if per_pixel else "per-channel" if preprocess.mean.any() else "none"
    return dataclasses.replace(
        protocol,
        resize=preprocess.resize,
        resize_to=0 if protocol.scales else preprocess.resize_to,
        size=0 if protocol.fully_convolutional else preprocess.size,
        interpolation=preprocess.interpolation,
        antialias=preprocess.interpolation != "nearest",
        exif=preprocess.exif,
        mean="per-pixel, averaged over the pixels" if per_pixel and protocol.fully_convolutional else mean,
    )


def views(protocol: Protocol, preprocess: Preprocess, image: Picture) -> list[Picture]:
    """The views of `image` (H, W, C): uint8 (h, w, channels) each, not yet normalised; mirror images come last.

    Of a fully convolutional protocol their sizes differ; else all are (size, size, channels). Raises InputError where
    the preprocessing refuses the picture.
    """
    if protocol.fully_convolutional or protocol.crops == "corners-and-centre":
        # Channels before and after, as `Preprocess.content` does it: the centre is then the same pixels.
        if image.shape[2] > preprocess.channels:
            image = to_channels(image, preprocess.channels)
        sides = protocol.scales or (preprocess.resize_to,)
        sized = [resize_short_side(image, side, preprocess.interpolation) for side in sides]
        plain = sized if protocol.fully_convolutional else _five(sized[0], preprocess.resize_to, preprocess.size)
        plain = [to_channels(view, preprocess.channels) for view in plain]
    else:
        plain = [preprocess.place(image)]
    return plain + [view[:, ::-1] for view in plain] if protocol.mirror else plain


def _five(image: Picture, side: int, size: int) -> list[Picture]:
    """Top left, top right, bottom left, bottom right of the central square of `side`; the centre as `place` cuts it."""
    square, far = centre_crop(image, side, side), side - size
    corners = [square[top:top + size, left:left + size] for top in (0, far) for left in (0, far)]
    return [*corners, centre_crop(image, size, size)]
