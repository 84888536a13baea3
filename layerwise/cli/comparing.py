"""The commands that set one number beside another: compare, why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from layerwise.cli.app import Json
from layerwise.cli.tables import print_json, print_table
from layerwise.console import interval, note, out, percent

if TYPE_CHECKING:
    from layerwise.evaluation.difference import Difference

# Numbers whose unit is not a fraction.
PLAIN = ("loss", "brier", "calibration_error", "macro_f1", "weighted_f1")


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (compare,):
        app.command(command.__name__)(command)


def compare(
    sides: Annotated[list[str], typer.Argument(metavar="A B [...]", help="Evaluations, runs, folders with seed0, "
                                               "seed1, ..., or several runs joined by commas.", show_default=False)],
    over: Annotated[str, typer.Option(metavar="images|seeds", help="What is drawn at random; auto: images where each "
                                      "side is one evaluation.")] = "auto",
    pairing: Annotated[str, typer.Option(metavar="welch|paired", help="The test over seeds; auto: paired where each "
                                         "seed drew its own test pictures.")] = "auto",
    seed: Annotated[int, typer.Option(help="The seed of the bootstrap.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Compares evaluations on the same images, or runs over seeds; what is inside the noise is not marked."""
    from layerwise.jobs.compare import compare_all

    found = compare_all(sides, over, pairing, seed)
    if as_json:
        return print_json(found.to_json())
    print_table(("side", "runs", "error", "protocol"), [
        (side.name, len(side.seeds), _mean(side.values("error")), side.seeds[0].protocol) for side in found.sides])
    for pair in found.pairs:
        out(f"\n{pair.a} (A) and {pair.b} (B): {pair.test}")
        if pair.images:
            out(f"only A right {pair.only_a_right:,}, only B right {pair.only_b_right:,} of {pair.images:,} images")
        print_table(("number", "A", "B", "B - A", "95 % interval", "p", "better"),
                    [_cells(one) for one in pair.numbers])
        out(f"difference of the errors {percent(pair.difference)}, 95 % interval {interval(pair.interval)}")
        out(pair.verdict)
    note(f"over {found.over}: {found.why}")
    for line in found.notes:
        note(f"note: {line}")
    return None


def _mean(values: list[float]) -> str:
    from statistics import fmean, stdev

    return percent(fmean(values)) + (f" ± {percent(stdev(values))}" if len(values) > 1 else "")


def _cells(one: Difference) -> tuple[object, ...]:
    """A row of a pair's table; the better side is named only where the difference is beyond the noise."""
    told = (lambda value: f"{value:.4f}") if one.name in PLAIN else percent
    bounds = "-" if one.interval is None else f"{told(one.interval[0])} to {told(one.interval[1])}"
    p = one.p if one.adjusted is None else one.adjusted
    return (one.name.replace("_", " "), told(one.a), told(one.b), told(one.value), bounds,
            one.note if p is None else f"{p:.3g}", one.better.upper() or "")
