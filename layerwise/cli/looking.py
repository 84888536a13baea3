"""The commands that look and change nothing: recipe, models, check, fetch, bench, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from layerwise.cli.app import Json, Set, data_dir
from layerwise.cli.tables import cell, print_json, print_table
from layerwise.console import SETTINGS, note, out, progress_of
from layerwise.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (check, recipe, models, fetch, bench, doctor):
        app.command(command.__name__)(command)


def recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset, a file or a run; none: the list of presets.",
                                        show_default=False)] = "",
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Prints a recipe with every field and its meaning; --json prints the file that --recipe reads."""
    if not name:
        if settings:
            raise InputError("--set is for one recipe", mend="Name it: layerwise recipe NAME --set FIELD=VALUE")
        return _presets(as_json)
    from layerwise.jobs.recipe_choice import changed_recipe
    from layerwise.recipe import field_notes

    found = changed_recipe(name, settings or [])
    if as_json:
        out(found.to_json().rstrip("\n"))
        return None
    values = json.loads(found.to_json())
    print_table(("field", "value", "allowed", "meaning"),
                [(entry.name, json.dumps(values[entry.name]), entry.limits, entry.doc) for entry in field_notes()])
    from layerwise.recipes.presets import NOTES

    if not settings and name in NOTES:
        out(f"\n{NOTES[name]}")
    out(f"\nhash {found.hash}")
    return None


def _presets(as_json: bool) -> None:
    from layerwise.recipes.presets import NOTES, PRESETS

    if as_json:
        return print_json({"presets": [{"name": name, "hash": preset.hash, "status": NOTES[name].status,
                                        "summary": NOTES[name].summary} for name, preset in PRESETS.items()]})
    print_table(("recipe", "status", "what for"), [(name, NOTES[name].status, NOTES[name].summary) for name in PRESETS])
    return None


def models(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A network; none: the list.", show_default=False)] = "",
    size: Annotated[int, typer.Option(min=0, help="Side of the input in pixels; 0: the paper's.")] = 0,
    channels: Annotated[int, typer.Option(min=0, help="Input channels; 0: the paper's.")] = 0,
    classes: Annotated[int, typer.Option(min=0, help="Number of classes; 0: the paper's.")] = 0,
    filters: Annotated[list[str] | None, typer.Option("--filter", metavar="TEXT", show_default=False, help="Networks "
                                                      "with this in name, paper, year, flow or input.")] = None,
    sort: Annotated[str, typer.Option(metavar="COLUMN", show_default=False, help="name, paper, year, flow, input, "
                                      "parameters or multiply-adds; -COLUMN: the largest first.")] = "",
    chart: Annotated[Path | None, typer.Option(metavar="FILE", show_default=False, help="Draw parameters, operations "
                                               "and reported error of the networks as SVG.")] = None,
    as_json: Json = False,
) -> None:
    """Lists the networks; or one's stages as its paper has them, and its layers with cost and receptive field."""
    from layerwise.jobs.layer_table import layer_table, network_list

    if name:
        if filters or sort or chart:
            raise InputError("--filter, --sort and --chart are for the list of networks", mend="Leave out NAME.")
        return _one_network(layer_table(name, size, channels, classes), as_json)
    if size or channels or classes:
        raise InputError("--size, --channels and --classes are for one network", mend="Name it: layerwise models NAME")
    rows = network_list(filters or [], sort)
    if chart:
        from layerwise.report.lineage import draw

        draw(rows, chart)
    if as_json:
        return print_json({"networks": rows} | ({"chart": str(chart)} if chart else {}))
    print_table(("network", "paper", "year", "flow", "input", "classes", "parameters", "multiply-adds"),
                [[cell(value) if key != "year" else str(value) for key, value in row.items()] for row in rows])
    if chart:
        note(f"chart: {chart}")
    return None


