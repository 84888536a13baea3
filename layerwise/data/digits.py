"""Handwritten digits that come with scikit-learn: 1,797 grey pictures of 8 x 8, the test set of UCI's `optdigits`.

The split is fixed: every picture whose index i in scikit-learn's order has i mod 5 = 4 is for testing (359 pictures),
the other 1,438 are for training. Values 0..16 become round(v * 255 / 16).
"""

from __future__ import annotations

import numpy as np

from layerwise.data.source import DataSet, Samples

LICENCE = "CC BY 4.0 (Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI)"


def open_digits() -> DataSet:
    """The 1,438 training and 359 test pictures, (8, 8, 1) uint8."""
    from sklearn.datasets import load_digits  # slow to import, needed here only

    bunch = load_digits()
    images = np.rint(bunch.images * 255 / 16).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    indices = np.arange(len(labels))
    ids = tuple(f"digits/{index}" for index in indices)
    whole = Samples("all", tuple("0123456789"), labels, ids, images)
    train = whole.subset(np.flatnonzero(indices % 5 != 4), "train")
    test = whole.subset(np.flatnonzero(indices % 5 == 4), "test")
    return DataSet("digits", train, None, test, ("test: every fifth picture (index mod 5 = 4)",), LICENCE)
