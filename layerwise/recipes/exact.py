"""`--exact`: the recipe whose weights are the same to the last bit on several numbers of processes, after any fault.

The numbers are those that divide the virtual workers into powers of two: 1, 2, 4 or 8 of 8 (1, 2 or 4 of 4).

Its price is measured by benchmarks/exact.py, which keeps what it found in results/benchmarks/exact.json.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from layerwise.errors import InputError
from layerwise.recipe import Recipe

WORKERS = (8, 4, 2)
MEASURED = Path(__file__).parents[2] / "results" / "benchmarks" / "exact.json"


def made_exact(recipe: Recipe) -> Recipe:
    """`recipe` with virtual workers and one thread a process; the number of workers that it has is kept.

    Eight workers, or four or two where only those divide the batch, each with two pictures at least. Raises InputError
    with all that can't be exact.
    """
    problems = []
    if not recipe.deterministic:
        problems.append("deterministic=False: equal runs may differ")
    if recipe.threads not in (0, 1):
        problems.append(f"threads={recipe.threads}: the order of a sum depends on it, so each process has one")
    if recipe.compile in ("yes", "norm"):
        problems.append(f"compile={recipe.compile}: the compiler chooses the order of sums on each machine")
    if recipe.device == "mps":
        problems.append("device=mps: it promises no order of sums")
    if recipe.batch_size < 4 and not recipe.virtual_workers:
        problems.append(f"batch_size={recipe.batch_size}: at least two workers with two pictures each are needed")
    if problems:
        raise InputError(f"--exact: recipe {recipe.name!r} can't be exact", "",
                         "Change them with --set, or leave --exact out.", problems)
    large = [count for count in WORKERS if recipe.batch_size >= 2 * count]
    chosen = recipe.virtual_workers or next((count for count in large if recipe.batch_size % count == 0), large[0])
    return dataclasses.replace(recipe, virtual_workers=chosen, threads=1)


def price(network: str, machine: str) -> str:
    """What exactness costs of `network` on the processor `machine`, in words; or where it is measured."""
    try:
        found = json.loads(MEASURED.read_text("utf-8"))
        costs = {row["network"]: float(row["ratio"]) for row in found["rows"]} if found["machine"] == machine else {}
    except (OSError, ValueError, KeyError, TypeError):
        costs = {}
    if not costs:
        return "what it costs on this machine is measured by benchmarks/exact.py"
    if network in costs:
        return f"costs about {costs[network]:.2f}x the time of a step, measured by benchmarks/exact.py"
    return (f"costs about {min(costs.values()):.2f}x to {max(costs.values()):.2f}x the time of a step "
            f"({', '.join(costs)}), measured by benchmarks/exact.py")
