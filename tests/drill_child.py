"""A process of a drill with a guard taken out: random numbers depend on how many it drew, as a carried generator's."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a file, from any folder

from faults.fork_server import carry_the_random_state
from layerwise.jobs.drill import child

if __name__ == "__main__":
    carry_the_random_state()
    sys.exit(child(sys.argv[1]))
