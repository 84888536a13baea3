"""A process of a drill with a guard taken out: random numbers depend on how many it drew, as a carried generator's."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from layerwise import randomness
from layerwise.jobs.drill import child


def carry_the_random_state() -> None:
    """What is drawn depends on how many were drawn by this process before."""
    bits, drawn = randomness.random_bits, [0]

    def carried(seed: int, *arguments: Any, **named: Any) -> np.ndarray[Any, Any]:
        drawn[0] += 1
        return bits(seed + drawn[0], *arguments, **named)

    randomness.random_bits = carried


if __name__ == "__main__":
    carry_the_random_state()
    sys.exit(child(sys.argv[1]))
