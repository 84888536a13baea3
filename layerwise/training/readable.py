"""Validation pictures that can't be read any more: counted, told, and no more than a training may lose of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from layerwise.data.loader import MOST_BAD
from layerwise.errors import InputError


def readable(batches: Iterable[dict[str, Any]], pictures: int, unread: list[str]) -> Iterator[dict[str, Any]]:
    """Those of `batches` that have a picture; the ids of all that can't be read are added to `unread`.

    Raises InputError, when all were tried, where these are more than 1 % of the `pictures`.
    """
    for batch in batches:
        unread += batch["bad"]
        if len(batch["label"]) and len(unread) <= MOST_BAD * pictures:
            yield batch
    if len(unread) > MOST_BAD * pictures:
        raise InputError(
            f"{len(unread)} of the {pictures} validation pictures cannot be read any more",
            "With more than 1 % left out the error would be another split's; it steers rate and selection.",
            "Check that the files are still there, then resume the run.",
            unread,
        )