def _one_network(table: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(table)
    out(f"{table['name']}: {table['paper']}, \"{table['title']}\" ({table['flow']})")
    for line in table["reported"]:
        out(f"reported: {line}")
    out("")
    print_table(("stage", "output", "layers", "parameters", "multiply-adds"),
                [(row["name"], row["output"], row["layers"], row["parameters"], row["multiply_adds"])
                 for row in table["stages"]])
    out("")
    print_table(("layer", "kind", "output", "parameters", "multiply-adds", "activations", "field", "step"),
                [(row["name"], row["kind"], row["output"], row["parameters"], row["multiply_adds"],
                  row["activations"], row["field"] and row["field"][:2], row["field"] and row["field"][2])
                 for row in table["layers"]])
    out(f"\n{table['name']}: {table['parameters']:,} parameters, {table['multiply_adds']:,} multiply-adds and "
        f"{table['activations']:,} activations for one input of {'x'.join(map(str, table['input']))} "
        f"({table['convention']}); field and step in pixels of the input, padding included")
    for line in table["notes"]:
        note(f"note: {line}")
    return None


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a list (.csv, .tsv), shards or a "
                                    "named data set.")],
    split: Annotated[str, typer.Option(metavar="A/B/C", help="Parts for train/val/test in percent.",
                                       show_default=False)] = "",
    waive_leaks: Annotated[bool, typer.Option("--waive-leaks", help="Pictures in two splits are no error.")] = False,
    pairs: Annotated[Path | None, typer.Option("--list", metavar="FILE", help="Write all duplicates as CSV.",
                                               show_default=False)] = None,
    contact_sheet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the duplicates as a picture (PNG).",
                                                       show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Checks data before training: bad files, kinds, sizes, duplicates, leaks between splits, folder mistakes."""
    from layerwise.data import DataOptions
    from layerwise.data.check import CheckOptions, as_plain, check_data, refusal

    report = check_data(data, DataOptions(data_dir(), split, offline=SETTINGS.offline),
                        CheckOptions("auto", waive_leaks, pairs, contact_sheet), progress_of("looking at pictures"))
    if as_json:
        print_json(as_plain(report))
    elif report.counts:
        for line in report.lines():
            out(line)
    if error := refusal(report):
        raise error


def fetch(
    data: Annotated[str, typer.Argument(metavar="DATA", help="mnist, fashion-mnist, cifar10 or cifar100.")],
    as_json: Json = False,
) -> None:
    """Fetches a data set into --data-dir or the user's cache, each file checked by its SHA-256."""
    import layerwise.data

    folder = layerwise.data.fetch(data, data_dir(), SETTINGS.offline)
    if as_json:
        return print_json({"data": data, "folder": str(folder)})
    out(f"{data}: {folder}")
    return None


def bench(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A network, a model file or a run.")],
    batches: Annotated[str, typer.Option("--batches", metavar="N,N,...", help="Batch sizes.")] = "1,8,32",
    training: Annotated[bool, typer.Option("--training", help="Time the backward pass too.")] = False,
    size: Annotated[int, typer.Option(min=0, help="Side of the input in pixels; 0: the network's.")] = 0,
    repeats: Annotated[int, typer.Option(min=5, help="Timed repetitions of each batch size.")] = 30,
    max_spread: Annotated[float, typer.Option(min=0.0, help="Largest interquartile range / median that is "
                                                            "reported.")] = 0.25,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Times a network: warm-up, synchronised, median and 95th percentile; refuses a number that varies too much."""
    from layerwise.jobs.benchmark import BenchOptions, bench, require_steady

    report = bench(network, BenchOptions(batches, training, size, repeats, max_spread, tuple(settings or ())))
    if as_json:
        print_json(report.to_json())
    else:
        print_table(("batch", "median ms", "p95 ms", "spread", "images/s"),
                    [(row.batch, row.median_text, row.p95_text, f"{100 * row.spread:.0f} %", row.rate_text)
                     for row in report.rows])
        out("")
        for line in report.lines():
            out(line)
    require_steady(report)


def doctor(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="bn: batch normalisation of RUN; none: this machine.",
                                         show_default=False)] = "",
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run or a model file.", show_default=False)] = "",
    data: Annotated[str, typer.Option(metavar="NAME|DIR", help="Other data than the run's own.",
                                      show_default=False)] = "",
    on: Annotated[str, typer.Option(metavar="test|val|train", help="The split; none: val, or all of other data.",
                                    show_default=False)] = "",
    recalibrate: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the model with averages taken over "
                                                     "training pictures.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Prints one block to paste into a bug report; `doctor bn RUN` compares the ways to normalise at test."""
    if not topic and (data or on or recalibrate):
        raise InputError("--data, --on and --recalibrate are for the batch normalisation of a run",
                         mend="Name it: layerwise doctor bn RUN")
    from layerwise.jobs.assessment import Question
    from layerwise.jobs.doctor import examine

    question = Question(data, on or ("" if data else "val"), data_dir=data_dir(), offline=SETTINGS.offline)
    findings = examine(topic, run, question, recalibrate)
    if as_json:
        return print_json(findings.values)
    for line in findings.lines:
        out(line)
    return None
