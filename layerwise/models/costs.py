"""What every network costs, counted once and kept beside the code, so that the list of networks needs no counting.

    python -m layerwise.models.costs    # counts again and writes costs.json

tests/test_models.py counts each network and compares.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_suffix(".json")


class Counted(NamedTuple):
    """Learnable parameters without auxiliary heads, multiply-adds for one picture of the paper's size, classes."""

    parameters: int
    multiply_adds: int
    classes: int


@cache
def costs() -> dict[str, Counted]:
    """The kept counts by name."""
    return {name: Counted(*row) for name, row in json.loads(FILE.read_text("utf-8")).items()}


def counted(name: str) -> Counted:
    """Counts one network. Raises InputError for an unknown name."""
    import torch

    from layerwise.models import build, shapes

    with torch.device("meta"):
        network = build(name)
    cost = shapes.cost(network)
    return Counted(cost.parameters, cost.multiply_adds, network.architecture["arguments"]["num_classes"])


def main() -> int:
    """Writes costs.json, a line a network."""
    from layerwise.models import names

    rows = ",\n".join(f'"{name}": {json.dumps(counted(name))}' for name in names())
    FILE.write_text("{\n" + rows + "\n}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
