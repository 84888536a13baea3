"""Sources of pictures: `open_data` finds and opens a data set, `open_image` opens one picture.

Each name is imported when it is first used: who only opens a picture to name it needs no downloads, shards and tars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerwise.data.download import fetch as fetch
    from layerwise.data.images import ImageFacts as ImageFacts
    from layerwise.data.images import ImageRules as ImageRules
    from layerwise.data.images import open_image as open_image
    from layerwise.data.opening import DataOptions as DataOptions
    from layerwise.data.opening import open_data as open_data
    from layerwise.data.source import DataSet as DataSet
    from layerwise.data.source import Samples as Samples
    from layerwise.data.splits import hold_out as hold_out

__all__ = [
    "DataOptions",
    "DataSet",
    "ImageFacts",
    "ImageRules",
    "Samples",
    "fetch",
    "hold_out",
    "open_data",
    "open_image",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'layerwise.data' has no attribute {name!r}")
    if name == "fetch":
        from layerwise.data.download import fetch
        return fetch
    if name == "hold_out":
        from layerwise.data.splits import hold_out
        return hold_out
    if name in ("DataOptions", "open_data"):
        from layerwise.data import opening
        return getattr(opening, name)
    if name in ("DataSet", "Samples"):
        from layerwise.data import source
        return getattr(source, name)
    from layerwise.data import images
    return getattr(images, name)
