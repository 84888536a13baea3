"""Sources of pictures: `open_data` finds and opens a data set, `open_image` opens one picture."""

from layerwise.data.download import fetch
from layerwise.data.images import ImageFacts, ImageRules, open_image
from layerwise.data.opening import DataOptions, open_data
from layerwise.data.source import DataSet, Samples
from layerwise.data.splits import hold_out

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
