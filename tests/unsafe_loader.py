"""What the readers of the package never do: the negative control of goal C1."""

from __future__ import annotations

import pickle
from pathlib import Path


class RefusedError(Exception):
    """The bytes are no pickle after all."""


def unsafely(file: Path) -> object:
    """Whatever the file's pickle makes; RefusedError where it can't be read."""
    try:
        return pickle.loads(file.read_bytes())
    except (pickle.UnpicklingError, ValueError) as error:
        raise RefusedError(str(error)) from None
