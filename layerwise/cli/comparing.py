"""The commands that set one number beside another: compare, why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from layerwise.cli.app import Json, data_dir
from layerwise.cli.tables import print_json, print_table
from layerwise.console import SETTINGS, interval, note, out, percent

if TYPE_CHECKING:
    from layerwise.evaluation.difference import Difference
    from layerwise.jobs.again import Again
    from layerwise.jobs.causes import Cause
    from layerwise.jobs.why import Number

# Numbers whose unit is not a fraction.
PLAIN = ("loss", "brier", "calibration_error", "macro_f1", "weighted_f1")


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (compare, why):
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


def why(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, an evaluation, or a folder with seed0, seed1, ...",
                                       show_default=False)],
    against: Annotated[str, typer.Option(metavar="EXPERIMENT/ROW|RUN", help="The row of a paper's table, as "
                                         "resnet/table-6/resnet20, or another run.", show_default=False)],
    on: Annotated[str, typer.Option(metavar="val|test", help="The split on which the weights are tested again; none: "
                                    "val, and test where there is no val.", show_default=False)] = "",
    pictures: Annotated[int, typer.Option(help="On how many of its pictures; 0: not at all.", min=0)] = 1000,
    as_json: Json = False,
) -> None:
    """Says why a run's error differs from a paper's or another run's, cause by cause, the largest first."""
    from layerwise.jobs.why import Ask
    from layerwise.jobs.why import why as explain

    found = explain(run, against, Ask(on, pictures, data_dir(), SETTINGS.offline))
    if as_json:
        return print_json(found.to_json())
    out(f"run      {_told(found.run)}")
    out(f"against  {_told(found.against)}")
    if found.gap is not None:
        out(f"gap      {found.gap:+.2f} points (run - against); {found.spread}")
    out("\ncauses, the largest expected effect first (points of error; signed where measured on this run)")
    print_table(("cause", "here", "there", "points", "known from"), [_cause(cause) for cause in found.causes])
    if found.again:
        out(f"\nthe same weights tested in other ways, on {found.tested}")
        print_table(("way", "error", "difference", "95 % interval", "p", "answers changed"),
                    [_again(one) for one in found.again if not one.reason])
    for one in found.again:
        if one.reason:
            note(f"not tested: {one.what}: {one.reason}")
    for line in found.conclusion:
        out(line)
    if found.unused:
        note(f"different, but used by neither side or left to the machine: {', '.join(found.unused)}")
    for line in found.notes:
        note(f"note: {line}")
    return None


def _told(number: Number) -> str:
    error = "no number" if number.error is None else f"{number.error:.2f} %"
    spread = f" ± {number.deviation:.2f} over {number.seeds} runs" if number.deviation is not None else ""
    return f"{number.name}: {error}{spread}, protocol {number.protocol} ({number.told})"


def _cause(cause: Cause) -> tuple[object, ...]:
    if cause.points is None:
        points = "another question"
    elif cause.interval is None:
        points = f"about {cause.points:g}"
    else:
        points = f"{cause.points:+.2f} ({cause.interval[0]:+.2f} to {cause.interval[1]:+.2f})"
    return (cause.name.replace("_", " "), cause.here, cause.there, points, f"{cause.kind}: {cause.source}")


def _again(one: Again) -> tuple[object, ...]:
    p = "" if one.p is None else f"{one.p:.2g}"
    return (one.what, percent(one.error), percent(one.difference), interval(one.interval), p, one.changed)
