"""What may differ when a run goes on: changed data is refused, another machine is noted, fields change by a branch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layerwise import checkpoint, hardware, heartbeat, rundir
from layerwise.data.source import DataSet
from layerwise.distributed import world
from layerwise.errors import InputError
from layerwise.recipe import Recipe, changed, check
from layerwise.training.changed_data import changed_pictures
from layerwise.training.preparation import RunOptions, fingerprints

IMPOSSIBLE = ("network", "data", "split", "validation", "seed", "start_from", "channels", "input_size", "mean", "std",
              "resize", "resize_to", "interpolation", "exif", "optimiser", "name", "zero_init_last_scale")
AT_THE_START = (("whiten", "first"), ("colour", "pca"))  # fitted to the training pictures before the first step


def differences(run: Path, recipe: Recipe, record: dict[str, Any], data: DataSet, options: RunOptions) -> list[str]:
    """What differs from the start of the run: changed data is refused, the rest makes the run not bit-exact."""
    found, kept = fingerprints(data), record["data"]["fingerprint"]
    moved = [f"{name}: {kept.get(name, 'none')[:12]} at the start, {found.get(name, 'none')[:12]} now"
             for name in sorted(found.keys() | kept.keys()) if found.get(name) != kept.get(name)]
    moved = (changed_pictures(run, data) if moved else []) or moved
    if moved and not options.accept_data_change:
        raise InputError(
            f"{recipe.data}: the data changed since the run began", "A resumed run would not be the one that began.",
            "Put the data back, or go on with --accept-data-change, which is recorded.", moved)
    notes = [f"not bit-exact: the data changed ({line})" for line in moved]
    now, then = hardware.describe(recipe) | {"processes": world().size}, {"processes": 1} | record["hardware"]
    keys = ("device", "cpu", "cpu_capability", "threads", *([] if recipe.virtual_workers else ["processes"]))
    notes += [f"not bit-exact: {key} was {then.get(key)}, is {now[key]}" for key in keys if then.get(key) != now[key]]
    versions = hardware.versions()
    notes += [f"not bit-exact: {key} was {record['versions'].get(key)}, is {versions[key]}"
              for key in ("torch", "numpy", "pillow", "scipy", "code") if record["versions"].get(key) != versions[key]]
    if recipe.threads > hardware.cores():
        notes.append(f"slow: {recipe.threads} threads as at the start, on {hardware.cores()} cores")
    return notes


def branched(run: Path, recipe: Recipe, record: dict[str, Any], settings: tuple[str, ...],
             generation: checkpoint.Generation | None) -> Recipe:
    """A run's recipe with fields changed from here on; nothing is written. Raises InputError for what can't change."""
    found = hardware.resolve(changed(recipe, settings))
    moved = _moved(recipe, found)
    refused = [f"{name}: {old!r} to {new!r}" for name, (old, new) in moved.items()
               if name in IMPOSSIBLE or (name, new) in AT_THE_START]
    if refused:
        raise InputError(f"{run}: these fields can't change within a run", "The checkpoint would not fit.",
                         "Start a new run with them.", refused)
    check(found)
    _require_something_left(run, found, record, generation)
    return found


def write_branch(run: Path, before: Recipe, after: Recipe, generation: checkpoint.Generation | None) -> None:
    """Writes the change of a run's recipe down as a branch; the recipe before it is kept beside."""
    moved = _moved(before, after)
    samples = generation.state["position"]["samples"] if generation else 0
    branches = [*rundir.read_run(run)["branches"], {"samples": samples, "changed": moved}]
    checkpoint.replace_durably(run / f"recipe-before-branch-{len(branches)}.json", before.to_json().encode())
    rundir.update_run(run, {"branches": branches}, *(f"branch at {samples} samples: {name} {old!r} to {new!r}"
                                                     for name, (old, new) in moved.items()))
    checkpoint.replace_durably(run / rundir.RECIPE, after.to_json().encode())  # behind it: no change goes unrecorded
    heartbeat.tell("run", str(run.absolute()))  # from here on it is resumed without the change


def _moved(before: Recipe, after: Recipe) -> dict[str, list[Any]]:
    old, new = json.loads(before.to_json()), json.loads(after.to_json())
    return {name: [old[name], new[name]] for name in new if old[name] != new[name]}


def _require_something_left(run: Path, recipe: Recipe, record: dict[str, Any],
                            generation: checkpoint.Generation | None) -> None:
    """Raises InputError where `recipe` ends before what is trained already, or adds nothing to a finished run."""
    if generation is None:
        return
    position = generation.state["position"]
    steps = recipe.unit == "iterations"
    reached = position["step"] if steps else position["samples"] / record["data"]["counts"]["train"]
    if recipe.duration < reached or (recipe.duration == reached and record["state"] == "finished"):
        raise InputError(f"{run}: duration={recipe.duration:g}, but {reached:.4g} {recipe.unit} are trained already",
                         "A run goes on; it does not go back.", f"To train on: layerwise resume {run} --extend 10")
